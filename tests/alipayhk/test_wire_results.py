"""The meaning of the statuses S, F and others in a verified response, and codes in unsigned ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.alipayhk.wire import errors
from clients.alipayhk.wire.messages import Headers, RawResponse
from clients.alipayhk.wire.protocols.result_body import result_of
from clients.alipayhk.wire.result import Result
from clients.alipayhk.wire.strict_json import write_json
from tests.alipayhk.sides import NOW, Sides, answer, modest

ODD: Final[list[Any]] = [None, 0, 1.5, True, [], {}, ["x"], {"x": "y"}]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("name", ["resultCode", "resultCodeId", "resultMessage", "resultMsg"])
def test_odd_optional_member_never_undoes_a_success(sides: Sides, name: str, odd: object) -> None:
    body = write_json({"result": {"resultStatus": "S", name: odd}, "accountInfo": odd, "needBind": odd})
    code = "0" if odd == 0 and name.startswith("resultCode") else ""
    codes = {"resultCode": "code", "resultCodeId": "code_id"}
    expected = Result("S", **({codes[name]: code} if code else {}))
    assert sides.open(answer(sides, body)).result == expected


NUMBERS: Final = {"0": "0", "-1": "-1", "200": "200", "12345678901234567890": "12345678901234567890"}


@pytest.mark.parametrize(("number", "text"), NUMBERS.items())
def test_numeric_code_is_read_as_its_digits(sides: Sides, number: str, text: str) -> None:
    body = '{"result":{"resultStatus":"F","resultCode":NUMBER,"resultCodeId":NUMBER}}'
    opened = sides.open(answer(sides, body.replace("NUMBER", number).encode()))
    assert opened.result == Result("F", text, text)


def test_status_s_alone_is_a_success(sides: Sides) -> None:
    assert sides.open(answer(sides, b'{"result":{"resultStatus":"S"}}')).result == Result("S")


@pytest.mark.parametrize("code", ["SUCCESS", "0000", "00000000", "PROCESS_FAIL", "anything"])
def test_status_decides_whatever_the_code_is(sides: Sides, code: str) -> None:
    body = write_json({"result": {"resultStatus": "S", "resultCode": code}})
    assert sides.open(answer(sides, body)).result == Result("S", code)


SPELLINGS: Final[dict[str, tuple[dict[str, object], Result]]] = {
    "result": ({"result": {"resultStatus": "S", "resultCode": "0000"}}, Result("S", "0000")),
    "resultInfo": ({"resultInfo": {"resultStatus": "S", "resultCode": "0000"}}, Result("S", "0000")),
    "result before resultInfo": (
        {"resultInfo": {"resultStatus": "S"}, "result": {"resultStatus": "F", "resultCode": "X"}},
        Result("F", "X"),
    ),
    "resultMsg": ({"result": {"resultStatus": "S", "resultMsg": "m"}}, Result("S", message="m")),
    "resultMessage before resultMsg": (
        {"result": {"resultStatus": "S", "resultMsg": "m", "resultMessage": "n"}},
        Result("S", message="n"),
    ),
    "resultInfo beside a null result": (
        {"result": None, "resultInfo": {"resultStatus": "S", "resultCode": "0000"}},
        Result("S", "0000"),
    ),
    "resultInfo beside a text": ({"result": "S", "resultInfo": {"resultStatus": "S"}}, Result("S")),
    "result beside a null resultInfo": (
        {"resultInfo": None, "result": {"resultStatus": "S"}},
        Result("S"),
    ),
    "resultMsg beside a null resultMessage": (
        {"result": {"resultStatus": "S", "resultMessage": None, "resultMsg": "m"}},
        Result("S", message="m"),
    ),
    "resultMsg beside a number": (
        {"result": {"resultStatus": "S", "resultMessage": 1, "resultMsg": "m"}},
        Result("S", message="m"),
    ),
    "resultMessage beside a null resultMsg": (
        {"result": {"resultStatus": "S", "resultMessage": "n", "resultMsg": None}},
        Result("S", message="n"),
    ),
    "resultCodeId": ({"result": {"resultStatus": "S", "resultCodeId": "1"}}, Result("S", code_id="1")),
    "verbatim": (
        {"result": {"resultStatus": "F", "resultCode": " ä\n", "resultMessage": "陳 "}},
        Result("F", " ä\n", message="陳 "),
    ),
    "U": ({"result": {"resultStatus": "U"}}, Result("U")),
    "another status": ({"result": {"resultStatus": "s"}}, Result("s")),
    "an empty status": ({"result": {"resultStatus": ""}}, Result("")),
}


@pytest.mark.parametrize(("body", "result"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_result_is_read_in_every_documented_spelling(body: dict[str, object], result: Result) -> None:
    assert result_of(body) == result


@pytest.mark.parametrize("code", [None, True, 1.5, ["X"]], ids=repr)
def test_an_f_without_a_code_is_malformed(sides: Sides, code: object) -> None:
    for members in ({"resultStatus": "F"}, {"resultStatus": "F", "resultCode": code}):
        with pytest.raises(errors.Malformed):
            sides.open(answer(sides, write_json({"result": members})))


def test_empty_code_with_status_f_is_malformed() -> None:
    with pytest.raises(errors.Malformed):
        result_of({"result": {"resultStatus": "F", "resultCode": ""}})


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"result":null}',
        b'{"result":null,"resultInfo":[]}',
        b'{"result":"S"}',
        b'{"result":["S"]}',
        b'{"result":{}}',
        b'{"result":{"resultStatus":null}}',
        b'{"result":{"resultStatus":1}}',
        b'{"result":{"resultStatus":["S"]}}',
        b'{"Result":{"resultStatus":"S"}}',
        b'{"resultStatus":"S"}',
    ],
    ids=bytes.decode,
)
def test_a_signed_response_without_a_result_is_malformed(sides: Sides, body: bytes) -> None:
    with pytest.raises(errors.Malformed):
        sides.open(answer(sides, body))


BAD_JSON: Final = {
    "NaN": b'{"result":{"resultStatus":"S"},"a":NaN}',
    "Infinity": b'{"result":{"resultStatus":"S"},"a":Infinity}',
    "-Infinity": b'{"result":{"resultStatus":"S"},"a":-Infinity}',
    "depth 100": b'{"result":{"resultStatus":"S"},"a":' + b"[" * 100 + b"]" * 100 + b"}",
    "bad UTF-8": b'{"result":{"resultStatus":"S"},"a":"\xff"}',
    "an encoded surrogate": b'{"result":{"resultStatus":"S"},"a":"\xed\xa0\x80"}',
    "an overlong encoding": b'{"result":{"resultStatus":"S"},"a":"\xc0\xaf"}',
    "a control character": b'{"result":{"resultStatus":"S"},"a":"\n"}',
    "a trailing comma": b'{"result":{"resultStatus":"S"},}',
    "single quotes": b"{'result':{'resultStatus':'S'}}",
    "a comment": b'{"result":{"resultStatus":"S"}/**/}',
    "a leading zero": b'{"result":{"resultStatus":"S"},"a":01}',
    "two results": b'{"result":{"resultStatus":"F"},"result":{"resultStatus":"S"}}',
    "two results, one escaped": b'{"result":{"resultStatus":"F"},"r\\u0065sult":{"resultStatus":"S"}}',
    "two statuses": b'{"result":{"resultStatus":"F","resultStatus":"S"}}',
    "two members deep inside": b'{"result":{"resultStatus":"S"},"a":[{"b":{"c":1,"c":1}}]}',
}


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_ambiguous_signed_response_is_malformed(sides: Sides, body: bytes) -> None:
    with pytest.raises(errors.Malformed):
        sides.open(answer(sides, body))


def test_byte_order_mark_before_the_object_is_skipped(header_sides: Sides) -> None:
    body = b'\xef\xbb\xbf{"result":{"resultStatus":"S"}}'
    assert header_sides.open(answer(header_sides, body)).result == Result("S")
    with pytest.raises(errors.SignatureInvalid):
        header_sides.open(replace(answer(header_sides, body), body=body[3:]))


def test_two_byte_order_marks_or_text_after_the_object_are_malformed(header_sides: Sides) -> None:
    whole = b'{"result":{"resultStatus":"S"}}'
    for body in (
        b"\xef\xbb\xbf" * 2 + whole,
        "\ufeff".encode("utf-16-be") + whole,
        whole + b"x",
        whole + whole,
        whole + b"\0",
        b"[" + whole + b"]",
        b"",
    ):
        with pytest.raises(errors.Malformed):
            header_sides.open(answer(header_sides, body))


def test_lone_surrogate_does_not_undo_a_success(sides: Sides) -> None:
    body = b'{"result":{"resultStatus":"S","resultMessage":"a\\ud800b"},"c\\uDFFF":["\\ud83e\\udde7"]}'
    opened = sides.open(answer(sides, body))
    assert opened.result.status == "S"
    assert opened.result.message.encode().startswith(b"a\xef\xbf\xbd")
    assert ["🧧"] in opened.body.values()
    assert write_json(dict(opened.body))


HUGE: Final = [b"1e999", b"-1e999", b"1" * 4301, b"-" + b"9" * 5000]


@pytest.mark.parametrize("huge", HUGE, ids=["1e999", "-1e999", "4301 digits", "-5000 digits"])
def test_too_large_number_does_not_undo_a_success(sides: Sides, huge: bytes) -> None:
    members = (
        b'"resultCode":HUGE,"resultMessage":HUGE,"x":[HUGE]},"needBind":HUGE,"accountInfo":{"a":HUGE}}'
    )
    body = b'{"result":{"resultStatus":"S",' + members.replace(b"HUGE", huge)
    opened = sides.open(answer(sides, body))
    assert opened.result == Result("S")
    # Python cannot write an integer with so many digits.
    assert "inf" in str(opened.body["needBind"])


@pytest.mark.parametrize("huge", HUGE, ids=["1e999", "-1e999", "4301 digits", "-5000 digits"])
def test_too_large_number_is_not_a_status_code_or_result(sides: Sides, huge: bytes) -> None:
    for body in (
        b'{"result":HUGE}',
        b'{"result":{"resultStatus":HUGE}}',
        b'{"result":{"resultStatus":"F","resultCode":HUGE}}',
    ):
        with pytest.raises(errors.Malformed):
            sides.open(answer(sides, body.replace(b"HUGE", huge)))


CLAIMS: Final = {
    "beside a number too large to hold": (
        b'{"result":{"resultCode":"KEY_NOT_FOUND"},"a":1e999,"b":' + b"1" * 5000 + b"}",
        "KEY_NOT_FOUND",
    ),
    "header_signed": (b'{"result":{"resultCode":"KEY_NOT_FOUND"}}', "KEY_NOT_FOUND"),
    "resultInfo": (b'{"resultInfo":{"resultCode":"INVALID_CLIENT"}}', "INVALID_CLIENT"),
    "in an envelope": (b'{"response":{"body":{"result":{"resultCode":"0001"}}}}', "0001"),
    "resultInfo in an envelope": (b'{"response":{"body":{"resultInfo":{"resultCode":"a.b-c"}}}}', "a.b-c"),
    "64 characters": (b'{"result":{"resultCode":"' + b"A" * 64 + b'"}}', "A" * 64),
    "65 characters": (b'{"result":{"resultCode":"' + b"A" * 65 + b'"}}', ""),
    "other characters": (b'{"result":{"resultCode":"A B"}}', ""),
    "a line feed at the end": (b'{"result":{"resultCode":"A\\n"}}', ""),
    "not text": (b'{"result":{"resultCode":1}}', ""),
    "no result": (b'{"response":[],"result":"x"}', ""),
    "HTML": (b"<html>KEY_NOT_FOUND</html>", ""),
    "nothing": (b"", ""),
    "two of them": (b'{"result":{"resultCode":"A","resultCode":"B"}}', ""),
    "a list": (b'[{"result":{"resultCode":"A"}}]', ""),
    "depth 100000": (b"[" * 100_000, ""),
}


@pytest.mark.parametrize(("body", "claimed"), CLAIMS.values(), ids=CLAIMS.keys())
def test_unsigned_body_gives_an_unverified_code_only(sides: Sides, body: bytes, claimed: str) -> None:
    with pytest.raises(errors.Unsigned) as caught:
        sides.open(RawResponse(403, (("Retry-After", "7"),), body))
    error = caught.value
    assert (error.claimed_code, error.http_status, error.retry_after_s) == (claimed, 403, 7.0)


LATER: Final = "Wed, 22 May 2024 01:14:30 GMT"
RETRY_AFTER: Final[dict[str, tuple[Headers, float]]] = {
    "seconds": ((("Retry-After", "120"),), 120.0),
    "in any case, with space": ((("retry-after", " 3 "),), 3.0),
    "absent": ((), 0.0),
    "a date": ((("Retry-After", "Wed, 22 May 2024 01:14:22 GMT"),), 119.6),
    "a date after the header Date": (
        (("Retry-After", LATER), ("Date", "Wed, 22 May 2024 01:14:00 GMT")),
        30.0,
    ),
    "a date beside an unreadable Date": ((("Retry-After", LATER), ("Date", "soon")), 127.6),
    "the date of RFC 850": ((("Retry-After", "Wednesday, 22-May-24 01:14:30 GMT"),), 127.6),
    "the date of asctime": ((("Retry-After", "Wed May 22 01:14:30 2024"),), 127.6),
    "a date in the past": ((("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),), 0.0),
    "a date that does not exist": ((("Retry-After", "Wed, 32 May 2024 01:14:22 GMT"),), 0.0),
    "a year of five digits": ((("Retry-After", "Wed, 22 May 99999 01:14:22 GMT"),), 0.0),
    "an offset that is too large": ((("Retry-After", "Wed, 22 May 2024 01:14:22 +9999999999"),), 0.0),
    "a long text": ((("Retry-After", "(" * 10_000 + LATER),), 0.0),
    "negative": ((("Retry-After", "-1"),), 0.0),
    "a fraction": ((("Retry-After", "1.5"),), 0.0),
    "digits of another script": ((("Retry-After", "٣"),), 0.0),
    "superscript": ((("Retry-After", "²"),), 0.0),
    "six digits": ((("Retry-After", "999999"),), 999_999.0),
    "seven digits": ((("Retry-After", "1000000"),), 0.0),
    "the first of two": ((("Retry-After", "1"), ("Retry-After", "2")), 1.0),
}


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER.values(), ids=RETRY_AFTER.keys())
def test_retry_after_is_read_as_whole_seconds_or_as_a_date(headers: Headers, seconds: float) -> None:
    assert RawResponse(503, headers, b"").retry_after_s(NOW) == pytest.approx(seconds)


@modest(200)
@given(
    st.text(max_size=80) | st.from_regex("[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:+ -]*")
)
def test_arbitrary_retry_after_is_never_an_exception(text: str) -> None:
    assert RawResponse(503, (("Retry-After", text), ("Date", text)), b"").retry_after_s(NOW) >= 0


TRACER_IDS: Final = {
    "plain": ("0be4c8", "0be4c8"),
    "control characters and other scripts": ("a\x1b[31m\tb\u202ec é", "a[31mbc "),
    "too long": ("x" * 1000, "x" * 128),
    "empty": ("", ""),
}


@pytest.mark.parametrize(("value", "shown"), TRACER_IDS.values(), ids=TRACER_IDS.keys())
def test_tracer_id_is_reduced_to_printable_ascii(value: str, shown: str) -> None:
    assert RawResponse(200, (("Tracer-ID", value),), b"").tracer_id == shown
    assert RawResponse(200, (), b"").tracer_id == ""
