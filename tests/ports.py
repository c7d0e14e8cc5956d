"""Ports for what tests start, and for what is not to be there."""

from __future__ import annotations

import random
import socket

_DRAW = random.SystemRandom()  # not of the sequence that hypothesis sets back in every process


def free_port() -> int:
    """Return a port that nobody listens on just now.

    It is none of those that Linux gives to outgoing connections, and to whoever asks for any port: it stays
    free until somebody takes it on purpose.
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
