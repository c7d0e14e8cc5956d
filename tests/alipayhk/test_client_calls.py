"""A whole call over real sockets: seal, send, unseal, read the result."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from clients.alipayhk.client import Client
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.clock import now_utc
from clients.alipayhk.wire.crypto import EncryptionProfile
from clients.alipayhk.wire.endpoint import Encryption
from clients.alipayhk.wire.messages import Headers, VerifiedRequest
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from clients.alipayhk.wire.strict_json import member_bytes
from tests.alipayhk.sides import REQUEST_ID, Sides, speaking
from tests.alipayhk.upstream import Upstream, hanging, rested, transport
from tests.ports import free_port
from tests.raw_http import Peer

BODY: Final = '{"requestId":"req-0001","userId":"2160000000000001","名":"陳大文 🧧"}'.encode()
SUCCESS: Final[dict[str, object]] = {
    "result": {"resultStatus": "S", "resultCode": "SUCCESS"},
    "needBind": "true",
}
RATE_LIMITED: Final = "REQUEST_TRAFFIC_EXCEED_LIMIT"
KINDS: Final = ["header-signed", "header-signed, encrypted", "envelope-signed"]


@dataclass
class Wallet:
    """AlipayHK's side: unseals each request, and responds as configured."""

    sides: Sides
    body: dict[str, object] = field(default_factory=lambda: dict(SUCCESS))
    http_status: int = 200
    headers: Headers | None = None
    """Additional headers; by default a Tracer-Id of its own for each response, starting with tracer-1."""
    alter: Callable[[bytes], bytes] = bytes
    answered_at: Callable[[], datetime] = now_utc
    opened: list[VerifiedRequest] = field(default_factory=list)

    async def serve(self, wire: Peer) -> None:
        """Respond to every request on one connection."""
        while True:
            received = await wire.request()
            path = received.line.split(" ")[1]
            request = self.sides.receive(path, received.headers, received.body)
            self.opened.append(request)
            sealed = self.sides.reply(request, self.body, self.answered_at())
            body = self.alter(sealed.body)
            lines = [f"HTTP/1.1 {self.http_status} Status", f"Content-Length: {len(body)}"]
            own = (("Tracer-Id", f"tracer-{len(self.opened)}"),)
            headers = own if self.headers is None else self.headers
            lines += [f"{name}: {value}" for name, value in (*sealed.headers, *headers)]
            await wire.send("\r\n".join([*lines, "", ""]).encode() + body)


@pytest.fixture(params=KINDS)
def sides(request: pytest.FixtureRequest, header_sides: Sides, envelope_sides: Sides) -> Sides:
    """Return both sides of an API, for each protocol in turn, plain and encrypted."""
    if request.param == "envelope-signed":
        return envelope_sides
    plain = header_sides.but(path="/%7Eu?a=%2f")
    return plain.with_profile(EncryptionProfile("CBC")) if "encrypted" in request.param else plain


Calls = Callable[[Client, Sides], Awaitable[None]]


async def call(
    sides: Sides, upstream: Upstream, *, times: int = 1, attempt: Attempt | None = None
) -> object:
    """Make this many calls; return the last response, or raise its error."""
    us = replace(sides.us, base_url=upstream.url)
    verified = None
    async with transport(timeout_s=5) as opened:
        client = Client(opened)
        for _ in range(times):
            verified = await client.call(us, REQUEST_ID, BODY, attempt or Attempt())
            if times > 1:
                await rested()
    return verified


async def fails(sides: Sides, wallet: Wallet) -> errors.CallError:
    """Return the error of a call to this wallet."""
    attempt = Attempt()
    async with Upstream(wallet.serve) as upstream:
        with pytest.raises(errors.CallError) as caught:
            await call(sides, upstream, attempt=attempt)
    assert attempt.sent
    assert len(wallet.opened) == 1
    return caught.value


