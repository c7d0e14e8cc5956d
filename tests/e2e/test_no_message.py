"""Calls without a complete message, closed or left open: each gets a status, also without a deadline."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.e2e.conftest import Run
from tests.e2e.gateway import WAIT_MAX_S, Gateway
from tests.e2e.http2 import DATA, EMPTY_MESSAGE, END_STREAM, HEADERS, Field, connected, frame, request
from tests.e2e.samples import SERVICE
from tests.ports import free_port

SYNC: Final = f"/{SERVICE}/SyncLinkage".encode()
CHECK: Final = b"/grpc.health.v1.Health/Check"
WATCH: Final = b"/grpc.health.v1.Health/Watch"
LIST: Final = b"/grpc.health.v1.Health/List"
INVALID_ARGUMENT: Final = b"3"
UNIMPLEMENTED: Final = b"12"
DEADLINE: Final = (b"grpc-timeout", b"60S")


def call(path: bytes, *more: Field, data: bytes | None = None) -> bytes:
    """Return the frames of a call; its stream ends with the headers, or with `data` if it is given."""
    if data is None:
        return request((b":path", path), *more)
    return request((b":path", path), *more, flags=0) + frame(DATA, END_STREAM, 1, data)


ROWS: Final = {
    "SyncLinkage without a message": (call(SYNC), INVALID_ARGUMENT),
    "SyncLinkage without a message, with a deadline": (call(SYNC, DEADLINE), INVALID_ARGUMENT),
    "Check without a message": (call(CHECK), INVALID_ARGUMENT),
    "Watch without a message": (call(WATCH), INVALID_ARGUMENT),
    "SyncLinkage with no data": (call(SYNC, data=b""), INVALID_ARGUMENT),
    "SyncLinkage whose message is cut short": (call(SYNC, data=b"\0\0\0\0\x09a"), INVALID_ARGUMENT),
    "SyncLinkage that never ends": (request((b":path", SYNC), flags=0), INVALID_ARGUMENT),
    "Watch that never ends": (request((b":path", WATCH), flags=0), INVALID_ARGUMENT),
    "List, an unknown method": (call(LIST, data=EMPTY_MESSAGE), UNIMPLEMENTED),
    "List without a message": (call(LIST), UNIMPLEMENTED),
}


async def status(address: str, frames: bytes) -> bytes:
    """Send frames; return the header block of the trailers."""
    async with asyncio.timeout(WAIT_MAX_S), connected(address) as connection:
        connection.send(frames)
        ended = await connection.ended()
    assert ended is not None
    assert ended.kind == HEADERS
    return ended.payload


async def test_call_without_its_message_gets_a_status(run: Run) -> None:
    async with run({"HEALTH_LISTEN": f"127.0.0.1:{free_port()}"}) as gateway:
        addresses = (gateway.address, gateway.settings["HEALTH_LISTEN"])
        calls = [
            (address, name) for address in addresses for name in ROWS if served(address, name, gateway)
        ]
        blocks = await asyncio.gather(*(status(address, ROWS[name][0]) for address, name in calls))
    wrong = {
        call: received
        for call, received in zip(calls, blocks, strict=True)
        if b"grpc-status" + code_of(ROWS[call[1]][1]) not in received
    }
    assert wrong == {}
    assert {line["level"] for line in gateway.records} <= {"debug", "info"}


def served(address: str, name: str, gateway: Gateway) -> bool:
    """Return whether the listener serves the method of a row: the health listener has no SyncLinkage."""
    return address == gateway.address or not name.startswith("SyncLinkage")


def code_of(code: bytes) -> bytes:
    """Return a status as the bytes of a header value: its length and the number."""
    return bytes([len(code)]) + code
