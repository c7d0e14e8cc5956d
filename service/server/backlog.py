"""How long calls wait in gRPC's own queue, before this process accepts them.

Theory of operation. grpc.aio accepts one call per turn of the event loop. The calls that came meanwhile
wait in gRPC's own queue, first come first served, which no metric of ours sees; beyond capacity the seconds
are spent there. Its length is the number of calls that gRPC has begun and not ended (from channelz) minus
those that this process has accepted and not ended. The wait is measured, not estimated: a mark is set at
the last call in the queue, and the time is taken until it is accepted. As in CoDel, the wait decides and
not the length. A wait above WAIT_MAX_S makes the backlog long. The calls that are refused then cost little,
so the queue becomes short within a fraction of a second, and calls are served again.

gRPC drops some calls, such as those with the method GET, and channelz counts them as in progress for ever.
They are found out when nothing comes although something seems to wait.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from grpc._cython import cygrpc  # type: ignore[attr-defined, unused-ignore]  # grpcio-channelz reads it there too

WAIT_MAX_S: Final = 0.3
"""The wait from which on calls are refused."""
WAIT_SHORT_S: Final = 0.1
"""The wait below which calls are no longer refused."""
LOOK_EVERY_S: Final = 0.02
"""How often gRPC is asked, at most: one look costs about a tenth of a served call."""
WINDOW_S: Final = 1.0
"""How long the calls of each connection are counted before the count starts anew."""
LIGHT: Final = 4
"""A light connection brings less than an equal share of the calls divided by this."""


def newest_server() -> int:
    """Return channelz's number of the gRPC server that was created last in this process."""
    newest, last_page = 0, False
    while not last_page:
        page = json.loads(cygrpc.channelz_get_servers(newest + 1 if newest else 0))
        newest = max((int(server["ref"]["serverId"]) for server in page.get("server", ())), default=newest)
        last_page = page.get("end", False) or "server" not in page
    return newest


def calls_in_progress(server: int) -> int:
    """Return how many calls gRPC has begun and not ended on a server, by channelz's number of it."""
    data = json.loads(cygrpc.channelz_get_server(server))["server"]["data"]
    begun, *ended = (int(data.get(name, 0)) for name in ("callsStarted", "callsSucceeded", "callsFailed"))
    return begun - sum(ended)


class Backlog:
    """Measures the wait of one server, and counts the calls of each connection while it is long."""

    def __init__(self, in_progress: Callable[[], int], now_s: Callable[[], float] = time.monotonic) -> None:
        self._in_progress = in_progress
        self._now_s = now_s
        self.open = 0
        """How many calls this process has accepted and not ended."""
        self.accepted = 0
        """How many calls this process has accepted; the number of the newest one."""
        self._lost = 0
        """How many calls channelz counts as in progress that this process will never be given."""
        self._looked_s = self._marked_s = now_s()
        self._mark: int | None = None
        """The number of the call that was last in the queue when the mark was set."""
        self._is_long = False
        self._window_s = 0.0
        self._came = 0
        self._by_peer: Counter[str] = Counter()

    def accept(self) -> bool:
        """Count a call that this process has just accepted; return whether the wait is too long."""
        self.open += 1
        self.accepted += 1
        self._came += 1
        now_s = self._now_s()
        if self._mark is not None and self.accepted >= self._mark:
            self._judge(now_s - self._marked_s)
            self._mark = None
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._look(now_s)
        return self._is_long

    def end(self) -> None:
        """Count an accepted call that has ended."""
        self.open -= 1

    @property
    def is_waiting(self) -> bool:
        """Whether calls seem to wait in gRPC's queue."""
        return self._mark is not None

    def nothing_came_after(self, number: int) -> None:
        """Take the queue for empty unless a call was accepted after this one.

        Only to be called when gRPC has had the time to hand over a call that was in its queue.
        """
        if self.is_waiting and number == self.accepted:
            self._lost = max(self._in_progress() - self.open, 0)
            self._mark = None
            self._judge(0.0)

    def is_light(self, peer: str) -> bool:
        """Count a call of a connection; return whether its share of the calls is far below an equal one."""
        self._by_peer[peer] += 1
        # One share more is for connections whose calls never get as far as to be counted here.
        return self._by_peer[peer] * LIGHT * (len(self._by_peer) + 1) < self._came

    def _look(self, now_s: float) -> None:
        self._looked_s = now_s
        not_accepted = max(self._in_progress() - self.open, 0)
        self._lost = min(self._lost, not_accepted)
        waiting = not_accepted - self._lost
        if self._mark is None or not waiting:
            # gRPC itself may have refused what was waited for: an empty queue always ends the wait.
            self._mark, self._marked_s = (self.accepted + waiting if waiting else None), now_s
            if not waiting:
                self._judge(0.0)
        elif now_s - self._marked_s > WAIT_MAX_S:
            self._judge(now_s - self._marked_s)
        if self._is_long and now_s - self._window_s > WINDOW_S:
            self._start_window(now_s)

    def _judge(self, wait_s: float) -> None:
        was_long, self._is_long = self._is_long, wait_s > (WAIT_SHORT_S if self._is_long else WAIT_MAX_S)
        if self._is_long and not was_long:
            self._start_window(self._now_s())

    def _start_window(self, now_s: float) -> None:
        self._window_s, self._came = now_s, 0
        self._by_peer.clear()
