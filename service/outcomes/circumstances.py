"""The facts about a call that the verdict on its failure depends on."""

from __future__ import annotations

from typing import NamedTuple


class Circumstances(NamedTuple):
    """The facts about a call that the verdict on its failure depends on."""

    api: str = ""
    """The RPC's name."""
    idempotent: bool = False
    """Whether the API is idempotent: the same request may be sent again without harm."""
    attempts: int = 0
    sent: bool = False
    """Whether the first byte of any attempt may have been sent, or may still be sent."""
    in_doubt: bool = False
    """Whether an earlier attempt, or one that overtook this call, may have taken effect."""
    replayed: bool = False
    """Whether the result is replayed from the ledger."""
    looked_up: bool = False
    """Whether a ledger that outlives its process was read for the request id in this call."""
    retried: bool = False
    """Whether a client or a proxy marked the call as a retry; its caller never saw the earlier attempts."""
    resends_ended: bool = False
    """Whether ATTEMPTS_MAX or the retry budget ended the resends. Then gRPC must not retry either."""

    @property
    def hides_attempts(self) -> bool:
        """Whether an attempt may have been sent that neither the ledger nor this call knows of (ADR 10)."""
        return self.retried and not (self.looked_up or self.replayed)
