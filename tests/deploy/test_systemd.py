"""systemd accepts the unit, and its limits fit the gateway's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from service.commands.exit_codes import EX_CONFIG, EX_UNAVAILABLE, EX_USAGE
from service.commands.workers import KILL_WAIT_S, STOP_MARGIN_S
from service.config.declaration import declared
from service.config.settings import Settings
from tests.peers.processes import GATEWAY, ROOT, Completed, run

UNIT: Final = ROOT / "deploy/systemd/alipayhk-gateway.service"
EXPOSURE_MAX: Final = 2.0
"""systemd's rating of a unit without hardening is 9.6; below 2.5 it is OK."""


def option(name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)
    return str(value)


def systemd(program: str, *words: str | Path) -> Completed:
    assert shutil.which(program), f"{program} is missing: install the package systemd."
    return run(program, *words)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text("utf-8").replace("/opt/alipayhk-gateway/bin/alipayhk-gateway", str(GATEWAY))
    (unit := tmp_path / UNIT.name).write_text(text, "utf-8")
    done = systemd("systemd-analyze", "verify", "--man=no", unit)
    assert (done.status, done.output) == (0, "")


def test_unit_is_hardened() -> None:
    threshold = f"--threshold={EXPOSURE_MAX * 10:.0f}"
    done = systemd("systemd-analyze", "security", "--offline=true", threshold, UNIT)
    assert done.status == 0, done.output


def test_unit_gives_the_gateway_time_to_stop() -> None:
    defaults = {name: field.metadata["default"] for name, field in declared(Settings)}
    calls_s = float(defaults["drain_delay_s"]) + float(defaults["stop_grace_s"])
    assert float(option("TimeoutStopSec")) > calls_s + STOP_MARGIN_S + KILL_WAIT_S


def test_restart_follows_only_errors_that_can_pass() -> None:
    final = set(map(int, option("RestartPreventExitStatus").split()))
    assert final == {EX_USAGE, EX_CONFIG}
    assert EX_UNAVAILABLE not in final


@pytest.mark.parametrize("file", ["passwd", "group"])
def test_sysusers_creates_the_user_of_the_unit(tmp_path: Path, file: str) -> None:
    (tmp_path / "etc").mkdir()
    done = systemd("systemd-sysusers", f"--root={tmp_path}", UNIT.with_suffix(".sysusers.conf"))
    assert done.status == 0, done.output
    assert f"\n{option('User')}:" in "\n" + (tmp_path / "etc" / file).read_text("utf-8")
