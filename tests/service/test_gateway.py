"""The whole gateway in this process, from its first log line to its last, and the requests of the demo."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest

from clients.alipayhk.wire.keys import fingerprint
from service import gateway
from service.commands.demo.calls import EXAMPLES
from service.config.settings import read_settings
from service.jobs import maintenance
from service.ledger.opening import open_ledger
from service.ledger.vault import Vault, read_key_file
from service.server.linkage_service import RPCS
from service.server.validation import violations
from service.telemetry.metrics import Metrics
from tests.service.fakes import LogStream
from tests.service.files import KeyRing

WAIT_S = 10.0
NEW_LEDGER = "new ledger created without earlier requests"


async def until(log_lines: LogStream, event: str) -> dict[str, Any]:
    """Wait for a log event; return its first line."""
    async with asyncio.timeout(WAIT_S):
        while not log_lines.of(event):  # noqa: ASYNC110  (a stream has no event to wait for)
            await asyncio.sleep(0.01)
    return log_lines.of(event)[0]


@pytest.fixture
def serve(environ: dict[str, str], log_lines: LogStream, tmp_path: Path) -> Callable[..., Awaitable[None]]:
    """Return a function that runs a gateway until it gets a signal."""

    async def serve(number: signal.Signals = signal.SIGTERM, **changes: str) -> None:
        quick = {"LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": "127.0.0.1:0", "DRAIN_DELAY_S": "0"}
        quick |= {"LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db", **changes}
        settings = read_settings({**environ, **{f"ALIPAYHK_{name}": text for name, text in quick.items()}})
        running = asyncio.create_task(gateway.run(settings, shared=False))
        serving = asyncio.create_task(until(log_lines, "gateway started"))
        await asyncio.wait({running, serving}, return_when=asyncio.FIRST_COMPLETED)
        assert not running.done(), running
        async with grpc.aio.insecure_channel((await serving)["listen"]) as channel:
            await asyncio.wait_for(channel.channel_ready(), WAIT_S)
        os.kill(os.getpid(), number)
        await asyncio.wait_for(running, WAIT_S)

    return serve


class Terminal(io.StringIO):
    """Standard input of a program that was started at a terminal."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_gateway_at_a_terminal_logs_its_keys_and_stops_at_a_signal(
    serve: Callable[..., Awaitable[None]],
    ring: KeyRing,
    log_lines: LogStream,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    await serve(number, SIGNING_KEY_VERSION="7", PUBLIC_KEY_FILES=f"1={ring.public},2={ring.other_public}")
    events = [(line["event"], line.get("version"), line.get("sha256")) for line in log_lines.lines]
    assert events == [
        (NEW_LEDGER, None, None),
        ("ledger opened", None, None),
        ("signing key loaded", "7", fingerprint(ring.ours.public_key())),
        ("AlipayHK public key loaded", "2", fingerprint(ring.other.public_key())),
        ("AlipayHK public key loaded", "1", fingerprint(ring.theirs.public_key())),
        ("gateway started", version("alipayhk-gateway"), None),
        ("shutdown started", None, None),
        ("shutdown finished", None, None),
    ]
    assert all("dropped" not in line for line in log_lines.lines)


@pytest.mark.parametrize("is_new", [True, False])
async def test_a_gateway_logs_the_path_of_its_ledger_and_whether_it_is_new(
    serve: Callable[..., Awaitable[None]],
    log_lines: LogStream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_new: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "here.db")
    if not is_new:
        earlier, _ = open_ledger(f"sqlite:///{path}", None, random_bytes=os.urandom)
        await earlier.close()
    await serve(LEDGER_URL="sqlite:///here.db")
    key_id = Vault(read_key_file(tmp_path / "here.db.key"), random_bytes=os.urandom).key_id
    (line,) = log_lines.of("ledger opened")
    assert (line["where"], line["key_id"]) == (path, key_id)
    assert [line["where"] for line in log_lines.of(NEW_LEDGER)] == [path] * is_new


@pytest.mark.parametrize(("url", "where"), [("off", "off"), ("memory:", "memory")])
async def test_a_gateway_logs_that_its_ledger_does_not_outlive_it(
    serve: Callable[..., Awaitable[None]], log_lines: LogStream, url: str, where: str
) -> None:
    await serve(LEDGER_URL=url, BIND_ACCOUNT_WITHOUT_LEDGER="true")
    assert [line["where"] for line in log_lines.of("ledger opened")] == [where]


def test_expired_rows_are_dropped_every_minute() -> None:
    assert maintenance.FLUSH_EVERY_S * maintenance.DROP_EVERY == 60


def test_metrics_of_workers_are_empty_before_the_first_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert Metrics().exposed(shared=True) == b""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_the_demo_makes_valid_requests_with_unique_ids(example: Any) -> None:
    rpc = next(rpc for rpc in RPCS.values() if rpc.name == example.method)
    first, second = example.request(1_700_000_000_000), example.request(1_700_000_000_001)
    assert violations(rpc.rules, first) == ()
    assert first.request_id != second.request_id
