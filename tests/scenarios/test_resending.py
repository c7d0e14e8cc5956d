"""The gateway resends a request only if AlipayHK guarantees that it is idempotent."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from tests.e2e.caller import Expected
from tests.e2e.samples import APIS, BIND, SYNC, Api, fresh_request
from tests.e2e.upstream import Response, Script, hangs, resets, responds
from tests.e2e.wallet import Wallet, result
from tests.scenarios.system import System, in_turn

PAGE = Response(503, (("Content-Type", "text/html"),), b"<html></html>")
TROUBLES: dict[str, Script] = {
    "timeout": hangs,
    "reset": resets,
    "503": responds(lambda _: PAGE),
}


@pytest.mark.parametrize("trouble", [*TROUBLES, "signed U"])
@pytest.mark.parametrize("api", APIS, ids=str)
async def test_failed_attempt_followed_by_a_success_is_ok(
    idempotent_system: System, api: Api, trouble: str
) -> None:
    wallet, request = idempotent_system.wallet, fresh_request(api)
    first = TROUBLES.get(trouble) or wallet.says(result("U", "SYSTEM_ERROR"))
    idempotent_system.upstream.script = in_turn(first, wallet.says())
    await idempotent_system.ok(api, request)
    assert idempotent_system.sent(request) == 2
    await idempotent_system.ok(api, request, replayed=True)
    assert idempotent_system.sent(request) == 2


REFUSED_IN_DOUBT = Expected(StatusCode.INTERNAL, "GATEWAY_REFUSED", "unknown", "operator")
REJECTED_IN_DOUBT = Expected(StatusCode.FAILED_PRECONDITION, "WALLET_REJECTED", "unknown", "operator")


@pytest.mark.parametrize(
    ("code", "expected"),
    [("INVALID_SIGNATURE", REFUSED_IN_DOUBT), ("NEVER_HEARD_OF", REJECTED_IN_DOUBT)],
)
async def test_ambiguous_refusal_does_not_resolve_a_doubt(
    idempotent_system: System, code: str, expected: Expected
) -> None:
    refuses = idempotent_system.wallet.says(result("F", code))
    idempotent_system.upstream.script, request = in_turn(hangs, refuses), fresh_request(BIND)
    reported = await idempotent_system.reported(BIND, request, expected)
    assert (reported.metadata["attempts"], idempotent_system.sent(request)) == ("2", 2)
    idempotent_system.upstream.script = idempotent_system.wallet.says()
    await idempotent_system.ok(BIND, request)
    assert idempotent_system.sent(request) == 3


async def test_every_attempt_is_signed_again(idempotent_system: System, wallet: Wallet) -> None:
    """The attempts are a second apart, so that each has its own Request-Time and so its own signature."""
    waits = responds(lambda _: PAGE.setting("Retry-After", "1"))
    idempotent_system.upstream.script, request = in_turn(waits, waits, wallet.says()), fresh_request(SYNC)
    await idempotent_system.ok(SYNC, request)
    assert idempotent_system.sent(request) == 3
    raw = {(received.raw, received.body) for received in idempotent_system.upstream.requests}
    assert len(raw) == 3
