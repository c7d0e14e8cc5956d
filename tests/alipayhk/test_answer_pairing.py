"""Repeated, early, late and unsolicited responses on real sockets: none is matched to another request."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from clients.alipayhk.connections import QUARANTINE_S
from clients.alipayhk.pairing import ANSWERS_REMEMBERED, PairedProtocol
from clients.alipayhk.transport import Transport
from clients.alipayhk.wire import errors
from tests.alipayhk.upstream import (
    NO_AUTHORITIES,
    Outcome,
    Upstream,
    post,
    relaying,
    replying,
    rested,
    transport,
)
from tests.certificates import Authority
from tests.raw_http import Peer

LOST: Final = (errors.ConnectionLost, True)


def answer(body: str, *lines: str, signature: str = "same") -> bytes:
    """Return a response as bytes; without `lines` its body is also its Tracer-Id."""
    lines = lines or (f"Tracer-Id: {body}",)
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", f"Signature: {signature}", *lines, "", ""]
    return "\r\n".join(head).encode() + body.encode()


class Channel:
    """An upstream, plain or over TLS, and the transport that calls it."""

    def __init__(self, server: ssl.SSLContext | None, client: ssl.SSLContext) -> None:
        self.server, self.client = server, client

    def upstream(self, script: Callable[[Peer], Awaitable[None]]) -> Upstream:
        return Upstream(script, self.server)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Channel:
    authority = Authority(tmp_path_factory.mktemp("authority"), "known")
    return Channel(authority.server_context(), authority.client_context())


@pytest.fixture(params=["plain", "tls"])
def channel(request: pytest.FixtureRequest, tls: Channel) -> Channel:
    return tls if request.param == "tls" else Channel(None, NO_AUTHORITIES)


async def ask(opened: Transport, upstream: Upstream, *, fresh_connection: bool = False) -> Outcome:
    """Post on a connection that may be reused."""
    return await post(opened, upstream.url, reuse_connection=True, fresh_connection=fresh_connection)


def bodies(*outcomes: Outcome) -> list[bytes | None]:
    return [outcome.answer.body if outcome.answer else None for outcome in outcomes]


async def closed(wire: Peer) -> None:
    """Wait until the client has closed the connection."""
    async with asyncio.timeout(10):
        try:
            while await wire.reader.read(4096):
                pass
        except OSError:
            pass


def counting(bend: Callable[[Peer, int], Awaitable[None]]) -> Callable[[Peer], Awaitable[None]]:
    """Respond to the n-th request, over all connections, with `n`; then run the test's own action."""

    async def script(wire: Peer) -> None:
        while True:
            await wire.request()
            number = len(wire.requests)
            await wire.send(answer(str(number)))
            await bend(wire, number)

    return script


EXTRAS: Final = {
    "the same answer again": answer("1"),
    "another signed answer": answer("forged"),
    "half an answer": answer("1")[:40],
    "one byte": b"H",
    "an empty line": b"\r\n",
    "a 1xx response": b"HTTP/1.1 100 Continue\r\n\r\n",
    "no HTTP": b"\x00\xff nonsense\r\n\r\n",
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS.keys())
@pytest.mark.parametrize("after_s", [0.02, QUARANTINE_S + 0.2], ids=["in the quarantine", "while idle"])
async def test_unexpected_bytes_close_the_connection(
    channel: Channel, extra: bytes, after_s: float
) -> None:
    ended = asyncio.Event()

    async def bend(wire: Peer, number: int) -> None:
        if number == 1:
            await asyncio.sleep(after_s)
            await wire.send(extra)
            await closed(wire)
            ended.set()

    async with channel.upstream(counting(bend)) as upstream, transport(tls=channel.client) as opened:
        first = await ask(opened, upstream)
        async with asyncio.timeout(10):
            await ended.wait()
        second = await ask(opened, upstream)
    assert bodies(first, second) == [b"1", b"2"]
    assert len(upstream.peers) == 2


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS.keys())
async def test_bytes_after_a_response_are_never_another_response(channel: Channel, extra: bytes) -> None:
    async def script(wire: Peer) -> None:
        while True:
            await wire.request()
            number = len(wire.requests)
            await wire.send(answer(str(number)) + (extra if number == 1 else b""))

    async with channel.upstream(script) as upstream, transport(tls=channel.client) as opened:
        first = await ask(opened, upstream)
        await rested()
        second = await ask(opened, upstream)
    assert bodies(first, second) == [b"1", b"2"]
    assert len(upstream.peers) == 2


async def test_second_response_in_the_same_segment_closes_the_connection(channel: Channel) -> None:
    async def script(wire: Peer) -> None:
        while True:
            await wire.request()
            number = len(wire.requests)
            await wire.send(answer(str(number)) + answer(f"smuggled {number}"))

    async with channel.upstream(script) as upstream, transport(tls=channel.client) as opened:
        outcomes = [await ask(opened, upstream) for _ in range(3)]
    assert bodies(*outcomes) == [b"1", b"2", b"3"]
    assert len(upstream.peers) == 3


