"""Wrong use of a client raises an error immediately, and sends nothing."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

from alipayhk_linkage import (
    BindAccountRequest,
    BlockingLinkageClient,
    LinkageClient,
    LinkageError,
    SyncLinkageRequest,
)

NOWHERE: Final = "127.0.0.1:1"
SYNC: Final = SyncLinkageRequest(request_id="a")
BIND: Final = BindAccountRequest(request_id="a")

MISUSES: Final[dict[str, tuple[str, Any, dict[str, Any], type[Exception]]]] = {
    "nothing": ("sync_linkage", None, {}, TypeError),
    "a dict": ("bind_account", {"request_id": "a"}, {}, TypeError),
    "bytes": ("bind_account", BIND.SerializeToString(), {}, TypeError),
    "the other message": ("sync_linkage", BIND, {}, TypeError),
    "no deadline": ("bind_account", BIND, {"timeout_s": math.nan}, ValueError),
    "upper case": ("sync_linkage", SYNC, {"metadata": [("X-Request-Id", "a")]}, ValueError),
    "a space in a name": ("sync_linkage", SYNC, {"metadata": [("x y", "a")]}, ValueError),
    "a line break": ("sync_linkage", SYNC, {"metadata": [("x", "a\n")]}, ValueError),
    "Chinese": ("bind_account", BIND, {"metadata": [("x", "會員")]}, ValueError),
    "Chinese bytes": ("bind_account", BIND, {"metadata": [("x", "會員".encode())]}, ValueError),
    "text for bytes": ("bind_account", BIND, {"metadata": [("x-bin", "a")]}, ValueError),
}


@pytest.mark.parametrize("name", MISUSES)
async def test_wrong_arguments_with_asyncio(name: str) -> None:
    method, request, options, error = MISUSES[name]
    async with LinkageClient(NOWHERE) as client:
        with pytest.raises(error):
            await getattr(client, method)(request, **options)


@pytest.mark.parametrize("name", MISUSES)
def test_wrong_arguments_with_threads(name: str) -> None:
    method, request, options, error = MISUSES[name]
    with BlockingLinkageClient(NOWHERE) as client, pytest.raises(error):
        getattr(client, method)(request, **options)


def test_an_asyncio_client_needs_a_running_event_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        LinkageClient(NOWHERE)


@pytest.mark.parametrize("method", ["sync_linkage", "bind_account"])
async def test_calls_of_a_closed_client_raise_runtime_error(method: str) -> None:
    request = SYNC if method == "sync_linkage" else BIND
    client, blocking = LinkageClient(NOWHERE), BlockingLinkageClient(NOWHERE)
    await client.close()
    blocking.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        await getattr(client, method)(request)
    with pytest.raises(RuntimeError, match="the client is closed"):
        getattr(blocking, method)(request)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Return the socket of a server that never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def silent(server: socket.socket) -> str:
    """Return the address of that server."""
    return f"127.0.0.1:{server.getsockname()[1]}"


async def test_closing_an_asyncio_client_ends_its_calls_as_unknown(silent: str) -> None:
    client = LinkageClient(silent)
    calling = asyncio.create_task(client.sync_linkage(SYNC))
    await asyncio.sleep(0.1)
    await client.close()
    with pytest.raises(LinkageError) as raised:
        await calling
    assert (raised.value.code.name, raised.value.outcome) == ("CANCELLED", "unknown")
    await client.close()


async def test_cancelling_a_task_raises_cancelled_error(silent: str) -> None:
    async with LinkageClient(silent) as client:
        calling = asyncio.create_task(client.sync_linkage(SYNC))
        await asyncio.sleep(0.1)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.bind_account(BIND)


def test_closing_a_blocking_client_ends_its_calls_as_unknown(server: socket.socket, silent: str) -> None:
    client = BlockingLinkageClient(silent)

    def close() -> None:
        connection, _ = server.accept()  # the client connects after the call has begun
        with connection:
            client.close()

    threading.Thread(target=close).start()
    with pytest.raises(LinkageError) as raised:
        client.bind_account(BIND)
    assert (raised.value.code.name, raised.value.outcome) == ("CANCELLED", "unknown")
    client.close()
