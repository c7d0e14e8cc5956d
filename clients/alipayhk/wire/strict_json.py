"""Read JSON strictly, write it compactly, and cut an object into the exact bytes of its members.

`json.loads` alone keeps the last of two members with the same name, accepts NaN, and raises RecursionError
on deep nesting. With each of these, two readers can understand the same text differently.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn, cast

DEPTH_MAX: Final = 32
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^ \t\n\r,:\[\]{}\"]++")
_BRACKET_OR_STRING: Final = re.compile(rb'[\[\]{}]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_COMPACT: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_OPENING: Final = b"[{"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class JsonError(ValueError):
    """The text is not JSON, or is JSON that is not accepted. The message quotes nothing of it."""


class IncompleteJson(JsonError):
    """The text ends inside a value."""


def write_json(value: object) -> bytes:
    """Return compact JSON in raw UTF-8, with members in the given order."""
    return _COMPACT.encode(value).encode()


def read_object(data: bytes, *, huge_as_infinite: bool = False) -> dict[str, object]:
    """Parse one JSON object; raise JsonError for anything that two readers could understand differently.

    Refused: duplicate members, NaN and infinities, more than 32 levels, invalid UTF-8, a byte order mark,
    and text after the object. A lone surrogate escape, which UTF-8 cannot represent, becomes U+FFFD.

    A number that is too large (1e999, or an integer with more than Python's limit of 4,300 digits) is
    refused too, because it cannot be written again. `huge_as_infinite` reads it as infinite instead. This
    is for AlipayHK's responses: no number in them is used, and an odd number must not undo a verified
    success. Infinity is still a number, so it is not mistaken for a string or an absent member.
    """
    decoder = _HUGE_AS_INFINITE if huge_as_infinite else _HUGE_REFUSED
    try:
        text = data.decode("utf-8")
        _check_depth(data)
        value = decoder.decode(text)
    except JsonError:
        raise
    except ValueError:
        # `from None`, because a JSONDecodeError contains the whole document.
        raise JsonError("not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise JsonError("not a JSON object")
    if "\\u" in text and "\\ud" in text.lower():
        return cast("dict[str, object]", _without_surrogates(value))
    return value


def member_bytes(data: bytes) -> list[tuple[str, bytes]]:
    """Split an object into its members, in order: each name with the exact bytes of its value.

    Values are scanned only to find where they end. Parse them with `read_object` after the signature has
    been verified. The caller must refuse two members with the same name.
    """
    members: list[tuple[str, bytes]] = []
    at = _skip(data, 0, b"{")
    more = data[at : at + 1] != b"}"
    while more:
        name, at = _name(data, at)
        start = _skip(data, at, b":")
        at = _value_end(data, start)
        members.append((name, data[start:at]))
        at = _space_end(data, at)
        more = data[at : at + 1] != b"}"
        if more:
            at = _skip(data, at, b",")
    if _space_end(data, at + 1) != len(data):
        raise JsonError("text after the object")
    return members


def _name(data: bytes, at: int) -> tuple[str, int]:
    end = _string_end(data, at)
    try:
        name = json.loads(data[at:end])
    except ValueError:
        raise JsonError("a member's name is not a JSON string") from None
    return cast("str", name), end


def _skip(data: bytes, at: int, mark: bytes) -> int:
    """Return the position after `mark` and the white space on both sides of it."""
    at = _space_end(data, at)
    _check_more(data, at)
    if data[at : at + 1] != mark:
        raise JsonError("not a JSON object")
    return _space_end(data, at + 1)


def _value_end(data: bytes, at: int) -> int:
    _check_more(data, at)
    if data[at : at + 1] == b'"':
        return _string_end(data, at)
    if data[at] in _OPENING:
        return _nested_end(data, at)
    match = _SCALAR.match(data, at)
    if match is None:
        raise JsonError("a member has no value")
    return match.end()


def _nested_end(data: bytes, at: int) -> int:
    depth = 0
    for match in _BRACKET_OR_STRING.finditer(data, at):
        first = data[match.start()]
        if first != ord('"'):
            depth += 1 if first in _OPENING else -1
            if depth == 0:
                return match.end()
    raise IncompleteJson("the text ends inside a value")


def _string_end(data: bytes, at: int) -> int:
    _check_more(data, at)
    match = _STRING.match(data, at)
    if match is not None:
        return match.end()
    if data[at : at + 1] == b'"':
        raise IncompleteJson("the text ends inside a string")
    raise JsonError("not a JSON string")


def _space_end(data: bytes, at: int) -> int:
    match = _SPACE.match(data, at)
    return match.end() if match else at


def _check_more(data: bytes, at: int) -> None:
    if at >= len(data):
        raise IncompleteJson("the text ends early")


def _check_depth(data: bytes) -> None:
    if data.count(b"{") + data.count(b"[") <= DEPTH_MAX:
        return
    depth = 0
    for match in _BRACKET_OR_STRING.finditer(data):
        first = data[match.start()]
        if first != ord('"'):
            depth += 1 if first in _OPENING else -1
            if depth > DEPTH_MAX:
                raise JsonError("nested too deeply")


def _members_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonError("two members have the same name")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise JsonError("NaN and infinities are not JSON")


def _number(kind: Callable[[str], float], text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        # json checked the grammar, so this is an integer beyond Python's limit of digits.
        return float(text)


def _held_number(kind: Callable[[str], float], text: str) -> float:
    value = _number(kind, text)
    if abs(value) == math.inf:
        raise JsonError("a number is too large")
    return value


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return _members_once(
            [(_SURROGATE.sub("\ufffd", name), _without_surrogates(item)) for name, item in value.items()]
        )
    return value


def _decoder(number: Callable[[Callable[[str], float], str], float]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_members_once,
        parse_constant=_refuse_constant,
        parse_int=partial(number, int),
        parse_float=partial(number, float),
    )


_HUGE_AS_INFINITE: Final = _decoder(_number)
_HUGE_REFUSED: Final = _decoder(_held_number)
