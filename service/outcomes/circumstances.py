"""What the verdict on a failed call depends on, in addition to the failure itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the meaning of a failure depends on, beside the failure."""

    api: str = ""
    """The RPC's name."""
    idempotent: bool = False
    """Whether the same request may be sent again without harm."""
    attempts: int = 0
    sent: bool = False
    """Whether a byte of any attempt may have left, or may leave while nobody knows better."""
    in_doubt: bool = False
    """Whether an earlier attempt, of this call or of another, may have taken effect."""
    replayed: bool = False
    """Whether the answer comes from the ledger."""
    looked_up: bool = False
    """Whether a ledger that outlives a crash said, in this call, what it knows of the request id."""
    retried: bool = False
    """Whether a client or a proxy marked it as a retry, whose earlier attempts its caller never saw."""
    resends_ended: bool = False
    """Whether ATTEMPTS_MAX or the retry budget ended the re-sends, so that gRPC must not retry either."""

    @property
    def hides_attempts(self) -> bool:
        """Whether an earlier attempt may have been sent of which nothing is known here: see ADR 0010."""
        return self.retried and not (self.looked_up or self.replayed)
