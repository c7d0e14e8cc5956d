"""Which certificates of AlipayHK are accepted, and the reason that is logged if TLS fails."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509

from clients.alipayhk.tls import context_of
from clients.alipayhk.wire import errors
from tests.alipayhk.upstream import (
    Upstream,
    hanging,
    post,
    post_once,
    relaying,
    replying,
    transport,
)
from tests.certificates import Authority
from tests.raw_http import Peer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTracer-Id: t1\r\n\r\n{}"
HOST = "the server's certificate is for another host; only its subjectAltName counts, not its common name"
NOT_YET = "the certificate of the server, or of its CA, is not yet valid"
STRICT = (
    "the certificate of the server, or of its CA, breaks a rule of RFC 5280"
    " that Python checks from 3.13 on (VERIFY_X509_STRICT)"
)

UNANSWERED: Final = ((errors.ConnectionLost, True), (errors.Unreachable, False))
"""The server checks the client's certificate while the client sends: either can be first."""

INVALID: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "expired": (
        {"host": "localhost", "days": (-2.0, -1.0)},
        "the certificate of the server, or of its CA, has expired (OpenSSL: certificate has expired)",
    ),
    "not yet valid": (
        {"host": "localhost", "days": (1.0, 2.0)},
        f"{NOT_YET} (OpenSSL: certificate is not yet valid)",
    ),
    "another host": ({"host": "elsewhere.example"}, f"{HOST} (OpenSSL: Hostname mismatch)"),
    "only a common name": (
        {"common_name": "localhost", "without": x509.SubjectAlternativeName},
        f"{HOST} (OpenSSL: Hostname mismatch)",
    ),
    "no key identifier of its CA": (
        {"host": "localhost", "without": x509.AuthorityKeyIdentifier},
        f"{STRICT} (OpenSSL: Missing Authority Key Identifier)",
    ),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a certificate authority that the client trusts."""
    return Authority(tmp_path_factory.mktemp("authority"), "known")


def strict(authority: Authority) -> ssl.SSLContext:
    """Return the context of the gateway as Python 3.13 makes it."""
    context = context_of(authority.file)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@pytest.mark.parametrize(("certificate", "cause"), INVALID.values(), ids=INVALID.keys())
async def test_invalid_certificate_is_refused_with_the_reason(
    authority: Authority, certificate: dict[str, Any], cause: str
) -> None:
    async with Upstream(replying(OK), authority.server_context(**certificate)) as upstream:
        outcome = await post_once(f"https://localhost:{upstream.port}", tls=strict(authority))
        assert outcome.ending == (errors.TlsInvalid, False)
        assert str(outcome.error) == cause
        assert upstream.requests == []


async def test_wrong_address_is_refused_with_the_reason(authority: Authority) -> None:
    async with Upstream(replying(OK), authority.server_context(host="127.0.0.2")) as upstream:
        outcome = await post_once(upstream.url, tls=strict(authority))
    assert str(outcome.error) == f"{HOST} (OpenSSL: IP address mismatch)"


@pytest.mark.parametrize("through_proxy", [False, True], ids=["direct", "proxy"])
async def test_unknown_ca_is_refused_with_the_reason(
    authority: Authority, tmp_path: Path, through_proxy: bool
) -> None:
    stranger = Authority(tmp_path, "unknown")
    async with Upstream(replying(OK), stranger.server_context()) as upstream, Upstream(relaying) as proxy:
        through = proxy.url if through_proxy else None
        outcome = await post_once(upstream.url, tls=strict(authority), proxy=through)
        assert outcome.ending == (errors.TlsInvalid, False)
        cause = "the server's certificate is of an unknown CA"
        assert str(outcome.error) == f"{cause} (OpenSSL: unable to get local issuer certificate)"
        assert upstream.requests == []


async def test_valid_certificate_is_accepted(authority: Authority) -> None:
    async with Upstream(replying(OK), authority.server_context()) as upstream:
        assert (await post_once(upstream.url, tls=strict(authority))).answer is not None


async def no_tls(wire: Peer) -> None:
    """Respond to a TLS ClientHello in plain HTTP."""
    await wire.reader.read(100)
    await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def test_server_without_tls_is_named(authority: Authority) -> None:
    async with Upstream(no_tls) as upstream:
        outcome = await post_once(f"https://127.0.0.1:{upstream.port}", tls=strict(authority))
    assert outcome.ending == (errors.Unreachable, False)
    assert str(outcome.error).startswith("the server sent bytes that are not TLS (OpenSSL: ")


@contextlib.contextmanager
def alerting(context: ssl.SSLContext) -> Iterator[str]:
    """Serve one handshake, and send the alert of its failure, which asyncio's server does not."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            raw, _ = listener.accept()
            with raw, context.wrap_socket(raw, server_side=True) as connection:
                connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def requiring_certificate(authority: Authority, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Return the context of a server that requires a client certificate."""
    context = authority.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    context.minimum_version = context.maximum_version = version
    return context


async def test_tls_1_3_server_that_requires_a_client_certificate_is_named(authority: Authority) -> None:
    with alerting(requiring_certificate(authority, ssl.TLSVersion.TLSv1_3)) as url:
        outcome = await post_once(url, tls=strict(authority))
    assert outcome.ending in UNANSWERED
    cause = "the server requires a client certificate, and the gateway has none"
    assert str(outcome.error) == f"{cause} (OpenSSL: TLSV13_ALERT_CERTIFICATE_REQUIRED)"


async def test_tls_1_2_server_that_requires_a_client_certificate_is_named(authority: Authority) -> None:
    with alerting(requiring_certificate(authority, ssl.TLSVersion.TLSv1_2)) as url:
        outcome = await post_once(url, tls=strict(authority))
    assert outcome.ending == (errors.Unreachable, False)
    assert "it requires a client certificate, or has no cipher in common" in str(outcome.error)


async def test_server_without_a_common_tls_version_is_named(authority: Authority) -> None:
    client = strict(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with alerting(requiring_certificate(authority, ssl.TLSVersion.TLSv1_3)) as url:
        outcome = await post_once(url, tls=client)
    assert outcome.ending == (errors.Unreachable, False)
    assert str(outcome.error).startswith("the server has no TLS version in common with the gateway")


async def test_new_tls_connection_that_is_closed_without_an_alert_may_want_a_certificate(
    authority: Authority,
) -> None:
    server = requiring_certificate(authority, ssl.TLSVersion.TLSv1_3)
    async with Upstream(hanging, server) as upstream:
        outcome = await post_once(upstream.url, tls=strict(authority))
    assert outcome.ending in UNANSWERED
    assert str(outcome.error).endswith(": the server may require a client certificate")


async def test_server_that_has_answered_before_needs_no_certificate(authority: Authority) -> None:
    scripts = [replying(OK), replying()]

    async def once(wire: Peer) -> None:
        await scripts.pop(0)(wire)

    tls = authority.server_context()
    async with Upstream(once, tls) as upstream, transport(tls=strict(authority)) as opened:
        assert (await post(opened, upstream.url)).answer is not None
        outcome = await post(opened, upstream.url)
    assert outcome.error is not None
    assert "certificate" not in str(outcome.error)
