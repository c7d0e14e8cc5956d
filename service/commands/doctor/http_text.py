"""Read a raw HTTP/1.1 message, as a proxy or a packet capture shows it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from clients.alipayhk.wire.messages import Headers, header_values

from .exchange import Exchange, Unusable

_REQUEST: Final = re.compile(rb"([A-Z]{3,10}) (\S+)(?: HTTP/[0-9.]+)?")
_RESPONSE: Final = re.compile(rb"HTTP/[0-9.]+ [0-9]{3}(?: .*)?")
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[^\r\n]*)?\r?\n")


def is_http(data: bytes) -> bool:
    """Return whether the first line is a request line or a status line."""
    first = data.partition(b"\n")[0].rstrip(b"\r")
    return bool(_REQUEST.fullmatch(first) or _RESPONSE.fullmatch(first))


def exchange_of_http(data: bytes) -> Exchange:
    """Read head and body; raise Unusable."""
    head, *rest = _END_OF_HEAD.split(data, maxsplit=1)
    first, *lines = re.split(rb"\r?\n", head)
    headers: Headers = ()
    for line in filter(None, lines):
        name, colon, value = line.partition(b":")
        if not colon:
            raise Unusable("A line of the HTTP head has no colon.")
        headers += ((_text(name), _text(value.strip(b" \t"))),)
    body = _body(headers, rest[0] if rest else b"")
    if request := _REQUEST.fullmatch(first):
        target = _text(request[2])
        return Exchange(
            message="request", path=path_of(target), headers=with_host(headers, target), body=body
        )
    return Exchange(message="response", headers=headers, body=body)


def path_of(target: str) -> str:
    """Return path and query of a URL or of a request's target, byte for byte; raise Unusable."""
    host = _host(target)
    path = target.partition(host)[2].partition("#")[0] if host else target.partition("#")[0]
    return path if path.startswith("/") else f"/{path}"


def with_host(headers: Headers, target: str) -> Headers:
    """Add the host of a URL as the header Host, if there is none; raise Unusable."""
    host = _host(target)
    return headers if not host or header_values(headers, "host") else (*headers, ("Host", host))


def _host(target: str) -> str:
    try:
        return "" if target.startswith("/") else urlsplit(target).netloc
    except ValueError:
        raise Unusable("The URL of the request cannot be read.") from None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _body(headers: Headers, data: bytes) -> bytes:
    """Return the body where its length is known; an editor may have added a line break after it."""
    if "chunked" in "".join(header_values(headers, "transfer-encoding")).lower():
        return _unchunked(data)
    length = "".join(header_values(headers, "content-length")[:1]).strip()
    return data[: int(length)] if length.isascii() and length.isdigit() and len(length) < 16 else data  # noqa: PLR2004


def _unchunked(data: bytes) -> bytes:
    """Join the chunks; return the data unchanged if a tool has joined them already."""
    body, at = b"", 0
    while chunk := _CHUNK.match(data, at):
        size, start = int(chunk[1], 16), chunk.end()
        body += data[start : start + size]
        after = data[start + size : start + size + 2]
        at = start + size + (2 if after == b"\r\n" else 1)
        if size == 0 or at > len(data):
            return body
    return body or data
