"""Reading JSON strictly, and the exact bytes of a member."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from typing import Any, Final

import pytest

from clients.alipayhk.wire.strict_json import (
    DEPTH_MAX,
    IncompleteJson,
    JsonError,
    member_bytes,
    read_object,
    write_json,
)


def nested(levels: int) -> bytes:
    """Return an object with this many levels."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_object_of_32_levels_is_read_and_of_33_is_refused() -> None:
    assert read_object(nested(DEPTH_MAX))
    with pytest.raises(JsonError):
        read_object(nested(DEPTH_MAX + 1))


def test_values_next_to_each_other_are_on_one_level() -> None:
    assert read_object(nested(DEPTH_MAX)[:-1] + b',"b":[[],{}],"c":[[],{}]}')
    with pytest.raises(JsonError):
        read_object(b'{"b":[[],{}],' + nested(DEPTH_MAX + 1)[1:])


def test_brackets_in_strings_do_not_count_as_levels() -> None:
    text = '"[[[{{{' * 20 + '\\"'
    assert read_object(write_json({"a": text, text: [text, {text: text}]})) == {
        "a": text,
        text: [text, {text: text}],
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b'"a"',
        b"null",
        b"1",
        b"NaN",
        b"{}x",
        b"\xef\xbb\xbf{}",
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":1}',
        "{}".encode("utf-16"),
        "{}".encode("utf-32"),
        b'{"a":"\x00"}',
    ],
    ids=repr,
)
def test_text_that_is_not_one_object_in_utf8_is_refused(data: bytes) -> None:
    with pytest.raises(JsonError):
        read_object(data)


def test_a_lone_surrogate_is_read_as_one_replacement_character() -> None:
    assert read_object(b'{"a":"x\\ud800y","b":"\\uDFFF","c":"\\ud83e\\udde7"}') == {
        "a": "x\ufffdy",
        "b": "\ufffd",
        "c": "🧧",
    }


def test_escaped_backslash_before_ud_is_not_a_surrogate() -> None:
    assert read_object(b'{"a":"\\\\ud800"}') == {"a": "\\ud800"}


def test_names_that_differ_in_a_lone_surrogate_only_are_duplicates() -> None:
    for data in (b'{"\\ud800":1,"\\ud801":2}', b'{"a":[{"\\ud800":1,"\\ufffd":2}]}'):
        with pytest.raises(JsonError):
            read_object(data)


HUGE: Final[dict[bytes, float]] = {
    b"1e999": math.inf,
    b"-1e999": -math.inf,
    b"1" * 4301: math.inf,
    b"-" + b"9" * 5000: -math.inf,
}


@pytest.mark.parametrize("number", HUGE, ids=["1e999", "-1e999", "4301 digits", "-5000 digits"])
def test_too_large_number_is_refused_or_read_as_infinite_on_request(number: bytes) -> None:
    for data in (b'{"a":' + number + b"}", b'{"a":[{"b":' + number + b"}]}"):
        with pytest.raises(JsonError, match="a number is too large"):
            read_object(data)
        assert read_object(data, huge_as_infinite=True)
    assert read_object(b'{"a":' + number + b"}", huge_as_infinite=True) == {"a": HUGE[number]}


@pytest.mark.parametrize("huge_as_infinite", [False, True])
def test_largest_numbers_are_read_exactly(huge_as_infinite: bool) -> None:
    data = b'{"a":1.7976931348623157e308,"b":' + b"9" * 4300 + b',"c":1e-999,"d":-0,"e":1}'
    value = read_object(data, huge_as_infinite=huge_as_infinite)
    assert value == {"a": sys.float_info.max, "b": 10**4300 - 1, "c": 0.0, "d": 0, "e": 1}
    assert [type(member) for member in value.values()] == [float, int, float, int, int]
    assert read_object(write_json(value)) == value


