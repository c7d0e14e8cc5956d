"""A fault proxy between gateways and the sandbox: it records the requests and disturbs the responses.

It reads a whole request, sends it to AlipayHK on its own connection, reads the whole response, and then
chooses at random how to return it. So AlipayHK's decision is known here even if the gateway is killed.
"""

from __future__ import annotations

import asyncio
import json
import random
import select
import socket
import struct
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from tests.chaos.gateway_process import PROCESS_HEADER
from tests.chaos.history import BIND, SYNC, UPSTREAM_TIMEOUT_S, Arrival, History, Key

LEASE_MIN_S: Final = UPSTREAM_TIMEOUT_S - 0.1
"""Minimum lease of an attempt after its arrival. No other process is allowed to send during it."""
LATE_S: Final = UPSTREAM_TIMEOUT_S + 0.4
"""Longer than the gateway waits for a response."""
_RESET: Final = struct.pack("ii", 1, 0)
_PAGE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<p>no</p>"
)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def content_of(api: str, members: Mapping[str, object]) -> str:
    """Return the business content of a request in a comparable form."""
    names = ("operateType", "externalIdentityValue", "userId", "bizTime")
    if api == BIND:
        names = ("accountId", "userId", "timestamp", "merchantAccountId")
    return "|".join(str(members.get(name, "")) for name in names)


class Proxy:
    """Listens for gateways in front of one sandbox."""

    def __init__(self, history: History, dice: random.Random, shares: Mapping[str, float]) -> None:
        self.history = history
        self.given: Counter[str] = Counter()
        """The number of times that each disturbance was carried out."""
        self.received: defaultdict[Key, list[Arrival]] = defaultdict(list)
        self._dice = dice
        self._shares = shares
        self._in_flight: dict[Key, tuple[Arrival, Stream]] = {}
        self._idle: deque[Stream] = deque()
        self._sandbox = ("", 0)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_disturbing = True

    async def start(self, sandbox_url: str) -> str:
        """Listen; return the base URL for gateways."""
        parts = urlsplit(sandbox_url)
        self._sandbox = (str(parts.hostname), int(parts.port or 80))
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1_000)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Close every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(_close(writer) for _, writer in self._idle))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            previous = b""
            while request := await _message(reader):
                previous = await self._answer((reader, writer), request, previous)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            await _close(writer)

    async def _answer(self, stream: Stream, request: bytes, previous: bytes) -> bytes:
        """Answer one request; return the response that was written, for a later answer to repeat it."""
        arrival = self._record(request, stream)
        disturb = self._draw(has_previous=bool(previous))
        arrival.answer = disturb
        try:
            if disturb == "lost":
                _reset(stream[1])
                return b""
            response = await self._ask(request)
            _note_decision(arrival, response)
            if disturb == "duplicate, late":
                stream[1].write(previous)
            return await DISTURB[disturb](self, stream, response)
        finally:
            arrival.outlived = time.monotonic()
            if self._in_flight.get(arrival.key, (None,))[0] is arrival:
                del self._in_flight[arrival.key]

    def _record(self, request: bytes, stream: Stream) -> Arrival:
        head, _, body = request.partition(b"\r\n\r\n")
        envelope = json.loads(body)
        if "request" in envelope:
            api, members = BIND, envelope["request"]["body"]
            request_id = envelope["request"]["head"]["reqMsgId"]
        else:
            api, members, request_id = SYNC, envelope, envelope["requestId"]
        key, process = (api, request_id), int(_header(head, PROCESS_HEADER))
        arrival = Arrival(key, content_of(api, members), time.monotonic(), process)
        arrival.concurrent_with = self._concurrent_with(arrival)
        self.history.arrivals.append(arrival)
        self.received[key].append(arrival)
        self._in_flight[key] = (arrival, stream)
        return arrival

    def _concurrent_with(self, arrival: Arrival) -> int:
        """Return another process with a lease on this request and an open connection, or 0."""
        found = self._in_flight.get(arrival.key)
        if found is None:
            return 0
        other, (reader, writer) = found
        ended = reader.exception() is not None or writer.is_closing() or _is_closed(writer)
        if ended or other.process == arrival.process or arrival.at - other.at > LEASE_MIN_S:
            return 0
        return other.process

    def _draw(self, *, has_previous: bool) -> str:
        chance = self._dice.random()
        for kind, names in KINDS.items():
            share = self._shares.get(kind, 0.0) if self.is_disturbing else 0.0
            if chance < share:
                name = self._dice.choice(names)
                name = "duplicate, idle" if name == "duplicate, late" and not has_previous else name
                self.given[name] += 1
                return name
            chance -= share
        return "whole"

    async def _ask(self, request: bytes) -> bytes:
        """Send a request to AlipayHK, and return its whole response."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(*self._sandbox)
        keeps = False
        try:
            writer.write(request)
            response = await _message(reader)
            keeps = _header(response.partition(b"\r\n\r\n")[0], "Connection") != "close"
        finally:
            if keeps:
                self._idle.append((reader, writer))
            else:
                await _close(writer)
        return response

    # Ways to return a response.

    async def _whole(self, stream: Stream, response: bytes) -> bytes:
        stream[1].write(response)
        return response

    async def _slow(self, stream: Stream, response: bytes) -> bytes:
        await asyncio.sleep(self._dice.uniform(0.2, 0.8))
        return await self._whole(stream, response)

    async def _too_late(self, stream: Stream, response: bytes) -> bytes:
        await asyncio.sleep(LATE_S)
        return await self._whole(stream, response)

    async def _truncated(self, stream: Stream, response: bytes) -> bytes:
        stream[1].write(response[: -len(response) // 4])
        stream[1].close()
        return b""

    async def _reset(self, stream: Stream, response: bytes) -> bytes:
        _reset(stream[1])
        return b""

    async def _closed(self, stream: Stream, response: bytes) -> bytes:
        stream[1].close()
        return b""

    async def _page(self, stream: Stream, response: bytes) -> bytes:
        stream[1].write(_PAGE)
        return b""

    async def _twice(self, stream: Stream, response: bytes) -> bytes:
        stream[1].write(response + response)
        return response

    async def _idle_twice(self, stream: Stream, response: bytes) -> bytes:
        stream[1].write(response)
        task = asyncio.create_task(self._again(stream[1], response, self._dice.uniform(0.01, 0.5)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return response

    async def _again(self, writer: asyncio.StreamWriter, response: bytes, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if not writer.is_closing():
            writer.write(response)


Disturb = Callable[[Proxy, Stream, bytes], Awaitable[bytes]]
DISTURB: Final[dict[str, Disturb]] = {
    "whole": Proxy._whole,
    "slow": Proxy._slow,
    "too late": Proxy._too_late,
    "truncated": Proxy._truncated,
    "reset": Proxy._reset,
    "closed": Proxy._closed,
    "page": Proxy._page,
    "duplicate, immediately": Proxy._twice,
    "duplicate, idle": Proxy._idle_twice,
    "duplicate, late": Proxy._whole,
}
KINDS: Final[dict[str, tuple[str, ...]]] = {
    "answer": ("slow", "too late", "too late", "truncated", "reset", "closed", "page", "lost"),
    "duplicate": ("duplicate, immediately", "duplicate, idle", "duplicate, late"),
}
"""The disturbances of each kind of fault. "lost": the request never reaches AlipayHK.

