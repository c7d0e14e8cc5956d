"""A BindAccount in doubt is never resent; the same call reports the doubt until an operator resolves it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from grpc import StatusCode

from tests.e2e.caller import Expected, doubt, rejected
from tests.e2e.gateway import run as command
from tests.e2e.samples import BIND, SYNC, fresh_request, new_id
from tests.e2e.upstream import Peer, Request, Response, Script, hangs, resets, responds
from tests.e2e.wallet import Wallet, id_of
from tests.scenarios.system import IN_DOUBT, System, lose

PAGE = Response(503, (("Content-Type", "text/html"),), b"<html></html>")
FAILURES: dict[str, tuple[Script, Expected]] = {
    "timeout": (
        hangs,
        doubt("UPSTREAM_TIMEOUT", idempotent=False, code=StatusCode.DEADLINE_EXCEEDED),
    ),
    "reset": (resets, doubt("CONNECTION_LOST", idempotent=False)),
    "503": (responds(lambda _: PAGE), doubt("UPSTREAM_HTTP_ERROR", idempotent=False)),
}


async def in_doubt(system: System, failure: str = "reset") -> object:
    """Send a BindAccount and lose its outcome; return the request."""
    system.upstream.script, expected = FAILURES[failure]
    request = BIND.request()
    reported = await system.reported(BIND, request, expected)
    assert reported.metadata["attempts"] == "1"
    system.upstream.script = system.wallet.says()
    await check_in_doubt(system, request)
    return request


async def check_in_doubt(system: System, request: object) -> None:
    """Check that the same call reports the doubt and sends nothing."""
    reported = await system.reported(BIND, request, IN_DOUBT)
    assert "attempts" not in reported.metadata
    assert system.sent(request) == 1


@pytest.mark.parametrize("failure", FAILURES)
async def test_bind_account_is_sent_once_and_stays_in_doubt(quick_system: System, failure: str) -> None:
    request = await in_doubt(quick_system, failure)
    await check_in_doubt(quick_system, request)


async def test_request_resolved_as_applied_returns_ok(system: System) -> None:
    request = await in_doubt(system)
    ended = await system.resolve(request, "applied")
    assert (ended.status, ended.err) == (0, "")
    assert "asked AlipayHK" in ended.out
    for _ in range(2):
        response = await system.call(BIND, request)
        assert (response.replayed, response.resolved_by_operator) == (True, True)
        assert not response.HasField("need_bind")
    assert system.sent(request) == 1
    assert (await system.resolve(request, "rejected")).status == 1, "it was resolved twice"


async def test_request_resolved_as_rejected_returns_the_rejection(system: System) -> None:
    request = await in_doubt(system)
    assert (await system.resolve(request, "rejected")).status == 0
    for _ in range(2):
        reported = await system.reported(
            BIND, request, rejected(StatusCode.FAILED_PRECONDITION), replayed=True
        )
        assert reported.metadata["resolved_by_operator"] == "true"
        assert "result_status" not in reported.metadata
    assert system.sent(request) == 1


async def test_sync_linkage_in_doubt_can_be_resolved(system: System) -> None:
    request = fresh_request(SYNC)
    await lose(system, SYNC, request)
    assert (await system.resolve(request, "applied")).status == 0
    response = await system.call(SYNC, request)
    assert (response.replayed, response.resolved_by_operator) == (True, True)
    assert system.sent(request) == 1


async def test_list_of_requests_in_doubt_contains_no_personal_data(system: System) -> None:
    request = BIND.request()
    system.upstream.script = resets
    await system.call(BIND, request)
    ended = await command("ledger", "list", "--in-doubt", "--json", settings=system.gateway.settings)
    assert ended.status == 0
    assert request.request_id in [row["request_id"] for row in json.loads(ended.out)["requests"]]
    assert not [
        value for value in (request.user_id, request.open_id, request.account_id) if value in ended.out
    ]


CLIENT: Final = Path(sys.executable).parent / "alipayhk-client"


async def responds_late(wallet: Wallet, request: Request, peer: Peer) -> None:
    """Respond after the gateway's timeout."""
    await asyncio.sleep(1.0)
    await peer.send(wallet.right(request).wire())


async def loses_response(_: Wallet, request: Request, peer: Peer) -> None:
    """Apply the request and lose the response."""
    await resets(request, peer)


@pytest.mark.parametrize("responds_first", [responds_late, loses_response])
async def test_command_repeated_with_a_new_timestamp_binds_once_if_its_advice_is_followed(
    quick_system: System, responds_first: Callable[[Wallet, Request, Peer], Awaitable[None]]
) -> None:
    applied = list[str]()

    async def script(request: Request, peer: Peer) -> None:
        applied.append(id_of(request))
        await (responds_first(wallet, request, peer) if len(applied) == 1 else right(request, peer))

    wallet = quick_system.wallet
    right, quick_system.upstream.script = wallet.says(), script
    request_id = new_id()
    first = await run_client(quick_system, request_id)
    assert (first["outcome"], first["retry"]) == ("unknown", "operator")
    reported = await run_client(quick_system, request_id)
    assert (reported["reason"], reported["outcome"], reported["retry"]) == (
        "REQUEST_ID_REUSED",
        "not_sent",
        "operator",
    )
    assert "new id" in reported["advice"]
    assert "timestamp" in reported["advice"]
    if reported["retry"] == "new_request_id":
        await run_client(quick_system, new_id())
    assert applied == [request_id]


async def run_client(system: System, request_id: str) -> dict[str, Any]:
    """Run the client's command as a user does; return its output."""
    words = (
        "--type",
        "TELECOM",
        "--sub-type",
        "MOBILE_SERVICE",
        "--account-id",
        "1",
        "--user-id",
        "2160000000000001",
    )
    known = ("--merchant-account-id", "2160400000002012", "--timestamp", "now", "--request-id", request_id)
    where = ("--target", system.gateway.address, "--json")
    ended = await command("bind-account", *where, *known, *words, program=(CLIENT,))
    assert ended.err == ""
    found: dict[str, Any] = json.loads(ended.out)
    return found
