"""Sent requests: their exact bytes, their connection, and their proxy."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final

import pytest

from clients.alipayhk.connections import Target
from clients.alipayhk.wire import errors
from tests.alipayhk.upstream import (
    Upstream,
    deaf,
    post,
    post_once,
    relaying,
    replying,
    rested,
    traced,
    transport,
)
from tests.certificates import Authority
from tests.ports import free_port
from tests.raw_http import Peer

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def forever(wire: Peer) -> None:
    """Respond to every request on one connection."""
    while True:
        await wire.request()
        await wire.send(traced(OK))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return a certificate authority that the client trusts."""
    return Authority(tmp_path, "known")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/open/v1/example/path",
        "/%7Eu?a=%2f",
        "/~u?a=/",
        "/%E9%A6%99/%e9%a6%99",
        "/a/../b/./c//d",
        "//a",
        "/a;b=c,d",
        "/a?b=c&d=%20+&e",
        "/a?b=?&c=/?",
        "/a+b@c:d",
        "/a%3Fb%23c%25",
    ],
)
async def test_path_is_sent_byte_for_byte(path: str) -> None:
    async with Upstream(replying(OK)) as upstream:
        await post_once(upstream.url, path=path)
    assert upstream.requests[0].line == f"POST {path} HTTP/1.1"


@pytest.mark.parametrize("path", ["/a?", "/a#b", "/a?b=c#d", "/a#"])
async def test_path_that_cannot_be_sent_as_signed_is_not_sent(path: str) -> None:
    async with Upstream(replying(OK)) as upstream:
        outcome = await post_once(upstream.url, path=path)
    lines = [request.line for request in upstream.requests]
    assert (lines, outcome.sent) in [([], False), ([f"POST {path} HTTP/1.1"], True)]


async def test_body_and_headers_are_sent_as_sealed() -> None:
    body = '{"名":"陳",\r\n "b" : 1}'.encode() + b"\0\xff"
    headers = (
        ("Client-Id", "C"),
        ("Content-Type", "text/plain; charset=UTF-8"),
        ("Signature", "a=b,c=%2B"),
    )
    async with Upstream(replying(OK)) as upstream, transport() as opened:
        await post(opened, upstream.url, body=body, headers=headers)
    (request,) = upstream.requests
    assert request.body == body
    assert [line for line in request.headers if line in headers] == [*headers]
    assert request.values("Content-Type") == ["text/plain; charset=UTF-8"]
    assert request.values("Content-Length") == [str(len(body))]
    assert request.values("Transfer-Encoding") == []
    assert request.values("Host") == [f"127.0.0.1:{upstream.port}"]


