"""Watch each flight while it runs: what broke a promise is known at once, and by which flight.

A flight is known by its identity: a request id can have several flights, at several gateways and with two
contents. The rules that need the whole history are in `checker`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from clients.alipayhk.wire import errors
from clients.alipayhk.wire.errors import ResultError
from service.delivery.flight import Flight
from service.delivery.sender import LEFT_MIN_S
from service.delivery.state import FlightState
from service.ledger import FINAL, Claim, Key

from .gateway import GONE, UPSTREAM_TIMEOUT_S, Gateway, key_of
from .network import Sent
from .records import Leaving, Made
from .timeline import Process
from .wallet import FRONT_END_CODES, ODD_REPEAT

if TYPE_CHECKING:
    from .world import World

INSTANT_S: Final = 0.001
KNOWN_S: Final = 0.3
"""After so long the ledger knows that a request waits."""
WAITS: Final = {FlightState.QUEUED_FOR_LINKAGE, FlightState.WAITING_FOR_OTHER}
AT_DEADLINE: Final = {"LINKAGE_BUSY", "REQUEST_IN_PROGRESS", "DEADLINE_TOO_SHORT"}
"""Reasons that a flight gets only when no time is left."""
UNSETTLING: Final = {*FRONT_END_CODES, ODD_REPEAT, "NO_TABLE_KNOWS"}
"""Codes of rejections that do not say that earlier attempts had no effect."""
AFTER_FAILURE: Final = {FlightState.BACKING_OFF, FlightState.RECORDING}
AFTER_SENDING: Final = {
    "OK",
    "CONNECTION_LOST",
    "GATEWAY_REFUSED",
    "RESPONSE_MALFORMED",
    "RESPONSE_REPLAYED",
    "RESPONSE_SIGNATURE_INVALID",
    "RESPONSE_TRUNCATED",
    "RESPONSE_UNSIGNED",
    "UPSTREAM_HTTP_ERROR",
    "UPSTREAM_TIMEOUT",
    "WALLET_RATE_LIMITED",
    "WALLET_REJECTED",
    "WALLET_RESULT_UNKNOWN",
}
"""Reasons of a call whose flight sent something."""


@dataclass(slots=True)
class Seen:
    """What happened to a flight."""

    left: int = 0
    """How many of its attempts have sent their first byte."""
    interrupted: bool = False
    """Whether its process was frozen, or a clock was set, during its life."""
    unsure: bool = False
    """Whether that happened to an attempt that counted as sent before its first byte was written."""
    in_doubt_since_s: float | None = None
    """When the ledger's last answer said that the request may have been sent; None if it said otherwise."""
    queued_s: float = 0.0
    """When it began to queue for its linkage, on the monotonic clock of its process."""
    not_sent: list[Made] = field(default_factory=list)
    """The calls that were told that it sent nothing."""

    def is_in_doubt(self, process: Process) -> bool:
        """Return whether its process knows from the ledger that an earlier attempt may have been sent."""
        # Without a freeze, the flight has handled an answer before the time goes on.
        return self.in_doubt_since_s is not None and process.ran_s > self.in_doubt_since_s


