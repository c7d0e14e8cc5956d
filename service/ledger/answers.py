"""The answers of a ledger to a claim."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import Ending, State


@dataclass(frozen=True, slots=True)
class Granted:
    """The claimant may send the request; the row is SENDING already."""

    token: int
    was_in_doubt: bool


@dataclass(frozen=True, slots=True)
class Known:
    """The request is final: replay this outcome."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class InProgress:
    """Another holder is sending the same request, until this time at the latest."""

    until_ms: int
    place: Any = field(default=None, repr=False, compare=False)  # for `Ledger.wait`


@dataclass(frozen=True, slots=True)
class LinkageBusy:
    """Another request for the linkage is being sent, or an older one waits: until then at the latest."""

    until_ms: int
    was_in_doubt: bool = False
    place: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Reused:
    """The id was used before with other content; nothing is sent."""

    state: State
    """The state of the earlier request; SENDING also after its lease has expired."""


class ClaimRejected(StrEnum):
    """The request must not be sent, and the claim wrote nothing."""

    IN_DOUBT = "in_doubt"
    IN_FUTURE = "in_future"
    STALE = "stale"
    TIE = "tie"


Answer = Granted | Known | InProgress | LinkageBusy | Reused | ClaimRejected
