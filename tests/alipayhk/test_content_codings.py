"""Responses with a content coding, which a proxy may apply although the gateway asks for none."""

from __future__ import annotations

import gzip
import time
import zlib
from dataclasses import replace
from typing import Final

import pytest

from clients.alipayhk.transport import BODY_BYTES_MAX
from clients.alipayhk.wire import content_coding, errors
from clients.alipayhk.wire.messages import Headers
from tests.alipayhk.sides import OK_BODY, Sides, answer
from tests.alipayhk.upstream import Upstream, post_once, replying

BODY: Final = b'{"a":1}' * 30
LARGEST: Final = b"x" * BODY_BYTES_MAX


def raw_deflate(data: bytes) -> bytes:
    """Compress without the zlib header."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def undone(body: bytes, *codings: str) -> bytes:
    """Undo these codings, each a header of its own."""
    return content_coding.undone(body, codings, bytes_max=BODY_BYTES_MAX)


UNDONE: Final[dict[str, tuple[bytes, tuple[str, ...], bytes]]] = {
    "gzip": (gzip.compress(BODY), ("gzip",), BODY),
    "in capitals": (gzip.compress(BODY), ("GZip",), BODY),
    "x-gzip": (gzip.compress(BODY), ("x-gzip",), BODY),
    "deflate": (zlib.compress(BODY), ("deflate",), BODY),
    "deflate without the zlib header": (raw_deflate(BODY), ("deflate",), BODY),
    "gzip after identity": (gzip.compress(BODY), ("identity, gzip",), BODY),
    "an empty body in gzip": (gzip.compress(b""), ("gzip",), b""),
    "256 KiB in gzip": (gzip.compress(LARGEST), ("gzip",), LARGEST),
    "256 KiB in deflate": (zlib.compress(LARGEST), ("deflate",), LARGEST),
}


@pytest.mark.parametrize(("body", "codings", "expected"), UNDONE.values(), ids=UNDONE.keys())
def test_gzip_and_deflate_are_undone(body: bytes, codings: tuple[str, ...], expected: bytes) -> None:
    assert undone(body, *codings) == expected


KEPT: Final[dict[str, tuple[bytes, tuple[str, ...]]]] = {
    "no coding": (BODY, ()),
    "identity": (BODY, ("identity",)),
    "an empty body": (b"", ("gzip",)),
    "another coding": (BODY, ("br",)),
    "two codings": (gzip.compress(gzip.compress(BODY)), ("gzip, gzip",)),
    "two headers": (gzip.compress(gzip.compress(BODY)), ("gzip", "gzip")),
    "no gzip": (BODY, ("gzip",)),
    "no deflate": (BODY, ("deflate",)),
    "gzip under the name deflate": (gzip.compress(BODY), ("deflate",)),
    "a wrong checksum": (gzip.compress(BODY)[:-8] + bytes(8), ("gzip",)),
    "bytes after the end": (gzip.compress(BODY) + b"x", ("gzip",)),
}


@pytest.mark.parametrize(("body", "codings"), KEPT.values(), ids=KEPT.keys())
def test_body_that_does_not_have_the_named_coding_is_kept(body: bytes, codings: tuple[str, ...]) -> None:
    assert undone(body, *codings) == body


TRUNCATED: Final[dict[str, tuple[bytes, str]]] = {
    "too large, in gzip": (gzip.compress(LARGEST + b"x"), "gzip"),
    "too large, in deflate": (zlib.compress(LARGEST + b"x"), "deflate"),
    "too large, in deflate without the zlib header": (raw_deflate(LARGEST + b"x"), "deflate"),
    "gzip without its last byte": (gzip.compress(BODY)[:-1], "gzip"),
    "deflate without its last byte": (zlib.compress(BODY)[:-1], "deflate"),
    "the header of gzip": (gzip.compress(BODY)[:10], "gzip"),
}


@pytest.mark.parametrize(("body", "coding"), TRUNCATED.values(), ids=TRUNCATED.keys())
def test_body_that_is_too_large_or_cut_is_truncated(body: bytes, coding: str) -> None:
    with pytest.raises(errors.Truncated):
        undone(body, coding)


def test_bomb_is_cut_early() -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024), 1)[:BODY_BYTES_MAX]
    started = time.perf_counter()
    with pytest.raises(errors.Truncated):
        undone(bomb, "gzip")
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_compressed_response_is_verified_without_its_coding(sides: Sides, coding: str) -> None:
    raw = answer(sides, OK_BODY)
    body = gzip.compress(raw.body) if coding == "gzip" else zlib.compress(raw.body)
    lines: Headers = (*raw.headers, ("Content-Encoding", coding), ("Content-Length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    async with Upstream(replying(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body)) as upstream:
        outcome = await post_once(upstream.url)
    assert outcome.answer is not None
    assert sides.open(outcome.answer).result.status == "S"
    with pytest.raises(errors.CallError):
        sides.open(replace(raw, body=body))
