"""Connect to a base URL of AlipayHK step by step, without gRPC and without a request of ours.

The transport makes the same connections, but says of a failure only what the log needs. Here each step is
named: name resolution, TCP, the proxy, TLS, HTTP. All functions block.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from .tls import fault_of

_PORTS: Final = {"http": 80, "https": 443}
_USER_AGENT: Final = "alipayhk-gateway"


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the way to a server. After a failed one there are no more."""

    name: str
    """DNS, TCP, proxy, TLS or HTTP."""
    text: str
    """What was found, or why the step failed."""
    failed: bool = False
    skew_s: float | None = None
    """Of the step HTTP: the server's time minus ours, to the second; None if it does not tell its time."""
    expires: datetime | None = None
    """Of the step TLS: when the server's certificate expires."""


class _Failed(Exception):
    """A step failed; the text says why, and quotes nothing that was received."""


def steps_to(base_url: str, *, proxy: str | None, tls: ssl.SSLContext, timeout_s: float) -> Iterator[Step]:
    """Yield each step as it ends; `timeout_s` is the time limit of each."""
    server = urlsplit(base_url)
    first = urlsplit(proxy) if proxy else server
    name = "DNS"
    connection: socket.socket | None = None
    try:
        addresses = _addresses_of(first)
        yield Step(name, f"{first.hostname} is {', '.join(addresses)}")
        name = "TCP"
        connection = socket.create_connection((first.hostname or "", _port(first)), timeout_s)
        yield Step(name, f"connected to {_text_of(connection.getpeername())}")
        if proxy and server.scheme == "https":
            name = "proxy"
            _open_tunnel(connection, first, server)
            yield Step(name, f"it connects to {server.hostname}:{_port(server)}")
        if server.scheme == "https":
            name = "TLS"
            connection = secured = tls.wrap_socket(connection, server_hostname=server.hostname)
            yield _certified(secured)
        name = "HTTP"
        yield _told_time(connection, first, server, through_proxy=bool(proxy))
    except (OSError, http.client.HTTPException, _Failed, UnicodeError) as error:
        yield Step(name, _cause_of(error), failed=True)
    finally:
        if connection:
            connection.close()


def _addresses_of(url: SplitResult) -> list[str]:
    found = socket.getaddrinfo(url.hostname, _port(url), type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def _port(url: SplitResult) -> int:
    return url.port or _PORTS[url.scheme]


def _text_of(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _open_tunnel(connection: socket.socket, proxy: SplitResult, server: SplitResult) -> None:
    """Ask the proxy for a connection to the server; raise _Failed unless it says 200."""
    host = f"[{server.hostname}]" if ":" in (server.hostname or "") else server.hostname
    target = f"{host}:{_port(server)}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", f"User-Agent: {_USER_AGENT}"]
    if authorization := _authorization(proxy):
        lines.append(f"Proxy-Authorization: {authorization}")
    connection.sendall("\r\n".join((*lines, "", "")).encode("ascii"))
    response = http.client.HTTPResponse(connection, method="CONNECT")
    response.begin()
    if response.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        raise _Failed("it requires a user and password: put them into UPSTREAM_PROXY (HTTP 407)")
    if response.status != HTTPStatus.OK:
        raise _Failed(f"it refuses to connect to {target} (HTTP {response.status})")


def _authorization(proxy: SplitResult) -> str:
    if proxy.username is None:
        return ""
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return f"Basic {base64.b64encode(words.encode()).decode()}"


def _certified(secured: ssl.SSLSocket) -> Step:
    expires_s = ssl.cert_time_to_seconds(str((secured.getpeercert() or {})["notAfter"]))
    return Step("TLS", str(secured.version()), expires=datetime.fromtimestamp(expires_s, UTC))


def _told_time(
    connection: socket.socket, proxy: SplitResult, server: SplitResult, *, through_proxy: bool
) -> Step:
    """Ask for the root page's head: any HTTP response will do, because it has a Date."""
    channel = http.client.HTTPConnection(server.hostname or "", _port(server))
    channel.sock = connection
    headers = {"User-Agent": _USER_AGENT}
    target = "/"
    if through_proxy and server.scheme == "http":
        target = f"{server.geturl()}/"
        headers |= (
            {"Proxy-Authorization": authorization} if (authorization := _authorization(proxy)) else {}
        )
    channel.request("HEAD", target, headers=headers)
    response = channel.getresponse()
    text = f"it answers HEAD / (HTTP {response.status}; any status will do)"
    return Step("HTTP", text, skew_s=_skew_s(response.getheader("Date")))


def _skew_s(date: str | None) -> float | None:
    """Return how far a Date is ahead of our clock: https://www.rfc-editor.org/rfc/rfc9110#field.date."""
    try:
        return parsedate_to_datetime(date or "").timestamp() - int(time.time())
    except ValueError:
        return None


def _cause_of(error: Exception) -> str:
    if isinstance(error, _Failed):
        return str(error)
    if fault := fault_of(error):
        return fault
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    if isinstance(error, TimeoutError):
        return "nothing answers in time"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"the answer is not HTTP ({type(error).__name__})"
