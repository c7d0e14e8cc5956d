"""The image in a real container: without root and capabilities, on a read-only root file system."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.material import Material
from tests.peers.gateways import SERVICE, gateway_settings, sandbox
from tests.peers.processes import WAIT_MAX_S, Completed, environment, run
from tests.peers.requests import sync_linkage
from tests.peers.tools import peer
from tests.ports import free_port

IMAGE: Final = "localhost/alipayhk-gateway:built"
USER: Final = "65532"
CONTAINER: Final = "alipayhk-gateway-test"
LIMITED: Final = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--network", "host", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"),
)
"""The options of docs/container.md, and limits that root may set even where it has few rights."""
pytestmark = pytest.mark.image


def podman(*words: str | Path) -> Completed:
    # runc also runs where systemd is not process 1, and where both versions of cgroups are mounted.
    environ = {**environment(), "DISABLE_HC_SYSTEMD": "true"}
    return run("podman", "--log-level=error", "--runtime", "runc", *words, env=environ)


@contextmanager
def container(directory: Path, *options: str) -> Iterator[None]:
    """Run the image as docs/container.md says, with the settings and the ledger in a directory."""
    volumes = (
        f"{directory}/settings:/etc/alipayhk-gateway:ro",
        f"{directory}/ledger:/var/lib/alipayhk-gateway",
    )
    mounts = [word for volume in volumes for word in ("--volume", volume)]
    podman("rm", "--force", CONTAINER)
    done = podman(
        *("run", "--detach", "--name", CONTAINER, *LIMITED, *options, *mounts, IMAGE),
        *("serve", "--config", "/etc/alipayhk-gateway/gateway.toml"),
    )
    assert done.status == 0, done.output
    try:
        wait_for_log("gateway started")
        yield
    finally:
        podman("rm", "--force", CONTAINER)


def wait_for_log(words: str) -> str:
    give_up = time.monotonic() + WAIT_MAX_S
    while words not in (output := podman("logs", CONTAINER).output):
        assert time.monotonic() < give_up, output
        time.sleep(0.2)
    return output


def files_for(directory: Path, material: Material, base_url: str, listen: str) -> None:
    """Write the settings and an empty directory for the ledger, for the user of the image."""
    settings = {
        **gateway_settings(material, base_url),
        "LISTEN": listen,
        "LEDGER_URL": "sqlite:///alipayhk-ledger.db",
        "SIGNING_KEY_FILE": "/etc/alipayhk-gateway/signing.key.pem",
        "PUBLIC_KEY_FILES": "1=/etc/alipayhk-gateway/alipayhk.pub.pem",
    }
    for name in ("settings", "ledger"):
        (directory / name).mkdir()
    lines = "".join(f"{name.lower()} = {json.dumps(value)}\n" for name, value in settings.items())
    (directory / "settings/gateway.toml").write_text(lines, "utf-8")
    for name, key in (
        ("signing.key.pem", material.ours.private_file),
        ("alipayhk.pub.pem", material.theirs.public_file),
    ):
        (directory / "settings" / name).write_bytes(key.read_bytes())
    assert run("chown", "--recursive", f"{USER}:{USER}", directory).status == 0


def process_status() -> dict[str, str]:
    """Return /proc/PID/status of the gateway in the container."""
    (pid,) = podman("inspect", "--format", "{{.State.Pid}}", CONTAINER).out.split()
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_image_serves_with_no_rights_and_stops_at_sigterm(tmp_path: Path) -> None:
    material, listen = Material(tmp_path), f"127.0.0.1:{free_port()}"
    request = sync_linkage()

    def call() -> dict[str, object]:
        words = ("-plaintext", "-d", json.dumps(request), listen, f"{SERVICE}/SyncLinkage")
        done = run(peer("grpcurl"), *words)
        assert done.status == 0, done.output
        read: dict[str, object] = json.loads(done.out)
        return read

    with sandbox(material) as url:
        files_for(tmp_path, material, url, listen)
        with container(tmp_path, "--env", f"ALIPAYHK_LISTEN={listen}"):
            status = process_status()
            assert status["Uid"].split() == [USER] * 4
            assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            for place in ("/opt/gateway/x", "/etc/x", "/x"):
                assert "Read-only file system" in podman("exec", CONTAINER, "touch", place).err
            assert podman("healthcheck", "run", CONTAINER).status == 0
            assert "replayed" not in call()
            assert podman("stop", "--time", "30", CONTAINER).status == 0
            wait_for_log("shutdown finished")
            assert podman("inspect", "--format", "{{.State.ExitCode}}", CONTAINER).out == "0\n"
        with container(tmp_path):
            assert call()["replayed"] is True, "the ledger is on the volume"


def test_the_image_contains_no_sandbox_no_pip_and_its_commit() -> None:
    def command(*words: str) -> Completed:
        return podman("run", "--rm", *LIMITED, *words)

    assert command(IMAGE, "sandbox").status == 64
    python = ("--entrypoint", "/opt/gateway/bin/python", IMAGE, "-c")
    for module in ("sandbox", "pip", "pytest"):
        assert command(*python, f"import {module}").status == 1
    commit = run("git", "rev-parse", "--short=12", "HEAD").out.strip()
    assert commit in command(IMAGE, "--version").out
    assert command(IMAGE, "config", "example").status == 0
