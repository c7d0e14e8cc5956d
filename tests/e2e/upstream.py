"""A hostile AlipayHK made of raw sockets: it records every byte, and answers as a test's script says."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from tests.raw_http import Listener, Peer, Request

__all__ = ["Peer", "Request"]

PATIENCE_S: Final = 10.0


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, to be bent before it is written."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def but(self, *, status: int | None = None, body: bytes | None = None) -> Answer:
        """Return this answer with another status or body."""
        return replace(
            self,
            status=self.status if status is None else status,
            body=self.body if body is None else body,
        )

    def header(self, name: str) -> str:
        """Return the one value of a header."""
        (value,) = (value for key, value in self.headers if key.lower() == name.lower())
        return value

    def setting(self, name: str, *values: str) -> Answer:
        """Return this answer with exactly these lines of one header; without any, it is taken away."""
        others = tuple(line for line in self.headers if line[0].lower() != name.lower())
        return replace(self, headers=(*others, *((name, value) for value in values)))

    def head(self, *framing: tuple[str, str]) -> bytes:
        """Write the head."""
        lines = [f"HTTP/1.1 {self.status} Whatever"]
        lines += [f"{name}: {value}" for name, value in (*self.headers, *framing)]
        return "\r\n".join((*lines, "", "")).encode("latin-1")

    def wire(self) -> bytes:
        """Write the whole answer, with its length announced."""
        return self.head(("Content-Length", str(len(self.body)))) + self.body

    def chunked(self) -> bytes:
        """Write the whole answer in one chunk, without the last, empty one."""
        head = self.head(("Transfer-Encoding", "chunked"))
        return head + f"{len(self.body):x}\r\n".encode() + self.body + b"\r\n"


Script = Callable[[Request, Peer], Awaitable[None]]


async def hangs(_: Request, peer: Peer) -> None:
    """Never answer."""
    await peer.gone()


async def closes(_: Request, peer: Peer) -> None:
    """Close without an answer."""
    peer.close()


async def resets(_: Request, peer: Peer) -> None:
    """Reset without an answer."""
    peer.reset()


def sends(data: bytes | Iterable[bytes], *, then: Script = hangs, pause_s: float = 0.0) -> Script:
    """Write these bytes, whatever the request, and then do something else."""

    async def script(request: Request, peer: Peer) -> None:
        for part in (data,) if isinstance(data, bytes) else data:
            await peer.send(part)
            if pause_s:
                await asyncio.sleep(pause_s)
        await then(request, peer)

    return script


def answers(make: Callable[[Request], Answer]) -> Script:
    """Write the whole answer that `make` makes of the request."""

    async def script(request: Request, peer: Peer) -> None:
        await peer.send(make(request).wire())

    return script


class Upstream(Listener):
    """The listener. One script at a time, for each request; a test sets it before it calls."""

    def __init__(self, tls: ssl.SSLContext | None = None, bound: socket.socket | None = None) -> None:
        super().__init__(self._answer_all, tls, bound)
        self.script: Script = hangs
        self.faults: list[BaseException] = []
        """What went wrong in scripts, which is the test's own fault."""
        self._came = asyncio.Condition()
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many there were."""
        return len(self.peers)

    def reset(self, script: Script) -> None:
        """Forget what came, and answer so from now on."""
        self.script = script
        self.requests.clear()
        self.peers.clear()

    async def request_came(self, count: int = 1) -> Request:
        """Wait for a whole request; return the last one of so many."""
        async with asyncio.timeout(PATIENCE_S), self._came:
            await self._came.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def let_go(self) -> None:
        """End every connection in the middle of an answer; those that are idle may be used again."""
        ending = list(self._answering)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _answer_all(self, peer: Peer) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while True:
                request = await peer.request()
                async with self._came:
                    self._came.notify_all()
                self._answering.add(task)
                await self.script(request, peer)
                self._answering.discard(task)
        except (OSError, asyncio.IncompleteReadError):
            raise
        except Exception as error:  # noqa: BLE001  (told at the end of the test)
            self.faults.append(error)
        finally:
            self._answering.discard(task)


@asynccontextmanager
async def listening(
    tls: ssl.SSLContext | None = None, *, bound: socket.socket | None = None
) -> AsyncIterator[Upstream]:
    """Listen on a port of its own, or on a socket that is bound already."""
    async with Upstream(tls, bound) as upstream:
        yield upstream
    assert upstream.faults == []