async def test_bytes_in_the_kernel_are_noticed_before_the_next_request_is_written(channel: Channel) -> None:
    pushed = asyncio.Event()

    async def bend(wire: Peer, number: int) -> None:
        if number == 1:
            await pushed.wait()
            await wire.send(answer("pushed"))

    async with channel.upstream(counting(bend)) as upstream, transport(tls=channel.client) as opened:
        first = await ask(opened, upstream)
        await rested()
        pushed.set()
        # The server writes in the next pass of the event loop, so the client has not read the bytes yet.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = await ask(opened, upstream)
    assert bodies(first, second) == [b"1", b"2"]


async def test_response_before_any_request_means_not_sent() -> None:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        ours.setblocking(False)
        theirs.sendall(answer("pushed"))
        loop = asyncio.get_running_loop()
        made, protocol = await loop.create_connection(lambda: PairedProtocol(loop), sock=ours)
        assert protocol.is_new
        assert not await protocol.ready()
        made.abort()


async def test_new_connection_closed_before_the_request_means_not_sent() -> None:
    theirs, ours = socket.socketpair()
    with ours:
        ours.setblocking(False)
        theirs.close()
        loop = asyncio.get_running_loop()
        made, protocol = await loop.create_connection(lambda: PairedProtocol(loop), sock=ours)
        assert not await protocol.ready()
        made.abort()


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize("reuse_connection", [True, False])
async def test_response_before_the_body_was_sent_is_not_accepted(
    channel: Channel, reuse_connection: bool
) -> None:
    async def script(wire: Peer) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.send(answer("early"))
        await asyncio.sleep(10)

    async with channel.upstream(script) as upstream, transport(tls=channel.client) as opened:
        outcome = await post(
            opened, upstream.url, body=b"x" * 32_000_000, reuse_connection=reuse_connection
        )
    assert outcome.ending == LOST


async def test_repeated_response_is_refused_and_a_new_connection_gets_the_right_one(
    channel: Channel,
) -> None:
    async def script(wire: Peer) -> None:
        while True:
            await wire.request()
            number = len(wire.requests)
            await wire.send(answer(str(1 if number == 2 else number)))

    async with channel.upstream(script) as upstream, transport(tls=channel.client) as opened:
        first = await ask(opened, upstream)
        await rested()
        second = await ask(opened, upstream)
        async with asyncio.timeout(10):
            await upstream.tasks[0]  # the server has seen the connection close
        third = await ask(opened, upstream, fresh_connection=True)
    assert bodies(first, third) == [b"1", b"3"]
    assert second.ending == (errors.Repeated, True)
    assert len(upstream.peers) == 2
    assert upstream.requests[2].values("Connection") == ["close"]


@pytest.mark.parametrize(
    ("since", "ending"),
    [(ANSWERS_REMEMBERED, (errors.Repeated, True)), (ANSWERS_REMEMBERED + 1, (None, True))],
)
async def test_last_64_responses_of_a_connection_are_remembered(
    since: int, ending: tuple[type[errors.CallError] | None, bool]
) -> None:
    async def script(wire: Peer) -> None:
        while True:
            await wire.request()
            number = len(wire.requests)
            await wire.send(answer(str(number if number <= since else 1)))

    async with Upstream(script) as upstream, transport(quarantine_s=0) as opened:
        for number in range(1, since + 1):
            assert bodies(await ask(opened, upstream)) == [str(number).encode()]
            await asyncio.sleep(0.01)
        assert (await ask(opened, upstream)).ending == ending
    assert len(upstream.peers) == 1


async def test_equal_signatures_with_different_tracer_ids_are_two_responses(channel: Channel) -> None:
    async with (
        channel.upstream(counting(_nothing)) as upstream,
        transport(tls=channel.client) as opened,
    ):
        outcomes = []
        for _ in range(3):
            outcomes.append(await ask(opened, upstream))
            await rested()
    assert bodies(*outcomes) == [b"1", b"2", b"3"]
    assert len(upstream.peers) == 1


async def test_equal_tracer_id_with_another_signature_is_another_response() -> None:
    async def script(wire: Peer) -> None:
        while True:
            await wire.request()
            number = len(wire.requests)
            await wire.send(answer(str(number), "Tracer-Id: t", signature=str(number)))

    async with Upstream(script) as upstream, transport() as opened:
        first = await ask(opened, upstream)
        await rested()
        second = await ask(opened, upstream)
    assert bodies(first, second) == [b"1", b"2"]
    assert len(upstream.peers) == 1


async def test_equal_tracer_ids_without_signatures_are_two_responses() -> None:
    """Only the header Signature and Tracer-Id together identify a response."""
    unsigned = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTracer-Id: t\r\n\r\n{}"
    async with Upstream(replying(unsigned, unsigned)) as upstream, transport() as opened:
        first = await ask(opened, upstream)
        await rested()
        second = await ask(opened, upstream)
    assert bodies(first, second) == [b"{}", b"{}"]
    assert len(upstream.peers) == 1


