"""Heads of responses that aiohttp's parser refuses: repaired if they have one meaning, else explained."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from clients.alipayhk.response_head import HEAD_BYTES_MAX, HEADERS_MAX
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.messages import header_values
from tests.alipayhk.upstream import Upstream, post, post_once, replying, rested, traced, transport
from tests.raw_http import Peer

TIMEOUT_S: Final = 30.0
CHUNKED: Final = b"2\r\n{}\r\n0\r\n\r\n"


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a response with exactly these headers."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1") + body


LENGTH: Final = "Content-Length: 2"
FIRST: Final = "HTTP/1.1 200 OK\r\n"
LARGEST: Final = HEAD_BYTES_MAX - len(FIRST + LENGTH + "\r\nX: \r\n\r\n")

READ: Final[dict[str, bytes]] = {
    "a cookie of 8,300 bytes": http(b"{}", LENGTH, "Set-Cookie: " + "x" * 8300),
    "130 headers": http(b"{}", LENGTH, *[f"X{number}: y" for number in range(130)]),
    "512 headers": http(b"{}", LENGTH, *[f"X{number}: y" for number in range(HEADERS_MAX - 1)]),
    "a head of 64 KiB": http(b"{}", LENGTH, "X: " + "x" * LARGEST),
    "a long reason": http(b"{}", LENGTH, status="200 " + "x" * 60_000),
    "two equal lengths": http(b"{}", LENGTH, "X: y", "content-length:2 "),
    "two equal lengths in one line": http(b"{}", "Content-Length: 2, 2"),
    "a length with chunks": http(CHUNKED, "Content-Length: 9", "Transfer-Encoding: chunked"),
    "two lengths with chunks": http(CHUNKED, "Transfer-Encoding: Chunked", LENGTH, "Content-Length: 3"),
    "a space in a name": http(b"{}", LENGTH, "X odd: y"),
    "brackets in a name": http(b"{}", "X(1): y", LENGTH),
    "a name that is not ASCII": http(b"{}", LENGTH, "X\xe9: y"),
    "no name": http(b"{}", LENGTH, ": y"),
    "no colon": http(b"{}", LENGTH, "nonsense"),
    "an odd name with a folded value": http(b"{}", "X odd: y", " " + LENGTH + "0", LENGTH),
    "a space before the colon": http(b"{}", LENGTH, "X : y"),
    "bare line feeds": http(b"{}", LENGTH, "X odd: y").replace(b"\r\n", b"\n"),
    "line ends before the head": b"\r\n\r\n" + http(b"{}", LENGTH, "X odd: y"),
    "an odd name in a 1xx response": http(b"", "X odd: y", status="103 E") + http(b"{}", LENGTH),
}


@pytest.mark.parametrize("written", READ.values(), ids=READ.keys())
async def test_response_whose_head_has_one_meaning_is_read(written: bytes) -> None:
    async with Upstream(replying(written)) as upstream:
        outcome = await post_once(upstream.url)
    assert outcome.answer is not None
    assert (outcome.answer.http_status, outcome.answer.body) == (200, b"{}")
    assert outcome.answer.end_announced
    names = [name for name, _ in outcome.answer.headers]
    assert len([name for name in names if name.lower() == "content-length"]) <= 1
    assert not [name for name in names if name.startswith(("X odd", "X(", "X\xe9"))]


async def test_correct_headers_among_odd_ones_are_returned_byte_for_byte() -> None:
    lines = (
        "Signature: a=b, c=d%2B",
        "X odd: y",
        "signature:two\t",
        "Y: caf\xe9",
        "Z: 1",
        " 2",
        LENGTH,
        LENGTH,
    )
    async with Upstream(replying(http(b"{}", *lines))) as upstream:
        outcome = await post_once(upstream.url)
    assert outcome.answer is not None
    assert header_values(outcome.answer.headers, "Signature") == ["a=b, c=d%2B", "two"]
    assert header_values(outcome.answer.headers, "Y") == ["caf\xe9"]
    assert header_values(outcome.answer.headers, "Z") == ["1 2"]


async def test_repaired_head_is_read_also_byte_by_byte() -> None:
    async def script(wire: Peer) -> None:
        await wire.request()
        for byte in READ["two equal lengths"]:
            await wire.send(bytes([byte]))
            await asyncio.sleep(0)

    async with Upstream(script) as upstream:
        outcome = await post_once(upstream.url, timeout_s=TIMEOUT_S)
    assert outcome.answer is not None
    assert outcome.answer.body == b"{}"


LONE_CR: Final = "HTTP/1.1 200 OK\r\nA:\r\r\n"


@pytest.mark.parametrize("odd", ["", "X odd: y\r\n"], ids=["correct", "odd"])
async def test_head_with_a_lone_carriage_return_is_left_to_the_parser(odd: str) -> None:
    after = f"{odd}{LENGTH}\r\n\r\n{{}}".encode()
    async with Upstream(replying(LONE_CR.encode() + after)) as upstream:
        outcome = await post_once(upstream.url)
    assert outcome.answer is not None
    # For the parser the head ends at the lone CR, so the body ends with the connection.
    assert (outcome.answer.body, outcome.answer.end_announced) == (after, False)


HEAD: Final = "the response's head cannot be read: "
REFUSED: Final[dict[str, tuple[bytes, type[errors.CallError], str]]] = {
    "two lengths": (
        http(b"{}", LENGTH, "Content-Length: 3"),
        errors.Unsigned,
        HEAD + "Duplicate Content-Length",
    ),
    "two lengths, one with a space before the colon": (
        http(b"{}", LENGTH, "Content-Length : 3"),
        errors.Unsigned,
        HEAD + "Duplicate Content-Length",
    ),
    "two lengths, one with a colon in its value": (
        http(b"{}", LENGTH, "Content-Length: 3:2"),
        errors.Unsigned,
        HEAD + "Duplicate Content-Length",
    ),
    "a length that is no number": (
        http(b"{}", "Content-Length: two"),
        errors.Unsigned,
        HEAD + "Invalid character in Content-Length",
    ),
    "a negative length": (
        http(b"{}", "Content-Length: -2"),
        errors.Unsigned,
        HEAD + "Invalid character in Content-Length",
    ),
    "a zero byte": (http(b"{}", LENGTH, "X: secret\0"), errors.Unsigned, HEAD + "InvalidHeader"),
    "513 headers": (
        http(b"{}", *["X: y"] * (HEADERS_MAX + 1)),
        errors.Truncated,
        "the response has more than 512 headers",
    ),
    "a head over 64 KiB": (
        http(b"{}", LENGTH, "X: " + "x" * (LARGEST + 1)),
        errors.Truncated,
        "the response's head is larger than 64 KiB",
    ),
    "a reason of 64 KiB": (
        http(b"{}", status="200 " + "x" * HEAD_BYTES_MAX),
        errors.Truncated,
        "the response's head is larger than 64 KiB",
    ),
}


@pytest.mark.parametrize(("written", "failure", "cause"), REFUSED.values(), ids=REFUSED.keys())
async def test_refused_head_gives_the_parsers_reason_and_is_no_lost_connection(
    written: bytes, failure: type[errors.CallError], cause: str
) -> None:
    async with Upstream(replying(written)) as upstream:
        outcome = await post_once(upstream.url)
    assert outcome.ending == (failure, True)
    assert str(outcome.error) == cause


async def test_unreadable_head_keeps_its_http_status() -> None:
    async with Upstream(replying(http(b"{}", "Content-Length: -2", status="502 Bad Gateway"))) as upstream:
        outcome = await post_once(upstream.url)
    assert isinstance(outcome.error, errors.Unsigned)
    assert outcome.error.http_status == 502


NOT_HTTP: Final = [b"SSH-2.0-X\r\n", b"\x16\x03\x01\x00\xa5", b"HTTP/1.1 abc\r\n", b"HTTP/1.1 20\r\n"]


@pytest.mark.parametrize("written", NOT_HTTP, ids=repr)
async def test_bytes_that_are_not_http_end_the_request_at_once(written: bytes) -> None:
    async def script(wire: Peer) -> None:
        await wire.request()
        await wire.send(written)
        await asyncio.Event().wait()

    async with Upstream(script) as upstream:
        outcome = await post_once(upstream.url, timeout_s=TIMEOUT_S)
    assert outcome.ending == (errors.ConnectionLost, True)
    assert outcome.took_s < TIMEOUT_S / 3


@pytest.mark.parametrize(("odd", "connections"), [((), 1), ((LENGTH,), 2), (("X odd: y",), 2)], ids=str)
async def test_connection_is_closed_after_a_repaired_response(
    odd: tuple[str, ...], connections: int
) -> None:
    answers = [traced(http(b"{}", LENGTH, *odd)) for _ in range(2)]
    async with Upstream(replying(*answers)) as upstream, transport() as opened:
        for _ in range(2):
            outcome = await post(opened, upstream.url, reuse_connection=True)
            assert outcome.answer is not None
            await rested()
        assert len(upstream.peers) == connections
