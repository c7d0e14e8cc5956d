r"""Other ways to escape characters in the strings of the same JSON: `\uXXXX`, `\/`, or the characters.

Backslashes, slashes and characters that are not ASCII occur in strings only, so each change is applied to
the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from .drafts import Draft, Variant
from .json_forms import is_json

_ESCAPE: Final = re.compile(r"(?:\\u[0-9A-Fa-f]{4})+|\\.", re.DOTALL)
_LAST_CONTROL: Final = 0x1F

Change = Callable[[str], str]
"""Takes JSON, and returns it with other escapes."""


def escapes(draft: Draft) -> Iterator[Variant]:
    """Yield the JSON with other escapes."""
    try:
        text = draft.body.decode()
    except UnicodeDecodeError:
        return
    if is_json(draft.body):
        for phrase, change in _CHANGES:
            yield phrase, replace(draft, body=change(text).encode("utf-8", "surrogatepass"))


def _raw(text: str) -> str:
    return _without_slash(_without_u(text))


def _without_slash(text: str) -> str:
    return _ESCAPE.sub(lambda found: "/" if found[0] == r"\/" else found[0], text)


def _without_u(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        if not found[0].startswith(r"\u"):
            return found[0]
        units = bytes.fromhex(found[0].replace(r"\u", ""))
        try:
            raw = units.decode("utf-16-be")
        except UnicodeDecodeError:
            return found[0]
        kept = (ord(each) <= _LAST_CONTROL or each in '"\\' for each in raw)
        return found[0] if any(kept) else raw

    return _ESCAPE.sub(character, text)


def _escaped(characters: str, form: str) -> Change:
    """Return a change that writes these characters as escapes."""
    pattern = re.compile(f"(?:{characters})+")

    def unit(found: re.Match[str]) -> str:
        data = found[0].encode("utf-16-be", "surrogatepass")
        return "".join("\\u" + format(data[at] << 8 | data[at + 1], form) for at in range(0, len(data), 2))

    return lambda text: pattern.sub(unit, text)


def _with_slash(text: str) -> str:
    return _without_slash(text).replace("/", r"\/")


def _hex_case(form: Callable[[str], str]) -> Change:
    def change(found: re.Match[str]) -> str:
        return (
            found[0] if not found[0].startswith(r"\u") else r"\u" + form(found[0][2:]).replace("\\U", r"\u")
        )

    return lambda text: _ESCAPE.sub(change, text)


_NOT_ASCII: Final = "[^\x00-\x7f]"
_CHANGES: Final[tuple[tuple[str, Change], ...]] = (
    (r"/ instead of \/", _without_slash),
    (r"\/ instead of /", _with_slash),
    (r"characters instead of \uXXXX", _without_u),
    (r"characters instead of \uXXXX and \/", _raw),
    (r"\uxxxx instead of characters", _escaped(_NOT_ASCII, "04x")),
    (r"\uXXXX instead of characters", _escaped(_NOT_ASCII, "04X")),
    # PHP's json_encode: https://www.php.net/manual/en/function.json-encode.php
    (
        r"\uxxxx and \/ instead of characters",
        lambda text: _escaped(_NOT_ASCII, "04x")(_with_slash(text)),
    ),
    # Go's encoding/json: https://pkg.go.dev/encoding/json#HTMLEscape
    (r"\u003c, \u003e and \u0026 instead of <, > and &", _escaped("[<>&\u2028\u2029]", "04x")),
    # Gson without disableHtmlEscaping
    (r"\u003c, \u003d, \u0027 and others instead of <, = and '", _escaped("[<>&='\u2028\u2029]", "04x")),
    # .NET's System.Text.Json
    (r"\uXXXX instead of characters, <, >, &, ' and +", _escaped("[<>&'+`]|[^\x00-\x7e]", "04X")),
    (r"\uxxxx in lower case", _hex_case(str.lower)),
    (r"\uXXXX in upper case", _hex_case(str.upper)),
)
