"""The undocumented parts of aiohttp and asyncio that `pairing` and `connections` use.

If a release changes one of these parts, adapt the two modules before using it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import BaseConnector
from aiohttp.http_writer import StreamWriter

from clients.alipayhk.connections import PairedBody, PairingConnector
from clients.alipayhk.pairing import PairedProtocol
from tests.alipayhk.upstream import NO_AUTHORITIES, Upstream, deaf
from tests.certificates import Authority

PARAMETERS: Final[list[tuple[Callable[..., Any], list[str]]]] = [
    (BaseConnector.connect, ["self", "req", "traces", "timeout"]),
    (BaseConnector._release, ["self", "key", "protocol", "should_close"]),
    (ResponseHandler.__init__, ["self", "loop"]),
    (ResponseHandler.connection_lost, ["self", "exc"]),
    (ResponseHandler.data_received, ["self", "data"]),
    (ResponseHandler.feed_data, ["self", "data", "size"]),
    (ResponseHandler.start_timeout, ["self"]),
    (ResponseHandler.set_exception, ["self", "exc", "exc_cause"]),
    (ResponseHandler.exception, ["self"]),
    (ResponseHandler.is_connected, ["self"]),
    (aiohttp.BytesPayload.write_with_length, ["self", "writer", "content_length"]),
]


@pytest.mark.parametrize(
    ("function", "names"), PARAMETERS, ids=[function.__qualname__ for function, _ in PARAMETERS]
)
def test_overridden_and_called_methods_have_the_expected_parameters(
    function: Callable[..., Any], names: list[str]
) -> None:
    assert list(inspect.signature(function).parameters) == names


async def test_pool_creates_connections_with_its_factory() -> None:
    async with aiohttp.TCPConnector() as plain:
        assert isinstance(plain._factory, functools.partial)
        assert plain._factory.func is ResponseHandler
    async with PairingConnector(NO_AUTHORITIES, reuse=True) as connector:
        assert isinstance(connector._factory(), PairedProtocol)


def test_pool_asks_a_connection_whether_it_must_be_closed() -> None:
    assert isinstance(inspect.getattr_static(ResponseHandler, "should_close"), property)
    assert "protocol.should_close" in inspect.getsource(BaseConnector._release)


def test_start_timeout_is_called_after_the_last_byte_of_a_request() -> None:
    source = inspect.getsource(ClientRequest.write_bytes)
    body, end, reported = (
        source.index(text)
        for text in ("write_with_length(", "writer.write_eof()", "protocol.start_timeout()")
    )
    assert body < end < reported


def test_writer_exposes_its_connection() -> None:
    assert isinstance(inspect.getattr_static(StreamWriter, "protocol"), property)


async def test_other_kinds_of_connection_are_never_written_to() -> None:
    loop = asyncio.get_running_loop()
    writer = StreamWriter(ResponseHandler(loop), loop)
    with pytest.raises(TypeError, match="does not check its responses"):
        await PairedBody(b"{}", lambda: None).write_with_length(writer, 2)


async def test_tls_transport_exposes_the_transport_below_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "known")
    async with Upstream(deaf, authority.server_context()) as upstream:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", upstream.port, ssl=authority.client_context()
        )
        below = writer.transport._ssl_protocol._transport  # type: ignore[attr-defined]
        assert below.get_write_buffer_size() == 0
        writer.transport.abort()
