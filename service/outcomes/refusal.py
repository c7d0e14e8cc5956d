"""Refusals: calls that this gateway fails itself, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.wire.errors import ResultError
from clients.alipayhk.wire.result import FAILURE, Result


@dataclass(frozen=True, slots=True)
class Violation:
    """A fault of one field. The text never contains the field's value."""

    field: str
    description: str


class Refusal(Exception):
    """This gateway fails the call without sending it. Its row in `table.REFUSALS` has the status."""

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
        """Whether retry is `operator`, not the row's: a new request id could take effect a second time."""


class ResolvedAsRejected(ResultError):
    """A person recorded that the request had no effect; AlipayHK's response is not known."""

    def __init__(self) -> None:
        super().__init__(Result(FAILURE))


def skew_fact(skew_s: float) -> dict[str, str]:
    """Return `clock_skew_s` for ErrorInfo.metadata: a time minus this clock, in whole seconds."""
    return {"clock_skew_s": str(round(skew_s))}
