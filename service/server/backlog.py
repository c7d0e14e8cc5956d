"""Measure how long calls wait in gRPC's own queue before this process accepts them.

Theory of operation. grpc.aio accepts one call per iteration of the event loop. Other calls wait in gRPC's
own FIFO queue, which our metrics do not include; under overload the waiting time is spent there. The length
of the queue is the number of calls that are open in gRPC (from channelz) minus the number that are open in
this process. The wait is measured, not estimated: a mark is set at the last call in the queue, and the time
until that call is accepted is the wait. As in CoDel, the wait decides, not the length. A wait above
WAIT_MAX_S makes the backlog long, and then calls are refused. A refusal costs little, so the queue becomes
short within a fraction of a second, and calls are served again.

Each query of channelz leaks about 200 bytes (docs/upstream-bugs.md). So there are few while the queue seems
empty many times a second, as it does below full load. They do not stop, because a gap between two calls is
no proof: gRPC's threads may get no time on a busy machine. A query also takes time for each connection, up
to 70 ms for 1,000 of them, so queries take at most LOOK_SHARE of the time.

gRPC drops some calls, such as those with the method GET, and channelz counts them as open for ever. Such
lost calls are detected when the queue seems to contain calls but none arrives.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from grpc._cython import cygrpc  # type: ignore[attr-defined, unused-ignore]  # grpcio-channelz reads it there too

WAIT_MAX_S: Final = 0.3
"""Above this wait the backlog becomes long, and calls are refused."""
WAIT_SHORT_S: Final = 0.1
"""Below this wait a long backlog becomes short again."""
LOOK_EVERY_S: Final = 0.02
"""Minimum time between two queries of channelz, while the backlog is long."""
LOOK_SHARE: Final = 0.02
"""The share of the time that queries of channelz may take."""
BUSY_S: Final = 0.1
"""Time without a gap between calls after which channelz is queried, and then between two queries.

A query takes 0.1 ms with one connection and 1.7 ms with 64. Between two queries, the wait grows by at most
the time between them.
"""
LOOK_AT_LEAST_S: Final = 1.0
"""Maximum time between two queries of channelz while calls arrive, with or without gaps."""
WINDOW_S: Final = 1.0
"""Period after which the counts of calls per connection restart at 0."""
LIGHT: Final = 4
"""The share of the calls of a light connection is less than an equal share divided by this."""


def newest_server() -> int:
    """Return the channelz id of the newest gRPC server in this process."""
    newest, last_page = 0, False
    while not last_page:
        page = json.loads(cygrpc.channelz_get_servers(newest + 1 if newest else 0))
        newest = max((int(server["ref"]["serverId"]) for server in page.get("server", ())), default=newest)
        last_page = page.get("end", False) or "server" not in page
    return newest


def calls_in_progress(server: int) -> int:
    """Return the number of calls that are open in gRPC on the server with this channelz id."""
    data = json.loads(cygrpc.channelz_get_server(server))["server"]["data"]
    started, *finished = (
        int(data.get(name, 0)) for name in ("callsStarted", "callsSucceeded", "callsFailed")
    )
    return started - sum(finished)


class Backlog:
    """Measures the wait of one server, and counts the calls of each connection while the wait is long."""

    def __init__(self, in_progress: Callable[[], int], now_s: Callable[[], float] = time.monotonic) -> None:
        self._in_progress = in_progress
        self._now_s = now_s
        self.open = 0
        """The number of accepted calls that are still open."""
        self.accepted = 0
        """The number of calls accepted so far, which is the number of the newest one."""
        self._lost = 0
        """The number of calls that channelz counts as open and that gRPC will never deliver."""
        self._looked_s = self._marked_s = now_s()
        self._look_cost_s = 0.0
        """How long the last query took, in seconds."""
        self._busy_s: float | None = None
        """Since when the queue may have contained calls all the time; None after it seemed empty."""
        self._mark: int | None = None
        """The number of the last call in the queue at the time `_marked_s`; None if the queue was empty."""
        self._is_long = False
        self._window_s = 0.0
        self._came = 0
        self._by_peer: Counter[str] = Counter()

    def accept(self) -> bool:
        """Count an accepted call; return whether the wait is too long."""
        self.open += 1
        self.accepted += 1
        self._came += 1
        now_s = self._now_s()
        if self._busy_s is None:
            self._busy_s = now_s
        if self._mark is not None and self.accepted >= self._mark:
            self._judge(now_s - self._marked_s)
            self._mark = None
        elif self._mark is not None and now_s - self._marked_s > WAIT_MAX_S:
            self._judge(now_s - self._marked_s)
        since_s = now_s - self._looked_s
        if since_s >= LOOK_EVERY_S and since_s >= self._look_every_s(now_s - self._busy_s):
            self._look(now_s)
        return self._is_long

    def _look_every_s(self, busy_s: float) -> float:
        """Return the time between two queries; `busy_s` is for how long the queue may have had calls."""
        every_s = LOOK_AT_LEAST_S
        if self._is_long:
            every_s = LOOK_EVERY_S
        elif self.is_waiting or busy_s >= BUSY_S:
            every_s = BUSY_S
        return max(every_s, self._look_cost_s / LOOK_SHARE)

    def end(self) -> None:
        """Count an accepted call that has completed."""
        self.open -= 1

    @property
    def is_waiting(self) -> bool:
        """Whether gRPC's queue seems to contain calls."""
        return self._mark is not None

    def seems_empty(self) -> None:
        """Note that no call came although gRPC usually had the time to deliver one of its queue."""
        self._busy_s = None

    def nothing_came_after(self, number: int) -> None:
        """Treat the queue as empty unless a call was accepted after this one.

        Call this only after gRPC had the time to deliver a call from its queue.
        """
        if self.is_waiting and number == self.accepted:
            self._lost = max(self._in_progress() - self.open, 0)
            self._mark = None
            self._judge(0.0)

    def is_light(self, peer: str) -> bool:
        """Count a call of a connection; return whether its share is far below an equal share."""
        self._by_peer[peer] += 1
        # The additional share is for connections whose calls are refused before they are counted here.
        return self._by_peer[peer] * LIGHT * (len(self._by_peer) + 1) < self._came

    def _look(self, now_s: float) -> None:
        self._looked_s = now_s
        not_accepted = max(self._in_progress() - self.open, 0)
        self._look_cost_s = self._now_s() - now_s
        self._lost = min(self._lost, not_accepted)
        waiting = not_accepted - self._lost
        if self._mark is None or not waiting:
            # gRPC itself can refuse the marked call, so an empty queue always completes the measurement.
            self._mark, self._marked_s = (self.accepted + waiting if waiting else None), now_s
            if not waiting:
                self._busy_s = now_s
                self._judge(0.0)
        if self._is_long and now_s - self._window_s > WINDOW_S:
            self._start_window(now_s)

    def _judge(self, wait_s: float) -> None:
        was_long, self._is_long = self._is_long, wait_s > (WAIT_SHORT_S if self._is_long else WAIT_MAX_S)
        if self._is_long and not was_long:
            self._start_window(self._now_s())

    def _start_window(self, now_s: float) -> None:
        self._window_s, self._came = now_s, 0
        self._by_peer.clear()
