"""Free ports for the servers of tests, and for addresses without a server."""

from __future__ import annotations

import random
import socket

_DRAW = random.SystemRandom()  # hypothesis resets the default generator to the same seed in every process


def free_port() -> int:
    """Return a port without a listener, outside the range that Linux assigns to outgoing connections.

    Such a port stays free until a program requests exactly this port.
    """
    for port in _DRAW.sample(range(20_000, 30_000), 100):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")
