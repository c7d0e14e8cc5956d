"""No error and no repr of a message contains identity values, keys or body text."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import pytest
from cryptography.hazmat.primitives import serialization

from clients.alipayhk.client import Client
from clients.alipayhk.transport import Attempt, Transport
from clients.alipayhk.wire import clock, crypto, errors, keys, strict_json
from clients.alipayhk.wire.crypto import CryptoError, EncryptionProfile
from clients.alipayhk.wire.messages import (
    PlainRequest,
    PlainResponse,
    RawRequest,
    RawResponse,
    SealedRequest,
    SealedResponse,
)
from clients.alipayhk.wire.protocols import header_text
from tests.alipayhk.sides import (
    NOW,
    OK_BODY,
    REQUEST_ID,
    Sides,
    answer,
    envelope_answer,
    envelope_content,
    header_answer,
    with_header,
    with_signature,
)
from tests.alipayhk.upstream import Upstream, replying, transport

MARK: Final = "MARKED-85261234567"
MARKED: Final = MARK.encode()
BODY: Final = b'{"result":{"resultStatus":"S","resultMessage":"' + MARKED + b'"},"phone":"' + MARKED + b'"}'

Build = Callable[[Sides], RawResponse]


def signed_body(body: bytes) -> Build:
    """Return a response with exactly this body and a valid signature."""
    return lambda sides: answer(sides, body)


EITHER_PROTOCOL: Final[dict[str, Build]] = {
    "not UTF-8": signed_body(b'{"' + MARKED + b'\xff":1}'),
    "not JSON": signed_body(b"{" + MARKED + b"}"),
    "cut short": signed_body(BODY[:-1]),
    "two members": signed_body(b'{"' + MARKED + b'":1,"' + MARKED + b'":2}'),
    "NaN": signed_body(b'{"' + MARKED + b'":NaN}'),
    "too deep": signed_body(b'{"' + MARKED + b'":' + b"[" * 99 + b"]" * 99 + b"}"),
    "no result": signed_body(b'{"phone":"' + MARKED + b'"}'),
    "a status that is no text": signed_body(b'{"result":{"resultStatus":["' + MARKED + b'"]}}'),
    "F without a code": signed_body(b'{"result":{"resultStatus":"F","resultMsg":"' + MARKED + b'"}}'),
    "unsigned": lambda _: RawResponse(500, (("Tracer-Id", "t"),), BODY),
    "an HTML page": lambda _: RawResponse(502, (), b"<html>" + MARKED),
    "a claimed code": lambda _: RawResponse(
        403, (), b'{"result":{"resultCode":"X","resultMessage":"' + MARKED + b'"}}'
    ),
    "another body": lambda sides: replace(
        answer(sides, BODY), body=answer(sides, BODY).body.replace(b"85261", b"85262")
    ),
}
HEADER_SIGNED_ONLY: Final[dict[str, Build]] = {
    "a marked time": lambda sides: header_answer(sides, time=MARK),
    "a marked client id": lambda sides: header_answer(sides, client_id=MARK),
    "a marked algorithm": lambda sides: with_header(
        header_answer(sides), "Signature", f"algorithm={MARK},keyVersion=1,signature=x"
    ),
    "a marked key version": lambda sides: with_header(
        header_answer(sides),
        "Signature",
        f"keyVersion={MARK},signature=x",
    ),
    "a marked signature": lambda sides: with_signature(header_answer(sides), MARK),
    "a marked header Signature": lambda sides: with_header(header_answer(sides), "Signature", MARK),
    "two marked headers": lambda sides: with_header(header_answer(sides), "Response-Time", MARK, MARK),
    "a marked header Encrypt": lambda sides: header_answer(sides, BODY, extra=(("Encrypt", MARK),)),
    "a marked key version to decrypt with": lambda sides: header_answer(
        sides, BODY, extra=(("Encrypt", f"keyVersion={MARK},symmetricKey=x"),)
    ),
    "a marked wrapped key": lambda sides: header_answer(
        sides, BODY, extra=(("Encrypt", f"symmetricKey={MARK}"),)
    ),
}
ENVELOPE_SIGNED_ONLY: Final[dict[str, Build]] = {
    "a marked request id": lambda sides: envelope_answer(sides, envelope_content(BODY, reqMsgId=MARK)),
    "a marked function": lambda sides: envelope_answer(sides, envelope_content(BODY, function=MARK)),
    "a marked client id": lambda sides: envelope_answer(sides, envelope_content(BODY, clientId=MARK)),
    "a marked time": lambda sides: envelope_answer(sides, envelope_content(BODY, respTime=MARK)),
    "a marked signature": lambda _: RawResponse(
        200, (), b'{"response":' + BODY + b',"signature":"' + MARKED + b'"}'
    ),
    "a signature that is no JSON": lambda _: RawResponse(
        200, (), b'{"response":' + BODY + b',"signature":' + MARKED + b"}"
    ),
    "a name that is no JSON": lambda _: RawResponse(200, (), b'{"\\' + MARKED + b'":1}'),
    "a name that is not UTF-8": lambda _: RawResponse(200, (), b'{"\xff' + MARKED + b'":1}'),
    "ended with its connection": lambda _: RawResponse(200, (), BODY[:-1], end_announced=False),
    "two responses": lambda _: RawResponse(
        200, (), b'{"response":' + BODY + b',"response":' + BODY + b',"signature":""}'
    ),
}


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all chained exceptions, also suppressed ones."""
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is not None:
            yield link
            pending += [link.__cause__, link.__context__]


