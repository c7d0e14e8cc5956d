"""Failures before the first byte of the request was sent, with proof that nothing was sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.messages import SealedRequest
from tests.alipayhk.upstream import (
    Upstream,
    deaf,
    full_backlog,
    post,
    post_once,
    relaying,
    replying,
    transport,
)
from tests.certificates import Authority
from tests.ports import free_port
from tests.raw_http import Peer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTracer-Id: t1\r\n\r\n{}"
UNREACHABLE = (errors.Unreachable, False)
TLS_INVALID = (errors.TlsInvalid, False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a certificate authority that the client trusts."""
    return Authority(tmp_path_factory.mktemp("authority"), "known")


async def test_too_long_host_name_is_unreachable() -> None:
    # Longer than a host name may be, so it fails without a DNS query.
    host = ".".join(["a" * 60] * 6)
    assert (await post_once(f"http://{host}")).ending == UNREACHABLE


async def test_too_long_label_is_unreachable() -> None:
    assert (await post_once(f"http://{'a' * 70}.example")).ending == UNREACHABLE


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_refused_connection_is_unreachable(scheme: str) -> None:
    assert (await post_once(f"{scheme}://127.0.0.1:{free_port()}")).ending == UNREACHABLE


async def test_hanging_connect_is_ended_by_the_connect_timeout() -> None:
    with full_backlog() as port:
        outcome = await post_once(f"http://127.0.0.1:{port}", connect_timeout_s=0.2, timeout_s=30)
    assert outcome.ending == UNREACHABLE
    assert outcome.took_s < 5


async def test_hanging_connect_is_ended_by_the_total_timeout() -> None:
    with full_backlog() as port:
        outcome = await post_once(f"http://127.0.0.1:{port}", connect_timeout_s=30, timeout_s=0.2)
    assert outcome.ending == UNREACHABLE
    assert outcome.took_s < 5


@pytest.mark.parametrize(("connect_timeout_s", "timeout_s"), [(0.2, 30), (30, 0.2)])
async def test_hanging_tls_handshake_is_unreachable(
    connect_timeout_s: float, timeout_s: float, authority: Authority
) -> None:
    async with Upstream(deaf) as upstream:
        outcome = await post_once(
            f"https://127.0.0.1:{upstream.port}",
            tls=authority.client_context(),
            connect_timeout_s=connect_timeout_s,
            timeout_s=timeout_s,
        )
    assert outcome.ending == UNREACHABLE
    assert outcome.took_s < 5


async def no_tls(wire: Peer) -> None:
    """Respond to a TLS ClientHello in plain HTTP."""
    await wire.reader.read(100)
    await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def hanging_up(wire: Peer) -> None:
    """Close the connection during the handshake."""
    await wire.reader.read(100)


async def resetting(wire: Peer) -> None:
    """Reset the connection during the handshake."""
    await wire.reader.read(100)
    wire.reset()


@pytest.mark.parametrize("script", [no_tls, hanging_up, resetting])
async def test_failed_tls_handshake_is_unreachable(
    script: Callable[[Peer], object], authority: Authority
) -> None:
    async with Upstream(script) as upstream:  # type: ignore[arg-type]
        url = f"https://127.0.0.1:{upstream.port}"
        assert (await post_once(url, tls=authority.client_context())).ending == UNREACHABLE


async def test_a_refused_connection_names_its_errno() -> None:
    outcome = await post_once(f"http://127.0.0.1:{free_port()}")
    assert str(outcome.error) == "no connection to the server (ClientConnectorError ECONNREFUSED)"


async def test_valid_certificate_is_accepted(authority: Authority) -> None:
    async with Upstream(replying(OK), authority.server_context()) as upstream:
        outcome = await post_once(upstream.url, tls=authority.client_context())
    assert outcome.answer is not None
    assert outcome.answer.body == b"{}"


async def test_the_authorities_of_the_system_are_the_default(authority: Authority) -> None:
    async with Upstream(replying(OK), authority.server_context()) as upstream:
        assert (await post_once(upstream.url, tls=None)).ending == TLS_INVALID


async def test_invalid_url_is_not_sent() -> None:
    for base_url in ("ftp://127.0.0.1", "127.0.0.1", "http://", "http://127.0.0.1:99999"):
        assert (await post_once(base_url)).ending == UNREACHABLE, base_url


