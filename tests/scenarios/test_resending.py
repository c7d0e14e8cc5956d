"""The gateway resends a request only if AlipayHK guarantees that it is idempotent."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from tests.e2e.caller import Expected, doubt, rejected
from tests.e2e.samples import APIS, BIND, SYNC, Api, apart
from tests.e2e.upstream import Answer, Script, answers, hangs, resets
from tests.e2e.wallet import Wallet, result
from tests.scenarios.scene import Scene, in_turn

PAGE = Answer(503, (("Content-Type", "text/html"),), b"<html></html>")
TROUBLES: dict[str, Script] = {
    "timeout": hangs,
    "reset": resets,
    "503": answers(lambda _: PAGE),
}


@pytest.mark.parametrize("trouble", [*TROUBLES, "signed U"])
@pytest.mark.parametrize("api", APIS, ids=str)
async def test_failed_attempt_followed_by_a_success_is_ok(promising: Scene, api: Api, trouble: str) -> None:
    wallet, request = promising.wallet, apart(api)
    first = TROUBLES.get(trouble) or wallet.says(result("U", "SYSTEM_ERROR"))
    promising.upstream.script = in_turn(first, wallet.says())
    await promising.ok(api, request)
    assert promising.sent(request) == 2
    await promising.ok(api, request, replayed=True)
    assert promising.sent(request) == 2


async def test_rate_limit_is_reported_immediately_and_a_later_call_succeeds(promising: Scene) -> None:
    limit = promising.wallet.says(result("U", "REQUEST_TRAFFIC_EXCEED_LIMIT"))
    promising.upstream.script = in_turn(limit, promising.wallet.says())
    request = apart(SYNC)
    expected = doubt("WALLET_RATE_LIMITED", promised=True, code=StatusCode.RESOURCE_EXHAUSTED)
    reported = await promising.reported(SYNC, request, expected)
    assert reported.metadata["attempts"] == "1"
    assert promising.sent(request) == 1
    await promising.ok(SYNC, request)
    assert promising.sent(request) == 2


REFUSED_IN_DOUBT = Expected(StatusCode.INTERNAL, "GATEWAY_REFUSED", "unknown", "operator")
REJECTED_IN_DOUBT = Expected(StatusCode.FAILED_PRECONDITION, "WALLET_REJECTED", "unknown", "operator")


@pytest.mark.parametrize(
    ("code", "expected"),
    [("INVALID_SIGNATURE", REFUSED_IN_DOUBT), ("NEVER_HEARD_OF", REJECTED_IN_DOUBT)],
)
async def test_ambiguous_refusal_does_not_resolve_a_doubt(
    promising: Scene, code: str, expected: Expected
) -> None:
    refuses = promising.wallet.says(result("F", code))
    promising.upstream.script, request = in_turn(hangs, refuses), apart(BIND)
    reported = await promising.reported(BIND, request, expected)
    assert (reported.metadata["attempts"], promising.sent(request)) == ("2", 2)
    promising.upstream.script = promising.wallet.says()
    await promising.ok(BIND, request)
    assert promising.sent(request) == 3


async def test_known_refusal_resolves_a_doubt(promising: Scene) -> None:
    promising.upstream.script = in_turn(hangs, promising.wallet.says(result("F", "USER_NOT_EXIST")))
    request = apart(BIND)
    for replayed in (False, True):
        await promising.reported(BIND, request, rejected(StatusCode.NOT_FOUND), replayed=replayed)
    assert promising.sent(request) == 2


async def test_every_attempt_is_signed_again(promising: Scene, wallet: Wallet) -> None:
    """The attempts are a second apart, so that each has its own Request-Time and so its own signature."""
    waits = answers(lambda _: PAGE.setting("Retry-After", "1"))
    promising.upstream.script, request = in_turn(waits, waits, wallet.says()), apart(SYNC)
    await promising.ok(SYNC, request)
    assert promising.sent(request) == 3
    raw = {(came.raw, came.body) for came in promising.upstream.requests}
    assert len(raw) == 3
