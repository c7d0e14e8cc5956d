"""Responses that are truncated, endless or too large: each has a limit, and no part of one is trusted."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator

import pytest
from grpc import StatusCode

from tests.e2e.caller import alarm
from tests.e2e.conftest import Rpc
from tests.e2e.samples import SYNC
from tests.e2e.upstream import Peer, Request, Response, Script, closes, hangs, resets, responds, sends
from tests.e2e.wallet import Wallet

KIB = 1024
MEMORY_KIB_MAX = 24 * KIB
"""How much a gateway's memory may grow during a flood, in KiB."""


def part(wallet: Wallet, cut: Callable[[Response], bytes], then: Script) -> Script:
    """Return a script that sends what `cut` leaves of a correct response, and then runs `then`."""

    async def script(request: Request, peer: Peer) -> None:
        await sends(cut(wallet.right(request)), then=then)(request, peer)

    return script


@pytest.mark.parametrize("end", [closes, resets])
async def test_connection_closed_without_a_response_is_lost(rpc: Rpc, end: Script) -> None:
    await rpc.refused(end, rpc.doubt("CONNECTION_LOST"))


async def test_response_head_with_harmless_faults_is_accepted(rpc: Rpc) -> None:
    def odd(response: Response) -> bytes:
        length = ("Content-Length", str(len(response.body)))
        headers = (("Set-Cookie", "x" * 8300), *((f"X-{number}", "y") for number in range(130)))
        return response.head(*headers, ("X odd", "y"), length, length) + response.body

    await rpc.accepted(part(rpc.wallet, odd, hangs))


async def test_response_with_an_unreadable_head_counts_as_unsigned(rpc: Rpc) -> None:
    def two_lengths(response: Response) -> bytes:
        return response.head(("Content-Length", "1"), ("Content-Length", "2")) + response.body

    await rpc.refused(part(rpc.wallet, two_lengths, hangs), rpc.doubt("RESPONSE_UNSIGNED"))


def half(response: Response) -> bytes:
    """Return a response with the full Content-Length and half of the body."""
    return response.wire()[: -len(response.body) // 2]


@pytest.mark.parametrize("cut", [half, Response.chunked])
async def test_body_shorter_than_its_announced_length_is_truncated(
    rpc: Rpc, cut: Callable[[Response], bytes]
) -> None:
    await rpc.refused(part(rpc.wallet, cut, closes), rpc.doubt("RESPONSE_TRUNCATED"))


async def test_truncated_body_without_a_length_is_never_accepted(rpc: Rpc) -> None:
    def cut(response: Response) -> bytes:
        return response.head(("Connection", "close")) + response.body[:-1]

    # SyncLinkage's signature covers the whole body and fails; a truncated envelope contains no signature.
    broken = alarm("RESPONSE_SIGNATURE_INVALID") if rpc.api is SYNC else rpc.doubt("RESPONSE_TRUNCATED")
    await rpc.refused(part(rpc.wallet, cut, closes), broken)


async def test_whole_body_without_a_length_is_accepted(rpc: Rpc) -> None:
    def whole(response: Response) -> bytes:
        return response.head(("Connection", "close")) + response.body

    await rpc.accepted(part(rpc.wallet, whole, closes))


async def test_signed_response_below_256_kib_is_read(rpc: Rpc) -> None:
    def respond(request: Request) -> Response:
        return rpc.wallet.right(request, {**rpc.api.success, "more": "x" * 254 * KIB})

    await rpc.accepted(responds(respond))


def chunks() -> Iterator[bytes]:
    """Yield a head, and then chunks without end."""
    yield Response().head(("Transfer-Encoding", "chunked"))
    yield from itertools.repeat(b"4000\r\n" + b"x" * 16 * KIB + b"\r\n")


async def test_endless_chunks_are_cut_off_and_memory_stays_flat(rpc: Rpc) -> None:
    async def endless(request: Request, peer: Peer) -> None:
        await sends(chunks())(request, peer)

    before = rpc.gateway.resident_kib()
    await rpc.refused(endless, rpc.doubt("RESPONSE_TRUNCATED"))
    assert rpc.gateway.resident_kib() - before < MEMORY_KIB_MAX


async def test_gzip_bomb_is_not_inflated(rpc: Rpc) -> None:
    bomb = Response(200, (("Content-Encoding", "gzip"),), gzip.compress(bytes(64 * KIB * KIB), 9))
    before = rpc.gateway.resident_kib()
    await rpc.refused(responds(lambda _: bomb), rpc.doubt("RESPONSE_TRUNCATED"))
    assert rpc.gateway.resident_kib() - before < MEMORY_KIB_MAX


async def test_response_sent_byte_by_byte_times_out_at_the_callers_deadline(rpc: Rpc) -> None:
    start = Response().head(("Content-Length", "9999"))
    drip = sends(itertools.chain([start], itertools.repeat(b"x")), pause_s=0.02)
    expected = rpc.doubt("UPSTREAM_TIMEOUT", code=StatusCode.DEADLINE_EXCEEDED)
    await rpc.refused(drip, expected, timeout_s=1.5)
