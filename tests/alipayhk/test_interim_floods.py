"""Endless 1xx responses from AlipayHK or an egress proxy: one call fails, and the others proceed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

import pytest

from clients.alipayhk.pairing import HEADS_BYTES_MAX, INTERIM_MAX
from clients.alipayhk.wire import errors
from tests.alipayhk.upstream import Upstream, post, replying, traced, transport
from tests.raw_http import Peer

TIMEOUT_S: Final = 30.0
BUSY_S: Final = 0.5
"""The most CPU time that floods may cost a task that waits for the event loop, in seconds.

It is at most 0.13 s, also with coverage, and up to 2.4 s without limits. The wall clock would also count
the threads that send the floods, and other processes.
"""
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
INTERIM: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LONG: Final = b"HTTP/1.1 103 Early Hints\r\n" + b"X: " + b"x" * 8000 + b"\r\n\r\n"
FLOODS: Final[dict[str, tuple[bytes, type[errors.CallError]]]] = {
    "short 1xx responses": (INTERIM * 40_000, errors.ConnectionLost),
    "1xx responses with long headers": (LONG * 100, errors.ConnectionLost),
    "one 1xx response with many headers": (
        b"HTTP/1.1 103 E\r\n" + b"X: y\r\n" * 100_000,
        errors.Truncated,
    ),
}


@contextlib.contextmanager
def flooding(flood: bytes) -> Iterator[int]:
    """A server that sends endless 1xx responses on every connection, as fast as the client reads."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def serve(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            peer.recv(65_536)
            while True:
                peer.sendall(flood)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


async def longest_wait() -> float:
    """Measure, until cancelled, the most CPU time that passes before a task that sleeps 5 ms is woken."""
    longest = 0.0
    try:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.005)
            longest = max(longest, time.thread_time() - began)
    except asyncio.CancelledError:
        return longest


@pytest.mark.parametrize(("flood", "failure"), FLOODS.values(), ids=FLOODS.keys())
@pytest.mark.parametrize("through_a_proxy", [False, True])
async def test_calls_proceed_while_others_get_endless_1xx_responses(
    flood: bytes, failure: type[errors.CallError], through_a_proxy: bool
) -> None:
    async with Upstream(replying(traced(OK))) as good, transport() as others:
        with flooding(flood) as port:
            url = f"http://127.0.0.1:{port}"
            proxy = url if through_a_proxy else None
            async with transport(timeout_s=TIMEOUT_S, proxy=proxy) as opened:
                watch = asyncio.create_task(longest_wait())
                floods = [
                    asyncio.create_task(post(opened, "https://x.example" if through_a_proxy else url))
                    for _ in range(20)
                ]
                began = time.thread_time()
                served = await post(others, good.url)
                served_s = time.thread_time() - began
                ended = await asyncio.gather(*floods)
                watch.cancel()
                waited_s = await watch
    lost = (errors.Unreachable, False) if through_a_proxy else (failure, True)
    assert {outcome.ending for outcome in ended} == {lost}
    # The limit ended them long before the timeout, even on a busy machine.
    assert max(outcome.took_s for outcome in ended) < TIMEOUT_S / 3
    assert served.answer is not None
    assert max(waited_s, served_s) < BUSY_S


@pytest.mark.parametrize(("count", "answered"), [(INTERIM_MAX, True), (INTERIM_MAX + 1, False)])
@pytest.mark.parametrize("at_once", [True, False])
async def test_at_most_64_1xx_responses_are_allowed_before_a_response(
    count: int, answered: bool, at_once: bool
) -> None:
    async def script(wire: Peer) -> None:
        await wire.request()
        if at_once:
            await wire.send(INTERIM * count)
        else:
            for _ in range(count):
                await wire.send(INTERIM)
                await asyncio.sleep(0)
        await wire.send(OK)

    async with Upstream(script) as upstream, transport() as opened:
        outcome = await post(opened, upstream.url)
    assert (outcome.answer is not None) is answered
    if not answered:
        assert outcome.ending == (errors.ConnectionLost, True)
        assert "TooManyInterimResponses" in str(outcome.error)


@pytest.mark.parametrize(("excess", "answered"), [(0, True), (1, False)])
async def test_at_most_256_kib_of_1xx_responses_are_allowed_before_a_response(
    excess: int, answered: bool
) -> None:
    sizes = [HEADS_BYTES_MAX // 8] * 7 + [HEADS_BYTES_MAX // 8 + excess]
    start, end = b"HTTP/1.1 103 Early Hints\r\nX: ", b"\r\n\r\n"
    interim = [start + b"x" * (size - len(start + end)) + end for size in sizes]
    async with Upstream(replying(b"".join(interim) + OK)) as upstream, transport() as opened:
        outcome = await post(opened, upstream.url)
    assert (outcome.answer is not None) is answered
    if not answered:
        assert outcome.ending == (errors.ConnectionLost, True)
        assert "TooManyInterimResponses" in str(outcome.error)