"too late" is twice as likely as the others, because only it keeps an attempt in flight up to its timeout.
"""


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read one HTTP message with a Content-Length; return no bytes at the end of the stream."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    return head + await reader.readexactly(int(_header(head, "Content-Length") or 0))


def _is_closed(writer: asyncio.StreamWriter) -> bool:
    """Return whether the other side has closed the connection, even if that is not read yet."""
    descriptor = writer.get_extra_info("socket").fileno()
    states = select.poll()
    states.register(descriptor, select.POLLRDHUP)
    return bool(states.poll(0))


def _header(head: bytes, name: str) -> str:
    for line in head.decode("latin-1").split("\r\n"):
        found, _, value = line.partition(":")
        if found.lower() == name.lower():
            return value.strip()
    return ""


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _note_decision(arrival: Arrival, response: bytes) -> None:
    head, _, body = response.partition(b"\r\n\r\n")
    arrival.tracer = _header(head, "Tracer-Id")
    result = _result_in(json.loads(body)) or {}
    arrival.status, arrival.result_code = result.get("resultStatus", ""), result.get("resultCode", "")


def _result_in(members: Any) -> dict[str, str] | None:
    """Find the result at any depth; both protocols use the same names for it."""
    if not isinstance(members, dict):
        return None
    if "resultStatus" in members:
        return members
    return next(filter(None, map(_result_in, members.values())), None)
