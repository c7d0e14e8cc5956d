"""Answers that break off, never end, or are too much: each has a limit, and none is half believed."""

from __future__ import annotations

import asyncio
import gzip
import itertools
from collections.abc import Callable, Iterator

import pytest
from grpc import StatusCode

from tests.e2e.caller import alarm
from tests.e2e.conftest import Way
from tests.e2e.samples import SYNC
from tests.e2e.upstream import Answer, Peer, Request, Script, answers, closes, hangs, resets, sends
from tests.e2e.wallet import Wallet

KIB = 1024
MEMORY_KIB_MAX = 24 * KIB
"""How much more memory a gateway may hold after a flood."""


def part(wallet: Wallet, cut: Callable[[Answer], bytes], then: Script) -> Script:
    """Send what `cut` leaves of a right answer, and then end so."""

    async def script(request: Request, peer: Peer) -> None:
        await sends(cut(wallet.right(request)), then=then)(request, peer)

    return script


@pytest.mark.parametrize("end", [closes, resets])
async def test_connection_that_ends_without_an_answer_is_lost(way: Way, end: Script) -> None:
    await way.refused(end, way.doubt("CONNECTION_LOST"))


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x16\x03\x01\x00\x02",
    ],
)
async def test_connection_that_ends_before_the_answers_head_does_is_lost(way: Way, data: bytes) -> None:
    await way.refused(sends(data, then=closes), way.doubt("CONNECTION_LOST"))


async def test_head_without_an_end_is_not_read_for_ever(way: Way) -> None:
    flood = [b"HTTP/1.1 200 OK\r\n", *(b"X-%d: %s\r\n" % (n, b"x" * 4000) for n in range(999))]
    await way.refused(sends(flood, then=closes), way.doubt("CONNECTION_LOST"))


def half(answer: Answer) -> bytes:
    """Announce the whole length, and write half of the body."""
    return answer.wire()[: -len(answer.body) // 2]


def half_chunk(answer: Answer) -> bytes:
    """Break off inside a chunk."""
    return answer.chunked()[: -len(answer.body) // 2]


@pytest.mark.parametrize("end", [closes, resets])
@pytest.mark.parametrize("cut", [half, half_chunk, Answer.chunked])
async def test_announced_body_that_ends_early_is_truncated(
    way: Way, cut: Callable[[Answer], bytes], end: Script
) -> None:
    await way.refused(part(way.wallet, cut, end), way.doubt("RESPONSE_TRUNCATED"))


@pytest.mark.parametrize("missing", [1, 2, 20])
async def test_body_that_ends_with_its_connection_is_never_believed_in_part(way: Way, missing: int) -> None:
    def cut(answer: Answer) -> bytes:
        return answer.head(("Connection", "close")) + answer.body[:-missing]

    # A signature over the whole body gives the cut away; an envelope that is cut has not even that.
    broken = alarm("RESPONSE_SIGNATURE_INVALID") if way.api is SYNC else way.doubt("RESPONSE_TRUNCATED")
    await way.refused(part(way.wallet, cut, closes), broken)


async def test_whole_body_that_ends_with_its_connection_is_believed(way: Way) -> None:
    def whole(answer: Answer) -> bytes:
        return answer.head(("Connection", "close")) + answer.body

    await way.accepted(part(way.wallet, whole, closes))


async def test_whole_chunked_body_is_believed(way: Way) -> None:
    def whole(answer: Answer) -> bytes:
        return answer.chunked() + b"0\r\n\r\n"

    await way.accepted(part(way.wallet, whole, hangs))


async def test_interim_answer_is_passed_over(way: Way) -> None:
    def interim(answer: Answer) -> bytes:
        return (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer.wire()
        )

    await way.accepted(part(way.wallet, interim, hangs))


async def test_answer_of_300_kib_is_cut(way: Way) -> None:
    huge = Answer(body=b"x" * 300 * KIB)
    await way.refused(answers(lambda _: huge), way.doubt("RESPONSE_TRUNCATED"))


async def test_signed_answer_just_under_256_kib_is_read(way: Way) -> None:
    def answer(request: Request) -> Answer:
        return way.wallet.right(request, {**way.api.success, "more": "x" * 254 * KIB})

    await way.accepted(answers(answer))


async def test_head_that_announces_a_terabyte_takes_no_memory(way: Way) -> None:
    head = Answer().head(("Content-Length", str(1 << 40)))
    await way.refused(sends([head, b"x" * 300 * KIB]), way.doubt("RESPONSE_TRUNCATED"))


def chunks() -> Iterator[bytes]:
    """Write a head, and chunks for ever."""
    yield Answer().head(("Transfer-Encoding", "chunked"))
    yield from itertools.repeat(b"4000\r\n" + b"x" * 16 * KIB + b"\r\n")


async def test_endless_chunks_are_cut_and_memory_stays_flat(way: Way) -> None:
    async def endless(request: Request, peer: Peer) -> None:
        await sends(chunks())(request, peer)

    before = way.gateway.resident_kib()
    await way.refused(endless, way.doubt("RESPONSE_TRUNCATED"))
    assert way.gateway.resident_kib() - before < MEMORY_KIB_MAX


async def test_gzip_bomb_is_not_inflated(way: Way) -> None:
    bomb = Answer(200, (("Content-Encoding", "gzip"),), gzip.compress(bytes(64 * KIB * KIB), 9))
    before = way.gateway.resident_kib()
    await way.refused(answers(lambda _: bomb), way.doubt("RESPONSE_UNSIGNED"))
    assert way.gateway.resident_kib() - before < MEMORY_KIB_MAX


@pytest.mark.parametrize(
    "start",
    [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX-Slow: ", Answer().head(("Content-Length", "9999"))],
    ids=["line", "header", "body"],
)
async def test_answer_byte_by_byte_ends_with_the_callers_time(way: Way, start: bytes) -> None:
    drip = sends(itertools.chain([start], itertools.repeat(b"x")), pause_s=0.02)
    expected = way.doubt("UPSTREAM_TIMEOUT", code=StatusCode.DEADLINE_EXCEEDED)
    await way.refused(drip, expected, timeout_s=0.4)


async def test_answer_before_the_request_was_asked_is_not_an_answer(bind: Way) -> None:
    """A stray answer on a fresh connection is unsigned, and the next call does not see it."""
    stray = Answer(200, (), b"{}")
    await bind.refused(sends(stray.wire() + stray.wire()), bind.doubt("RESPONSE_UNSIGNED"))
    bind.upstream.reset(bind.wallet.says())
    await bind.accepted()


async def test_stray_second_answer_is_not_the_answer_to_the_next_call(sync: Way) -> None:
    stray = Answer(200, (), b"{}")

    async def twice(request: Request, peer: Peer) -> None:
        await peer.send(sync.wallet.right(request).wire() + stray.wire())

    await sync.accepted(twice)
    await asyncio.sleep(0)
    sync.upstream.reset(sync.wallet.says())
    await sync.accepted()
