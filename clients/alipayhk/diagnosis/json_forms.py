"""The same JSON with other white space.

Numbers and strings are never written anew: each function changes the received text in one respect only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from .drafts import Draft, Variant

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRINGS: Final = re.compile(rb"(" + _STRING + rb")", re.DOTALL)
TOKEN: Final = re.compile(_STRING + rb'|[{}\[\],:]|[^ \t\r\n{}\[\],:"]++', re.DOTALL)
_SPACE: Final = b" \t\r\n"
DEPTH_MAX: Final = 64

Write = Callable[[bytes], bytes]
"""Takes compact JSON and returns the same JSON with other white space."""


def is_json(data: bytes) -> bool:
    """Return whether it looks like a JSON object or array."""
    text = data.strip(_SPACE)
    return text[:1] + text[-1:] in (b"{}", b"[]")


def compact(data: bytes) -> bytes:
    """Remove the white space between tokens."""
    return _outside_strings(data, lambda part: part.translate(None, _SPACE))


def _outside_strings(data: bytes, change: Write) -> bytes:
    parts = _STRINGS.split(data)
    parts[::2] = map(change, parts[::2])
    return b"".join(parts)


def _spaced(comma: bytes, colon: bytes) -> Write:
    def write(data: bytes) -> bytes:
        return _outside_strings(data, lambda part: part.replace(b",", comma).replace(b":", colon))

    return write


def _in_braces(data: bytes) -> bytes:
    """Write spaces as `{ "a": 1, "b": {} }`."""

    def change(part: bytes) -> bytes:
        opened = part.replace(b"{", b"{ ").replace(b"}", b" }").replace(b"{  }", b"{}")
        return opened.replace(b",", b", ").replace(b":", b": ")

    return _outside_strings(data, change)


def _indented(indent: bytes, colon: bytes) -> Write:
    def write(data: bytes) -> bytes:
        written, depth, tokens = list[bytes](), 0, TOKEN.findall(data)
        for token, after in zip(tokens, [*tokens[1:], b""], strict=True):
            empty = token + after in (b"{}", b"[]")
            depth += (token in b"{[") - (after in (b"}", b"]") and not empty)
            if depth < 0 or depth > DEPTH_MAX:
                return data
            written.append(colon if token == b":" else token)
            depth -= token in b"{[" and empty
            if not empty and (token in b"{[," or after in (b"}", b"]")):
                written.append(b"\n" + indent * depth)
        return b"".join(written)

    return write


ON_ONE_LINE: Final[dict[str, Write]] = {
    "compact JSON": bytes,
    "JSON with spaces after commas and colons": _spaced(b", ", b": "),
    "JSON with spaces after colons": _spaced(b",", b": "),
    "JSON with spaces after commas": _spaced(b", ", b":"),
    "JSON with spaces inside braces": _in_braces,
}
STYLES: Final = {
    **ON_ONE_LINE,
    **{f"JSON indented by {width} spaces": _indented(b" " * width, b": ") for width in (1, 2, 3, 4, 8)},
    "JSON indented by tabs": _indented(b"\t", b": "),
    "JSON indented by 2 spaces, with spaces around colons": _indented(b"  ", b" : "),
}


def whitespace(draft: Draft) -> Iterator[Variant]:
    """Yield the JSON with other white space."""
    if is_json(draft.body):
        tokens, core = compact(draft.body), draft.body.strip(_SPACE)
        before, after = draft.body.split(core, 1)
        for phrase, write in STYLES.items():
            yield phrase, replace(draft, body=before + write(tokens) + after)
        yield "JSON without the white space around it", replace(draft, body=core)
