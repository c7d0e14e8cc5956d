"""What a call wants delivered: the content that never changes between two attempts at one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.messages import VerifiedResponse

from ..ledger import Key, State
from ..outcomes.refusal import Refusal

WITHOUT_EFFECT: Final = frozenset({State.REJECTED, State.GATEWAY_REJECTED})


@dataclass(frozen=True, slots=True)
class OutboundRequest:
    """One request of one RPC, as AlipayHK will see it."""

    endpoint: Endpoint
    request_id: str
    body: bytes = field(repr=False)
    """The business content as JSON."""
    content: bytes = field(repr=False)
    """The same without the request id: what two requests have in common that say the same."""
    response: type[Message]
    reply: Callable[[VerifiedResponse], Message]
    linkage: tuple[str, ...] | None = field(default=None, repr=False)
    """What the request changes; None for an API that keeps no order."""
    biz_time_ms: int | None = None

    @property
    def key(self) -> Key:
        """What the request id is unique in."""
        return Key(self.endpoint.client_id, self.endpoint.api, self.request_id)

    def reused(self, state: State) -> Refusal:
        """Return the refusal where an earlier request in this state has the id with other content.

        A new id is safe for an API that keeps an order. For the other one (BindAccount) it could act twice,
        unless the earlier request verifiably had no effect.
        """
        may_act_twice = self.linkage is None and state not in WITHOUT_EFFECT
        return Refusal(reasons.ERROR_REASON_REQUEST_ID_REUSED, retry_by_operator=may_act_twice)
