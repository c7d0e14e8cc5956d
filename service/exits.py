"""How a program ends: exit statuses, as in sysexits.h, and the signals that ask a gateway to."""

from __future__ import annotations

import signal
from typing import Final

BAD_ARGUMENTS: Final = 1
"""grpc_health_probe's own, for `health`."""
EX_USAGE: Final = 64
EX_UNAVAILABLE: Final = 69
EX_SOFTWARE: Final = 70
"""A listener stopped by itself; a supervisor must start the process again."""
EX_CANTCREAT: Final = 73
EX_CONFIG: Final = 78


def stop_signals() -> list[signal.Signals]:
    """Name what ends a gateway: a terminal that closes sends SIGHUP, and nohup is there to ignore it."""
    ends = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    return ends if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else ends[:-1]
