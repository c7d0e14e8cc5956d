"""What this service refuses by itself, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alipayhk.linkage.v1 import error_reason_pb2 as reasons


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field; never with its value in it."""

    field: str
    description: str


class Refusal(Exception):
    """A call that is not sent; `status` says what its caller is told."""

    def __init__(
        self,
        reason: reasons.ErrorReason,
        violations: tuple[Violation, ...] = (),
        *,
        cause: str = "",
        facts: Mapping[str, str] | None = None,
        retry_by_operator: bool = False,
    ) -> None:
        super().__init__(cause)
        self.reason = reason
        self.violations = violations
        self.facts = facts or {}
        """More members of ErrorInfo.metadata."""
        self.retry_by_operator = retry_by_operator
        """Whether the caller must not do what the reason's row says, because a new id could act twice."""


def skew_fact(skew_s: float) -> dict[str, str]:
    """Return the member of ErrorInfo.metadata that says how far a time is ahead of this clock."""
    return {"clock_skew_s": str(round(skew_s))}
