"""A hostile AlipayHK on raw sockets: it records every byte and runs the script of the test."""

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

WAIT_MAX_S: Final = 30.0


@dataclass(frozen=True)
class Response:
    """One HTTP response, which a test can change before it is written."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def but(self, *, status: int | None = None, body: bytes | None = None) -> Response:
        """Return this response with another status or body."""
        return replace(
            self,
            status=self.status if status is None else status,
            body=self.body if body is None else body,
        )

    def header(self, name: str) -> str:
        """Return the one value of a header."""
        (value,) = (value for key, value in self.headers if key.lower() == name.lower())
        return value

    def setting(self, name: str, *values: str) -> Response:
        """Return this response with exactly these values of one header; no value removes the header."""
        others = tuple(line for line in self.headers if line[0].lower() != name.lower())
        return replace(self, headers=(*others, *((name, value) for value in values)))

    def head(self, *framing: tuple[str, str]) -> bytes:
        """Return the bytes of the head."""
        lines = [f"HTTP/1.1 {self.status} Whatever"]
        lines += [f"{name}: {value}" for name, value in (*self.headers, *framing)]
        return "\r\n".join((*lines, "", "")).encode("latin-1")

    def wire(self) -> bytes:
        """Return the bytes of the whole response, with Content-Length."""
        return self.head(("Content-Length", str(len(self.body)))) + self.body

    def chunked(self) -> bytes:
        """Return the bytes of the response in one chunk, without the empty last chunk."""
        head = self.head(("Transfer-Encoding", "chunked"))
        return head + f"{len(self.body):x}\r\n".encode() + self.body + b"\r\n"


Script = Callable[[Request, Peer], Awaitable[None]]


async def hangs(_: Request, peer: Peer) -> None:
    """Never respond."""
    await peer.wait_until_closed()


async def closes(_: Request, peer: Peer) -> None:
    """Close the connection without a response."""
    peer.close()


async def resets(_: Request, peer: Peer) -> None:
    """Reset the connection without a response."""
    peer.reset()


def sends(data: bytes | Iterable[bytes], *, then: Script = hangs, pause_s: float = 0.0) -> Script:
    """Write these bytes for any request, then run another script."""

    async def script(request: Request, peer: Peer) -> None:
        for part in (data,) if isinstance(data, bytes) else data:
            await peer.send(part)
            if pause_s:
                await asyncio.sleep(pause_s)
        await then(request, peer)

    return script


def responds(make: Callable[[Request], Response]) -> Script:
    """Write the response that `make` returns for the request."""

    async def script(request: Request, peer: Peer) -> None:
        await peer.send(make(request).wire())

    return script


class Upstream(Listener):
    """The listener. It runs one script, which a test sets before it calls."""

    def __init__(self, tls: ssl.SSLContext | None = None, bound: socket.socket | None = None) -> None:
        super().__init__(self._run_script, tls, bound)
        self.script: Script = hangs
        self.faults: list[BaseException] = []
        """Exceptions of scripts: faults of the test itself."""
        self._received = asyncio.Condition()
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """The number of connections so far."""
        return len(self.peers)

    def reset(self, script: Script) -> None:
        """Forget the requests and connections so far, and run another script."""
        self.script = script
        self.requests.clear()
        self.peers.clear()

    async def wait_for_request(self, count: int = 1) -> Request:
        """Wait for a whole request; return the last one of so many."""
        async with asyncio.timeout(WAIT_MAX_S), self._received:
            await self._received.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def release(self) -> None:
        """Close every connection with an unfinished response; idle connections stay open."""
        closing = list(self._answering)
        for task in closing:
            task.cancel()
        await asyncio.gather(*closing, return_exceptions=True)

    async def _run_script(self, peer: Peer) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while True:
                request = await peer.request()
                async with self._received:
                    self._received.notify_all()
                self._answering.add(task)
                await self.script(request, peer)
                self._answering.discard(task)
        except (OSError, asyncio.IncompleteReadError):
            raise
        except Exception as error:  # noqa: BLE001  (the fixture reports it after the test)
            self.faults.append(error)
        finally:
            self._answering.discard(task)


@asynccontextmanager
async def listening(
    tls: ssl.SSLContext | None = None, *, bound: socket.socket | None = None
) -> AsyncIterator[Upstream]:
    """Listen on a free port, or on a socket that is already bound."""
    async with Upstream(tls, bound) as upstream:
        yield upstream
    assert upstream.faults == []
