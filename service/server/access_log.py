"""The access log: one line, and the metrics, for every call."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import grpc

from ..outcomes.call import CURRENT, Call, certain_s, code_of_end, deadline_of
from ..outcomes.circumstances import Circumstances
from ..outcomes.table import Outcome
from ..telemetry.logs import FrequentEvent, log
from ..telemetry.metrics import Metrics
from .linkage_service import RPCS
from .methods import Context, Method

if TYPE_CHECKING:
    from ..telemetry.spans import Tracer

FIRST_TRIES: Final[Mapping[str, tuple[str, ...]]] = {
    "grpc-previous-rpc-attempts": ("0",),
    "x-envoy-attempt-count": ("0", "1"),
}
"""The values that gRPC clients and Envoy send with a first try; any other value marks a retry."""
_MEMBERS: Final = ("method", "code", "seconds", "request_id", "caller", "attempts")
_CALL: Final = FrequentEvent("call", *_MEMBERS)
_TRACED_CALL: Final = FrequentEvent("call", *_MEMBERS, "trace_id", "span_id")


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Starts the record of a call (`CURRENT`), and writes the access log and metrics when it completes."""

    metrics: Metrics
    idempotent: Mapping[str, bool]
    """By RPC name, whether AlipayHK promises that the RPC is idempotent."""
    default_deadline_s: float
    deadline_max_s: float
    tracer: Tracer | None = None
    """Makes the spans of the RPCs of LinkageService, if traces are exported."""

    def of(self, method: Method) -> MethodLog:
        """Return the access log of one method."""
        return MethodLog(self, method)


class MethodLog:
    """The access log of one method."""

    def __init__(self, settings: AccessLog, method: Method) -> None:
        metrics, labels = settings.metrics, (method.kind, method.service, method.name)
        self._settings = settings
        self._path = method.path
        self._rpc = RPCS.get(method.path)
        self._api = api = self._rpc.name if self._rpc else ""
        self._first_try = Circumstances(api, idempotent=bool(api) and settings.idempotent[api])
        self._retry = self._first_try._replace(retried=bool(api))
        # A method has no metrics before its first call.
        self._started = cache(lambda: metrics.grpc_started.labels(*labels))
        self._seconds = cache(lambda: metrics.grpc_seconds.labels(*labels))
        self._handled = cache(lambda code: metrics.grpc_handled.labels(*labels, code))
        self._outcomes = cache(lambda reason, outcome: metrics.outcomes.labels(api, reason, outcome))
        if api:
            # An alert on the first one of these needs the 0 before it.
            self._handled(grpc.StatusCode.INTERNAL.name)
            for outcome in (Outcome.REJECTED, Outcome.UNKNOWN):
                self._outcomes("GATEWAY_REFUSED", outcome)

    def start(self, request: object, context: Context, began: float) -> Call:
        """Start the record of a call that began at this time of the monotonic clock."""
        settings, left_s = self._settings, certain_s(context.time_remaining())
        metadata = context.invocation_metadata() or ()
        call = Call(
            deadline_of(left_s, default_s=settings.default_deadline_s, max_s=settings.deadline_max_s),
            self._retry if is_retried(metadata) else self._first_try,
            request_id=self._rpc.valid_request_id(request) if self._rpc else "",
            caller_deadline=None if left_s is None else began + left_s,
        )
        if settings.tracer is not None and self._rpc is not None:
            call.span = settings.tracer.call(self._path.removeprefix("/"), metadata)
        CURRENT.set(call)
        self._started().inc()
        return call

    def fail(self, call: Call, error: BaseException, began: float, context: Context) -> None:
        """Count and log a call that ended with an exception."""
        code = "UNKNOWN"
        if isinstance(error, grpc.aio.AbortError):
            code = _code_name(context.code())
        elif isinstance(error, asyncio.CancelledError | grpc.aio.InternalError):
            # InternalError: the call was over before its status could be sent; the caller did not get it.
            call.reported = call.reported if "error_id" in call.reported else {}
            code = code_of_end(context.time_remaining())
        self.end(call, code, began)

    def end(self, call: Call, code: str, began: float) -> None:
        """Count and log a call that ended with this gRPC code."""
        seconds, attempts = time.monotonic() - began, call.circumstances.attempts
        self._handled(code).inc()
        self._seconds().observe(seconds)
        level = _level(self._api, code, call)
        values = (self._path, code, round(seconds, 4), call.request_id, call.caller.name, attempts)
        ids = () if call.span is None else call.span.ids
        if level == logging.INFO and not call.reported:
            (_TRACED_CALL if ids else _CALL).log(*values, *ids)
        else:
            traced = dict(zip(("trace_id", "span_id"), ids, strict=False))
            log.log(level, "call", **dict(zip(_MEMBERS, values, strict=True)), **call.reported, **traced)
        if call.span is not None:
            about = {"request_id": call.request_id, "caller": call.caller.name, "attempts": attempts}
            call.span.end(code, about | call.reported)
        if self._api:
            reported = call.reported
            self._outcomes(reported.get("reason", code), reported.get("outcome", "")).inc()


def is_retried(metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Return whether a client or proxy reports an earlier try; its caller may not know about it."""
    for name, value in metadata:  # noqa: SIM110  (a generator takes longer)
        if name in FIRST_TRIES and value not in FIRST_TRIES[name]:
            return True
    return False


def _level(api: str, code: str, call: Call) -> int:
    """Return the level of a call's line: whatever needs an operator is written with every LOG_LEVEL."""
    if "error_id" in call.reported or code == grpc.StatusCode.INTERNAL.name:
        return logging.ERROR
    if call.reported.get("outcome") == Outcome.UNKNOWN:
        return logging.WARNING
    return logging.INFO if api else logging.DEBUG


def _code_name(code: object) -> str:
    return next((known.name for known in grpc.StatusCode if code in {known, known.value[0]}), "UNKNOWN")
