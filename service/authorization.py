"""Which caller a certificate belongs to, and whether that caller is allowed the method."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

from .call import CURRENT, Undecodable
from .callers import Callers
from .interceptors import UNDECODABLE, Context, Method, service_and_name
from .refusal import Refusal
from .rpcs import SERVICE

HEALTH: Final = "/grpc.health.v1.Health/"


@dataclass(frozen=True, slots=True)
class Allow:
    """Lets through whom the allow-list names, for the methods that it names; health is for all."""

    callers: Callers | None
    open_prefixes: tuple[str, ...] = field(default=(HEALTH,))

    @asynccontextmanager
    async def __call__(self, method: Method, request: object, context: Context) -> AsyncIterator[None]:
        """Allow one call, or refuse it."""
        if self.callers is not None and not method.path.startswith(self.open_prefixes):
            sans = context.auth_context().get("x509_subject_alternative_name", ())
            caller = self.callers.find(san.decode("utf-8", "replace") for san in sans)
            if caller is None:
                raise Refusal(reasons.ERROR_REASON_CALLER_UNAUTHENTICATED)
            CURRENT.get().caller = caller
            service, name = service_and_name(method)
            if service == SERVICE and name not in caller.methods:
                raise Refusal(reasons.ERROR_REASON_CALLER_NOT_ALLOWED)
        if isinstance(request, Undecodable):
            raise Refusal(reasons.ERROR_REASON_INVALID_REQUEST, cause=UNDECODABLE)
        yield
