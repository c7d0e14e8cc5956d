"""The functions and data that differ between RPCs, in the order of their use.

`protobuf request -> rules -> command -> body -> (AlipayHK) -> reply -> protobuf response`. A command is
frozen and contains no protobuf. Only `body` and `reply` use AlipayHK's names.
"""

from __future__ import annotations

from collections.abc import Callable
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
    # Only the functions of the RPC itself know the type of its command.
    command: Callable[[Any], Any]
    body: Callable[[Any], dict[str, object]]
    reply: Callable[[VerifiedResponse], Message]
    linkage: Callable[[Any], tuple[str, ...] | None]
    """The linkage that the command changes; None if AlipayHK does not order changes for this API."""
    biz_time_ms: Callable[[Any], int | None]
    """The position in AlipayHK's order of changes, in ms since 1970; None if there is no order."""

    @property
    def path(self) -> str:
        """The HTTP/2 path of the method."""
        return f"/{SERVICE}/{self.name}"

    def valid_request_id(self, request: object) -> str:
        """Return the id of a request if the id is valid, else ""; other fields are not checked."""
        text = getattr(request, "request_id", "")
        return text if is_request_id(text, self.request_id_max) else ""


def milliseconds(time: Timestamp) -> int:
    """Convert to milliseconds since 1970, rounded down."""
    return time.seconds * 1000 + time.nanos // 1_000_000