@pytest.mark.parametrize("constant", [b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf", b"1e", b"01"])
def test_invalid_number_is_refused_with_both_settings(constant: bytes) -> None:
    for huge_as_infinite in (False, True):
        with pytest.raises(JsonError):
            read_object(b'{"a":' + constant + b"}", huge_as_infinite=huge_as_infinite)


def test_json_is_written_compactly_in_raw_utf8_and_in_order() -> None:
    assert (
        write_json({"b": "陳🧧", "a": [1, None, True, 1.5], "": {}})
        == '{"b":"陳🧧","a":[1,null,true,1.5],"":{}}'.encode()
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_never_written(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json({"a": value})


MEMBERS: Final[dict[str, tuple[bytes, list[tuple[str, bytes]]]]] = {
    "none": (b"{}", []),
    "none, with space": (b" {\n} ", []),
    "one": (b'{"a":1}', [("a", b"1")]),
    "space is cut off": (b'{ "a" : 1 , "b" :\t"x" }', [("a", b"1"), ("b", b'"x"')]),
    "every kind": (
        b'{"a":-1.5e+3,"b":true,"c":null,"d":[],"e":{},"f":""}',
        [("a", b"-1.5e+3"), ("b", b"true"), ("c", b"null"), ("d", b"[]"), ("e", b"{}"), ("f", b'""')],
    ),
    "brackets in strings": (b'{"a":{"}":"]["},"b":["\\"]"]}', [("a", b'{"}":"]["}'), ("b", b'["\\"]"]')]),
    "backslashes": (b'{"a":"\\\\","b":"\\\\\\""}', [("a", b'"\\\\"'), ("b", b'"\\\\\\""')]),
    "escaped names": (b'{"\\u0061\\"":1}', [('a"', b"1")]),
    "the same name twice": (b'{"a":1,"\\u0061":2}', [("a", b"1"), ("a", b"2")]),
    "space inside a value stays": (b'{"a":{ "b" : 1 }}', [("a", b'{ "b" : 1 }')]),
}


@pytest.mark.parametrize(("data", "members"), MEMBERS.values(), ids=MEMBERS.keys())
def test_members_are_split_with_their_exact_bytes(data: bytes, members: list[tuple[str, bytes]]) -> None:
    assert member_bytes(data) == members


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b'{"',
        b'{"a',
        b'{"a"',
        b'{"a" ',
        b'{"a":',
        b'{"a":1',
        b'{"a":1,',
        b'{"a":"',
        b'{"a":"\\',
        b'{"a":"\\"',
        b'{"a":[',
        b'{"a":[{}',
        b'{"a":{"b":"}',
        b'{"a":1 ',
    ],
    ids=repr,
)
def test_text_that_ends_early_is_incomplete(data: bytes) -> None:
    with pytest.raises(IncompleteJson):
        member_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"x",
        b'{"a":1}x',
        b"{}{}",
        b"{a:1}",
        b"{'a':1}",
        b'{"a"=1}',
        b'{"a":1;"b":2}',
        b'{"a":}',
        b'{"a":,}',
        b'{"a":1,}',
        b"{,}",
        b'{"\\x":1}',
        b'{"\n":1}',
        b'{"\xff":1}',
        b'{"a":]}',
        b'{"a"::1}',
        b'{"a":1 2}',
        b"\xef\xbb\xbf{}",
    ],
    ids=repr,
)
def test_text_that_is_not_an_object_is_refused(data: bytes) -> None:
    with pytest.raises(JsonError) as caught:
        member_bytes(data)
    assert not isinstance(caught.value, IncompleteJson)


NASTY: Final[dict[str, bytes]] = {
    "opening brackets": b"[",
    "opening braces": b"{",
    "quotes": b'"',
    "backslashes": b"\\",
    "escaped quotes": b'\\"',
    "quotes and backslashes": b'"\\',
    "empty strings": b'"",',
    "brackets in turn": b"[]",
    "members": b'"a":1,',
    "spaces": b" ",
    "space and quote": b' "',
    "digits": b"1",
}


@pytest.mark.parametrize("parse", [member_bytes, read_object])
@pytest.mark.parametrize("before", [b"", b'{"a":', b'{"a":"', b'{"a":["'], ids=repr)
@pytest.mark.parametrize("unit", NASTY.values(), ids=NASTY.keys())
def test_256_kib_of_hostile_text_are_read_quickly(unit: bytes, before: bytes, parse: Any) -> None:
    data = before + unit * (256 * 1024 // len(unit))
    started = time.perf_counter()
    with contextlib.suppress(JsonError):
        parse(data)
    # A parser with quadratic time would take minutes.
    assert time.perf_counter() - started < 10