TRACERS: Final = {
    "none": ("X: y",),
    "empty": ("Tracer-Id:",),
    "two": ("Tracer-Id: a", "Tracer-Id: b"),
    "the same twice": ("Tracer-Id: a", "tracer-id: a"),
}


@pytest.mark.parametrize("lines", TRACERS.values(), ids=TRACERS.keys())
async def test_response_without_exactly_one_tracer_id_is_accepted_and_its_connection_closed(
    channel: Channel, lines: tuple[str, ...]
) -> None:
    async def script(wire: Peer) -> None:
        await wire.request()
        await wire.send(answer("1", *lines))
        await closed(wire)

    async with channel.upstream(script) as upstream, transport(tls=channel.client) as opened:
        outcomes = []
        for _ in range(2):
            outcomes.append(await ask(opened, upstream))
            await rested()
    assert bodies(*outcomes) == [b"1", b"1"]
    assert len(upstream.peers) == 2


async def test_connection_is_not_reused_before_its_quarantine_is_over(channel: Channel) -> None:
    async with (
        channel.upstream(counting(_nothing)) as upstream,
        transport(tls=channel.client, quarantine_s=3600) as opened,
    ):
        outcomes = [await ask(opened, upstream) for _ in range(3)]
    assert bodies(*outcomes) == [b"1", b"2", b"3"]
    assert len(upstream.peers) == 3


async def test_1xx_responses_before_a_response_are_skipped(channel: Channel) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

    async def script(wire: Peer) -> None:
        while True:
            await wire.request()
            await wire.send(interim)
            await wire.send(interim + answer(str(len(wire.requests))))

    async with channel.upstream(script) as upstream, transport(tls=channel.client) as opened:
        first = await ask(opened, upstream)
        await rested()
        second = await ask(opened, upstream)
    assert bodies(first, second) == [b"1", b"2"]
    assert len(upstream.peers) == 1


async def test_connection_closed_by_the_other_side_while_idle_is_not_reused(channel: Channel) -> None:
    async def script(wire: Peer) -> None:
        await wire.request()
        await wire.send(answer(str(len(wire.requests))))
        await asyncio.sleep(QUARANTINE_S + 0.1)
        wire.writer.close()  # over TLS: close_notify first, and the end when it is answered

    async with channel.upstream(script) as upstream, transport(tls=channel.client) as opened:
        first = await ask(opened, upstream)
        async with asyncio.timeout(10):
            await upstream.tasks[0]
        second = await ask(opened, upstream)
    assert bodies(first, second) == [b"1", b"2"]
    assert len(upstream.peers) == 2


async def test_no_connection_is_reused_when_reuse_is_off(channel: Channel) -> None:
    async with (
        channel.upstream(counting(_nothing)) as upstream,
        transport(tls=channel.client, reuse_connections=False) as opened,
    ):
        for _ in range(3):
            await ask(opened, upstream)
            await rested()
    assert len(upstream.peers) == 3
    assert all(request.values("Connection") == ["close"] for request in upstream.requests)


async def test_unexpected_bytes_close_a_tunnel(tls: Channel) -> None:
    ended = asyncio.Event()

    async def bend(wire: Peer, number: int) -> None:
        if number == 2:
            await wire.send(answer("2"))
            await closed(wire)
            ended.set()

    async with (
        tls.upstream(counting(bend)) as upstream,
        Upstream(relaying) as proxy,
        transport(tls=tls.client, proxy=proxy.url) as opened,
    ):
        outcomes = []
        for _ in range(2):
            outcomes.append(await ask(opened, upstream))
            await rested()
        async with asyncio.timeout(10):
            await ended.wait()
        outcomes.append(await ask(opened, upstream))
    assert bodies(*outcomes) == [b"1", b"2", b"3"]
    assert len(upstream.peers) == len(proxy.peers) == 2


async def test_many_calls_with_random_duplicates_get_their_own_responses(channel: Channel) -> None:
    """Each request names a number, and its answer must have that number."""

    async def script(wire: Peer) -> None:
        while True:
            request = await wire.request()
            number = request.body.decode()
            await wire.send(answer(number))
            if int(number) % 3 == 0:
                await asyncio.sleep(int(number) % 7 * 0.02)
                await wire.send(answer(number))

    async def calling(first: int) -> None:
        for number in range(first, first + 20):
            for attempt in range(3):
                outcome = await post(
                    opened,
                    upstream.url,
                    body=str(number).encode(),
                    reuse_connection=True,
                    fresh_connection=attempt > 0,
                )
                if outcome.answer:
                    break
            assert bodies(outcome) == [str(number).encode()]

    async with channel.upstream(script) as upstream, transport(tls=channel.client) as opened:
        await asyncio.gather(*(calling(first) for first in range(100, 1100, 100)))


async def _nothing(_: Peer, __: int) -> None:
    """Do nothing."""
