"""Answers that break off, never end, or are too much: each has a limit, and none is half believed."""

from __future__ import annotations

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
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"\x16\x03\x01\x00\x02",
    ],
)
async def test_connection_that_ends_before_the_answers_head_does_is_lost(way: Way, data: bytes) -> None:
    await way.refused(sends(data, then=closes), way.doubt("CONNECTION_LOST"))


async def test_answer_whose_head_has_harmless_faults_is_believed(way: Way) -> None:
    def odd(answer: Answer) -> bytes:
        length = ("Content-Length", str(len(answer.body)))
        headers = (("Set-Cookie", "x" * 8300), *((f"X-{number}", "y") for number in range(130)))
        return answer.head(*headers, ("X odd", "y"), length, length) + answer.body

    await way.accepted(part(way.wallet, odd, hangs))


async def test_answer_whose_head_cannot_be_read_counts_as_unsigned(way: Way) -> None:
    def two_lengths(answer: Answer) -> bytes:
        return answer.head(("Content-Length", "1"), ("Content-Length", "2")) + answer.body

    await way.refused(part(way.wallet, two_lengths, hangs), way.doubt("RESPONSE_UNSIGNED"))


def half(answer: Answer) -> bytes:
    """Announce the whole length, and write half of the body."""
    return answer.wire()[: -len(answer.body) // 2]


@pytest.mark.parametrize("end", [closes])
@pytest.mark.parametrize("cut", [half, Answer.chunked])
async def test_announced_body_that_ends_early_is_truncated(
    way: Way, cut: Callable[[Answer], bytes], end: Script
) -> None:
    await way.refused(part(way.wallet, cut, end), way.doubt("RESPONSE_TRUNCATED"))


@pytest.mark.parametrize("missing", [1])
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
    await way.refused(answers(lambda _: bomb), way.doubt("RESPONSE_TRUNCATED"))
    assert way.gateway.resident_kib() - before < MEMORY_KIB_MAX


@pytest.mark.parametrize(
    "start",
    [Answer().head(("Content-Length", "9999"))],
    ids=["body"],
)
async def test_answer_byte_by_byte_ends_with_the_callers_time(way: Way, start: bytes) -> None:
    drip = sends(itertools.chain([start], itertools.repeat(b"x")), pause_s=0.02)
    expected = way.doubt("UPSTREAM_TIMEOUT", code=StatusCode.DEADLINE_EXCEEDED)
    await way.refused(drip, expected, timeout_s=0.4)
