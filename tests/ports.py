"""Free ports for the servers of tests, and for addresses without a server."""

from __future__ import annotations

import itertools
import os
import random
import socket
from typing import Final

SHARE: Final = 600
_DRAW = random.SystemRandom()  # hypothesis resets the default generator to the same seed in every process
_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16
_PORTS: Final = range(20_000 + _WORKER * SHARE, 20_000 + (_WORKER + 1) * SHARE)
"""The ports of this process of pytest-xdist: none of its neighbours takes one before a server listens."""
_NEXT: Final = itertools.islice(itertools.cycle(_PORTS), _DRAW.randrange(SHARE), None)


def free_port() -> int:
    """Return a port without a listener, outside the range that Linux assigns to outgoing connections.

    Such a port stays free until a program requests exactly this port. It is not returned again soon.
    """
    for port in itertools.islice(_NEXT, SHARE):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")