async def test_request_cancelled_in_the_handshake_is_never_received(authority: Authority) -> None:
    seen = bytearray()

    async def listening(wire: Peer) -> None:
        while chunk := await wire.reader.read(65536):
            seen.extend(chunk)

    attempt = Attempt()
    async with Upstream(listening) as upstream, transport(tls=authority.client_context()) as opened:
        sealed = SealedRequest("/MARKED", (), b"MARKED")
        url = f"https://127.0.0.1:{upstream.port}"
        task = asyncio.create_task(opened.post(url, sealed, attempt, reuse_connection=False))
        await upstream.accepted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # After its connection has ended, the server cannot receive anything more.
        await asyncio.wait_for(asyncio.gather(*upstream.tasks), 5)
    assert not attempt.sent
    assert b"MARKED" not in seen


@pytest.mark.parametrize("reuse_connection", [True, False])
async def test_request_received_by_the_server_is_marked_as_sent_whenever_it_is_cancelled(
    reuse_connection: bool,
) -> None:
    moments = []
    for steps in range(40):
        attempt, seen = Attempt(), bytearray()

        async def listening(wire: Peer, seen: bytearray = seen) -> None:
            while chunk := await wire.reader.read(65536):
                seen.extend(chunk)

        async with Upstream(listening) as upstream:
            async with transport() as opened:
                task = asyncio.create_task(
                    opened.post(
                        upstream.url,
                        SealedRequest("/MARKED", (), b"MARKED"),
                        attempt,
                        reuse_connection=reuse_connection,
                    )
                )
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                assert task.cancelled()
                sent_at_cancel = attempt.sent
            # The transport is closed, so every connection to the server ends now.
            await asyncio.sleep(0.002)
            await asyncio.wait_for(asyncio.gather(*upstream.tasks), 5)
        assert attempt.sent or not seen
        assert attempt.sent is sent_at_cancel
        moments.append((attempt.sent, bool(seen)))
    # The moments of cancelling must include some before and some after sending.
    assert moments[0] == (False, False)
    assert moments[-1] == (True, True)


async def test_attempt_stays_sent_when_it_is_used_again() -> None:
    attempt = Attempt(sent=True)
    async with transport() as opened:
        with pytest.raises(errors.ConnectionLost):
            await opened.post(
                f"http://127.0.0.1:{free_port()}",
                SealedRequest("/", (), b""),
                attempt,
                reuse_connection=False,
            )


@pytest.mark.parametrize(
    "garbage",
    [
        b"MARKED HTTP/1.1 200\r\nMARKED: MARKED\r\n\r\n",
        b"HTTP/1.1 200 MARKED\r\nMARKED: MARKED\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: MARKED\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nMARKED\r\n",
    ],
    ids=repr,
)
async def test_error_names_its_cause_and_quotes_no_received_bytes(garbage: bytes) -> None:
    async with Upstream(replying(garbage)) as upstream, transport() as opened:
        outcome = await post(opened, upstream.url, path="/MARKED")
    assert outcome.error is not None
    assert outcome.sent
    assert "MARKED" not in str(outcome.error) + repr(outcome.error)


MARKED = SealedRequest("/MARKED", (("MARKED", "MARKED"),), b"MARKED")


@pytest.mark.parametrize("reuse", [True, False], ids=["reused", "fresh"])
@pytest.mark.parametrize("way", ["plain", "TLS", "tunnel"])
async def test_no_byte_of_a_request_is_written_after_its_lease_expired(
    way: str, reuse: bool, authority: Authority
) -> None:
    seen = bytearray()

    async def listening(wire: Peer) -> None:
        while chunk := await wire.reader.read(65536):
            seen.extend(chunk)
            if chunk.endswith(b"first"):
                await wire.send(OK)

    tls = None if way == "plain" else authority.server_context()
    async with Upstream(listening, tls) as upstream, Upstream(relaying) as proxy:
        through = proxy.url if way == "tunnel" else None
        async with transport(tls=authority.client_context(), proxy=through, quarantine_s=0) as opened:
            if reuse:
                first = SealedRequest("/", (), b"first")
                await opened.post(upstream.url, first, Attempt(), reuse_connection=True)
                await asyncio.sleep(0.01)  # wait until the connection may be reused
            attempt = Attempt(may_send=lambda: False)
            with pytest.raises(errors.LeaseExpired):
                await opened.post(upstream.url, MARKED, attempt, reuse_connection=reuse)
            assert not attempt.sent
        await asyncio.wait_for(asyncio.gather(*upstream.tasks), 5)
    assert len(upstream.peers) == 1
    assert b"MARKED" not in seen
