"""The progress of a run on the terminal: a few lines, redrawn in place. Nothing if it is not a terminal."""

from __future__ import annotations

import os
from collections import Counter
from typing import Final, TextIO

from .plan import Plan
from .recording import Group, Second
from .text_report import ms, tame
from .totals import Totals
from .worker import REPORT_EVERY_S, SETTLED_S

EVERY_S: Final = 0.25
WIDTH: Final = 78
BAR: Final = 30
ERRORS_SHOWN: Final = 4
SECOND_COMPLETE_S: Final = 1.0 + SETTLED_S + 2 * REPORT_EVERY_S
"""How long after its start every process has reported a second."""


class LivePanel:
    """The lines on standard error."""

    def __init__(self, plan: Plan, stream: TextIO) -> None:
        self._plan = plan
        self._stream = stream
        self._shows = stream.isatty()
        self._drawn = 0
        self._next = 0.0

    def update(self, totals: Totals, now: float, in_flight: int) -> None:
        """Redraw the lines, at most every EVERY_S seconds, if standard error is a terminal."""
        if not self._shows or now < self._next:
            return
        self._next = now + EVERY_S
        lines = self._lines(totals, max(now, 0.0), in_flight)
        width = self._width()
        back = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._stream.write(back + "".join(f"\r\x1b[2K{tame(line)[:width]}\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(lines)

    def close(self) -> None:
        """Remove the lines. The report takes their place."""
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}A\r\x1b[J")
            self._stream.flush()
            self._drawn = 0

    def _width(self) -> int:
        """Return the longest line that does not wrap. A wrapped line could not be redrawn in place."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            columns = 0
        return min(WIDTH, columns - 1) if columns > 1 else WIDTH

    def _lines(self, totals: Totals, now: float, in_flight: int) -> list[str]:
        total = self._plan.total_duration
        done = min(1.0, now / total)
        bar = ("#" * round(BAR * done)).ljust(BAR, ".")
        state = (
            "warming up"
            if now < self._plan.warm_up
            else "running"
            if now < total
            else "waiting for responses"
        )
        # The newest second that every process has reported.
        newest = int(now - self._plan.warm_up - SECOND_COMPLETE_S)
        last = totals.seconds[newest] if newest in totals.seconds else Second()
        succeeded = last.results.get(Group.SUCCESS, 0)
        p50, p99 = last.latency.at(50, 99)
        errors = sum((second.errors for second in totals.seconds.values()), Counter[str]())
        most = "  ".join(f"{reason} {count}" for reason, count in errors.most_common(ERRORS_SHOWN))
        return [
            f"{self._plan.target}  [{bar}] {min(now, total):.0f} of {total:.0f} s  {state}",
            f"last second: {last.started} started, {succeeded} succeeded; {in_flight} in flight",
            f"             p50 {ms(p50)} ms, p99 {ms(p99)} ms, max {ms(last.latency.max_us)} ms",
            f"whole run:   {totals.late} late, {totals.dropped} dropped, errors: {most or 'none'}",
        ]
