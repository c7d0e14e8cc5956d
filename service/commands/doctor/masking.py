"""Mask what can be personal data in the text of a message, and keep everything that a diagnosis shows.

In JSON, each letter and digit becomes `*`. Lengths, white space, escapes and punctuation stay, because they
are what differs between the content to sign and the signed content. Of anything else only the length stays:
a number of eight digits can be found from a part of its hash, or of its compressed form.
"""

from __future__ import annotations

import re
from typing import Final

SHOWN: Final = frozenset(
    (
        *("clientId", "function", "reqTime", "respTime", "version", "bizType", "operateType"),
        *("externalIdentityType", "bindingTargetType", "resultStatus", "resultCode", "resultCodeId"),
        *("needBind", "type", "subType", "source", "status", "autoDebitStatus"),
    )
)
"""Members whose values are shown: none of them is personal data."""
_MEMBER: Final = re.compile(
    r"""(?P<name>"(?:[^"\\]|\\.)*+"?)(?P<colon>\s*:\s*)?|(?P<value>[^\s"{}\[\],:]+)""", re.DOTALL
)
_FRAME: Final = re.compile(
    r"""(?:(?P<path>\ufeff?POST [^\s?{]*)(?P<query>\?[^\s{\\]*)?(?P<line_break>\r\n|\\n|\r|\n| )?)?"""
    r"""(?P<names>[^\s{}"\[]{0,128}?\.[0-9TZtz:+ %A-F.-]{0,64}\.)?"""
)
"""The text before the body of a header-signed message, with client id and time as `names`."""
_LETTER: Final = re.compile(r"\\u[0-9A-Fa-f]{4}|\\.|[0-9A-Za-z]|[^\x00-\x7f\ufeff\u00a0\u200b]", re.DOTALL)
_ESCAPED_BYTE: Final = re.compile(r"\\x[0-9a-f]{2}")
_KEYWORDS: Final = ("true", "false", "null")


def masked(text: str) -> str:
    """Return the text with the values of JSON members masked, but for those in SHOWN.

    Before JSON, a path (without its query), a client id and a time are kept. Other text is masked whole,
    except line breaks at its end.
    """
    frame = _FRAME.match(text)
    path, query, line_break, names = (part or "" for part in frame.groups()) if frame else ("",) * 4
    rest = text[len(path + query + line_break + names) :]
    is_json = rest.lstrip("\ufeff \t\r\n").startswith(("{", "[", '"'))
    if not path and not is_json:
        return _hidden(text)
    return path + _stars(query) + line_break + names + (_masked_json(rest) if is_json else _hidden(rest))


def _hidden(text: str) -> str:
    """Return a star for each byte, of which some are written as escapes."""
    kept = text.rstrip("\r\n")
    return "*" * len(_ESCAPED_BYTE.sub("*", kept).encode()) + text[len(kept) :]


def _masked_json(text: str) -> str:
    name = ""

    def token(found: re.Match[str]) -> str:
        nonlocal name
        if found["colon"] is not None:
            name = found["name"][1:-1]
            return found[0]
        shown = name in SHOWN or found[0] in _KEYWORDS
        return found[0] if shown else _stars(found[0])

    return _MEMBER.sub(token, text)


def _stars(text: str) -> str:
    return _LETTER.sub(_star, text)


def _star(found: re.Match[str]) -> str:
    if found[0].startswith("\\u"):
        return "\\u****"
    return found[0] if found[0].startswith("\\") else "*"
