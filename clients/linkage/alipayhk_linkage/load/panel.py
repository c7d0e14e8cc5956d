"""What a terminal shows while the run goes on: a few lines, drawn again in place. Silence elsewhere."""

from __future__ import annotations

import os
from collections import Counter
from typing import Final, TextIO

from .plan import Plan
from .recording import Group, Second
from .tally import Tally
from .text import ms, tame
from .worker import SETTLED_S, TELL_EVERY_S

EVERY_S: Final = 0.25
WIDTH: Final = 78
BAR: Final = 30
ERRORS_SHOWN: Final = 4
SECOND_TOLD_S: Final = 1.0 + SETTLED_S + 2 * TELL_EVERY_S


class Panel:
    """The lines on standard error."""

    def __init__(self, plan: Plan, stream: TextIO) -> None:
        self._plan = plan
        self._stream = stream
        self._shows = stream.isatty()
        self._drawn = 0
        self._next = 0.0

    def look(self, tally: Tally, now: float, in_flight: int) -> None:
        """Draw the lines again, where there is a terminal and it is time to."""
        if not self._shows or now < self._next:
            return
        self._next = now + EVERY_S
        lines = self._lines(tally, max(now, 0.0), in_flight)
        width = self._width()
        back = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._stream.write(back + "".join(f"\r\x1b[2K{tame(line)[:width]}\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(lines)

    def close(self) -> None:
        """Take the lines away; the report comes in their place."""
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}A\r\x1b[J")
            self._stream.flush()
            self._drawn = 0

    def _width(self) -> int:
        """Return how much fits into a line: one that wraps cannot be drawn over."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            columns = 0
        return min(WIDTH, columns - 1) if columns > 1 else WIDTH

    def _lines(self, tally: Tally, now: float, in_flight: int) -> list[str]:
        lasts = self._plan.lasts
        done = min(1.0, now / lasts)
        bar = ("#" * round(BAR * done)).ljust(BAR, ".")
        state = (
            "warming up"
            if now < self._plan.warm_up
            else "running"
            if now < lasts
            else "waiting for answers"
        )
        # The newest one that every process has told of.
        newest = int(now - self._plan.warm_up - SECOND_TOLD_S)
        last = tally.seconds[newest] if newest in tally.seconds else Second()
        succeeded = last.ends.get(Group.SUCCESS, 0)
        p50, p99 = last.latency.at(50, 99)
        errors = sum((second.errors for second in tally.seconds.values()), Counter[str]())
        most = "  ".join(f"{reason} {count}" for reason, count in errors.most_common(ERRORS_SHOWN))
        return [
            f"{self._plan.target}  [{bar}] {min(now, lasts):.0f} of {lasts:.0f} s  {state}",
            f"last second: {last.started} started, {succeeded} succeeded; {in_flight} in flight",
            f"             p50 {ms(p50)} ms, p99 {ms(p99)} ms, max {ms(last.latency.max_us)} ms",
            f"in all:      {tally.late} late, {tally.dropped} dropped, errors: {most or 'none'}",
        ]
