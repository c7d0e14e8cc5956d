"""Find out why no connection to the gateway can be established, for each of its addresses."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, cast

import grpc

from .channel import channel_options
from .connection import Connection
from .errors import RpcFailure

PROBE: Final = "/grpc.health.v1.Health/Check"
"""A method without effect: every answer to it shows that the connection works."""
PROBE_S: Final = 2.0


def causes(connection: Connection, resolve: Callable[..., Any] = socket.getaddrinfo) -> list[str]:
    """Return a line for each address of the target, with gRPC's reason why it cannot connect to it.

    gRPC itself reports only the last address that it tried: for `localhost` often ::1, where nothing
    listens, and not 127.0.0.1, whose certificate is the cause.
    """
    host, _, port = connection.target.removeprefix("dns:///").rpartition(":")
    host = host.strip("[]")
    try:
        found = resolve(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is not a host name"
        return [f"{host} cannot be resolved: {reason}"]
    addresses = dict.fromkeys(
        f"[{place[0]}]:{port}" if family is socket.AF_INET6 else f"{place[0]}:{port}"
        for family, *_, place in found
    )
    tls = connection.tls
    if tls is not None and tls.server_name is None and list(addresses) != [connection.target]:
        tls = dataclasses.replace(tls, server_name=host)
    with ExitStack() as stack:
        probes: dict[str, Any] = {}
        for address in addresses:
            options = channel_options(tls, retries=False)
            channel = stack.enter_context(
                grpc.insecure_channel(address, options)
                if tls is None
                else grpc.secure_channel(address, tls.credentials(), options)
            )
            probe: Any = channel.unary_unary(PROBE)
            probes[address] = probe.future(b"", timeout=PROBE_S)
        return [f"{address}: {_cause(probe.exception())}" for address, probe in probes.items()]


def _cause(error: Exception | None) -> str:
    """Return why a probe failed."""
    if error is None:
        return "a later connection succeeded"
    failure = cast("RpcFailure", error)
    if failure.code() is grpc.StatusCode.UNAVAILABLE:
        return (failure.details() or "").rpartition("last error: ")[2] or "no reason"
    if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no connection within {PROBE_S:g} s"
    return "a later connection succeeded"
