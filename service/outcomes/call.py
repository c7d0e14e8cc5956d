"""One call: its deadline, its caller and what is known about it so far."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..credentials.callers import ANYBODY, Caller
from .circumstances import Circumstances
from .result_codes import ResultCodes
from .verdict import Failure, Verdict, verdict_of

if TYPE_CHECKING:
    from ..telemetry.spans import CallSpan

MARGIN_S: Final = 0.05
MARGIN_SHARE: Final = 0.1
"""The caller gets its status this long before its deadline: 50 ms, at most a tenth of its timeout."""
TIMEOUT_ROUNDING_SHARE: Final = 0.04
"""How much longer than the real one a timeout may be that gRPC's C core sends.

The C core rounds a timeout up by at most 1 % (from 100 s on, to whole seconds). It also reuses the encoded
timeout of an earlier call if that is at most 3 % longer:
https://github.com/grpc/grpc/blob/master/src/core/ext/transport/chttp2/transport/hpack_encoder.cc
"""


class Undecodable:
    """Replaces a request that cannot be decoded. It is a value, so that the handler can choose a status."""


@dataclass(slots=True)
class Call:
    """One call of one RPC."""

    deadline: float
    """When the status must be sent, on the monotonic clock."""
    circumstances: Circumstances
    caller: Caller = ANYBODY
    request_id: str = ""
    """Empty until a valid request id was read."""
    caller_deadline: float | None = None
    """The earliest possible deadline of its caller, on the monotonic clock; None without a deadline."""
    failure: Failure | None = None
    """The failure of its flight, if an attempt failed, with the verdict that was made then."""
    reported: dict[str, Any] = field(default_factory=dict)
    """More members of its line in the access log: the reason, outcome and retry that its caller got."""
    span: CallSpan | None = None
    """Its span, if traces are exported."""
    margin_s: float = field(init=False)
    """The least time in seconds that its caller still waits after `deadline`."""

    def __post_init__(self) -> None:
        """Derive the margin from the time left at the start."""
        self.margin_s = min(MARGIN_S, max(self.left_s, 0.0) * MARGIN_SHARE)

    @property
    def left_s(self) -> float:
        """The time left, in seconds."""
        return self.deadline - time.monotonic()

    @property
    def caller_left_s(self) -> float | None:
        """The least time in seconds that its caller still waits; None without a deadline."""
        return None if self.caller_deadline is None else self.caller_deadline - time.monotonic()

    def verdict_of(self, error: Exception, codes: ResultCodes) -> Verdict:
        """Return the verdict on the exception that ended this call; a failed attempt is already judged."""
        if self.failure is not None and self.failure.error is error:
            return self.failure.verdict.in_view_of(self.circumstances)
        return verdict_of(error, self.circumstances, codes)


def certain_s(remaining_s: float | None) -> float | None:
    """Return the least time in seconds that the caller waits, given the time left of the received deadline.

    The allowance for the client's rounding and the margin are together at most a tenth.
    """
    if remaining_s is None:
        return None
    rounding_s = min(remaining_s * TIMEOUT_ROUNDING_SHARE, remaining_s * MARGIN_SHARE - MARGIN_S)
    return remaining_s - max(rounding_s, 0.0)


def deadline_of(remaining_s: float | None, *, default_s: float, max_s: float) -> float:
    """Return the deadline of a call: the caller's, early enough that the status details still arrive."""
    budget_s = min(default_s if remaining_s is None else remaining_s, max_s)
    return time.monotonic() + budget_s - min(MARGIN_S, budget_s * MARGIN_SHARE)


def code_of_end(left_s: float | None) -> str:
    """Return the gRPC code of a call that ended before its status was sent; `left_s` is its time left."""
    return "DEADLINE_EXCEEDED" if left_s is not None and left_s <= 0 else "CANCELLED"


CURRENT: Final[ContextVar[Call]] = ContextVar("call")
"""The call that this task serves; `server.access_log` sets it."""
