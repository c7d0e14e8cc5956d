"""Check whether an address can be listened on, and describe why not."""

from __future__ import annotations

import errno
import os
import socket


def try_to_bind(host: str, port: int) -> None:
    """Bind the address as a listener does, and release it; raise OSError or UnicodeError."""
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)


def cause_of(error: OSError | UnicodeError) -> str:
    """Return the operating system's message, which asyncio wraps in one of its own."""
    if isinstance(error, UnicodeError):
        return "this is not a host name"
    number = error.errno or 0
    # The numbers of resolver errors are not in errno; asyncio does not change their messages.
    return os.strerror(number) if number in errno.errorcode else str(error.strerror)