async def test_success_is_returned_verified(sides: Sides) -> None:
    wallet = Wallet(sides)
    async with Upstream(wallet.serve) as upstream, transport() as opened:
        us = replace(sides.us, base_url=upstream.url)
        attempt = Attempt()
        verified = await Client(opened).call(us, REQUEST_ID, BODY, attempt)
    assert attempt.sent
    assert (verified.result.status, verified.result.code) == ("S", "SUCCESS")
    assert (verified.http_status, verified.tracer_id, verified.body) == (200, "tracer-1", SUCCESS)
    assert verified.response_time is not None
    assert wallet.opened[0].body == json.loads(BODY)
    assert wallet.opened[0].encrypted is sides.encrypts
    assert upstream.requests[0].line == f"POST {sides.us.path} HTTP/1.1"


async def test_business_content_is_sent_unchanged(sides: Sides) -> None:
    async with Upstream(Wallet(sides).serve) as upstream:
        await call(sides, upstream)
    (request,) = upstream.requests
    if sides.encrypts:
        assert "陳".encode() not in request.body
    elif sides.us.protocol.name == HeaderSigned.name:
        assert request.body == BODY
    else:
        content = dict(member_bytes(request.body))["request"]
        assert dict(member_bytes(content))["body"] == BODY


async def test_each_attempt_seals_the_same_content_again(sides: Sides) -> None:
    moments = iter(range(100))
    start = datetime.now(UTC)

    def now() -> datetime:
        return start + timedelta(seconds=next(moments))

    wallet = Wallet(sides)
    async with Upstream(wallet.serve) as upstream, transport() as opened:
        client = Client(opened, now=now)
        us = replace(sides.us, base_url=upstream.url)
        for _ in range(3):
            assert await client.call(us, REQUEST_ID, BODY, Attempt())
    assert len({request.raw + request.body for request in upstream.requests}) == 3
    assert [request.body for request in wallet.opened] == [json.loads(BODY)] * 3
    times = [request.values("Request-Time") for request in upstream.requests]
    times = times if times[0] else [[str(request.head["reqTime"])] for request in wallet.opened]
    assert len({time for (time,) in times}) == 3
    if sides.encrypts:
        assert len({request.body for request in upstream.requests}) == 3
        assert len({request.values("Encrypt")[0] for request in upstream.requests}) == 3


async def test_configured_clock_and_random_source_are_used(header_sides: Sides) -> None:
    encryption = Encryption(EncryptionProfile("CBC", 128), random_bytes=bytes)
    sides = header_sides.speaking(encryption=encryption, encrypt_requests=True)
    moment = datetime(2024, 5, 22, 1, 12, 21, 999_999, UTC)
    wallet = Wallet(sides, answered_at=lambda: moment)
    async with Upstream(wallet.serve) as upstream, transport() as opened:
        client = Client(opened, now=lambda: moment)
        us = replace(sides.us, base_url=upstream.url)
        for _ in range(2):
            assert await client.call(us, REQUEST_ID, BODY, Attempt())
    first, second = upstream.requests
    assert first.body == second.body
    assert first.values("Signature") == second.values("Signature")
    assert first.values("Request-Time") == ["2024-05-22T01:12:21+00:00"]


@pytest.mark.parametrize("set_ahead_s", [0, 2_678_400, -2_678_400])
async def test_skew_is_that_of_the_clock_after_the_call_if_it_was_set_during_the_call(
    header_sides: Sides, set_ahead_s: int
) -> None:
    moments = iter((0, set_ahead_s))
    async with Upstream(Wallet(header_sides).serve) as upstream, transport() as opened:
        client = Client(opened, now=lambda: now_utc() + timedelta(seconds=next(moments)))
        attempt = Attempt()
        await client.call(replace(header_sides.us, base_url=upstream.url), REQUEST_ID, BODY, attempt)
    assert attempt.skew_s == pytest.approx(-set_ahead_s, abs=2)


async def test_connections_are_reused_for_idempotent_endpoints_only(sides: Sides) -> None:
    async with Upstream(Wallet(sides).serve) as upstream:
        await call(sides, upstream, times=3)
    assert len(upstream.peers) == (1 if sides.us.idempotent else 3)


