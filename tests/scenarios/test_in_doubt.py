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
from tests.e2e.samples import BIND, SYNC, apart, new_id
from tests.e2e.upstream import Answer, Peer, Request, Script, answers, hangs, resets
from tests.e2e.wallet import Wallet, id_of
from tests.scenarios.scene import IN_DOUBT, Scene

PAGE = Answer(503, (("Content-Type", "text/html"),), b"<html></html>")
ENDS: dict[str, tuple[Script, Expected]] = {
    "timeout": (
        hangs,
        doubt("UPSTREAM_TIMEOUT", promised=False, code=StatusCode.DEADLINE_EXCEEDED),
    ),
    "reset": (resets, doubt("CONNECTION_LOST", promised=False)),
    "503": (answers(lambda _: PAGE), doubt("UPSTREAM_HTTP_ERROR", promised=False)),
}


async def in_doubt(scene: Scene, end: str = "reset") -> object:
    """Send a BindAccount and lose its outcome; return the request."""
    scene.upstream.script, expected = ENDS[end]
    request = BIND.request()
    reported = await scene.reported(BIND, request, expected)
    assert reported.metadata["attempts"] == "1"
    scene.upstream.script = scene.wallet.says()
    await looked_up(scene, request)
    return request


async def looked_up(scene: Scene, request: object) -> None:
    """Check that the same call reports the doubt and sends nothing."""
    reported = await scene.reported(BIND, request, IN_DOUBT)
    assert "attempts" not in reported.metadata
    assert scene.sent(request) == 1


@pytest.mark.parametrize("end", ENDS)
async def test_bind_account_is_sent_once_and_stays_in_doubt(scene: Scene, end: str) -> None:
    request = await in_doubt(scene, end)
    await looked_up(scene, request)


async def test_request_resolved_as_applied_returns_ok(scene: Scene) -> None:
    request = await in_doubt(scene)
    ended = await scene.resolve(request, "applied")
    assert (ended.status, ended.err) == (0, "")
    assert "asked AlipayHK" in ended.out
    for _ in range(2):
        answer = await scene.call(BIND, request)
        assert (answer.replayed, answer.resolved_by_operator) == (True, True)
        assert not answer.HasField("need_bind")
    assert scene.sent(request) == 1
    assert (await scene.resolve(request, "rejected")).status == 1, "it was resolved twice"


async def test_request_resolved_as_rejected_returns_the_rejection(scene: Scene) -> None:
    request = await in_doubt(scene)
    assert (await scene.resolve(request, "rejected")).status == 0
    for _ in range(2):
        await scene.reported(BIND, request, rejected(StatusCode.FAILED_PRECONDITION), replayed=True)
    assert scene.sent(request) == 1


async def test_sync_linkage_in_doubt_can_be_resolved(scene: Scene) -> None:
    scene.upstream.script, request = hangs, apart(SYNC)
    timed_out = doubt("UPSTREAM_TIMEOUT", promised=True, code=StatusCode.DEADLINE_EXCEEDED)
    await scene.reported(SYNC, request, timed_out, timeout_s=0.45)
    await scene.gateway.attempt_logged(request.request_id)
    assert (await scene.resolve(request, "applied")).status == 0
    answer = await scene.call(SYNC, request)
    assert (answer.replayed, answer.resolved_by_operator) == (True, True)
    assert scene.sent(request) == 1


async def test_list_of_requests_in_doubt_contains_no_personal_data(scene: Scene) -> None:
    request = BIND.request()
    scene.upstream.script = resets
    await scene.call(BIND, request)
    ended = await command("ledger", "list", "--in-doubt", "--json", settings=scene.gateway.settings)
    assert ended.status == 0
    assert request.request_id in [row["request_id"] for row in json.loads(ended.out)["requests"]]
    assert not [
        value for value in (request.user_id, request.open_id, request.account_id) if value in ended.out
    ]


CLIENT: Final = Path(sys.executable).parent / "alipayhk-client"


async def says_late(wallet: Wallet, request: Request, peer: Peer) -> None:
    """Respond after the gateway's timeout."""
    await asyncio.sleep(1.0)
    await peer.send(wallet.right(request).wire())


async def loses(_: Wallet, request: Request, peer: Peer) -> None:
    """Apply the request and lose the response."""
    await resets(request, peer)


@pytest.mark.parametrize("answers_first", [says_late, loses])
async def test_command_repeated_with_a_new_timestamp_binds_once_if_its_advice_is_followed(
    scene: Scene, answers_first: Callable[[Wallet, Request, Peer], Awaitable[None]]
) -> None:
    applied = list[str]()

    async def script(request: Request, peer: Peer) -> None:
        applied.append(id_of(request))
        await (answers_first(scene.wallet, request, peer) if len(applied) == 1 else right(request, peer))

    right, scene.upstream.script = scene.wallet.says(), script
    request_id = new_id()
    first = await typed(scene, request_id)
    assert (first["outcome"], first["retry"]) == ("unknown", "operator")
    reported = await typed(scene, request_id)
    assert (reported["reason"], reported["outcome"], reported["retry"]) == (
        "REQUEST_ID_REUSED",
        "not_sent",
        "operator",
    )
    assert "new id" in reported["advice"]
    assert "timestamp" in reported["advice"]
    if reported["retry"] == "new_request_id":
        await typed(scene, new_id())
    assert applied == [request_id]


async def typed(scene: Scene, request_id: str) -> dict[str, Any]:
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
    where = ("--target", scene.gateway.address, "--json")
    ended = await command("bind-account", *where, *known, *words, program=(CLIENT,))
    assert ended.err == ""
    found: dict[str, Any] = json.loads(ended.out)
    return found
