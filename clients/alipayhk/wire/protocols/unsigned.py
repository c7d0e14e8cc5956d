"""An answer without a signature: what may still be told of it, as a claim and no more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ..errors import Unsigned
from ..messages import RawResponse
from ..strict_json import JsonError, read_object

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def unsigned(raw: RawResponse, cause: str) -> Unsigned:
    """Describe an unsigned answer; never a success, and never a definite failure."""
    return Unsigned(
        cause,
        http_status=raw.http_status,
        claimed_code=_claimed_code(raw.body),
        retry_after_s=raw.retry_after_s,
    )


def _claimed_code(body: bytes) -> str:
    """Find the result code that the body claims, header-signed or in an envelope; else nothing."""
    try:
        members: object = read_object(body, huge_as_infinite=True)
    except JsonError:
        return ""
    envelope_body = _member(_member(members, "response"), "body")
    for holder in (members, envelope_body):
        for name in ("result", "resultInfo"):
            code = _member(_member(holder, name), "resultCode")
            if isinstance(code, str) and _CODE.fullmatch(code):
                return code
    return ""


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, Mapping) else None
