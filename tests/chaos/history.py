"""The records of a chaos run: requests, calls, arrivals at AlipayHK, a person's decisions, and faults.

All times are seconds on the harness's monotonic clock, which no fault changes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from service.ledger import State

BIND: Final = "BindAccount"
SYNC: Final = "SyncLinkage"
FINAL: Final = frozenset({"OK", "rejected"})
UPSTREAM_TIMEOUT_S: Final = 2
LEASE_S: Final = UPSTREAM_TIMEOUT_S + 1.0
"""The lease of a gateway's claim."""
LEDGER_FAULTS: Final = frozenset({"disk", "lock", "stall", "server", "freeze"})
NOTED_S: Final = 0.75
"""Maximum time between an outcome that a fault of the ledger loses and the record of that fault.

PostgreSQL makes the outcome of a SyncLinkage durable within 0.6 s.
"""
RECOVERY_S: Final = 1.5
"""Maximum time between the end of a ledger's fault and the first write that succeeds."""

Key = tuple[str, str]
"""API and request id."""


@dataclass(frozen=True, slots=True)
class Request:
    """The request of one caller, under one request id."""

    key: Key
    content: str
    """The business content, in a form that the caller and the proxy both compute."""
    linkage: str = ""
    biz_time_ms: int = 0
    refused_with: str = ""
    """The result code that the sandbox returns for this request; empty for a request that it applies."""
    account: str = ""


@dataclass(slots=True)
class Call:
    """One gRPC call and its status."""

    key: Key
    content: str
    gateway: str
    started: float
    ended: float = math.inf
    outcome: str = "unknown"
    """OK, rejected, not_sent or unknown; unknown while the call runs."""
    retry: str = ""
    reason: str = ""
    grpc_code: str = ""
    status: str = ""
    result_code: str = ""
    tracer: str = ""
    account: str = ""
    replayed: bool = False
    resolved: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the caller now knows the outcome."""
        return self.outcome in FINAL


@dataclass(slots=True)
class Arrival:
    """One whole request that the proxy read from a gateway's connection."""

    key: Key
    content: str
    at: float
    process: int = 0
    """The process id of the gateway that sent it."""
    concurrent_with: int = 0
    """The id of another process whose attempt at this request was in flight; 0 if there was none."""
    answer: str = ""
    """The proxy's treatment of AlipayHK's response: a key of `proxy.DISTURB`, or "lost"."""
    status: str = ""
    """The result status that AlipayHK returned; empty if the request never reached it."""
    result_code: str = ""
    tracer: str = ""
    outlived: float = math.inf
    """The time at which the response was written or the connection was closed."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """A person's decision about a request in doubt."""

    key: Key
    state: str
    at: float


@dataclass(slots=True)
class FaultWindow:
    """One fault and the time that it lasted."""

    kind: str
    detail: str
    started: float
    ended: float = math.inf


@dataclass(frozen=True, slots=True)
class Row:
    """A request as the ledger has it."""

    state: State
    attempts: int
    is_in_doubt: bool
    lease_s: float = LEASE_S
    """The lease that its last claim or renewal got."""
    is_overwritten: bool = False
    """Whether it has AlipayHK's result although a person resolved it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ledger's rows at a time when no fault had happened for a while."""

    at: float
    """The time at which reading began."""
    rows: dict[Key, Row]
    processes: frozenset[int]
    """The ids of the processes that served at that time."""


@dataclass(slots=True)
class History:
    """Everything that a run records."""

    requests: dict[Key, Request] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    resolutions: list[Resolution] = field(default_factory=list)
    faults: list[FaultWindow] = field(default_factory=list)
    linkages: dict[str, int] = field(default_factory=dict)
    """The biz_time in milliseconds that AlipayHK holds for each linkage at the end."""
    snapshot: Snapshot | None = None
    """The last one."""

    def copy(self) -> History:
        """Return the present records, for a check in another thread while the run goes on."""
        return replace(
            self,
            requests=dict(self.requests),
            calls=list(self.calls),
            arrivals=list(self.arrivals),
            resolutions=list(self.resolutions),
            faults=list(self.faults),
        )


Record = TypeVar("Record", Call, Arrival, Resolution)


class ByRequest:
    """A history, grouped by request."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.requests = history.requests
        self._calls = _grouped(history.calls)
        self._arrivals = _grouped(history.arrivals)
        self._resolutions = _grouped(history.resolutions)
        # The clock jumps forward at the start of a fault that sets it ahead, and at the end of any other.
        self._forward_jumps = [
            fault.started if fault.detail.startswith("+") else fault.ended
            for fault in history.faults
            if fault.kind == "clock"
        ]
        self._ledger_faults = [fault for fault in history.faults if fault.kind in LEDGER_FAULTS]

    def calls(self, key: Key) -> list[Call]:
        """Return the calls with the request's own content, in the order of their start."""
        content = self.requests[key].content
        return [call for call in self._calls.get(key, ()) if call.content == content]

    def every_call(self, key: Key) -> list[Call]:
        """Return all calls with this id, those with other content included."""
        return self._calls.get(key, [])

    def arrivals(self, key: Key) -> list[Arrival]:
        """Return the arrivals in their order."""
        return self._arrivals.get(key, [])

    def resolutions(self, key: Key) -> list[Resolution]:
        """Return a person's decisions: one at most, unless the ledger forgot the first one."""
        return self._resolutions.get(key, [])

    def applied(self, key: Key) -> list[Arrival]:
        """Return the arrivals to which AlipayHK returned S."""
        return [arrival for arrival in self.arrivals(key) if arrival.status == "S"]

    def first_final(self, key: Key) -> Call | None:
        """Return the call that first reported a final outcome."""
        finals = [call for call in self.calls(key) if call.is_final]
        return min(finals, key=lambda call: call.ended, default=None)

    def is_excused(self, key: Key, until: float) -> bool:
        """Return whether the ledger was unusable between AlipayHK's last answer before `until` and `until`.

        That answer is then reported without a record of it, and a crash may forget it.
        """
        sent = max((arrival.at for arrival in self.arrivals(key) if arrival.at <= until), default=until)
        return any(
            fault.started - NOTED_S <= until and fault.ended + RECOVERY_S >= sent
            for fault in self._ledger_faults
        )

    def clock_moved_before(self, at: float, *, lease_s: float = LEASE_S + 0.5) -> bool:
        """Return whether the wall clock jumped forward within a lease before `at`.

        Processes compare leases by the wall clock, so a jump forward can end a lease too early. That is
        harmless for a SyncLinkage, and a BindAccount is not sent again.
        """
        return any(0 <= at - jumped_at <= lease_s for jumped_at in self._forward_jumps)

    def by_linkage(self) -> Iterator[tuple[str, list[Request]]]:
        """Return each linkage with its requests."""
        groups: defaultdict[str, list[Request]] = defaultdict(list)
        for request in self.requests.values():
            if request.linkage:
                groups[request.linkage].append(request)
        return iter(groups.items())


def _grouped(records: Iterable[Record]) -> dict[Key, list[Record]]:
    groups: defaultdict[Key, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.key].append(record)
    return groups
