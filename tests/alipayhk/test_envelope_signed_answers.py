"""Envelope-signed responses; an invalid one is named after the bug that would accept it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from clients.alipayhk.wire import crypto, errors
from clients.alipayhk.wire.messages import RawResponse, VerifiedRequest
from clients.alipayhk.wire.protocols import envelope_signed
from tests.alipayhk.sides import (
    ANSWERED_AT,
    CLIENT_ID,
    FUNCTION,
    OK_BODY,
    REQUEST_ID,
    SENT_AT,
    Sides,
    envelope_answer,
    envelope_content,
    quoted,
)


@pytest.fixture
def sides(envelope_sides: Sides) -> Sides:
    """Return both sides of an envelope-signed API."""
    return envelope_sides


def refuses(sides: Sides, raw: RawResponse, failure: type[errors.CallError]) -> errors.CallError:
    """Unseal a response that must fail with exactly this error class; return the error."""
    with pytest.raises(errors.CallError) as caught:
        sides.open(raw)
    assert type(caught.value) is failure
    assert caught.value.sent
    return caught.value


def raw_body(template: bytes, sides: Sides, content: bytes | None = None) -> RawResponse:
    """Fill a template of an envelope: CONTENT is replaced, and the signature as
    SIG (percent-encoded), PLAIN and BROKEN (with line breaks).
    """
    content = envelope_content() if content is None else content
    plain = crypto.base64_text(crypto.sign(sides.wallet.keys.signing, content))
    broken = json.dumps(plain[:76] + "\r\n" + plain[76:] + "\n")[1:-1]
    parts = {
        b"CONTENT": content,
        b"PLAIN": plain.encode(),
        b"BROKEN": broken.encode(),
        b"SIG": quoted(plain).encode(),
    }
    # Replace all in one pass, because a signature can contain one of these words.
    return RawResponse(200, (), re.sub(b"CONTENT|PLAIN|BROKEN|SIG", lambda word: parts[word[0]], template))


def test_correct_response_is_accepted(sides: Sides) -> None:
    opened = sides.open(replace(envelope_answer(sides, http_status=500), headers=(("tracer-id", "t"),)))
    assert (opened.http_status, opened.tracer_id, opened.result.code) == (500, "t", "SUCCESS")
    assert opened.response_time is not None


ACCEPTED: Final = {
    "plain base64": b'{"response":CONTENT,"signature":"PLAIN"}',
    "signature first": b'{"signature":"SIG","response":CONTENT}',
    "space everywhere": b' \r\n{ "response" :\tCONTENT , "signature" : "SIG" } \n',
    "an unknown member": b'{"a":[1,{"signature":"x"}],"response":CONTENT,"b":null,"signature":"SIG"}',
    "a byte order mark": b'\xef\xbb\xbf{"response":CONTENT,"signature":"SIG"}',
    "line breaks in the signature": b'{"response":CONTENT,"signature":"BROKEN"}',
    "percent-encoded line breaks in the signature": b'{"response":CONTENT,"signature":"%0D%0ASIG%0a"}',
    "names with unicode escapes": b'{"\\u0072esponse":CONTENT,"signatur\\u0065":"SIG"}',
}


@pytest.mark.parametrize("template", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_other_spellings_of_the_envelope_are_accepted(sides: Sides, template: bytes) -> None:
    assert sides.open(raw_body(template, sides)).result.status == "S"


def test_a_signature_with_json_escapes_is_accepted(sides: Sides) -> None:
    content = next(
        text
        for text in (envelope_content(OK_BODY + b" " * number) for number in range(100))
        if b"/" in crypto.base64_text(crypto.sign(sides.wallet.keys.signing, text)).encode()
    )
    raw = raw_body(b'{"response":CONTENT,"signature":"PLAIN"}', sides, content)
    before, _, signature = raw.body.partition(b'"signature"')
    assert sides.open(replace(raw, body=before + b'"signature"' + signature.replace(b"/", b"\\/"))).body


def test_signed_text_is_never_serialised_again(sides: Sides) -> None:
    content = b' { "head" : ' + envelope_content()[8:].replace(b'"body":', b'\n"body" :\t')
    raw = raw_body(b'{"response":CONTENT,"signature":"SIG"}', sides, content.strip())
    assert sides.open(raw).result.status == "S"
    rewritten = json.dumps(json.loads(raw.body), separators=(",", ":")).encode()
    refuses(sides, replace(raw, body=rewritten), errors.SignatureInvalid)


def test_flipped_bit_in_the_content_is_refused(sides: Sides) -> None:
    content = envelope_content()
    raw = envelope_answer(sides, content)
    start = raw.body.index(content)
    for at in range(start, start + len(content), 7):
        body = bytearray(raw.body)
        body[at] ^= 1
        with pytest.raises(errors.CallError) as caught:
            sides.open(replace(raw, body=bytes(body)))
        # A flipped bit in a quote or bracket can also make the JSON invalid.
        assert isinstance(caught.value, errors.SignatureInvalid | errors.Unsigned), at


@pytest.mark.parametrize("at", [0, 1, 170, 340])
def test_a_bit_flipped_in_the_signature_is_refused(sides: Sides, at: int) -> None:
    content = envelope_content()
    signature = bytearray(crypto.sign(sides.wallet.keys.signing, content))
    signature[at * 255 // 340] ^= 1
    body = envelope_signed.sealed_envelope("response", content, bytes(signature))
    refuses(sides, RawResponse(200, (), body), errors.SignatureInvalid)


REFUSED_SIGNATURES: Final = {
    "empty": b'""',
    "null": b"null",
    "number": b"1",
    "true": b"true",
    "object": b'{"a":"SIG"}',
    "list": b'["SIG"]',
    "no JSON": b"SIG",
    "broken brackets": b"[}",
    "not base64": b'"%%%"',
    "not ASCII": '"é"'.encode(),
    "not UTF-8": b'"\xff"',
    "a lone surrogate": b'"\\ud800"',
    "a control character": b'"SIG\n"',
    "with a space": b'" SIG"',
    "escaped twice": b'"TWICE"',
    "short": b'"AAAA"',
    "a number of 5000 digits": b"1" * 5000,
    "UTF-16": '"'.encode("utf-16-le") + b'"',
}


@pytest.mark.parametrize("value", REFUSED_SIGNATURES.values(), ids=REFUSED_SIGNATURES.keys())
def test_impossible_signature_is_refused(sides: Sides, value: bytes) -> None:
    plain = crypto.base64_text(crypto.sign(sides.wallet.keys.signing, envelope_content()))
    value = value.replace(b"TWICE", quoted(quoted(plain)).encode())
    raw = raw_body(b'{"response":CONTENT,"signature":' + value + b"}", sides)
    refuses(sides, raw, errors.SignatureInvalid)


def test_signature_nested_too_deeply_is_refused_and_does_not_crash(sides: Sides) -> None:
    value = b"[" * 100_000 + b"]" * 100_000
    raw = raw_body(b'{"response":CONTENT,"signature":' + value + b"}", sides)
    refuses(sides, raw, errors.SignatureInvalid)


def test_base64_with_spare_bits_is_not_canonical(sides: Sides) -> None:
    raw = raw_body(b'{"response":CONTENT,"signature":"PLAIN"}', sides)
    text = raw.body[:-4][-1:]
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spare = alphabet[alphabet.index(text) + 1 :][:1]
    assert raw.body.endswith(text + b'=="}')
    refuses(sides, replace(raw, body=raw.body[:-5] + spare + b'=="}'), errors.SignatureInvalid)


def test_signature_without_the_signed_member_is_refused(sides: Sides) -> None:
    for template in (b'{"signature":"SIG"}', b'{"request":CONTENT,"signature":"SIG"}'):
        refuses(sides, raw_body(template, sides), errors.SignatureInvalid)


def test_response_without_the_member_signature_is_unsigned(sides: Sides) -> None:
    error = refuses(sides, raw_body(b'{"response":CONTENT}', sides), errors.Unsigned)
    assert isinstance(error, errors.Unsigned)
    assert error.claimed_code == "SUCCESS"


TWICE: Final = {
    "response": b'{"response":CONTENT,"response":CONTENT,"signature":"SIG"}',
    "response, once with a unicode escape": b'{"response":CONTENT,"\\u0072esponse":{},"signature":"SIG"}',
    "signature": b'{"response":CONTENT,"signature":"SIG","signature":"SIG"}',
    "signature, once with a unicode escape": b'{"signatur\\u0065":"","response":CONTENT,"signature":"SIG"}',
    "a member that nobody knows": b'{"a":1,"response":CONTENT,"a":1,"signature":"SIG"}',
}


@pytest.mark.parametrize("template", TWICE.values(), ids=TWICE.keys())
def test_two_members_with_the_same_name_are_refused(sides: Sides, template: bytes) -> None:
    refuses(sides, raw_body(template, sides), errors.Malformed)


def test_duplicate_members_inside_the_signed_text_are_refused(sides: Sides) -> None:
    body = OK_BODY
    for content in (
        b'{"head":{"reqMsgId":"x"},' + envelope_content()[1:],
        envelope_content(b'{"result":{"resultStatus":"F"},' + body[1:]),
        envelope_content(b'{"result":{"resultStatus":"F","resultStatus":"S"}}'),
        envelope_content(b'{"result":{"resultStatus":"F","result\\u0053tatus":"S"}}'),
    ):
        refuses(sides, envelope_answer(sides, content), errors.Malformed)


@pytest.mark.parametrize(
    "changes",
    [
        {"reqMsgId": "req-0002"},
        {"reqMsgId": REQUEST_ID.upper()},
        {"reqMsgId": None},
        {"reqMsgId": ""},
        {"reqMsgId": 1},
        {"reqMsgId": [REQUEST_ID]},
        {"function": "alipay.intl.merchant.account.unbind"},
        {"function": None},
        {"function": {"a": FUNCTION}},
        {"clientId": "ANOTHER"},
        {"clientId": CLIENT_ID.lower()},
        {"clientId": 1},
    ],
    ids=str,
)
def test_a_response_to_another_request_is_refused(sides: Sides, changes: dict[str, object]) -> None:
    refuses(sides, envelope_answer(sides, envelope_content(**changes)), errors.Replayed)


@pytest.mark.parametrize("time", ["2023-05-22T06:42:22+05:30", "2024-05-22T06:42:22Z"])
def test_response_outside_the_time_window_is_refused_with_its_skew(sides: Sides, time: str) -> None:
    error = refuses(sides, envelope_answer(sides, envelope_content(respTime=time)), errors.OutsideWindow)
    assert isinstance(error, errors.OutsideWindow)
    assert abs(error.skew_s - (datetime.fromisoformat(time) - SENT_AT).total_seconds()) <= 1


@pytest.mark.parametrize(
    "time",
    [
        1716340342000,
        "1716340342999",
        "2024-05-22T06:42:22.123+05:30",
        "2024-05-22t01:12:22z",
        "2024-05-22T09:12:22+0800",
        "2024-05-22T09:12:22+08",
        "2024-05-22T09:12:22+08:00[Asia/Hong_Kong]",
    ],
)
def test_time_in_a_harmless_variant_is_read(sides: Sides, time: object) -> None:
    opened = sides.open(envelope_answer(sides, envelope_content(respTime=time)))
    assert opened.response_time is not None
    assert opened.response_time.replace(microsecond=0) == datetime.fromisoformat(ANSWERED_AT)


def test_time_of_a_response_to_another_request_is_not_used(sides: Sides) -> None:
    content = envelope_content(reqMsgId="ANOTHER", respTime="2023-05-22T06:42:22+05:30")
    refuses(sides, envelope_answer(sides, content), errors.Replayed)


NO_TIMES: Final[list[object]] = [1716340342, 1716340342000.0, True, [], "", "soon"]


@pytest.mark.parametrize("time", NO_TIMES, ids=repr)
def test_signed_time_that_is_not_a_time_is_malformed(sides: Sides, time: object) -> None:
    refuses(sides, envelope_answer(sides, envelope_content(respTime=time)), errors.Malformed)


@pytest.mark.parametrize(
    "changes", [{"respTime": None}, {"clientId": None}, {"version": "9", "x": [1]}], ids=str
)
def test_head_that_names_our_request_is_accepted(sides: Sides, changes: dict[str, object]) -> None:
    opened = sides.open(envelope_answer(sides, envelope_content(**changes)))
    assert (opened.response_time is None) == ("respTime" in changes)


def test_time_window_has_a_resolution_of_whole_seconds(sides: Sides) -> None:
    first = SENT_AT.replace(microsecond=0) - timedelta(seconds=300)
    for moment, accepted in ((first, True), (first - timedelta(seconds=1), False)):
        raw = envelope_answer(sides, envelope_content(respTime=moment.isoformat()))
        if accepted:
            assert sides.open(raw).response_time == moment
        else:
            refuses(sides, raw, errors.OutsideWindow)


@pytest.mark.parametrize("body", [b"{}", b'{"result":{"resultStatus":"F"}}'], ids=bytes.decode)
def test_old_response_is_replayed_even_without_a_result(sides: Sides, body: bytes) -> None:
    content = envelope_content(body, respTime="2023-05-22T06:42:22+05:30")
    refuses(sides, envelope_answer(sides, content), errors.OutsideWindow)
    refuses(sides, envelope_answer(sides, envelope_content(body)), errors.Malformed)


def test_response_without_a_head_is_replayed(sides: Sides) -> None:
    refuses(sides, envelope_answer(sides, b'{"body":' + OK_BODY + b"}"), errors.Replayed)


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'"x"',
        b"null",
        b"[]",
        b"1",
        b"nonsense",
        b"[}",
        b'{"head":null,"body":{}}',
        b'{"head":[],"body":{}}',
        b'{"head":{"reqMsgId":"req-0001"}}',
        b'{"head":{},"body":"{}"}',
        b'{"head":{},"body":[]}',
    ],
    ids=bytes.decode,
)
def test_signed_text_that_is_not_an_envelope_is_malformed(sides: Sides, content: bytes) -> None:
    refuses(sides, envelope_answer(sides, content), errors.Malformed)


def test_response_signed_with_an_unknown_key_is_refused(sides: Sides, stranger: RSAPrivateKey) -> None:
    keys = replace(sides.wallet.keys, signing=stranger)
    refuses(
        sides, envelope_answer(Sides(sides.us, replace(sides.wallet, keys=keys))), errors.SignatureInvalid
    )


def test_any_known_key_verifies_an_envelope(
    sides: Sides, theirs: RSAPrivateKey, stranger: RSAPrivateKey
) -> None:
    raw = envelope_answer(sides)
    both = {"2": stranger.public_key(), "1": theirs.public_key()}
    for verifying, accepted in ((both, True), ({"2": both["2"]}, False), ({}, False)):
        us = replace(sides.us, keys=replace(sides.us.keys, verifying=verifying))
        if accepted:
            assert Sides(us, sides.wallet).open(raw).result.status == "S"
        else:
            refuses(Sides(us, sides.wallet), raw, errors.SignatureInvalid)


@pytest.mark.parametrize("end_announced", [True, False])
def test_envelope_cut_at_any_byte_is_never_accepted(sides: Sides, end_announced: bool) -> None:
    raw = envelope_answer(sides, end_announced=end_announced)
    for length in range(0, len(raw.body), 5):
        whole_text_missing = not end_announced and length > 0
        failure = errors.Truncated if whole_text_missing else errors.Unsigned
        refuses(sides, replace(raw, body=raw.body[:length]), failure)


def test_complete_body_that_ended_with_its_connection_is_accepted(sides: Sides) -> None:
    assert sides.open(envelope_answer(sides, end_announced=False)).result.status == "S"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b'"x"',
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"{1:2}",
        b"{,}",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
    ],
    ids=repr,
)
@pytest.mark.parametrize("end_announced", [True, False])
def test_body_that_is_not_an_object_is_unsigned(sides: Sides, body: bytes, end_announced: bool) -> None:
    refuses(sides, RawResponse(502, (), body, end_announced), errors.Unsigned)


def test_text_after_the_envelope_is_refused(sides: Sides) -> None:
    for rest in (b"x", b"{}", b"\0", b'{"response":{}}'):
        raw = envelope_answer(sides)
        refuses(sides, replace(raw, body=raw.body + rest), errors.Unsigned)


def test_two_correct_responses_in_one_second_with_equal_bytes_are_both_accepted(sides: Sides) -> None:
    first, second = envelope_answer(sides), envelope_answer(sides)
    assert first == second
    assert [sides.open(raw).result.status for raw in (first, second)] == ["S", "S"]


REFUSED_REQUESTS: Final[dict[str, tuple[Callable[[bytes], bytes], type[errors.CallError]]]] = {
    "no JSON": (lambda body: body[1:], errors.Malformed),
    "no signature": (lambda body: b'{"request":{}}', errors.SignatureInvalid),
    "one bit": (lambda body: body.replace(b"m-1", b"m-0"), errors.SignatureInvalid),
    "an answer": (lambda body: body.replace(b'"request"', b'"response"'), errors.SignatureInvalid),
    "two requests": (lambda body: b'{"request":{},' + body[1:], errors.Malformed),
}


@pytest.mark.parametrize(("alter", "failure"), REFUSED_REQUESTS.values(), ids=REFUSED_REQUESTS.keys())
def test_a_request_is_refused_by_the_same_rules(
    sides: Sides, alter: Callable[[bytes], bytes], failure: type[errors.CallError]
) -> None:
    sealed = sides.seal(b'{"merchantAccountId":"m-1"}')
    with pytest.raises(failure):
        sides.receive("/", (), alter(sealed.body))


def test_a_request_without_a_client_id_is_malformed(sides: Sides) -> None:
    content = envelope_content(clientId=None)
    body = envelope_signed.sealed_envelope("request", content, crypto.sign(sides.us.keys.signing, content))
    with pytest.raises(errors.Malformed):
        sides.receive("/", (), body)


def test_response_repeats_the_head_of_its_request(sides: Sides) -> None:
    request = VerifiedRequest(CLIENT_ID, {}, {"function": FUNCTION, "reqMsgId": "another"})
    raw = sides.reply(request, {"result": {"resultStatus": "S"}})
    assert sides.open(raw, request_id="another").result.status == "S"
    refuses(sides, raw, errors.Replayed)


def test_large_hostile_envelope_is_refused_quickly(sides: Sides) -> None:
    size = 256 * 1024
    for body in (
        b"[" * size,
        b'{"a":' + b"[" * size,
        b'{"a":' + b'"' * size,
        b'{"a":"' + b"\\" * size,
        b'{"a":"' + b'\\"' * (size // 2),
        b"{" + b'"a":1,' * (size // 6),
        b" " * size,
    ):
        started = time.perf_counter()
        with pytest.raises(errors.CallError):
            sides.open(RawResponse(200, (), body, end_announced=False))
        assert time.perf_counter() - started < 10
