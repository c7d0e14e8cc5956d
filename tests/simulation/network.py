"""The network between simulated processes and AlipayHK: real sockets, and faults in what they carry.

A process writes to one end of a socket pair. The network reads the other end after each callback of the
process, so it knows exactly when the first byte of a request left. Each connection and each request gets
the next treatment of the plan. Bytes that arrive while a process is frozen wait in its socket, as in the
kernel. When a process is killed, its ends are closed.
"""

from __future__ import annotations

import asyncio
import errno
import math
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from clients.alipayhk.wire.messages import RawRequest

from .timeline import STARTED_S, Process, Timeline
from .wallet import LIMITED, ODD_REPEAT, Received, Wallet, http_response

LEAVES_S: Final = 0.0005
"""The time that a connection takes, in seconds."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """What happens to one request and its response."""

    to_wallet_s: float = 0.001
    """The time until AlipayHK has the request, in seconds."""
    front_end: str = ""
    """What answers instead of the wallet: an HTTP status, `unsigned`, `U`, or the code of a rejection."""
    lost: bool = False
    """Whether the request never arrives."""
    back_s: float = 0.001
    """The time until the response leaves, in seconds."""
    answer: str = "whole"
    """How the response arrives: `whole` or one of ANSWERS."""
    share: float = 0.5
    """Where it is cut or garbled, as a share of its length."""
    again_s: float = 0.05
    """When its copy follows, in seconds, where it is sent twice."""
    odd_repeat: bool = False
    """Whether a repeated request that was applied is rejected with a code that no table knows."""


@dataclass(slots=True)
class Sent:
    """A request of which at least one byte left a process."""

    at_s: float
    process: str
    request: tuple[str, str] = ("", "")
    """API and request id; empty if AlipayHK never had the whole request."""
    content: str = ""
    answers: list[str] = field(default_factory=list)
    """The numbers of the responses that AlipayHK made for it."""
    garbled: bool = False
    """Whether a response was changed on its way; no signature covers its Tracer-Id."""
    took_effect: bool = False
    """Whether AlipayHK applied the request because of it."""
    fresh: bool = False
    """Whether it was the first request on its connection."""
    flight: Any = None
    """The flight that sent it."""


@dataclass(slots=True, eq=False)
class _Connection:
    process: Process
    end: socket.socket
    received: bytearray = field(default_factory=bytearray)
    sent: Sent | None = None
    """The request that is being received."""
    fresh: bool = True
    """Whether no request was received before."""
    open: bool = True


class Network:
    """All connections, and AlipayHK behind them."""

    def __init__(
        self,
        timeline: Timeline,
        wallet: Wallet,
        connects: Sequence[str],
        treatments: Sequence[Treatment],
        note: Callable[..., None],
    ) -> None:
        self._timeline = timeline
        self._wallet = wallet
        self._connects: Iterator[str] = iter(connects)
        self._treatments: Iterator[Treatment] = iter(treatments)
        self._note = note
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._near: dict[Process, list[socket.socket]] = {}
        self.sent: list[Sent] = []
        self.calm = False
        """Whether there are no more faults."""
        self.on_first_byte: Callable[[Process, Sent], None] = lambda *_: None

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._poll.close()

    async def reach(self) -> None:
        """Connect, fail or hang, as the plan says for the next connection."""
        how = "" if self.calm else next(self._connects, "")
        await asyncio.sleep(math.inf if how == "hang" else LEAVES_S)
        if how == "refused":
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    def open(self, process: Process) -> socket.socket:
        """Return the near end of a new connection."""
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        self._near.setdefault(process, []).append(near)
        self._connections[far.fileno()] = _Connection(process, far)
        self._poll.register(far.fileno(), select.EPOLLIN)
        return near

    def drop(self, process: Process) -> None:
        """Close the connections of a process that was killed, at both ends."""
        for near in self._near.pop(process, []):
            near.close()
        for connection in list(self._connections.values()):
            if connection.process is process:
                self._drop(connection)

    def receive(self, _: Process) -> None:
        """Read what processes have written since the last time."""
        if not self._connections:
            return
        for descriptor, _mask in self._poll.poll(0):
            connection = self._connections[descriptor]
            try:
                data = connection.end.recv(1 << 16)
            except OSError:
                data = b""
            if data:
                self._received(connection, data)
            else:
                self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        if connection.open:
            connection.open = False
            self._poll.unregister(connection.end.fileno())
            del self._connections[connection.end.fileno()]
            connection.end.close()
            connection.process.loop.has_input = True

    def _received(self, connection: _Connection, data: bytes) -> None:
        if connection.sent is None:
            connection.sent = Sent(self._timeline.now_s, connection.process.name)
            self.sent.append(connection.sent)
        connection.received += data
        if (raw := _request_in(connection.received)) is None:
            return
        connection.received.clear()
        sent, connection.sent = connection.sent, None
        received = self._wallet.read(raw)
        sent.request, sent.content = received.id, received.content
        sent.fresh, connection.fresh = connection.fresh, False
        self._note(connection.process.name, "sends", received.request_id, received.content)
        self.on_first_byte(connection.process, sent)
        treatment = Treatment() if self.calm else next(self._treatments, Treatment())
        if treatment.lost:
            self._timeline.after(
                treatment.to_wallet_s, lambda: self._deliver(connection, treatment, "", b"")
            )
        else:
            self._timeline.after(
                treatment.to_wallet_s, lambda: self._arrived(connection, received, sent, treatment)
            )

    def _arrived(
        self, connection: _Connection, received: Received, sent: Sent, treatment: Treatment
    ) -> None:
        now_s = STARTED_S + self._timeline.now_s
        front = treatment.front_end
        if not front:
            repeated = received.id in self._wallet.decided and received.endpoint.idempotent
            effects = self._wallet.effects(received.id)
            code = self._wallet.decide(received)
            sent.took_effect = self._wallet.effects(received.id) > effects
            self._note("AlipayHK", "decides", received.request_id, code)
            if repeated and code == "S" and treatment.odd_repeat:
                code = ODD_REPEAT
            number, data = self._wallet.answer(received, code, now_s)
        elif front.isdigit():
            number, data = front, http_response(int(front), (), b"<html>front end</html>")
        elif front == "unsigned":
            number, data = front, http_response(200, (), b'{"result":{"resultStatus":"S"}}')
        elif front == "U":
            number, data = self._wallet.answer(received, "UNKNOWN_EXCEPTION", now_s, status="U")
        else:
            number, data = self._wallet.answer(received, front, now_s)
        sent.answers.append(number)
        sent.garbled |= treatment.answer == "garbled"
        self._timeline.after(treatment.back_s, lambda: self._deliver(connection, treatment, number, data))

    def _deliver(self, connection: _Connection, treatment: Treatment, number: str, data: bytes) -> None:
        how = treatment.answer
        self._note("AlipayHK", "answers", number or "nothing", how)
        at = min(int(len(data) * treatment.share), max(len(data) - 1, 0))
        if how == "hang" or (how == "whole" and not data):
            return
        if how == "closed":
            self._drop(connection)
        elif how == "cut":
            self._write(connection, data[:at])
            self._drop(connection)
        elif how == "garbled":
            self._write(connection, data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :] if data else b"")
        elif how == "pieces":
            self._write(connection, data[:at])
            self._timeline.after(treatment.again_s, lambda: self._write(connection, data[at:]))
        elif how == "twice":
            self._write(connection, data + data)
        else:
            self._write(connection, data)
            if how == "last":
                self._drop(connection)
            elif how == "again":
                self._timeline.after(treatment.again_s, lambda: self._write(connection, data))

    def _write(self, connection: _Connection, data: bytes) -> None:
        if not connection.open:
            return
        try:
            connection.end.send(data)
        except OSError:
            self._drop(connection)
        connection.process.loop.has_input = True


ANSWERS: Final = ("hang", "closed", "cut", "garbled", "pieces", "twice", "again", "last")
"""How a response can arrive, other than whole."""
FRONT_ENDS: Final = ("503", "403", "unsigned", "U", "INVALID_SIGNATURE", "ACCESS_DENIED", LIMITED)


@dataclass(frozen=True, slots=True)
class Connector:
    """The network as one process sees it."""

    network: Network
    process: Process

    async def reach(self) -> None:
        """Connect."""
        await self.network.reach()

    def open(self) -> socket.socket:
        """Return the near end of a new connection."""
        return self.network.open(self.process)


def _request_in(received: bytearray) -> RawRequest | None:
    """Return the request if it is complete."""
    head, found, body = bytes(received).partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
    length = next(int(value) for name, value in headers if name.lower() == "content-length")
    return RawRequest(first.split(" ")[1], headers, body) if len(body) >= length else None
