"""What is known of the call that is being answered, from its first byte to its status."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from clients.alipayhk.transport import Attempt

from .callers import ANYBODY, Caller

MARGIN_S: Final = 0.05
MARGIN_SHARE: Final = 0.1
"""How much before the caller's deadline it is answered: 50 ms, at most a tenth of what it gave."""


@dataclass(slots=True)
class Call:
    """One call of one RPC."""

    answer_by: float
    """When it must be answered, on the monotonic clock."""
    api: str = ""
    """The RPC's name."""
    caller: Caller = ANYBODY
    request_id: str = ""
    """Empty until a valid one was read."""
    idempotent: bool = False
    """Whether the same request may be sent again without harm."""
    attempts: list[Attempt] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    """What its caller was told, for the log."""

    @property
    def sent(self) -> bool:
        """Whether a byte of any attempt may have left."""
        return any(attempt.sent for attempt in self.attempts)

    @property
    def left_s(self) -> float:
        """How much time is left to try."""
        return self.answer_by - time.monotonic()


def answer_by(remaining_s: float | None, *, default_s: float, max_s: float) -> float:
    """Take over the caller's deadline, early enough that the answer's details still arrive."""
    budget_s = min(default_s if remaining_s is None else remaining_s, max_s)
    return time.monotonic() + budget_s - min(MARGIN_S, budget_s * MARGIN_SHARE)


CURRENT: Final[ContextVar[Call]] = ContextVar("call")
"""The call that this task answers; set by the outermost interceptor."""
