"""Identify the caller by its certificate, and check that it is allowed the method."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

from ..credentials.callers import Caller, Callers
from ..credentials.certificates import names_of
from ..outcomes.call import CURRENT, Undecodable
from ..outcomes.refusal import Refusal
from .interceptors import UNDECODABLE, Context, Method
from .rpcs import SERVICE

HEALTH: Final = "/grpc.health.v1.Health/"
_ALLOWED: Final = nullcontext()
PEM: Final = "x509_pem_cert"
"""The caller's certificate in gRPC's auth context."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """Allows the callers of the allow-list their methods; health checks are allowed for every caller."""

    callers: Callers | None
    open_prefixes: tuple[str, ...] = field(default=(HEALTH,))

    def __call__(
        self, method: Method, request: object, context: Context
    ) -> AbstractAsyncContextManager[None]:
        """Let one call run if it is allowed; else raise Refusal."""
        if self.callers is not None and not method.path.startswith(self.open_prefixes):
            caller = CURRENT.get().caller = _caller_of(context, self.callers)
            if method.service == SERVICE and method.name not in caller.methods:
                raise Refusal(reasons.ERROR_REASON_CALLER_NOT_ALLOWED)
        if isinstance(request, Undecodable):
            raise Refusal(reasons.ERROR_REASON_INVALID_REQUEST, cause=UNDECODABLE)
        return _ALLOWED


def _caller_of(context: Context, callers: Callers) -> Caller:
    """Return the caller that the connection's certificate identifies; else raise Refusal."""
    (pem,) = context.auth_context().get(PEM) or (b"",)
    shown = names_of(pem)
    found = callers.find(shown.names) if shown.are_clean else ()
    if len(found) == 1:
        return found[0]
    cause = "no name in the certificate belongs to a caller"
    if not shown.are_clean:
        cause = "a name in the certificate contains a character that is not printable ASCII"
    elif found:
        cause = "the certificate names more than one caller"
    raise Refusal(
        reasons.ERROR_REASON_CALLER_UNAUTHENTICATED, cause=cause, facts={"caller_names": str(shown)}
    )
