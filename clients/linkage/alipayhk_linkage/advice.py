"""What an outcome means, in a sentence for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .errors import LinkageError, Outcome, Retry

HAPPENED: Final[Mapping[Outcome, str]] = {
    Outcome.NOT_SENT: "This call sent nothing to AlipayHK.",
    Outcome.REJECTED: "AlipayHK refused it for good; it had no effect.",
    Outcome.UNKNOWN: "It may or may not have taken effect.",
}
NEXT: Final[Mapping[Retry, str]] = {
    Retry.SAME_REQUEST_ID: "Send the very same request again, with the same id",
    Retry.NEW_REQUEST_ID: "Mend the request, and send it under a new id",
    Retry.NEVER: "Do not send it again",
    Retry.OPERATOR: "Do not send it again; tell the people who run the gateway",
}
NEW_ID_COULD_ACT_TWICE: Final = (
    "Do not send it under a new id: the earlier request of this id may have taken effect. To learn its "
    "outcome, send that one again with the content and the timestamp that it had, or ask the people who "
    "run the gateway"
)


def advice(error: LinkageError) -> str:
    """Say what happened and what to do next."""
    said = (
        HAPPENED[error.outcome] if error.reason else f"The gateway did not say. {HAPPENED[error.outcome]}"
    )
    waits = error.retry is Retry.SAME_REQUEST_ID and error.retry_after_s
    wait = f", in {error.retry_after_s:g} s" if waits else ""
    reused = (error.reason, error.retry) == ("REQUEST_ID_REUSED", Retry.OPERATOR)
    return f"{said} {NEW_ID_COULD_ACT_TWICE if reused else NEXT[error.retry]}{wait}."
