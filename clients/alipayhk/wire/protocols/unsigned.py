"""Responses without a signature: report their result code as unverified.

AlipayHK's sibling Antom does not sign the response to a request whose signature it refused:
https://docs.antom.com/ac/ams/digital_signature. So an unsigned response can explain a misconfiguration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from .. import lenient
from ..errors import Unsigned
from ..messages import RawResponse
from ..strict_json import JsonError, read_object

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def unsigned(raw: RawResponse, cause: str, now: datetime) -> Unsigned:
    """Return the error for an unsigned response: it proves neither success nor failure.

    `now` is when it was received.
    """
    return Unsigned(
        cause,
        http_status=raw.http_status,
        claimed_code=_claimed_code(raw.body),
        retry_after_s=raw.retry_after_s(now),
    )


def _claimed_code(body: bytes) -> str:
    """Return the result code in the body, header-signed or in an envelope; empty if it has no code."""
    try:
        members: object = read_object(lenient.json_bytes(body), huge_as_infinite=True)
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