@pytest.mark.parametrize(
    ("base_url", "host"),
    [
        ("https://open.alipay.hk", "open.alipay.hk"),
        ("https://open.alipay.hk:443", "open.alipay.hk"),
        ("https://open.alipay.hk.", "open.alipay.hk"),
        ("https://open.alipay.hk:8443", "open.alipay.hk:8443"),
        ("http://127.0.0.1:80", "127.0.0.1"),
        ("https://127.0.0.1:80", "127.0.0.1:80"),
        ("https://[::1]", "[::1]"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
@pytest.mark.parametrize("proxy", [None, "http://user:pass@[::1]:3128"])
async def test_host_has_the_port_only_if_it_is_not_the_default(
    base_url: str, host: str, proxy: str | None
) -> None:
    head = Target(base_url, "/p", {"User-Agent": "test"}, proxy).request_of((), b"").decode()
    assert re.findall(r"^Host: (.*)\r$", head, re.MULTILINE) == [host]


async def test_no_request_names_aiohttp_or_python() -> None:
    async with Upstream(replying(OK)) as upstream:
        await post_once(upstream.url)
    (request,) = upstream.requests
    assert request.values("User-Agent") == ["alipayhk-gateway"]
    assert request.values("Accept-Encoding") == ["identity"]
    assert b"aiohttp" not in request.raw
    assert b"Python" not in request.raw


async def test_connection_is_kept_alive_when_reuse_is_allowed() -> None:
    async with Upstream(forever) as upstream, transport() as opened:
        for _ in range(3):
            assert (await post(opened, upstream.url, reuse_connection=True)).answer
            await rested()
    assert (len(upstream.peers), len(upstream.requests)) == (1, 3)
    assert all(request.values("Connection") != ["close"] for request in upstream.requests)


async def test_new_connection_is_used_when_reuse_is_not_allowed() -> None:
    async with Upstream(forever) as upstream, transport() as opened:
        assert (await post(opened, upstream.url, reuse_connection=True)).answer
        for _ in range(2):
            assert (await post(opened, upstream.url, reuse_connection=False)).answer
    assert (len(upstream.peers), len(upstream.requests)) == (3, 3)
    assert [request.values("Connection") for request in upstream.requests[1:]] == [["close"], ["close"]]


async def test_request_lost_on_a_dead_kept_connection_is_not_reported_as_unsent() -> None:
    async with Upstream(replying(traced(OK))) as upstream, transport() as opened:
        assert (await post(opened, upstream.url, reuse_connection=True)).answer
        again = await post(opened, upstream.url, reuse_connection=True)
    # Either the client noticed the close and used a new connection, or the request counts as sent.
    assert again.sent
    assert again.answer is not None or isinstance(again.error, errors.ConnectionLost)


async def test_a_lost_post_is_never_sent_a_second_time() -> None:
    async def closing(wire: Peer) -> None:
        await wire.request()

    async with Upstream(closing) as upstream, transport() as opened:
        for reuse_connection in (True, False):
            outcome = await post(opened, upstream.url, reuse_connection=reuse_connection)
            assert outcome.ending == (errors.ConnectionLost, True)
    assert len(upstream.requests) == 2


async def test_no_cookie_is_ever_sent_back() -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: MARKED=1; Path=/\r\n\r\n")
    async with Upstream(replying(traced(answer), traced(answer))) as upstream, transport() as opened:
        for _ in range(2):
            await post(opened, upstream.url, reuse_connection=True)
            await rested()
    assert [request.values("Cookie") for request in upstream.requests] == [[], []]


async def test_concurrent_posts_do_not_wait_for_each_other() -> None:
    gathered = asyncio.Event()

    async def meeting(wire: Peer) -> None:
        await wire.request()
        if len(wire.requests) == 150:
            gathered.set()
        await gathered.wait()
        await wire.send(OK)

    async with Upstream(meeting) as upstream, transport(timeout_s=60.0, connect_timeout_s=30.0) as opened:
        outcomes = await asyncio.gather(*(post(opened, upstream.url) for _ in range(150)))
    assert all(outcome.answer for outcome in outcomes)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
async def test_proxy_from_the_environment_is_never_used(
    name: str, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    async with Upstream(forever) as proxy, Upstream(forever, authority.server_context()) as secure:
        monkeypatch.setenv(name, proxy.url)
        async with Upstream(forever) as upstream:
            assert (await post_once(upstream.url)).answer
            assert (await post_once(secure.url, tls=authority.client_context())).answer
        assert (len(upstream.requests), len(secure.requests), proxy.peers) == (1, 1, [])


async def test_credentials_from_a_netrc_file_are_never_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login MARKED password MARKED\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with Upstream(forever) as upstream:
        assert (await post_once(upstream.url)).answer
    assert upstream.requests[0].values("Authorization") == []


async def test_a_plain_request_goes_to_the_configured_proxy_in_absolute_form() -> None:
    async with Upstream(replying(OK)) as proxy:
        outcome = await post_once("http://upstream.example:8080", path="/%7Eu?a=%2f", proxy=proxy.url)
    assert outcome.answer is not None
    assert proxy.requests[0].line == "POST http://upstream.example:8080/%7Eu?a=%2f HTTP/1.1"


@pytest.mark.parametrize("reuse_connection", [True, False])
async def test_credentials_of_the_proxy_are_sent_to_it_alone(
    reuse_connection: bool, authority: Authority
) -> None:
    basic = ["Basic dXNlcjpwYXNz"]
    async with Upstream(forever) as proxy:
        url = proxy.url.replace("http://", "http://user:pass@")
        async with transport(proxy=url) as opened:
            for _ in range(2):
                await post(opened, "http://upstream.example", reuse_connection=reuse_connection)
    assert [request.values("Proxy-Authorization") for request in proxy.requests] == [basic, basic]
    async with Upstream(replying(OK), authority.server_context()) as upstream, Upstream(relaying) as proxy:
        url = proxy.url.replace("http://", "http://user:pass@")
        await post_once(upstream.url, proxy=url, tls=authority.client_context())
    assert proxy.requests[0].values("Proxy-Authorization") == basic
    assert upstream.requests[0].values("Proxy-Authorization") == []


async def test_a_tls_request_goes_through_a_tunnel_of_the_configured_proxy(authority: Authority) -> None:
    async with Upstream(replying(OK), authority.server_context()) as upstream, Upstream(relaying) as proxy:
        outcome = await post_once(
            upstream.url, path="/%7Eu?a=%2f", proxy=proxy.url, tls=authority.client_context()
        )
    assert outcome.answer is not None
    assert proxy.requests[0].line == f"CONNECT 127.0.0.1:{upstream.port} HTTP/1.1"
    assert proxy.requests[0].values("User-Agent") == ["alipayhk-gateway"]
    assert upstream.requests[0].line == "POST /%7Eu?a=%2f HTTP/1.1"
    # The proxy sees neither the request nor its headers.
    assert not [name for name, _ in proxy.requests[0].headers if name in {"Signature", "Client-Id"}]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_refuses_the_connection_means_not_sent(scheme: str) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    outcome = await post_once(f"{scheme}://upstream.example", proxy=proxy)
    assert outcome.ending == (errors.Unreachable, False)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno",
        b"nonsense\r\n\r\n",
        b"",
    ],
    ids=["407", "502", "garbage", "close"],
)
async def test_a_tunnel_that_the_proxy_refuses_means_not_sent(answer: bytes, authority: Authority) -> None:
    async with Upstream(replying(answer)) as proxy:
        outcome = await post_once(
            "https://upstream.example", path="/MARKED", proxy=proxy.url, tls=authority.client_context()
        )
        assert b"MARKED" not in b"".join(request.raw + request.body for request in proxy.requests)
    assert outcome.ending == (errors.Unreachable, False)


async def test_a_proxy_that_hangs_means_not_sent(authority: Authority) -> None:
    async with Upstream(deaf) as proxy:
        outcome = await post_once(
            "https://upstream.example", proxy=proxy.url, tls=authority.client_context(), timeout_s=0.3
        )
    assert outcome.ending == (errors.Unreachable, False)


async def test_certificate_behind_a_tunnel_is_checked(authority: Authority, tmp_path: Path) -> None:
    elsewhere = authority.server_context(host="elsewhere.example")
    async with Upstream(replying(OK), elsewhere) as upstream, Upstream(relaying) as proxy:
        outcome = await post_once(upstream.url, proxy=proxy.url, tls=authority.client_context())
        assert upstream.requests == []
    assert outcome.ending == (errors.TlsInvalid, False)


async def test_a_handshake_that_hangs_behind_a_tunnel_means_not_sent(authority: Authority) -> None:
    async with Upstream(deaf) as upstream, Upstream(relaying) as proxy:
        outcome = await post_once(
            f"https://127.0.0.1:{upstream.port}",
            proxy=proxy.url,
            tls=authority.client_context(),
            timeout_s=0.3,
        )
    assert outcome.ending == (errors.Unreachable, False)


async def test_response_on_a_new_tls_connection_does_not_wait_for_an_acknowledgement(
    authority: Authority,
) -> None:
    """The kernel delays one by 40 ms, and this server sends nothing while it waits for it."""
    async with (
        Upstream(replying(OK), authority.server_context()) as upstream,
        transport(tls=authority.client_context()) as opened,
    ):
        outcomes = [await post(opened, f"https://127.0.0.1:{upstream.port}") for _ in range(20)]
    assert {outcome.ending for outcome in outcomes} == {(None, True)}
    assert min(outcome.took_s for outcome in outcomes) < 0.04