@pytest.mark.parametrize("status", ["F", "U", "s", "", "X"])
async def test_any_status_except_s_is_a_result_error(sides: Sides, status: str) -> None:
    result: dict[str, object] = {"resultStatus": status, "resultCode": RATE_LIMITED, "resultMessage": "no"}
    error = await fails(sides, Wallet(sides, {"result": result}, http_status=500))
    assert isinstance(error, errors.ResultError)
    assert error.sent
    assert (error.result.status, error.result.code, error.result.message) == (status, RATE_LIMITED, "no")
    assert (error.http_status, error.tracer_id) == (500, "tracer-1")


def twisted(body: bytes) -> bytes:
    """Change one byte near the middle."""
    at = len(body) // 3
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


async def test_answer_error_has_http_status_and_tracer_id(sides: Sides) -> None:
    wallet = Wallet(sides, http_status=502, alter=twisted)
    error = await fails(sides, wallet)
    assert isinstance(error, errors.AnswerError)
    assert (error.http_status, error.tracer_id) == (502, "tracer-1")


async def test_replayed_response_has_http_status_and_tracer_id(sides: Sides) -> None:
    wallet = Wallet(sides, answered_at=lambda: now_utc() - timedelta(hours=1))
    error = await fails(sides, wallet)
    assert isinstance(error, errors.Replayed)
    assert (error.http_status, error.tracer_id) == (200, "tracer-1")


async def test_malformed_response_has_http_status_and_tracer_id(sides: Sides) -> None:
    error = await fails(sides, Wallet(sides, {"no": "result"}, headers=()))
    assert isinstance(error, errors.Malformed)
    assert (error.http_status, error.tracer_id) == (200, "")


async def test_unsigned_response_has_its_unverified_code(sides: Sides) -> None:
    body = b'{"result":{"resultCode":"INVALID_SIGNATURE"}}'

    async def refusing(wire: Peer) -> None:
        await wire.request()
        lines = ["HTTP/1.1 403 Forbidden", f"Content-Length: {len(body)}", "Retry-After: 9", "Tracer-Id: t"]
        await wire.send("\r\n".join([*lines, "", ""]).encode() + body)

    async with Upstream(refusing) as upstream:
        with pytest.raises(errors.Unsigned) as caught:
            await call(sides, upstream)
    error = caught.value
    assert (error.http_status, error.tracer_id) == (403, "t")
    assert (error.claimed_code, error.retry_after_s) == ("INVALID_SIGNATURE", 9.0)


async def test_unencrypted_response_is_refused_when_encryption_is_required(header_sides: Sides) -> None:
    sides = Sides(speaking(header_sides.us, encrypted_answers_only=True), header_sides.wallet)
    error = await fails(sides, Wallet(sides))
    assert isinstance(error, errors.NotEncrypted)
    assert error.tracer_id == "tracer-1"


async def test_envelope_cut_by_the_end_of_the_connection_is_truncated(envelope_sides: Sides) -> None:
    async def cutting(wire: Peer) -> None:
        await wire.request()
        await wire.send(b'HTTP/1.1 200 OK\r\n\r\n{"response":{"head":{')

    async with Upstream(cutting) as upstream:
        with pytest.raises(errors.Truncated):
            await call(envelope_sides, upstream)


async def test_transport_errors_reach_the_caller_unchanged(sides: Sides) -> None:
    attempt = Attempt()
    async with transport(timeout_s=1.0) as opened:
        client = Client(opened)
        us = replace(sides.us, base_url=f"http://127.0.0.1:{free_port()}")
        with pytest.raises(errors.Unreachable):
            await client.call(us, REQUEST_ID, BODY, attempt)
        assert not attempt.sent
        async with Upstream(hanging) as upstream:
            with pytest.raises(errors.Timeout):
                await client.call(replace(us, base_url=upstream.url), REQUEST_ID, BODY, attempt)
        assert attempt.sent


async def test_two_responses_in_one_second_with_equal_bytes_are_both_a_success(sides: Sides) -> None:
    moment = now_utc()
    wallet = Wallet(sides, answered_at=lambda: moment)
    async with Upstream(wallet.serve) as upstream:
        assert await call(sides, upstream, times=2)
    assert len(wallet.opened) == 2
