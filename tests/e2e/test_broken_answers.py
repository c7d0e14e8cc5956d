"""Responses that are truncated, endless or too large: each has a limit, and no part of one is trusted."""

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
"""How much a gateway's memory may grow during a flood, in KiB."""


def part(wallet: Wallet, cut: Callable[[Answer], bytes], then: Script) -> Script:
    """Return a script that sends what `cut` leaves of a correct response, and then runs `then`."""

    async def script(request: Request, peer: Peer) -> None:
        await sends(cut(wallet.right(request)), then=then)(request, peer)

    return script


@pytest.mark.parametrize("end", [closes, resets])
async def test_connection_closed_without_a_response_is_lost(way: Way, end: Script) -> None:
    await way.refused(end, way.doubt("CONNECTION_LOST"))


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"\x16\x03\x01\x00\x02",
    ],
)
async def test_connection_closed_within_the_response_head_is_lost(way: Way, data: bytes) -> None:
    await way.refused(sends(data, then=closes), way.doubt("CONNECTION_LOST"))


def half(answer: Answer) -> bytes:
    """Return a response with the full Content-Length and half of the body."""
    return answer.wire()[: -len(answer.body) // 2]


@pytest.mark.parametrize("end", [closes])
@pytest.mark.parametrize("cut", [half, Answer.chunked])
async def test_body_shorter_than_its_announced_length_is_truncated(
    way: Way, cut: Callable[[Answer], bytes], end: Script
) -> None:
    await way.refused(part(way.wallet, cut, end), way.doubt("RESPONSE_TRUNCATED"))


@pytest.mark.parametrize("missing", [1])
async def test_truncated_body_without_a_length_is_never_accepted(way: Way, missing: int) -> None:
    def cut(answer: Answer) -> bytes:
        return answer.head(("Connection", "close")) + answer.body[:-missing]

    # SyncLinkage's signature covers the whole body and fails; a truncated envelope contains no signature.
    broken = alarm("RESPONSE_SIGNATURE_INVALID") if way.api is SYNC else way.doubt("RESPONSE_TRUNCATED")
    await way.refused(part(way.wallet, cut, closes), broken)


async def test_whole_body_without_a_length_is_accepted(way: Way) -> None:
    def whole(answer: Answer) -> bytes:
        return answer.head(("Connection", "close")) + answer.body

    await way.accepted(part(way.wallet, whole, closes))


async def test_whole_chunked_body_is_accepted(way: Way) -> None:
    def whole(answer: Answer) -> bytes:
        return answer.chunked() + b"0\r\n\r\n"

    await way.accepted(part(way.wallet, whole, hangs))


async def test_interim_response_is_skipped(way: Way) -> None:
    def interim(answer: Answer) -> bytes:
        return (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer.wire()
        )

    await way.accepted(part(way.wallet, interim, hangs))


async def test_response_of_300_kib_is_truncated(way: Way) -> None:
    huge = Answer(body=b"x" * 300 * KIB)
    await way.refused(answers(lambda _: huge), way.doubt("RESPONSE_TRUNCATED"))


async def test_signed_response_below_256_kib_is_read(way: Way) -> None:
    def answer(request: Request) -> Answer:
        return way.wallet.right(request, {**way.api.success, "more": "x" * 254 * KIB})

    await way.accepted(answers(answer))


def chunks() -> Iterator[bytes]:
    """Yield a head, and then chunks without end."""
    yield Answer().head(("Transfer-Encoding", "chunked"))
    yield from itertools.repeat(b"4000\r\n" + b"x" * 16 * KIB + b"\r\n")


async def test_endless_chunks_are_cut_off_and_memory_stays_flat(way: Way) -> None:
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
    [Answer().head(("Content-Length", "9999"))],
    ids=["body"],
)
async def test_response_sent_byte_by_byte_times_out_at_the_callers_deadline(way: Way, start: bytes) -> None:
    drip = sends(itertools.chain([start], itertools.repeat(b"x")), pause_s=0.02)
    expected = way.doubt("UPSTREAM_TIMEOUT", code=StatusCode.DEADLINE_EXCEEDED)
    await way.refused(drip, expected, timeout_s=0.4)
