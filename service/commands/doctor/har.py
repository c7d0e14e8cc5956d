"""Read an entry of a HAR file.

The format: http://www.softwareishard.com/blog/har-12-spec/
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from clients.alipayhk.wire.messages import Headers

from .exchange import Exchange, Unusable, bytes_of, text_of
from .http_text import path_of, with_host

_NO_BODY: Final = "The HAR entry has no text of the body: record it again with bodies."


def is_har(value: object) -> bool:
    """Return whether JSON is a HAR file."""
    return isinstance(value, dict) and isinstance(value.get("log"), dict)


def exchange_of_har(value: object, *, entry: int | None, message: str | None) -> Exchange:
    """Read one entry, counted from 1; raise Unusable."""
    entries = _member(_member(value, "log"), "entries")
    if not isinstance(entries, list) or not entries:
        raise Unusable("The HAR file has no entries.")
    if entry is None and len(entries) > 1:
        raise Unusable(
            f"The HAR file has {len(entries)} entries: choose one with --entry 1 to {len(entries)}."
        )
    number = 1 if entry is None else entry
    if not 1 <= number <= len(entries):
        raise Unusable(f"The HAR file has no such entry: --entry must be 1 to {len(entries)}.")
    if message is None:
        raise Unusable("A HAR entry has two messages: choose one with --message request or response.")
    chosen = entries[number - 1]
    request, side = _member(chosen, "request"), _member(chosen, message)
    url = text_of(_member(request, "url"), "url")
    content = _member(side, "postData" if message == "request" else "content")
    of_response = _member(_member(chosen, "response"), "headers")
    return Exchange(
        message=message,
        path=path_of(url),
        headers=with_host(_headers(_member(side, "headers")), url),
        body=_body(content),
        response_headers=_headers(of_response) if of_response else (),
    )


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _headers(value: object) -> Headers:
    if not isinstance(value, list):
        raise Unusable("The HAR entry has no headers.")
    pairs = ((_member(each, "name"), _member(each, "value")) for each in value)
    return tuple((text_of(name, "name"), text_of(text, "value")) for name, text in pairs)


def _body(content: object) -> bytes:
    text = _member(content, "text")
    if text is None:
        raise Unusable(_NO_BODY)
    if _member(content, "encoding") != "base64":
        return bytes_of(text_of(text, "text"), "text")
    try:
        return base64.b64decode(text_of(text, "text"), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("The body in the HAR entry is not base64.") from None
