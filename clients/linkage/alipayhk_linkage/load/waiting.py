"""A selector that knows for how long its loop had nothing to do."""

from __future__ import annotations

import selectors
import time


class WaitingSelector(selectors.SelectSelector):
    """Waits with select(2), to the microsecond; by epoll's milliseconds arrivals would be late."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0
        """Seconds for which the loop was idle."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, and note for how long."""
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        began = time.monotonic()
        found = super().select(timeout)
        self.waited += time.monotonic() - began
        return found
