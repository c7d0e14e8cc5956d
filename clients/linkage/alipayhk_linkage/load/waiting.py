"""A selector that measures how long its event loop was idle."""

from __future__ import annotations

import selectors
import time


class WaitingSelector(selectors.SelectSelector):
    """Waits with select(2), to the microsecond. The milliseconds of epoll make arrivals late."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0
        """The idle time of the event loop in seconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for I/O, and add the time of the wait to `waited`."""
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        started_at = time.monotonic()
        found = super().select(timeout)
        self.waited += time.monotonic() - started_at
        return found
