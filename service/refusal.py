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
    ) -> None:
        super().__init__(cause)
        self.reason = reason
        self.violations = violations
        self.facts = facts or {}
        """More members of ErrorInfo.metadata."""
