"""Check whether an address can be listened on, and describe why not."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any


def try_to_bind(host: str, port: int) -> None:
    """Bind the address as a listener does, and release it; raise OSError or UnicodeError."""
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)


def address_in_use(
    host: str, port: int, resolve: Callable[..., Iterable[Any]] = socket.getaddrinfo
) -> str | None:
    """Return the first address of a host whose port another program uses, or None.

    gRPC is content with one address of several: for `localhost` it starts although callers that try ::1
    first reach another program.
    """
    try:
        found = resolve(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    for _, _, _, _, place in found:
        try:
            try_to_bind(place[0], port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"[{place[0]}]:{port}" if ":" in place[0] else f"{place[0]}:{port}"
    return None


def cause_of(error: OSError | UnicodeError) -> str:
    """Return the operating system's message, which asyncio wraps in one of its own."""
    if isinstance(error, UnicodeError):
        return "this is not a host name"
    number = error.errno or 0
    # The numbers of resolver errors are not in errno; asyncio does not change their messages.
    return os.strerror(number) if number in errno.errorcode else str(error.strerror)
