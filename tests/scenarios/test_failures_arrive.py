"""Callers get details of failures after which the gateway resends, also with gRPC's own retry policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from grpc import StatusCode

from alipayhk_linkage.channel import channel_options
from tests.e2e import caller
from tests.e2e.caller import Expected, Reported, doubt, not_sent
from tests.e2e.conftest import RunAll
from tests.e2e.samples import BIND, SYNC, fresh_request
from tests.e2e.upstream import (
    Peer,
    Request,
    Response,
    Script,
    Upstream,
    closes,
    hangs,
    resets,
    responds,
    sends,
)
from tests.e2e.wallet import Wallet, id_of, result
from tests.ports import free_port
from tests.scenarios.system import ledger_settings

ATTEMPTS_MAX: Final = 5
DEADLINES_S: Final = (2, 5)
CONCURRENT_MAX: Final = 4
"""Few concurrent calls, so that neither the breaker nor the retry budget refuses any of them."""
PAGE: Final = Response(503, (("Content-Type", "text/html"),), b"<html></html>")
HTTP_ERROR: Final = doubt("UPSTREAM_HTTP_ERROR", idempotent=True)
CUT: Final = Response(200, (), b"{").head(("Content-Length", "99")) + b"{"
LIMITED: Final = doubt("WALLET_RATE_LIMITED", idempotent=True, code=StatusCode.RESOURCE_EXHAUSTED)
UNREACHABLE: Final = not_sent(StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
TIMED_OUT: Final = doubt("UPSTREAM_TIMEOUT", idempotent=True, code=StatusCode.DEADLINE_EXCEEDED)


def failures(wallet: Wallet) -> Mapping[str, tuple[Script, Expected]]:
    """Return every failure after which the gateway resends, and the status that its caller must get."""
    return {
        "HTTP 503": (responds(lambda _: PAGE), HTTP_ERROR),
        "UNKNOWN_EXCEPTION": (
            wallet.says(result("U", "UNKNOWN_EXCEPTION")),
            doubt("WALLET_RESULT_UNKNOWN", idempotent=True),
        ),
        "RESET": (resets, doubt("CONNECTION_LOST", idempotent=True)),
        "TRUNCATE": (sends(CUT, then=closes), doubt("RESPONSE_TRUNCATED", idempotent=True)),
        "UNSIGNED": (responds(lambda _: PAGE.but(status=200)), doubt("RESPONSE_UNSIGNED", idempotent=True)),
        "HTTP 429": (responds(lambda _: PAGE.but(status=429)), LIMITED),
        "TIMEOUT": (hangs, TIMED_OUT),
    }


@asynccontextmanager
async def retrying(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel with the options of this project's client, which include gRPC's retry policy."""
    options = (*channel_options(None, retries=True), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield channel


async def test_each_failure_arrives_with_code_reason_and_outcome(
    run_all: RunAll, upstream: Upstream, wallet: Wallet, tmp_path: Path
) -> None:
    rows, scripts = failures(wallet), dict[str, Script]()

    async def script(request: Request, peer: Peer) -> None:
        await scripts[id_of(request)](request, peer)

    async def call(channel: grpc.aio.Channel, deadline_s: int, name: str) -> None:
        script, expected = rows[name]
        request = fresh_request(SYNC)
        scripts[request.request_id] = script
        async with busy[deadline_s]:
            reported = await caller.call(channel, SYNC, request, timeout_s=deadline_s)
        assert isinstance(reported, Reported)
        assert reported.status.details, (name, deadline_s, "a status without details")
        # On a busy machine the last attempt of a call with a short deadline may time out.
        slow = deadline_s == min(DEADLINES_S) and reported.info.reason == "UPSTREAM_TIMEOUT"
        caller.check(reported, TIMED_OUT if slow else expected, request)
        sent = [sent for sent in upstream.requests if id_of(sent) == request.request_id]
        assert 1 <= len(sent) <= ATTEMPTS_MAX, (name, deadline_s)

    async def unreachable(channel: grpc.aio.Channel, deadline_s: int) -> None:
        request = BIND.request()
        async with busy[deadline_s]:
            await caller.refused(channel, BIND, request, UNREACHABLE, timeout_s=deadline_s)

    busy = {deadline_s: asyncio.Semaphore(CONCURRENT_MAX) for deadline_s in DEADLINES_S}
    upstream.script = script
    closed_port = {"BIND_ACCOUNT_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    settings = {str(s): {**ledger_settings(tmp_path / f"{s}.db"), **closed_port} for s in DEADLINES_S}
    async with run_all(settings) as gateways, asyncio.TaskGroup() as calling:
        for deadline_s in DEADLINES_S:
            channel: Any = retrying(gateways[str(deadline_s)].address)
            calling.create_task(_all(channel, deadline_s, rows, call, unreachable))


async def _all(opening: Any, deadline_s: int, rows: Mapping[str, Any], call: Any, unreachable: Any) -> None:
    async with opening as channel:
        await asyncio.gather(
            unreachable(channel, deadline_s), *(call(channel, deadline_s, name) for name in rows)
        )