def is_silent(error: BaseException) -> None:
    """Check that neither the error, nor its traceback, nor a chained exception shows the mark."""
    shown = [str(error), repr(error), *traceback.format_exception_only(error)]
    # Only the chain, because a traceback quotes source lines, and they contain the mark.
    for link in chain(error):
        shown += [f"{type(link).__name__}: {link!s} {link!r} {link.args!r} {vars(link)!r}"]
        shown += [repr(getattr(link, name, "")) for name in ("object", "doc")]
    for text in shown:
        assert MARK not in text
        assert "8526" not in text


def unsealing(sides: Sides, raw: RawResponse) -> errors.CallError:
    """Return the error that unsealing a response raises."""
    with pytest.raises(errors.CallError) as caught:
        sides.open(raw)
    return caught.value


def shown_of(error: BaseException) -> str:
    """Return a whole traceback as a log would print it, without source lines."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(line for line in lines if not line.startswith("    "))


@pytest.mark.parametrize("build", EITHER_PROTOCOL.values(), ids=EITHER_PROTOCOL.keys())
def test_no_traceback_of_a_bad_response_shows_it(build: Build, sides: Sides) -> None:
    shown = shown_of(unsealing(sides, build(sides)))
    assert "Error" in shown or "errors." in shown
    assert MARK not in shown


class Answering(Transport):
    """A transport that returns a fixed response."""

    def __init__(self, raw: RawResponse) -> None:
        self.raw = raw

    async def post(
        self, base_url: str, sealed: SealedRequest, attempt: Attempt, *, reuse_connection: bool
    ) -> RawResponse:
        """Return the response."""
        attempt.sent = True
        return self.raw


async def calling(sides: Sides, raw: RawResponse) -> errors.CallError:
    """Return the error of a call with this response."""
    client = Client(Answering(raw), now=lambda: NOW)
    with pytest.raises(errors.CallError) as caught:
        await client.call(sides.us, REQUEST_ID, b"{}", Attempt())
    return caught.value


@pytest.mark.parametrize("build", EITHER_PROTOCOL.values(), ids=EITHER_PROTOCOL.keys())
async def test_no_exception_chained_to_a_call_error_contains_the_response(
    build: Build, sides: Sides
) -> None:
    is_silent(await calling(sides, build(sides)))


@pytest.mark.parametrize("build", HEADER_SIGNED_ONLY.values(), ids=HEADER_SIGNED_ONLY.keys())
async def test_no_exception_chained_to_a_call_error_contains_a_header(
    build: Build, header_sides: Sides
) -> None:
    is_silent(await calling(header_sides, build(header_sides)))


@pytest.mark.parametrize("build", ENVELOPE_SIGNED_ONLY.values(), ids=ENVELOPE_SIGNED_ONLY.keys())
async def test_no_exception_chained_to_a_call_error_contains_the_envelope(
    build: Build, envelope_sides: Sides
) -> None:
    is_silent(await calling(envelope_sides, build(envelope_sides)))


GARBAGE: Final = {
    "a bad status line": MARKED + b" " + MARKED + b"\r\n\r\n",
    "a bad header": b"HTTP/1.1 200 OK\r\n" + MARKED + b"\0: " + MARKED + b"\r\n\r\n",
    "a header with a zero byte": b"HTTP/1.1 200 OK\r\nX: " + MARKED + b"\0" + MARKED + b"\r\n\r\n",
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: " + MARKED + b"\r\n\r\n",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + MARKED + b"\r\n",
    "a body cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + MARKED,
    "nothing": b"",
}


@pytest.mark.parametrize("written", GARBAGE.values(), ids=GARBAGE.keys())
async def test_no_exception_chained_to_a_lost_response_contains_sent_or_received_bytes(
    written: bytes, header_sides: Sides
) -> None:
    async with Upstream(replying(written)) as upstream, transport() as opened:
        us = replace(header_sides.us, base_url=upstream.url, path=f"/{MARK}", client_id=MARK)
        with pytest.raises(errors.CallError) as caught:
            await Client(opened).call(us, REQUEST_ID, BODY, Attempt())
    is_silent(caught.value)


LOW_LEVEL: Final[dict[str, Callable[[], object]]] = {
    "read_object, not UTF-8": lambda: strict_json.read_object(b'{"' + MARKED + b'\xff"}'),
    "read_object, not JSON": lambda: strict_json.read_object(b'{"' + MARKED),
    "read_object, a number too large": lambda: strict_json.read_object(
        b'{"' + MARKED + b'":' + b"8526" * 1100 + b"}"
    ),
    "read_object, twice": lambda: strict_json.read_object(b'{"' + MARKED + b'":1,"' + MARKED + b'":1}'),
    "member_bytes, a name": lambda: strict_json.member_bytes(b'{"\\' + MARKED + b'":1}'),
    "member_bytes, cut short": lambda: strict_json.member_bytes(b'{"a":"' + MARKED),
    "time_of": lambda: clock.time_of(MARK),
    "time_of, no offset": lambda: clock.time_of("8526-11-11T11:11:11"),
    "header_pairs": lambda: header_text.header_pairs(MARK),
    "base64_bytes": lambda: crypto.base64_bytes(MARK),
    "base64_bytes, not canonical": lambda: crypto.base64_bytes("TUFSS0VE" * 9 + "QR=="),
    "base64_bytes, not ASCII": lambda: crypto.base64_bytes(MARK + "é"),
    "url_base64_bytes": lambda: crypto.url_base64_bytes(MARK + "%ff"),
    "decrypt": lambda: crypto.decrypt(EncryptionProfile(), b"k" * 32, MARKED),
    "parse_key, garbage": lambda: keys.parse_key(MARKED),
    "parse_key, PEM": lambda: keys.parse_key(
        b"-----BEGIN PRIVATE KEY-----\n" + MARKED + b"\n-----END PRIVATE KEY-----"
    ),
    "parse_key, base64": lambda: keys.parse_key(b"TUFSS0VE" * 20),
}


@pytest.mark.parametrize("act", LOW_LEVEL.values(), ids=LOW_LEVEL.keys())
def test_no_low_level_error_shows_its_input(act: Callable[[], object]) -> None:
    with pytest.raises((CryptoError, ValueError)) as caught:
        act()
    shown = shown_of(caught.value)
    for secret in (MARK, "TUFSS0VE", "8526"):
        assert secret not in shown + str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None


def test_no_message_shows_its_body(sides: Sides) -> None:
    body = b'{"userId":"' + MARKED + b'","externalIdentityValue":"' + MARKED + b'"}'
    sealed = sides.seal(body, request_id="req-1")
    request = sides.receive(sealed.path, sealed.headers, sealed.body)
    raw = answer(sides, BODY)
    messages = [
        sealed,
        PlainRequest("req-1", body, NOW),
        PlainResponse(request.body, NOW),
        SealedRequest("/", (), body),
        SealedResponse((), BODY),
        RawRequest("/", (), body),
        request,
        raw,
        sides.open(raw),
    ]
    assert MARK in str([*request.body.values()])
    for message in messages:
        assert MARK not in repr(message) + str(message), type(message).__name__


def test_error_with_a_response_does_not_show_it(sides: Sides) -> None:
    verified = sides.open(answer(sides, BODY.replace(b'"S"', b'"U"')))
    error = errors.ResultError(verified.result)
    assert verified.result.message == MARK
    assert MARK not in repr(error) + str(error) + repr(vars(error))


def test_rejection_without_a_response_has_no_facts_of_one(sides: Sides) -> None:
    """An operator can decide that a request was rejected."""
    error = errors.ResultError(sides.open(answer(sides, BODY)).result)
    assert (error.http_status, error.tracer_id) == (0, "")


def test_repr_of_a_key_holder_shows_no_key(sides: Sides) -> None:
    key = sides.us.keys.signing
    numbers = key.private_numbers()
    secrets = [str(numbers.d), hex(numbers.d), str(numbers.p), "PRIVATE", "RSAPrivateKey"]
    shown = repr(sides.us) + str(sides.us.keys)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert sides.us.client_id in shown
    for secret in (*secrets, *pem.splitlines()):
        assert secret not in shown


def test_every_call_error_says_whether_the_request_was_sent() -> None:
    for failure, sent in (
        (errors.Unreachable, False),
        (errors.TlsInvalid, False),
        (errors.Timeout, True),
        (errors.ConnectionLost, True),
        (errors.Truncated, True),
        (errors.SignatureInvalid, True),
        (errors.Replayed, True),
        (errors.Malformed, True),
        (errors.NotEncrypted, True),
        (errors.ResultError, True),
    ):
        assert failure.sent is sent
        assert issubclass(failure, errors.CallError)
    assert errors.Unsigned("x", http_status=1).sent
    assert OK_BODY.decode() not in repr(errors.Unsigned("x", http_status=1))
