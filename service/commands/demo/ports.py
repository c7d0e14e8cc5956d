"""Wait until the ports of the demo are free."""

from __future__ import annotations

import socket
import time
from typing import Final

from ...server.ports import try_to_bind

LINGERING_S: Final = 65.0
"""A closed connection holds its port for less than this: Linux keeps TIME-WAIT for 60 s."""


class PortTakenError(Exception):
    """Another program uses a port that the demo needs."""


def wait_until_free(address: str, timeout_s: float = LINGERING_S) -> None:
    """Wait until this port is free.

    Linux also uses the ports of the demo's gateways for outgoing connections, so wait for one that has just
    been closed. Raise PortTakenError if a program listens on the port, or a connection holds it for longer.
    """
    reported, give_up = False, time.monotonic() + timeout_s
    while not _is_free(address):
        if is_listening(address):
            raise PortTakenError(f"another program listens on {address}: stop it, the demo needs that port")
        if time.monotonic() > give_up:
            raise PortTakenError(
                f"a connection of another program uses {address}: stop it, the demo needs that port"
            )
        if not reported:
            print(f"A connection of another program still uses {address}: waiting ...", flush=True)
            reported = True
        time.sleep(0.2)


def is_listening(address: str) -> bool:
    """Return whether a program listens on this port."""
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _is_free(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        try_to_bind(host, int(port))
    except OSError:
        return False
    return True
