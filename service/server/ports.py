"""Addresses to listen on: whether that can be done, and why not."""

from __future__ import annotations

import errno
import os
import socket


def try_to_bind(host: str, port: int) -> None:
    """Bind it as a listener would, and let it go; raise OSError or UnicodeError."""
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)


def cause_of(error: OSError | UnicodeError) -> str:
    """Say what the system says; asyncio puts words of its own around it."""
    if isinstance(error, UnicodeError):
        return "this is no host name"
    number = error.errno or 0
    # Those of names that cannot be resolved are of another kind, and asyncio leaves them alone.
    return os.strerror(number) if number in errno.errorcode else str(error.strerror)
