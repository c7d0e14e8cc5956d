"""What a call wants delivered: the content that never changes between two attempts at one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import Message

from clients.alipayhk.endpoint import Endpoint
from clients.alipayhk.messages import VerifiedResponse

from .ledger import Key


@dataclass(frozen=True, slots=True)
class Order:
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
