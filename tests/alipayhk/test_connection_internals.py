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
from aiohttp import http_writer
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import BaseConnector

from clients.alipayhk.connections import PairingConnector, Route, Target
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
    (ResponseHandler.resume_reading, ["self", "resume_parser"]),
    (ResponseHandler.read, ["self"]),
    (ResponseHandler.set_exception, ["self", "exc", "exc_cause"]),
    (ResponseHandler.exception, ["self"]),
    (ResponseHandler.is_connected, ["self"]),
    (http_writer._py_serialize_headers, ["status_line", "headers"]),
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
    async with PairingConnector(NO_AUTHORITIES, reuse=True, connect_timeout_s=2) as connector:
        assert isinstance(connector._factory(), PairedProtocol)


def test_pool_asks_a_connection_whether_it_must_be_closed() -> None:
    assert isinstance(inspect.getattr_static(ResponseHandler, "should_close"), property)
    assert "protocol.should_close" in inspect.getsource(BaseConnector._release)


def test_request_passed_to_the_connector_says_which_connections_it_can_use() -> None:
    assert isinstance(inspect.getattr_static(ClientRequest, "connection_key"), property)
    assert "key = req.connection_key" in inspect.getsource(BaseConnector.connect)


async def test_other_kinds_of_connection_are_never_written_to() -> None:
    pool = PairingConnector(NO_AUTHORITIES, reuse=True, connect_timeout_s=2)
    async with Upstream(deaf) as upstream, pool:
        pool._factory = functools.partial(ResponseHandler, loop=asyncio.get_running_loop())
        with pytest.raises(TypeError, match="does not check its responses"):
            await pool.acquire(Target(upstream.url, "/p", {"User-Agent": "test"}, None), Route())


@pytest.mark.parametrize("part", ["\r", "\n", "\0", "\r\nX: y"])
async def test_header_that_would_be_two_is_never_written(part: str) -> None:
    target = Target("http://upstream.example", "/p", {"User-Agent": "test"}, None)
    for header in [("Signature", f"a{part}b"), (f"Sig{part}nature", "a")]:
        with pytest.raises(ValueError, match="header"):
            target.request_of((header,), b"{}")


def test_paused_reading_is_recorded_in_two_attributes() -> None:
    assert {"_reading_paused", "_buffer_paused"} <= set(BaseProtocol.__slots__)
    assert "self._reading_paused = False" in inspect.getsource(BaseProtocol.resume_reading)


async def test_tls_transport_exposes_the_transport_below_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "known")
    async with Upstream(deaf, authority.server_context()) as upstream:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", upstream.port, ssl=authority.client_context()
        )
        below = writer.transport._ssl_protocol._transport  # type: ignore[attr-defined]
        assert below.get_write_buffer_size() == 0
        writer.transport.abort()
