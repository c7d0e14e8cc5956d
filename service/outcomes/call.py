"""What is known of the call that is being answered, from its first byte to its status."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from ..credentials.callers import ANYBODY, Caller
from .circumstances import Circumstances
from .result_codes import ResultCodes
from .verdict import Failure, Verdict, verdict_of

MARGIN_S: Final = 0.05
MARGIN_SHARE: Final = 0.1
"""How much before the caller's deadline it is answered: 50 ms, at most a tenth of what it gave."""
TIMEOUT_ROUNDING_SHARE: Final = 0.04
"""How much longer than the real deadline the timeout may be that a client of gRPC's C core sends.

It rounds the timeout up by at most 1 % (from 100 s on to whole seconds), and uses an earlier call's encoded
timeout again where that is at most 3 % longer:
https://github.com/grpc/grpc/blob/master/src/core/ext/transport/chttp2/transport/hpack_encoder.cc
"""


class Undecodable:
    """Stands for a request whose bytes are not the message: a value, so that a status can be chosen."""


@dataclass(slots=True)
class Call:
    """One call of one RPC."""

    deadline: float
    """When it must be answered, on the monotonic clock."""
    circumstances: Circumstances
    caller: Caller = ANYBODY
    request_id: str = ""
    """Empty until a valid one was read."""
    caller_deadline: float | None = None
    """Until when its caller certainly waits, on the monotonic clock; None without a deadline."""
    failure: Failure | None = None
    """The failed attempt of its flight, if there is one, with the verdict that was made when it ended."""
    reported: dict[str, Any] = field(default_factory=dict)
    """What its caller was told, for the log."""
    margin_s: float = field(init=False)
    """How long after `deadline`, at least, its caller still waits."""

    def __post_init__(self) -> None:
        """Tell the margin from the time that is left at first."""
        self.margin_s = min(MARGIN_S, max(self.left_s, 0.0) * MARGIN_SHARE)

    @property
    def left_s(self) -> float:
        """How much time is left to try."""
        return self.deadline - time.monotonic()

    @property
    def caller_left_s(self) -> float | None:
        """How much longer its caller certainly waits; None without a deadline."""
        return None if self.caller_deadline is None else self.caller_deadline - time.monotonic()

    def verdict_of(self, error: Exception, codes: ResultCodes) -> Verdict:
        """Return the verdict on what this call ended with; a failed attempt has been judged already."""
        if self.failure is not None and self.failure.error is error:
            return self.failure.verdict.in_view_of(self.circumstances)
        return verdict_of(error, self.circumstances, codes)


def certain_s(remaining_s: float | None) -> float | None:
    """Return how much of the time until the received deadline the caller certainly waits.

    What is taken off for the client's rounding is, together with the margin, at most a tenth.
    """
    if remaining_s is None:
        return None
    rounding_s = min(remaining_s * TIMEOUT_ROUNDING_SHARE, remaining_s * MARGIN_SHARE - MARGIN_S)
    return remaining_s - max(rounding_s, 0.0)


def deadline_of(remaining_s: float | None, *, default_s: float, max_s: float) -> float:
    """Take over the caller's deadline, early enough that the answer's details still arrive."""
    budget_s = min(default_s if remaining_s is None else remaining_s, max_s)
    return time.monotonic() + budget_s - min(MARGIN_S, budget_s * MARGIN_SHARE)


def code_of_end(left_s: float | None) -> str:
    """Return the code of a call that ended before its status was sent, by the time left of its deadline."""
    return "DEADLINE_EXCEEDED" if left_s is not None and left_s <= 0 else "CANCELLED"


CURRENT: Final[ContextVar[Call]] = ContextVar("call")
"""The call that this task answers; set by the outermost interceptor."""
