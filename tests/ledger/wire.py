"""A TCP proxy in front of a server, which can hold or drop what either side sends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class _Connection:
    """Two directions, each with a gate."""

    def __init__(self) -> None:
        self.requests, self.answers = asyncio.Event(), asyncio.Event()
        self.requests.set()
        self.answers.set()
        self.relays: list[asyncio.Task[None]] = []


class Wire:
    """Relays connections from a port of 127.0.0.1 to another one; used as an asynchronous context."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._server: asyncio.Server
        self._open: dict[asyncio.Task[None], _Connection] = {}
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._open)

    def hold_answers(self) -> None:
        """Keep what the server sends on the connections that are open now."""
        for connection in self._open.values():
            connection.answers.clear()

    def hold_requests(self) -> None:
        """Keep what clients send on the connections that are open now."""
        for connection in self._open.values():
            connection.requests.clear()

    def release(self) -> None:
        """Send what was kept, also if the other side is gone."""
        for connection in self._open.values():
            connection.requests.set()
            connection.answers.set()

    def cut(self) -> None:
        """Close the connections that are open now, without what was kept."""
        for connection in self._open.values():
            for relay in connection.relays:
                relay.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection()
        task = asyncio.create_task(self._serve(connection, reader, writer))
        self._open[task] = connection
        task.add_done_callback(self._open.pop)

    async def _serve(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            connection.relays = [
                asyncio.create_task(_relay(reader, to_writer, connection.requests)),
                asyncio.create_task(_relay(to_reader, writer, connection.answers)),
            ]
            await asyncio.wait(connection.relays)
            to_writer.close()
        writer.close()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            await gate.wait()
            writer.write(data)
            await writer.drain()
    writer.close()