class Watch:
    """Watches the flights of all gateways."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._flights: dict[Flight, Seen] = {}
        self._ran_s: dict[tuple[str, str], float] = {}
        self.broken: list[tuple[str, str]] = []
        """Invariants that were broken, each with what broke it."""
        self.unsure: set[tuple[str, str]] = set()
        """Requests with a flight in a process that was frozen or killed, or whose clock was set."""

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Notice each call that joins a flight, and each change of a flight's state."""
        enter, join = Flight.enter, Flight.join

        def entering(flight: Flight, state: FlightState, **more: Any) -> None:
            self._entering(flight, state)
            enter(flight, state, **more)

        def joining(flight: Flight, call: Any) -> None:
            join(flight, call)
            call.joined(flight)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Flight, "enter", entering)
            patch.setattr(Flight, "join", joining)
            yield

    def answered(self, process: Process, key: Key, *, in_doubt: bool) -> None:
        """Note what the ledger's answer to a process says about earlier attempts at a request."""
        if (flight := self._flight(process, key)) is not None:
            self._seen(flight).in_doubt_since_s = process.ran_s if in_doubt else None

    def overtaken(self, claim: Claim) -> list[str]:
        """Return the requests for the linkage of a claim that are older, and have waited for some time."""
        return [
            f"{flight.request.request_id} of {gateway.name}"
            for gateway in self._world.running
            for flight in gateway.delivery._flights.values()
            if flight.state in WAITS
            and not flight.cancelled
            and claim.linkage is not None
            and flight.linkage == claim.linkage
            and (flight.request.biz_time_ms or 0) < (claim.biz_time_ms or 0)
            and gateway.process.monotonic_s() - self._seen(flight).queued_s > KNOWN_S
            and not self._has_outcome(flight.request.key)
        ]

    def _has_outcome(self, key: Key) -> bool:
        """Return whether a request that waits needs nothing but its outcome, from another gateway."""
        row = self._world.store.durable(key)
        return row is not None and row.state in FINAL

    def interrupted(self, gateway: Gateway) -> None:
        """Note that a process stops for some time, or that its clock is set."""
        for flight in gateway.delivery._flights.values():
            seen = self._seen(flight)
            seen.interrupted = True
            seen.unsure |= sum(attempt.sent for attempt in flight.attempts) > seen.left
            self.unsure.add((flight.request.endpoint.api, flight.request.request_id))

    def told(self, made: Made, process: Process) -> None:
        """Check what a call is told against its flight."""
        report, flight = made.report, made.flight
        if report is None or report is GONE or flight is None:
            return
        seen = self._seen(flight)
        if made.early_s > LEFT_MIN_S + INSTANT_S and report.reason in AT_DEADLINE:
            self._break("early", f"call {made.number}: {report}, {made.early_s:.3f} s before its deadline")
        if made.early_s > INSTANT_S and flight.task.cancelled():
            self._break("early", f"call {made.number}: {report}, because its flight was cancelled")
        if report.outcome == "not_sent":
            seen.not_sent.append(made)
            self._check_not_sent(made, flight, seen, process)
        if report.outcome == "rejected" and report.result_code in UNSETTLING:
            self._check_rejected(made, flight, seen, process)
        self._check_reason(made, flight, seen)

    def _check_not_sent(self, made: Made, flight: Flight, seen: Seen, process: Process) -> None:
        if seen.left:
            self._break("false not_sent", f"call {made.number}: {made.report}, but its flight was sent")
        if seen.is_in_doubt(process):
            self._break(
                "false not_sent", f"call {made.number}: {made.report}, but the ledger knows an attempt"
            )
        unwritten = (process.name, flight.request.key) in self._world.store.unwritten
        if unwritten and made.report is not None and made.report.reason == "LEDGER_UNAVAILABLE":
            self._break("false not_sent", f"call {made.number}: {made.report}, but a result is pending")

    def _check_rejected(self, made: Made, flight: Flight, seen: Seen, process: Process) -> None:
        """Check a rejection that says nothing about earlier attempts."""
        earlier = [failure for failure in flight.failures[:-1] if failure.error.sent]
        if seen.is_in_doubt(process) or any(failure.verdict.outcome == "unknown" for failure in earlier):
            self._break(
                "false rejected", f"call {made.number}: {made.report}, but earlier ones are in doubt"
            )

    def _check_reason(self, made: Made, flight: Flight, seen: Seen) -> None:
        report = made.report
        assert report is not None
        said = f"call {made.number}: {report}"
        if report.replayed and seen.left:
            self._break("reason", f"{said}, but its flight was sent")
        if seen.left and report.reason not in AFTER_SENDING | {"GATEWAY_BUG"}:
            self._break("reason", f"{said}, but its flight was sent")
        sent = report.reason in AFTER_SENDING - {"CONNECTION_LOST"}
        if sent and not (seen.left or report.replayed or seen.unsure):
            self._break("reason", f"{said}, but its flight sent nothing")
        if flight.state is FlightState.RECORDING and not report.is_final:
            last = flight.failures[-1].error if flight.failures else None
            if len(flight.attempts) > len(flight.failures) and not flight.cancelled:
                self._break("reason", f"{said}, but AlipayHK's response was known")
            elif isinstance(last, ResultError) and flight.failures[-1].verdict.settled:
                self._break("reason", f"{said}, but AlipayHK's rejection was known")

    def _entering(self, flight: Flight, state: FlightState) -> None:
        world, process = self._world, self._world.timeline.current
        assert process is not None
        world.note(process.name, "flight", flight.request.request_id, f"{flight.state} -> {state}")
        world.events.entering(process, state)
        world.accepted += state is FlightState.QUEUED_FOR_LINKAGE
        world.attempts += state is FlightState.CONNECTING
        if state is FlightState.QUEUED_FOR_LINKAGE:
            self._seen(flight).queued_s = process.monotonic_s()
        if (flight.state, state) == (FlightState.QUEUED_FOR_LINKAGE, FlightState.QUEUED_FOR_CAPACITY):
            self._check_turn(flight, process)
        if state is FlightState.CONNECTING:
            self._check_lease(flight, process)
        if flight.failures and len(flight.failures) == len(flight.attempts) and state in AFTER_FAILURE:
            self._check_failure(flight)

    def _check_failure(self, flight: Flight) -> None:
        """Check how the last attempt failed, when it has."""
        error, seen = flight.failures[-1].error, self._seen(flight)
        name = flight.request.request_id
        if isinstance(error, errors.LeaseExpired) and not seen.interrupted:
            self._break("lease", f"the lease of {name} expired before it was sent")
        if flight.attempts[-1].sent and not error.sent and not seen.unsure:
            self._break("reason", f"an attempt at {name} counts as sent, but nothing was sent")

    def _check_turn(self, flight: Flight, process: Process) -> None:
        """Check that no older request for the linkage waits in the same process."""
        for other in self._gateway(process).delivery._flights.values():
            waits = other.state is FlightState.QUEUED_FOR_LINKAGE and not other.cancelled
            waits &= self._seen(other).queued_s < process.monotonic_s()
            linkage = other.request.linkage
            same = linkage is not None and linkage == flight.request.linkage
            older = (other.request.biz_time_ms or 0) < (flight.request.biz_time_ms or 0)
            if other is not flight and waits and same and older:
                ids = f"{flight.request.request_id} overtakes {other.request.request_id}"
                self._break("out of turn", f"{ids}, which is older and waits")

    def _check_lease(self, flight: Flight, process: Process) -> None:
        """Check that the lease lasts as long as an attempt that starts now."""
        world = self._world
        held = world.store.held.get(flight.request.key)
        if world.plan.store == "off" or held is None or held.process != process.name:
            return
        left_s = held.until_boot_s - world.timeline.now_s
        if left_s < UPSTREAM_TIMEOUT_S - INSTANT_S:
            ids = f"{process.name} starts to send {flight.request.request_id}"
            self._break("lease", f"{ids} {left_s:.3f} s before its lease expires")

    def first_byte(self, process: Process, sent: Sent) -> None:
        """Check a request whose first byte has left."""
        world, gateway = self._world, self._gateway(process)
        order = next(order for order in world.orders_by_key.values() if order.id == sent.request)
        key = Key(*key_of(order))
        sent.flight = flight = self._flight(process, key)
        world.leavings.append(self._leaving(process, sent, key))
        self._ran_s[process.name, key.request_id] = process.ran_s
        if flight is None:
            self._break("unclaimed", f"{gateway.name} sent {key.request_id} without a flight")
            return
        seen = self._seen(flight)
        seen.left += 1
        for made in seen.not_sent:
            self._break("false not_sent", f"call {made.number}: {made.report}, then it was sent")
        last = [failure.error for failure in flight.failures if failure.error.sent][-1:]
        if last and isinstance(last[0], errors.Repeated) and not sent.fresh:
            self._break("connection", f"{key.request_id} was sent again on a used connection")
        for name, other in world.store.unwritten:
            user = world.orders_by_key[other.client_id, other.api, other.request_id].user
            if name == process.name and (other == key or (user and user == order.user)):
                ids = f"{name} sent {key.request_id} before the result of {other.request_id}"
                self._break("pending", f"{ids} was recorded")

    def _leaving(self, process: Process, sent: Sent, key: Key) -> Leaving:
        world = self._world
        store, now_s, now_ms = world.store, world.timeline.now_s, world.store.lease_clock_ms()
        held = store.held.get(key)
        claimed = held is not None and held.process == process.name
        claimed &= held is not None and now_s < held.until_boot_s
        claimed &= held is not None and (now_ms < held.until_ms or store.was_set_ahead)
        others = [
            other.request_id
            for other, one in world.store.held.items()
            if held is not None
            and other != key
            and one.linkage is not None
            and one.linkage == held.linkage
            and now_ms < one.until_ms
            and now_s < one.until_boot_s  # a clock that was set back makes an expired lease hold again
            and other.api == key.api
            and store.is_claimed(other)
            and not store.was_set_ahead
        ]
        return Leaving(
            now_s,
            process.name,
            sent.request,
            claimed or world.plan.store == "off",
            ", ".join(others),
            self._gateway(process).host.steps,
            "" if store.was_set_ahead else self._at_once(process, key),
        )

    def _at_once(self, process: Process, key: Key) -> str:
        """Return the requests that must not be in flight while this one is sent."""
        own, flight = self._gateway(process), self._flight(process, key)
        found = []
        for gateway in self._world.running:
            for other in gateway.delivery._flights.values():
                same_id = other.request.key == key and gateway is not own
                linkage = flight.request.linkage if flight else None
                same_linkage = (
                    linkage is not None and other.request.linkage == linkage and other is not flight
                )
                if (same_id or same_linkage) and other.state is FlightState.AWAITING_ANSWER:
                    left_s = self._ran_s.get((gateway.name, other.request.request_id), 0.0)
                    # A process that was frozen may have lost its lease.
                    if gateway.process.ran_s - left_s < UPSTREAM_TIMEOUT_S and not gateway.process.frozen_s:
                        found.append(f"{other.request.request_id} by {gateway.name}")
        return ", ".join(found)

    def _break(self, invariant: str, text: str) -> None:
        self.broken.append((invariant, text))

    def _seen(self, flight: Flight) -> Seen:
        return self._flights.setdefault(flight, Seen())

    def _gateway(self, process: Process) -> Gateway:
        return next(one for one in self._world.running if one.process is process)

    def _flight(self, process: Process, key: Key) -> Flight | None:
        return self._gateway(process).delivery._flights.get(key)
