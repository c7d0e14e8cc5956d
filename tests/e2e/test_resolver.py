"""A resolver that hangs delays the calls that need it, but not the shutdown."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import Reported
from tests.e2e.conftest import Run
from tests.e2e.samples import SYNC

HANGS = """
import socket, time

resolve = socket.getaddrinfo

def getaddrinfo(host, *rest, **named):
    if host == "hangs.example":
        time.sleep(60)
    return resolve(host, *rest, **named)

socket.getaddrinfo = getaddrinfo
"""


async def test_hanging_resolver_does_not_delay_the_shutdown(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    times = {"UPSTREAM_TIMEOUT_S": "0.5", "DEFAULT_DEADLINE_S": "2"}
    async with run({"BASE_URL": "https://hangs.example", **times}) as gateway:
        reported = await caller.call(gateway.channel, SYNC, SYNC.request(), timeout_s=None)
        assert isinstance(reported, Reported)
        assert (reported.code, reported.info.reason) == (StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
        gateway.terminate()
        began = time.monotonic()
        assert await gateway.ended() == 0
        assert time.monotonic() - began < 10
    assert gateway.records[-1]["event"] == "shutdown finished"
    assert gateway.err == []
