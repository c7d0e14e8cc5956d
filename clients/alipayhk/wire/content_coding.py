"""Undo the content coding of a response.

The gateway asks for no coding, but a proxy may apply one. The signature covers the body without it:
https://www.rfc-editor.org/rfc/rfc9110#section-8.4
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Final

from .errors import Truncated

_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
"""Some servers send `deflate` without the zlib header that it must have."""
_FORMATS: Final = {"gzip": (_GZIP,), "x-gzip": (_GZIP,), "deflate": (_ZLIB, _RAW)}


def undone(body: bytes, codings: Iterable[str], *, bytes_max: int) -> bytes:
    """Return the body without a gzip or deflate coding; raise Truncated if it is cut or too large.

    `codings` are the values of the header Content-Encoding.

    A body with another coding, or that does not have the format that its header names, is returned as it
    is: some proxies undo the coding and keep the header.
    """
    names = [name.strip().lower() for value in codings for name in value.split(",")]
    applied = [name for name in names if name not in ("", "identity")]
    formats = _FORMATS.get(applied[0], ()) if len(applied) == 1 and body else ()
    for wbits in formats:
        inflated = _inflated(body, wbits, bytes_max)
        if inflated is not None:
            return inflated
    return body


def _inflated(body: bytes, wbits: int, bytes_max: int) -> bytes | None:
    """Return the decompressed body, or None if it does not have this format."""
    inflater = zlib.decompressobj(wbits)
    try:
        inflated = inflater.decompress(body, bytes_max + 1)
    except zlib.error:
        return None
    if inflater.unused_data:
        return None
    if len(inflated) > bytes_max:
        raise Truncated("the response is larger than 256 KiB")
    if inflater.eof:
        return inflated
    if wbits == _RAW:  # almost any bytes can be the start of this format
        return None
    raise Truncated("the compressed response ends early")
