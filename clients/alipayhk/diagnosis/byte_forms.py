"""Mistakes that change bytes, whatever they mean: line ends, encodings, compression, hashes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from ..wire.content_coding import undone
from ..wire.errors import Truncated
from .drafts import Draft, Variant

INFLATED_BYTES_MAX: Final = 4 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_ONE_BREAK: Final = re.compile(rb"\r\n|\r|\n")


def without_newline(draft: Draft) -> Iterator[Variant]:
    """Yield the body without the line break at its end."""
    stripped = draft.body.rstrip(b"\r\n")
    yield "the body without the line break at its end", replace(draft, body=stripped)


def with_newline(draft: Draft) -> Iterator[Variant]:
    """Yield the content with a line break after it."""
    for name, line_break in (("LF", b"\n"), ("CR LF", b"\r\n")):
        yield f"a line break ({name}) after the content", replace(draft, body=draft.body + line_break)


def line_endings(draft: Draft) -> Iterator[Variant]:
    """Yield the body with other line breaks."""
    for name, line_break in (("LF", b"\n"), ("CR LF", b"\r\n"), ("CR", b"\r")):
        yield f"{name} at the ends of lines", replace(draft, body=_ONE_BREAK.sub(line_break, draft.body))


def first_line_ending(draft: Draft) -> Iterator[Variant]:
    """Yield the content with something else than LF after the path."""
    if draft.frame is None:
        return
    for phrase, line_break in (
        ("CR LF after the path", "\r\n"),
        (r"\n as two characters after the path", "\\n"),
        ("CR after the path", "\r"),
        ("no line break after the path", ""),
        ("a space after the path", " "),
    ):
        yield phrase, replace(draft, frame=replace(draft.frame, line_break=line_break))
    all_breaks = _ONE_BREAK.sub(b"\r\n", draft.content())
    yield "CR LF at the ends of all lines", Draft(all_breaks)


def without_bom(draft: Draft) -> Iterator[Variant]:
    """Yield the body without its byte order mark."""
    yield "the body without its byte order mark", replace(draft, body=draft.body.removeprefix(_BOM))


def with_bom(draft: Draft) -> Iterator[Variant]:
    """Yield the content with a byte order mark."""
    yield "a byte order mark before the body", replace(draft, body=_BOM + draft.body)
    yield "a byte order mark before the content", Draft(_BOM + draft.content())


def charset(draft: Draft) -> Iterator[Variant]:
    """Yield the body in other character encodings; nothing if all of it is ASCII."""
    if draft.body.isascii():
        return
    for phrase, recoded in _RECODINGS:
        try:
            yield phrase, replace(draft, body=recoded(draft.body))
        except UnicodeError:
            continue


def wide_charset(draft: Draft) -> Iterator[Variant]:
    """Yield the content in UTF-16."""
    try:
        text = draft.content().decode()
    except UnicodeDecodeError:
        return
    for encoding in ("utf-16-le", "utf-16-be"):
        yield f"the content in {encoding.upper()}", Draft(text.encode(encoding))
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        named = f"the content in {encoding.upper()} with a byte order mark"
        yield named, Draft(mark + text.encode(encoding))


Recode = Callable[[bytes], bytes]


def _to(encoding: str, errors: str = "strict") -> Recode:
    return lambda data: data.decode().encode(encoding, errors)


def _from(encoding: str, errors: str = "strict") -> Recode:
    return lambda data: data.decode(encoding, errors).encode()


_RECODINGS: Final[tuple[tuple[str, Recode], ...]] = (
    ("the body in GBK or GB18030", _to("gb18030")),
    ("the body in Big5", _to("big5")),
    ("the body in Big5-HKSCS", _to("big5hkscs")),
    ("? instead of each character that is not ASCII", _to("ascii", "replace")),
    ("the body in ISO-8859-1", _to("latin-1")),
    ("the body in ISO-8859-1, with ? instead of other characters", _to("latin-1", "replace")),
    ("the body in Windows-1252", _to("cp1252")),
    ("UTF-8 that was read as ISO-8859-1 and written as UTF-8 again", _from("latin-1")),
    ("UTF-8 that was read as Windows-1252 and written as UTF-8 again", _from("cp1252")),
    ("UTF-8 that was read as ASCII and written as UTF-8 again", _from("ascii", "replace")),
    ("the body in UTF-8, but it was sent in GBK or GB18030", _from("gb18030")),
    ("the body in UTF-8, but it was sent in Big5", _from("big5")),
    ("the body in UTF-8, but it was sent in Big5-HKSCS", _from("big5hkscs")),
)


def compressed(draft: Draft) -> Iterator[Variant]:
    """Yield the body before compression."""
    for coding in ("gzip", "deflate"):
        inflated = inflated_as(draft.body, coding)
        if inflated is not None:
            yield f"the body before compression ({coding})", replace(draft, body=inflated)


def inflated_as(body: bytes, coding: str) -> bytes | None:
    """Undo `gzip` or `deflate`; None if the body does not have this coding or is too large."""
    try:
        inflated = undone(body, (coding,), bytes_max=INFLATED_BYTES_MAX)
    except Truncated:
        return None
    return None if inflated == body else inflated


def deflated(draft: Draft) -> Iterator[Variant]:
    """Yield the body after compression as the usual libraries write it, with their default settings."""
    for level in (6, 9):
        yield "the compressed body (gzip)", replace(draft, body=gzip.compress(draft.body, level, mtime=0))
        yield "the compressed body (deflate)", replace(draft, body=zlib.compress(draft.body, level))


def double_hash(draft: Draft) -> Iterator[Variant]:
    """Yield hashes of the content: a signer that hashes first signs the hash of a hash."""
    content = draft.content()
    for name in ("sha256", "sha1", "md5"):
        digest = hashlib.new(name, content, usedforsecurity=False).digest()
        for form, data in (
            ("as bytes", digest),
            ("in hex", digest.hex().encode()),
            ("in upper-case hex", digest.hex().upper().encode()),
            ("in base64", base64.b64encode(digest)),
        ):
            yield (
                f"the {_HASH_NAMES[name]} hash of the content ({form}) instead of the content",
                Draft(data),
            )


_HASH_NAMES: Final = {"sha256": "SHA-256", "sha1": "SHA-1", "md5": "MD5"}
