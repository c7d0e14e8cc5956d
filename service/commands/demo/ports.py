"""The ports that the demo needs: free ones are waited for."""

from __future__ import annotations

import socket
import time
from typing import Final

from ...server.ports import try_to_bind

LINGERING_S: Final = 65.0
"""How long a connection that ended may hold its port: Linux keeps TIME-WAIT for 60 s."""


class PortTakenError(Exception):
    """A port that the demo needs is somebody else's."""


def wait_until_free(address: str, patience_s: float = LINGERING_S) -> None:
    """Wait until this port can be listened on.

    Linux gives the ports of the demo's gateways to outgoing connections too: one that ended a moment ago
    is waited for. Raises PortTakenError where somebody listens, or a connection holds the port for longer.
    """
    reported, give_up = False, time.monotonic() + patience_s
    while not _is_free(address):
        if is_listening(address):
            raise PortTakenError(f"something listens on {address} already; the demo needs that port")
        if time.monotonic() > give_up:
            raise PortTakenError(f"another program's connection holds {address}; the demo needs that port")
        if not reported:
            print(f"Another program's connection holds {address} still: waiting ...", flush=True)
            reported = True
        time.sleep(0.2)


def is_listening(address: str) -> bool:
    """Tell whether somebody takes connections on this port."""
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
