"""An attempt keeps for the log the addresses that were tried, and the head of the response."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp.connector import Connection

from clients.alipayhk.connections import PairingConnector, _text_of
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.messages import RawResponse, SealedRequest
from tests.alipayhk.upstream import (
    NO_AUTHORITIES,
    Upstream,
    hanging,
    relaying,
    replying,
    rested,
    transport,
)
from tests.certificates import Authority
from tests.ports import free_port
from tests.raw_http import Peer

HEAD = b"HTTP/1.1 502 Odd\r\nTracer-Id: t1\r\nSignature: algorithm=RSA256, keyversion= 7 ,signature=x\r\n"
OK = HEAD + b"Content-Length: 2\r\n\r\n{}"
REQUEST = SealedRequest("/p", (), b"{}")


async def failed(url: str, error: type[errors.CallError], **options: object) -> Attempt:
    """Return an attempt that fails with this error."""
    attempt = Attempt()
    async with transport(**options) as opened:  # type: ignore[arg-type]
        with pytest.raises(error):
            await opened.post(url, REQUEST, attempt, reuse_connection=False)
    return attempt


async def test_refused_connection_has_the_address_that_was_tried() -> None:
    port = free_port()
    attempt = await failed(f"http://127.0.0.1:{port}", errors.Unreachable)
    assert attempt.route.addresses == [f"127.0.0.1:{port}"]


async def test_refused_connection_has_every_address_of_its_host() -> None:
    port = free_port()
    attempt = await failed(f"http://localhost:{port}", errors.Unreachable)
    infos = socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
    hosts = {info[4][0] for info in infos}
    assert set(attempt.route.addresses) == {
        f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}" for host in hosts
    }


async def test_host_without_an_address_has_none() -> None:
    attempt = await failed("http://" + ".".join(["a" * 60] * 6), errors.Unreachable)
    assert attempt.route.addresses == []


async def reading(wire: Peer) -> None:
    await wire.reader.read(1)


async def test_lost_connection_has_its_address() -> None:
    async with Upstream(reading) as upstream:
        attempt = await failed(f"http://localhost:{upstream.port}", errors.ConnectionLost)
    assert attempt.route.addresses == [f"127.0.0.1:{upstream.port}"]
    assert attempt.head is None


class _Slow(PairingConnector):
    """Lets the other side close a connection before the request is written."""

    upstream: Upstream

    async def connect(self, *args: Any, **options: Any) -> Connection:
        connection = await super().connect(*args, **options)
        await self.upstream.accepted.wait()
        await self.upstream.tasks[0]
        return connection


async def test_connection_closed_before_the_request_has_its_address() -> None:
    attempt = Attempt()
    async with Upstream(replying()) as upstream, transport() as opened:
        await opened._pools[False].close()
        opened._pools[False] = slow = _Slow(NO_AUTHORITIES, reuse=False, connect_timeout_s=2)
        slow.upstream = upstream
        with pytest.raises(errors.Unreachable):
            await opened.post(upstream.url, REQUEST, attempt, reuse_connection=False)
    assert attempt.route.addresses == [f"127.0.0.1:{upstream.port}"]
    assert attempt.head is None


async def test_timeout_has_its_address() -> None:
    async with Upstream(hanging) as upstream:
        attempt = await failed(upstream.url, errors.Timeout, timeout_s=0.5)
    assert attempt.route.addresses == [f"127.0.0.1:{upstream.port}"]


async def test_tunnel_has_the_address_of_the_proxy(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "known")
    async with Upstream(replying(), authority.server_context()) as upstream, Upstream(relaying) as proxy:
        options = {"tls": authority.client_context(), "proxy": proxy.url}
        attempt = await failed(upstream.url, errors.ConnectionLost, **options)
    assert attempt.route.addresses == [f"127.0.0.1:{proxy.port}"]


async def test_refused_tunnel_names_the_status_of_the_proxy() -> None:
    refusing = replying(b"HTTP/1.1 407 Odd\r\nContent-Length: 0\r\n\r\n")
    async with Upstream(refusing) as proxy, transport(proxy=proxy.url) as opened:
        with pytest.raises(errors.Unreachable) as caught:
            await opened.post("https://127.0.0.1:1", REQUEST, Attempt(), reuse_connection=False)
    assert str(caught.value) == "the proxy refused to connect to the server (ClientHttpProxyError HTTP 407)"


async def test_an_unreachable_proxy_is_named_as_the_proxy() -> None:
    async with transport(proxy=f"http://127.0.0.1:{free_port()}") as opened:
        with pytest.raises(errors.Unreachable) as caught:
            await opened.post("https://127.0.0.1:1", REQUEST, Attempt(), reuse_connection=False)
    assert str(caught.value) == "no connection to the proxy (ClientProxyConnectionError ECONNREFUSED)"


async def test_reused_connection_has_its_address() -> None:
    attempts = [Attempt(), Attempt()]
    async with Upstream(replying(OK, OK.replace(b"t1", b"t2"))) as upstream, transport() as opened:
        for attempt in attempts:
            await opened.post(upstream.url, REQUEST, attempt, reuse_connection=True)
            await rested()
        assert len(upstream.peers) == 1
    assert [attempt.route.addresses for attempt in attempts] == [[f"127.0.0.1:{upstream.port}"]] * 2


async def test_truncated_response_has_its_head() -> None:
    async with Upstream(replying(OK.replace(b": 2", b": 9"))) as upstream:
        attempt = await failed(upstream.url, errors.Truncated)
    assert attempt.head is not None
    assert (attempt.head.http_status, attempt.head.tracer_id, attempt.head.body) == (502, "t1", b"")
    assert attempt.head.key_version == "7"


@pytest.mark.parametrize(
    ("signature", "version"),
    [
        ("algorithm=RSA256,keyVersion=2,signature=x", "2"),
        ("keyVersion=v1.2_a-b", "v1.2_a-b"),
        ("algorithm=RSA256,signature=x", ""),
        ("algorithm=RSA256,signature=keyVersion=2", ""),
        ("keyVersion=,signature=x", ""),
        ("keyVersion=a b", ""),
        ("keyVersion=" + "1" * 33, ""),
        ("keyVersion=語", ""),
    ],
)
def test_key_version_is_read_only_where_it_is_one(signature: str, version: str) -> None:
    assert RawResponse(200, (("signature", signature),), b"").key_version == version


def test_port_of_an_ipv6_address_is_separate() -> None:
    assert _text_of(("2001:db8::1", 443, 0, 0)) == "[2001:db8::1]:443"
    assert _text_of(("192.0.2.1", 443)) == "192.0.2.1:443"
