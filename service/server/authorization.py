"""Identify the caller by its certificate, and check that it is allowed the method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

from ..credentials.callers import Caller, Callers
from ..credentials.certificates import names_of
from ..credentials.in_use import InUse
from ..outcomes.call import Call, Undecodable
from ..outcomes.refusal import Refusal
from .methods import Context, Method, undecodable
from .rpcs import SERVICE

HEALTH: Final = "/grpc.health.v1.Health/"
PEM: Final = "x509_pem_cert"
"""The caller's certificate in gRPC's auth context."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """Allows the callers of the allow-list their methods; health checks are allowed for every caller."""

    callers: InUse[Callers | None]
    open_prefixes: tuple[str, ...] = field(default=(HEALTH,))

    def check(self, method: Method, call: Call, request: object, context: Context) -> None:
        """Note the caller of a call; raise Refusal if the call is not allowed, or has no valid message."""
        callers = self.callers.current
        if callers is not None and not method.path.startswith(self.open_prefixes):
            call.caller = _caller_of(context, callers)
            if method.service == SERVICE and method.name not in call.caller.methods:
                raise Refusal(reasons.ERROR_REASON_CALLER_NOT_ALLOWED)
        if isinstance(request, Undecodable):
            raise undecodable()


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
