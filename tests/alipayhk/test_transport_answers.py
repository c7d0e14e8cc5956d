"""Complete and broken responses over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import socket
import tracemalloc
from pathlib import Path
from typing import Final

import pytest

from clients.alipayhk.transport import BODY_BYTES_MAX
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.messages import header_values
from tests.alipayhk.upstream import (
    Script,
    Upstream,
    hanging,
    post,
    post_once,
    replying,
    transport,
)
from tests.certificates import Authority
from tests.raw_http import Peer

LOST: Final = (errors.ConnectionLost, True)
CUT: Final = (errors.Truncated, True)
LATE: Final = (errors.Timeout, True)
TIMEOUT_S: Final = 30.0


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a response with exactly these headers."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1") + body


def sized(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a response with a Content-Length."""
    return http(body, f"Content-Length: {len(body)}", *headers, status=status)


def chunked(*chunks: bytes) -> bytes:
    """Return a chunked response."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return http(body, "Transfer-Encoding: chunked")


WHOLE: Final[dict[str, tuple[bytes, bytes, bool]]] = {
    "by length": (sized(b'{"a":1}'), b'{"a":1}', True),
    "empty, by length": (sized(b""), b"", True),
    "in chunks": (chunked(b'{"a"', b":1}"), b'{"a":1}', True),
    "in chunks, with trailers": (
        http(b"2\r\n{}\r\n0\r\nX: y\r\n\r\n", "Transfer-Encoding: Chunked"),
        b"{}",
        True,
    ),
    "until the connection ends": (http(b'{"a":1}'), b'{"a":1}', False),
    "cut short, until the connection ends": (http(b'{"a":'), b'{"a":', False),
    "in HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n{}", b"{}", False),
    "after 100 Continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"{}"), b"{}", True),
    "256 KiB by length": (sized(b"x" * BODY_BYTES_MAX), b"x" * BODY_BYTES_MAX, True),
    "256 KiB in chunks": (chunked(*[b"x" * 1024] * 256), b"x" * BODY_BYTES_MAX, True),
    "256 KiB until the end": (http(b"x" * BODY_BYTES_MAX), b"x" * BODY_BYTES_MAX, False),
}


@pytest.mark.parametrize(("written", "body", "end_announced"), WHOLE.values(), ids=WHOLE.keys())
async def test_complete_response_is_returned(written: bytes, body: bytes, end_announced: bool) -> None:
    async with Upstream(replying(written)) as upstream:
        outcome = await post_once(upstream.url)
    assert outcome.sent
    assert outcome.answer is not None
    assert (outcome.answer.http_status, outcome.answer.body) == (200, body)
    assert outcome.answer.end_announced is end_announced


@pytest.mark.parametrize(
    "status", [200, 201, 204, 301, 302, 307, 308, 400, 401, 403, 407, 408, 429, 500, 503]
)
async def test_every_http_status_is_returned_and_no_redirect_is_followed(status: int) -> None:
    async with Upstream(hanging) as elsewhere:
        body = b"" if status == 204 else b"<html>"
        answer = sized(body, f"Location: {elsewhere.url}/x", status=f"{status} Status")
        async with Upstream(replying(answer, sized(b"second"))) as upstream:
            outcome = await post_once(upstream.url)
        assert (len(upstream.requests), elsewhere.peers) == (1, [])
    assert outcome.answer is not None
    assert (outcome.answer.http_status, outcome.answer.body) == (status, body)


async def test_body_with_an_unknown_content_coding_is_returned_unchanged() -> None:
    for body in (gzip.compress(b"{}"), b"no gzip at all"):
        for encoding in ("br", "zstd", "nonsense"):
            async with Upstream(replying(sized(body, f"Content-Encoding: {encoding}"))) as upstream:
                outcome = await post_once(upstream.url)
            assert outcome.answer is not None
            assert outcome.answer.body == body


async def test_duplicate_headers_are_kept_separate_and_in_order() -> None:
    lines = ("Signature: one", "X: 1", "signature: two", "SIGNATURE: three", "Set-Cookie: a=b")
    async with Upstream(replying(sized(b"{}", *lines))) as upstream:
        outcome = await post_once(upstream.url)
    assert outcome.answer is not None
    assert header_values(outcome.answer.headers, "Signature") == ["one", "two", "three"]
    assert [name for name, _ in outcome.answer.headers][1:3] == ["Signature", "X"]


async def test_header_values_are_returned_byte_for_byte() -> None:
    async with Upstream(replying(sized(b"{}", "X: caf\xe9", "Y:   spaced\t "))) as upstream:
        outcome = await post_once(upstream.url)
    assert outcome.answer is not None
    assert header_values(outcome.answer.headers, "X") == ["caf\xe9"]
    assert header_values(outcome.answer.headers, "Y") == ["spaced"]


BROKEN: Final[dict[str, tuple[bytes, tuple[type[errors.CallError], bool]]]] = {
    "nothing": (b"", LOST),
    "garbage": (b"\x00\xff nonsense\r\n\r\n", LOST),
    "a TLS greeting": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", LOST),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", LOST),
    "half a status line": (b"HTTP/1.1 2", LOST),
    "a status that is no number": (b"HTTP/1.1 abc OK\r\n\r\n", LOST),
    "half of the headers": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", LOST),
    "shorter than its length": (http(b'{"a"', "Content-Length: 7"), CUT),
    "a length and no body": (http(b"", "Content-Length: 7"), CUT),
    "chunks without an end": (http(b"2\r\n{}\r\n", "Transfer-Encoding: chunked"), CUT),
    "half a chunk": (http(b"9\r\n{}", "Transfer-Encoding: chunked"), CUT),
    "no chunk": (http(b"", "Transfer-Encoding: chunked"), CUT),
    "over 256 KiB by length": (sized(b"x" * (BODY_BYTES_MAX + 1)), CUT),
    "over 256 KiB in chunks": (chunked(*[b"x" * 1024] * 257), CUT),
    "over 256 KiB until the end": (http(b"x" * (BODY_BYTES_MAX + 1)), CUT),
}


@pytest.mark.parametrize(("written", "ending"), BROKEN.values(), ids=BROKEN.keys())
async def test_broken_response_is_lost_or_truncated(
    written: bytes, ending: tuple[type[errors.CallError], bool]
) -> None:
    async with Upstream(replying(written)) as upstream:
        assert (await post_once(upstream.url)).ending == ending


BROKEN_CHUNKS: Final = {
    "a size that is no number": (b"zz\r\n{}\r\n0\r\n\r\n", "Invalid character in chunk size"),
    "a negative size": (b"-2\r\n{}\r\n0\r\n\r\n", "Invalid character in chunk size"),
    "no line end after the chunk": (b"2\r\n{}xx0\r\n\r\n", "Expected LF after chunk data"),
    "a size above 64 bits": (b"f" * 40 + b"\r\n{}\r\n", "Chunk size overflow"),
    "zero bytes": (b"\0\0\0\r\n", "Invalid character in chunk size"),
}


@pytest.mark.parametrize(("body", "reason"), BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
@pytest.mark.parametrize("apart", [True, False])
async def test_broken_chunk_is_a_truncated_response_with_the_parsers_reason(
    body: bytes, reason: str, apart: bool
) -> None:
    async def script(wire: Peer) -> None:
        await wire.request()
        head = http(b"", "Transfer-Encoding: chunked")
        await wire.send(head if apart else head + body)
        if apart:
            await asyncio.sleep(0.05)
            await wire.send(body)
        await asyncio.Event().wait()

    async with Upstream(script) as upstream:
        outcome = await post_once(upstream.url, timeout_s=TIMEOUT_S)
    assert outcome.ending == CUT
    assert str(outcome.error) == f"the response's body cannot be read: {reason}"


@pytest.mark.parametrize(
    "before", [b"", b"HTTP/1.1 200 OK\r\n", sized(b"{}" * 9)[:-9]], ids=["head", "line", "body"]
)
async def test_reset_is_a_lost_connection_or_a_truncated_response(before: bytes) -> None:
    async def resetting(wire: Peer) -> None:
        await wire.request()
        await wire.send(before)
        await asyncio.sleep(0.05)
        wire.reset()

    async with Upstream(resetting) as upstream:
        assert (await post_once(upstream.url)).ending == (CUT if b"\r\n\r\n" in before else LOST)


async def breaking_tls(wire: Peer) -> None:
    """Respond in plain HTTP on a TLS connection."""
    await wire.request()
    with socket.socket(fileno=os.dup(wire.writer.get_extra_info("socket").fileno())) as bare:
        bare.send(sized(b"{}"))
    await wire.reader.read()  # until the client disconnects


async def test_broken_tls_after_the_request_names_openssls_reason(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "known")
    async with Upstream(breaking_tls, authority.server_context()) as upstream:
        outcome = await post_once(upstream.url, tls=authority.client_context())
    assert outcome.ending == LOST
    assert str(outcome.error).startswith("the server sent bytes that are not TLS (OpenSSL: ")


async def test_hang_after_the_request_is_a_timeout_after_sending() -> None:
    async with Upstream(hanging) as upstream:
        outcome = await post_once(upstream.url, timeout_s=1.0)
        assert len(upstream.requests) == 1
    assert outcome.ending == LATE
    assert outcome.took_s < 3


def dripping(answer: bytes, rest: bytes) -> Script:
    """Write the first bytes of a response, then the same few bytes endlessly, with pauses."""

    async def script(wire: Peer) -> None:
        await wire.request()
        await wire.send(answer)
        while True:
            await wire.send(rest)
            await asyncio.sleep(0.05)  # so that the timeout expires before the limit of 1xx responses

    return script


DRIPS: Final = {
    "before the head": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "by length": (http(b"", "Content-Length: 100000"), b"x"),
    "in chunks": (http(b"", "Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
    "until the end": (http(b""), b"x"),
}


@pytest.mark.parametrize(("answer", "rest"), DRIPS.values(), ids=DRIPS.keys())
async def test_slow_response_is_ended_by_the_total_timeout(answer: bytes, rest: bytes) -> None:
    async with Upstream(dripping(answer, rest)) as upstream:
        outcome = await post_once(upstream.url, timeout_s=1.0)
    assert outcome.ending == LATE
    assert outcome.took_s < 3


def flooding(answer: bytes, rest: bytes) -> Script:
    """Write an endless response, as fast as the client reads."""

    async def script(wire: Peer) -> None:
        await wire.request()
        await wire.send(answer)
        while True:
            await wire.send(rest)

    return script


FLOODS: Final = {
    "endless chunks": (http(b"", "Transfer-Encoding: chunked"), b"4000\r\n" + b"x" * 16_384 + b"\r\n"),
    "endless small chunks": (http(b"", "Transfer-Encoding: chunked"), b"1\r\nx\r\n" * 1000),
    "one endless chunk": (http(b"fffffffffff\r\n", "Transfer-Encoding: chunked"), b"x" * 65_536),
    "a length of 1 TiB": (http(b"", "Content-Length: 1099511627776"), b"x" * 65_536),
    "until the end": (http(b""), b"x" * 65_536),
    "endless trailers": (http(b"0\r\n", "Transfer-Encoding: chunked"), b"X: " + b"x" * 60_000 + b"\r\n"),
    "endless line ends": (b"", b"\r\n" * 10_000),
    "endless headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
    "an endless header": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536),
    "endless 100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
}


@pytest.mark.parametrize(("answer", "rest"), FLOODS.values(), ids=FLOODS.keys())
async def test_endless_response_is_cut_early_and_uses_little_memory(answer: bytes, rest: bytes) -> None:
    async with Upstream(flooding(answer, rest)) as upstream, transport(timeout_s=1) as opened:
        tracemalloc.start()
        try:
            outcome = await post(opened, upstream.url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert outcome.ending in {CUT, LOST, LATE}
    # A few times the limit: the body, the parser's buffer and the server's own buffer. The server sends
    # several times as much in this time.
    assert peak < 32 * BODY_BYTES_MAX


async def test_bytes_after_a_response_do_not_become_the_next_response() -> None:
    smuggled = sized(b'{"first":1}') + sized(b'{"smuggled":1}')
    async with Upstream(replying(smuggled)) as upstream, transport() as opened:
        first = await post(opened, upstream.url, reuse_connection=True)
        second = await post(opened, upstream.url, reuse_connection=True)
    bodies = [outcome.answer.body for outcome in (first, second) if outcome.answer]
    assert b'{"smuggled":1}' not in bodies


async def test_randomly_garbled_responses_raise_call_errors_only() -> None:
    chance = random.Random(20240522)
    whole = [sized(b'{"a":1}', "Signature: x", "Client-Id: y"), chunked(b'{"a"', b":1}"), http(b'{"a":1}')]
    answer = b""

    async def garbling(wire: Peer) -> None:
        await wire.request()
        await wire.send(answer)

    async with Upstream(garbling) as upstream, transport(timeout_s=2) as opened:
        for _ in range(150):
            garbled = bytearray(chance.choice(whole))
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(garbled))
                change = chance.choice(
                    [b"", b"\r\n", b"\0", b":", b" ", b"\xff", bytes([chance.randrange(256)])]
                )
                garbled[at : at + chance.randint(0, 2)] = change
            answer = bytes(garbled)
            outcome = await post(opened, upstream.url)
            assert outcome.sent
            assert outcome.answer is not None or isinstance(
                outcome.error, errors.NoAnswer | errors.Unsigned
            )
