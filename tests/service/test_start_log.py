"""The line that says how a gateway serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.config.settings import read_settings
from service.start_log import log_start
from service.version import commit, gateway_version
from tests.service.fakes import LogStream
from tests.service.files import TlsFiles

CALLERS = """
[callers.loyalty]
san = ["spiffe://corp/loyalty", "loyalty.corp"]
methods = ["SyncLinkage"]
[callers.billing]
san = ["billing.corp"]
methods = ["BindAccount"]
"""


def test_line_says_version_addresses_tls_callers_configuration_ledger_and_workers(
    environ: dict[str, str], tls: TlsFiles, tmp_path: Path, log_lines: LogStream
) -> None:
    callers = tmp_path / "callers.toml"
    callers.write_text(CALLERS)
    key = tmp_path / "ledger.key"
    key.write_text("A" * 43 + "=\n")
    settings = {
        "TLS_CERT_FILE": tls.certificate,
        "TLS_KEY_FILE": tls.key,
        "TLS_CLIENT_CA_FILE": tls.ca,
        "CALLERS_FILE": callers,
        "HEALTH_LISTEN": "127.0.0.1:8081",
        "LEDGER_URL": "postgresql://gateway:hunter2@db.corp:5433/ledger",
        "LEDGER_KEY_FILE": key,
        "WORKERS": "3",
    }
    named = {f"ALIPAYHK_{name}": str(value) for name, value in settings.items()}
    log_start(read_settings(environ | named), "0.0.0.0:50051", tmp_path / "gateway.toml")
    assert "hunter2" not in log_lines.getvalue()
    assert started(log_lines) == {
        "version": gateway_version(),
        "commit": commit(),
        "listen": "0.0.0.0:50051",
        "admin_listen": "127.0.0.1:9464",
        "health_listen": "127.0.0.1:8081",
        "tls": "mutual",
        "callers": 2,
        "config_file": str(tmp_path / "gateway.toml"),
        "ledger": "postgresql://db.corp:5433/ledger",
        "workers": 3,
    }


@pytest.mark.parametrize("has_tls", [True, False])
def test_line_leaves_out_what_is_not_configured(
    environ: dict[str, str], tls: TlsFiles, log_lines: LogStream, has_tls: bool
) -> None:
    files = {"ALIPAYHK_TLS_CERT_FILE": str(tls.certificate), "ALIPAYHK_TLS_KEY_FILE": str(tls.key)}
    settings = read_settings(environ | (files if has_tls else {}))
    log_start(settings, "127.0.0.1:50051", None)
    line = started(log_lines)
    assert line["tls"] == ("on" if has_tls else "off")
    assert line.keys().isdisjoint(("health_listen", "callers", "config_file", "dropped"))


def started(log_lines: LogStream) -> dict[str, Any]:
    (line,) = log_lines.of("gateway started")
    return {name: value for name, value in line.items() if name not in ("time", "level", "event")}
