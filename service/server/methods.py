"""The methods that a gRPC server serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

from ..outcomes.refusal import Refusal, Violation

# gRPC's stubs do not type contexts and handlers.
Context = Any
Handler = Any
Handlers = Mapping[str, Handler]
"""Handlers by the paths of their methods."""


def undecodable() -> Refusal:
    """Return the refusal of a request whose bytes are not a message of its method."""
    fault = Violation("", "the bytes are not a message of this method's request type")
    return Refusal(reasons.ERROR_REASON_INVALID_REQUEST, (fault,), cause="the request does not parse")


@dataclass(frozen=True, slots=True)
class Method:
    """A registered method."""

    path: str
    kind: str
    """The `grpc_type` of the metrics: unary, server_stream or bidi_stream."""
    service: str = field(init=False)
    """The service's full name."""
    name: str = field(init=False)

    def __post_init__(self) -> None:
        """Split the path."""
        service, _, name = self.path.removeprefix("/").partition("/")
        object.__setattr__(self, "service", service)
        object.__setattr__(self, "name", name)


class Methods(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """Returns the handlers of registered methods to gRPC, which itself refuses any other method."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a call."""
        return self._handlers.get(handler_call_details.method)
