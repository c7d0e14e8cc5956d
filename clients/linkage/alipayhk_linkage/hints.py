"""Explain an error to a person: what happened, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .errors import LinkageError, Outcome, Retry

HAPPENED: Final[Mapping[Outcome, str]] = {
    Outcome.NOT_SENT: "This call sent nothing to AlipayHK.",
    Outcome.REJECTED: "AlipayHK rejected the request. It had no effect.",
    Outcome.UNKNOWN: "The request may or may not have taken effect.",
}
NEXT: Final[Mapping[Retry, str]] = {
    Retry.SAME_REQUEST_ID: "Send exactly the same request again, with the same id",
    Retry.NEW_REQUEST_ID: "Correct the request, and send it with a new id",
    Retry.NEVER: "Do not send it again",
    Retry.OPERATOR: "Do not send it again, and contact the operators of the gateway",
}
NEW_ID_COULD_ACT_TWICE: Final = (
    "Do not send it with a new id: the earlier request with this id may have taken effect. To learn its "
    "outcome, send the earlier request again with its original content and timestamp, or contact the "
    "operators of the gateway"
)


def hints(error: LinkageError) -> str:
    """Return what happened and what to do next."""
    happened = HAPPENED[error.outcome]
    if not error.reason and error.outcome is Outcome.UNKNOWN:
        happened = f"The gateway did not report an outcome. {happened}"
    waits = error.retry is Retry.SAME_REQUEST_ID and error.retry_after_s
    wait = f", in {error.retry_after_s:g} s" if waits else ""
    reused = (error.reason, error.retry) == ("REQUEST_ID_REUSED", Retry.OPERATOR)
    return f"{happened} {NEW_ID_COULD_ACT_TWICE if reused else NEXT[error.retry]}{wait}."
