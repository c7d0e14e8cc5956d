"""The shape of a row: all that is peculiar to one RPC, in the order in which a call meets it.

`protobuf request -> rules -> command -> body -> (AlipayHK) -> reply -> protobuf response`. A command
is frozen and free of protobuf; AlipayHK's names stand in `body` and `reply` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from clients.alipayhk.api import Api
from clients.alipayhk.wire.messages import VerifiedResponse

from ..validation import Rule, is_request_id

SERVICE: Final = "alipayhk.linkage.v1.LinkageService"


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC."""

    name: Api
    request: type[Message]
    response: type[Message]
    request_id_max: int
    rules: tuple[Rule, ...]
    # A command is what its own RPC's functions agree on; nobody else looks inside.
    command: Callable[[Any], Any]
    body: Callable[[Any], Mapping[str, object]]
    reply: Callable[[VerifiedResponse], Message]
    linkage: Callable[[Any], tuple[str, ...] | None]
    """What the command changes, for APIs that keep an order of changes."""
    biz_time_ms: Callable[[Any], int | None]
    """The command's place in AlipayHK's order of updates; None where it keeps none."""

    @property
    def path(self) -> str:
        """The method as HTTP/2 carries it."""
        return f"/{SERVICE}/{self.name}"

    def valid_request_id(self, request: object) -> str:
        """Return the request's id if it is a valid one, whatever else is wrong; else nothing."""
        text = getattr(request, "request_id", "")
        return text if is_request_id(text, self.request_id_max) else ""


def milliseconds(time: Timestamp) -> int:
    """Cut a time to AlipayHK's milliseconds."""
    return time.seconds * 1000 + time.nanos // 1_000_000
