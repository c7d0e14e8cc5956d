"""A request to AlipayHK: its content, which is the same in every attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.messages import VerifiedResponse

from ..ledger import Key, State
from ..outcomes.refusal import Refusal, Violation, skew_fact

WITHOUT_EFFECT: Final = frozenset({State.REJECTED, State.GATEWAY_REJECTED})


@dataclass(frozen=True, slots=True)
class OutboundRequest:
    """One request of one RPC, in AlipayHK's names."""

    endpoint: Endpoint
    request_id: str
    body: bytes = field(repr=False)
    """The business content as JSON."""
    content: bytes = field(repr=False)
    """The same without the request id. Two requests with equal content differ only in their ids."""
    response: type[Message]
    reply: Callable[[VerifiedResponse], Message]
    linkage: tuple[str, ...] | None = field(default=None, repr=False)
    """The linkage that it changes; None for an API that keeps no order."""
    biz_time_ms: int | None = None
    key: Key = field(init=False)
    """The request's key in the ledger."""

    def __post_init__(self) -> None:
        """Make the key once; it is used in every step."""
        key = Key(self.endpoint.client_id, self.endpoint.api, self.request_id)
        object.__setattr__(self, "key", key)

    def reused(self, state: State) -> Refusal:
        """Return the refusal if an earlier request, in this state, used the id with other content.

        For an API that keeps an order a new id is safe. For BindAccount the content could take effect a
        second time, unless the earlier request had no effect according to a verified response.
        """
        may_act_twice = self.linkage is None and state not in WITHOUT_EFFECT
        return Refusal(reasons.ERROR_REASON_REQUEST_ID_REUSED, retry_by_operator=may_act_twice)

    def in_future(self, now_s: float, ahead_s: float) -> Refusal:
        """Return the refusal if its biz_time is more than `ahead_s` ahead of the clock."""
        violation = Violation("biz_time", f"is more than {ahead_s:g} s ahead of this gateway's clock")
        facts = skew_fact((self.biz_time_ms or 0) / 1000 - now_s)
        return Refusal(reasons.ERROR_REASON_BIZ_TIME_IN_FUTURE, (violation,), facts=facts)
