"""Tell the service manager, such as systemd, in which state the gateway is (`Type=notify`).

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import os
import socket
from typing import Final

from ..config.environment import notify_socket
from ..telemetry.logs import log

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
_SEND_MAX_S: Final = 1.0


def notify(state: str) -> None:
    """Send the state, READY or STOPPING, if a service manager started this process and waits for it.

    Workers send nothing, because only their supervisor has the address.
    """
    if (path := notify_socket()) is None:
        return
    address = os.fsencode(path)
    if address.startswith(b"@"):  # an abstract socket, which has no file
        address = b"\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_SEND_MAX_S)
            sender.sendto(state.encode(), address)
    except OSError as error:
        log.warning("service manager unreachable", cause=error.strerror or type(error).__name__)
