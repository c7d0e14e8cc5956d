"""The states of a request, from the first look into the ledger to its result.

Theory of operation
-------------------
A *flight* carries one request id with one content; calls with the same id and content wait for the same
flight. It is in exactly one state. The state decides one thing: what a caller gets whose deadline expires
now (`Flight.failure_now`). Whether a request was sent never depends on the state: `Attempt.sent` says so.

The list says what the ledger holds in each state, and what a crash of the process leaves there:

- LOOKING_UP, QUEUED_FOR_LINKAGE, QUEUED_FOR_CAPACITY, WAITING_FOR_OTHER: nothing of this flight. A crash
  leaves the ledger as it was.
- CLAIMING: from the commit on, a row in state `sending`, with a lease and a fencing token. A crash before
  the commit leaves nothing. A crash after it leaves a row that is in doubt once its lease has expired,
  although no byte was sent.
- CONNECTING, AWAITING_ANSWER, BACKING_OFF: the same row; the lease is renewed before each resend. A crash
  leaves a row that is in doubt once its lease has expired.
- RECORDING: the row is `sending` until the result is committed. If the ledger is unavailable, the result is
  kept in memory (`PendingWrites`) and written later. A crash loses it, and the row is in doubt.
- FINISHED: the result is committed, or in `PendingWrites`, or nothing was claimed.

Three classes move a flight. `Delivery` queues it for its linkage and finishes it. `LedgerSession` moves it
to WAITING_FOR_OTHER. `Sender` makes all other moves but one: the transport sets `Attempt.sent` just before
it writes the first byte, and this alone turns CONNECTING into AWAITING_ANSWER.

A flight that is cancelled, or that an unhandled exception ends, keeps its state: the state says how far it
got, and so what its callers get.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from alipayhk.linkage.v1 import error_reason_pb2 as reasons


class FlightState(StrEnum):
    """The present step of a flight."""

    LOOKING_UP = "LOOKING_UP"
    """Reads the ledger: a finished request is answered without waiting in a queue."""
    QUEUED_FOR_LINKAGE = "QUEUED_FOR_LINKAGE"
    """Waits until no other request of this process for the same linkage is in flight."""
    QUEUED_FOR_CAPACITY = "QUEUED_FOR_CAPACITY"
    """Waits until the limit of concurrent attempts allows one more."""
    CLAIMING = "CLAIMING"
    """Asks the ledger for permission to send."""
    WAITING_FOR_OTHER = "WAITING_FOR_OTHER"
    """Another process sends this request, or another request for its linkage; asks again soon."""
    CONNECTING = "CONNECTING"
    """Makes an attempt that has not sent its first byte."""
    AWAITING_ANSWER = "AWAITING_ANSWER"
    """The first byte of the present attempt may have been sent."""
    BACKING_OFF = "BACKING_OFF"
    """Waits before the next attempt: for the backoff, for capacity and for a longer lease."""
    RECORDING = "RECORDING"
    """Makes no more attempts, and writes the result to the ledger."""
    FINISHED = "FINISHED"
    """Has a result: a response, a failure or a refusal."""


_S = FlightState
TRANSITIONS: Final[dict[tuple[FlightState, FlightState], str]] = {
    (_S.LOOKING_UP, _S.QUEUED_FOR_LINKAGE): "no final result is known",
    (_S.LOOKING_UP, _S.FINISHED): "replayed or refused",
    (_S.QUEUED_FOR_LINKAGE, _S.QUEUED_FOR_CAPACITY): "first in its queue",
    (_S.QUEUED_FOR_LINKAGE, _S.FINISHED): "circuit breaker open",
    (_S.QUEUED_FOR_CAPACITY, _S.CLAIMING): "capacity is free",
    (_S.QUEUED_FOR_CAPACITY, _S.FINISHED): "too little time left, or shutting down",
    (_S.CLAIMING, _S.CONNECTING): "granted",
    (_S.CLAIMING, _S.WAITING_FOR_OTHER): "in progress elsewhere",
    (_S.CLAIMING, _S.FINISHED): "replayed or refused",
    (_S.WAITING_FOR_OTHER, _S.QUEUED_FOR_CAPACITY): "asks again",
    (_S.CONNECTING, _S.AWAITING_ANSWER): "first byte sent",
    (_S.CONNECTING, _S.BACKING_OFF): "failed, will be tried again",
    (_S.CONNECTING, _S.RECORDING): "failed for good",
    (_S.AWAITING_ANSWER, _S.BACKING_OFF): "failed, will be sent again",
    (_S.AWAITING_ANSWER, _S.RECORDING): "answered, or failed for good",
    (_S.BACKING_OFF, _S.CONNECTING): "next attempt",
    (_S.BACKING_OFF, _S.RECORDING): "no time or no permission for another attempt",
    (_S.RECORDING, _S.FINISHED): "result recorded",
}
"""Every legal transition, and when it happens."""

REASON_AT_DEADLINE: Final[dict[FlightState, reasons.ErrorReason]] = {
    _S.LOOKING_UP: reasons.ERROR_REASON_LEDGER_UNAVAILABLE,
    _S.QUEUED_FOR_LINKAGE: reasons.ERROR_REASON_LINKAGE_BUSY,
    _S.QUEUED_FOR_CAPACITY: reasons.ERROR_REASON_OVERLOADED,
    _S.CLAIMING: reasons.ERROR_REASON_LEDGER_UNAVAILABLE,
    _S.WAITING_FOR_OTHER: reasons.ERROR_REASON_REQUEST_IN_PROGRESS,
}
"""The reason for a caller whose deadline expires before the first attempt.

- LEDGER_UNAVAILABLE becomes OVERLOADED if the ledger answers other calls in this time (`LedgerProgress`).
- A flight that had to wait for another request keeps that reason (`Flight.blocked_by`: LINKAGE_BUSY or
  REQUEST_IN_PROGRESS) until its first attempt.

Once an attempt has started, the caller gets UPSTREAM_TIMEOUT in AWAITING_ANSWER. In any other state it gets
the failure of the last attempt that was sent, or UPSTREAM_UNREACHABLE if no attempt was sent.
"""


def diagram() -> str:
    """Return the transitions as a Mermaid state diagram."""
    lines = [f"    {old} --> {new}: {when}" for (old, new), when in TRANSITIONS.items()]
    return "\n".join(
        ["stateDiagram-v2", f"    [*] --> {_S.LOOKING_UP}", *lines, f"    {_S.FINISHED} --> [*]"]
    )
