"""The signals that stop a gateway."""

from __future__ import annotations

import signal


def stop_signals() -> list[signal.Signals]:
    """Name what ends a gateway: a terminal that closes sends SIGHUP, and nohup is there to ignore it."""
    ends = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    return ends if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else ends[:-1]
