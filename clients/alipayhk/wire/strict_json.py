"""One strict way to read JSON, one compact way to write it, and the exact bytes of a member.

`json.loads` alone keeps the last of two members of one name, accepts NaN, and raises RecursionError
on deep nesting: each of them lets two readers of one text disagree.
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
_OPENING: Final = b"[{"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class JsonError(ValueError):
    """The text is not the JSON that is accepted here. The message holds none of it."""


class IncompleteJson(JsonError):
    """The text ends before its value does."""


def write_json(value: object) -> bytes:
    """Write compact JSON in raw UTF-8, members in the order given."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def read_object(data: bytes, *, huge_as_infinite: bool = False) -> dict[str, object]:
    """Read one JSON object; raise JsonError for anything that two readers might read differently.

    Refused: duplicate members, NaN and infinities, more than 32 levels, bad UTF-8, a byte order mark,
    text after the object. A lone surrogate escape, which no UTF-8 can hold, is read as U+FFFD.

    A number too large to hold (1e999, or an integer of more digits than Python reads, 4,300) is
    refused too: it could not be written again. `huge_as_infinite` is for AlipayHK's answers, where it
    must not undo a verified S: there it is read as infinite, as by readers that know doubles only. So
    it stays a number, and passes for no text and no absent member; no number of an answer is used.
    """
    number = _number if huge_as_infinite else _held_number
    try:
        text = data.decode("utf-8")
        _check_depth(data)
        value = json.loads(
            text,
            object_pairs_hook=_members_once,
            parse_constant=_refuse_constant,
            parse_int=partial(number, int),
            parse_float=partial(number, float),
        )
    except JsonError:
        raise
    except ValueError:
        # Not chained on purpose: a JSONDecodeError carries the whole document.
        raise JsonError("not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise JsonError("not a JSON object")
    return cast("dict[str, object]", _without_surrogates(value) if "\\ud" in text.lower() else value)


def member_bytes(data: bytes) -> list[tuple[str, bytes]]:
    """Cut an object into its members, in order: each name with the exact bytes of its value.

    Values are not checked beyond finding where they end: read what was cut with `read_object`, after
    its signature has been verified. Two members of one name are the caller's to refuse.
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
    """Pass over `mark` and the space on both sides of it."""
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
        raise JsonError("two members have one name")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise JsonError("NaN and infinities are not JSON")


def _number(kind: Callable[[str], float], text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        # The grammar has been checked: only Python's limit on the digits of an int ends here.
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
