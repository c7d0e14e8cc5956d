"""Responses that an intermediary may have changed: none is accepted as AlipayHK's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.caller import alarm
from tests.e2e.conftest import Rpc
from tests.e2e.upstream import Request, Response, responds

REPLAYED = alarm("RESPONSE_REPLAYED")


async def test_changed_signature_header_is_refused(sync: Rpc) -> None:
    def respond(request: Request) -> Response:
        right = sync.wallet.right(request)
        return right.setting("Signature", right.header("Signature").replace("RSA256", "ECC224"))

    await sync.refused(responds(respond), alarm("RESPONSE_SIGNATURE_INVALID"))


async def test_changed_envelope_is_refused(bind: Rpc) -> None:
    def respond(request: Request) -> Response:
        right = bind.wallet.right(request)
        return right.but(body=right.body.replace(b'"resultStatus":"S",', b"", 1))

    await bind.refused(responds(respond), alarm("RESPONSE_SIGNATURE_INVALID"))


async def test_signature_with_an_unknown_key_is_refused(
    either: Rpc, request: pytest.FixtureRequest
) -> None:
    unknown_key = either.wallet.but(key=request.getfixturevalue("material").unknown_key.key)
    await either.refused(responds(unknown_key.signed), alarm("RESPONSE_SIGNATURE_INVALID"))


async def test_response_signed_for_another_path_is_refused(sync: Rpc) -> None:
    def respond(request: Request) -> Response:
        other = Request(request.raw.replace(b"%7E", b"~"), request.body)
        assert other.target != request.target
        return sync.wallet.signed(other)

    await sync.refused(responds(respond), alarm("RESPONSE_SIGNATURE_INVALID"))


def shifted(**offset: float) -> str:
    """Return the current time plus an offset, in AlipayHK's format."""
    return (datetime.now(UTC) + timedelta(**offset)).isoformat(timespec="seconds")


async def test_signed_success_with_an_old_time_is_reported_as_replayed(rpc: Rpc) -> None:
    await rpc.refused(
        responds(lambda request: rpc.wallet.signed(request, time=shifted(seconds=-400))), REPLAYED
    )


async def test_signed_response_to_another_client_is_reported_as_replayed(rpc: Rpc) -> None:
    await rpc.refused(
        responds(lambda request: rpc.wallet.signed(request, client_id="SOMEBODY-ELSE")), REPLAYED
    )


async def test_request_echoed_as_a_response_is_refused(bind: Rpc) -> None:
    await bind.refused(
        responds(lambda request: Response(200, (), request.body)), alarm("RESPONSE_SIGNATURE_INVALID")
    )
