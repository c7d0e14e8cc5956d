"""Harmless variants of AlipayHK's formats, which are read in responses only.

The signature covers the exact bytes of a response, so none of these variants can change its meaning. If
they were refused, a success would be lost, and its outcome would be unknown. Requests are read strictly.
"""

from __future__ import annotations

import re
from typing import Final

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LINE_BREAK: Final = re.compile(r"[\r\n]|%0[AaDd]")
_PLAIN_VALUE: Final = re.compile(r"[A-Za-z0-9_.+/=,-]*+(?:%(?!0[AaDd])[A-Za-z0-9_.+/=,-]*+)*+(?<!,)")
_ZONE_NAME: Final = re.compile(r"\[[A-Za-z0-9_/+-]{1,64}\]$")
MILLISECONDS: Final = re.compile(r"[0-9]{13}")
"""A time as milliseconds since 1970, from the years 2001 to 2286."""


def json_bytes(data: bytes) -> bytes:
    """Remove a byte order mark before JSON."""
    return data.removeprefix(_BYTE_ORDER_MARK)


def base64_text(text: str) -> str:
    """Remove line breaks from base64, also percent-encoded ones."""
    return _LINE_BREAK.sub("", text)


def header_value(value: str) -> str:
    """Remove line breaks, spaces around `=` and a comma at the end from `key=value,key=value`."""
    if _PLAIN_VALUE.fullmatch(value):
        return value
    parts = base64_text(value).rstrip(" \t").removesuffix(",").split(",")
    return ",".join("=".join(text.strip() for text in part.split("=", 1)) for part in parts)


def iso_time(text: str) -> str:
    """Return a time with `t` and `z` in capitals, and without a zone's name: `+08:00[Asia/Hong_Kong]`."""
    return _ZONE_NAME.sub("", text).upper()
