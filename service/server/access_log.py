"""The access log: one line, and the metrics, for every call."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import grpc

from ..outcomes.call import CURRENT, Call, certain_s, code_of_end, deadline_of
from ..outcomes.circumstances import Circumstances
from ..outcomes.table import Outcome
from ..telemetry.logs import FrequentEvent, log
from ..telemetry.metrics import Metrics
from .interceptors import Context, Method
from .linkage_service import RPCS

FIRST_TRIES: Final[Mapping[str, tuple[str, ...]]] = {
    "grpc-previous-rpc-attempts": ("0",),
    "x-envoy-attempt-count": ("0", "1"),
}
"""The values that gRPC clients and Envoy send with a first try; any other value marks a retry."""
_CALL: Final = FrequentEvent("call", "method", "code", "seconds", "request_id", "caller", "attempts")


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Starts the record of a call (`CURRENT`), and writes the access log and metrics when it completes."""

    metrics: Metrics
    idempotent: Mapping[str, bool]
    """By RPC name, whether AlipayHK promises that the RPC is idempotent."""
    default_deadline_s: float
    deadline_max_s: float

    def __call__(self, method: Method, request: object, context: Context) -> _Logged:
        """Start the record of one call; return the context that logs it."""
        began, left_s = time.monotonic(), certain_s(context.time_remaining())
        rpc = RPCS.get(method.path)
        call = Call(
            deadline_of(left_s, default_s=self.default_deadline_s, max_s=self.deadline_max_s),
            self._circumstances(rpc.name, context) if rpc else Circumstances(),
            request_id=rpc.valid_request_id(request) if rpc else "",
            caller_deadline=None if left_s is None else began + left_s,
        )
        CURRENT.set(call)
        self.metrics.child(self.metrics.grpc_started, method.kind, method.service, method.name).inc()
        return _Logged(self, method, context, call, began)

    def _circumstances(self, api: str, context: Context) -> Circumstances:
        retried = is_retried(context.invocation_metadata() or ())
        return Circumstances(api, idempotent=self.idempotent[api], retried=retried)

    def ended(self, method: Method, call: Call, code: str, seconds: float) -> None:
        """Count and log one call."""
        metrics, labels = self.metrics, (method.kind, method.service, method.name)
        metrics.child(metrics.grpc_handled, *labels, code).inc()
        metrics.child(metrics.grpc_seconds, *labels).observe(seconds)
        api = call.circumstances.api
        level, attempts = _level(api, code, call), call.circumstances.attempts
        if level == logging.INFO and not call.reported:
            _CALL.log(method.path, code, round(seconds, 4), call.request_id, call.caller.name, attempts)
        else:
            log.log(
                level,
                "call",
                method=method.path,
                code=code,
                seconds=round(seconds, 4),
                request_id=call.request_id,
                caller=call.caller.name,
                attempts=attempts,
                **call.reported,
            )
        if api:
            reason, outcome = call.reported.get("reason", code), call.reported.get("outcome", "")
            metrics.child(metrics.outcomes, api, reason, outcome).inc()


class _Logged(AbstractAsyncContextManager[None]):
    """Surrounds one call."""

    def __init__(self, log: AccessLog, method: Method, context: Context, call: Call, began: float) -> None:
        self._log = log
        self._method = method
        self._context = context
        self._call = call
        self._began = began

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Count and log the call."""
        code, call = "UNKNOWN", self._call
        if error is None:
            code = "OK"
        elif isinstance(error, grpc.aio.AbortError):
            code = _code_name(self._context.code())
        elif isinstance(error, asyncio.CancelledError | grpc.aio.InternalError):
            # InternalError: the call was over before its status could be sent; the caller did not get it.
            call.reported = call.reported if "error_id" in call.reported else {}
            code = code_of_end(self._context.time_remaining())
        self._log.ended(self._method, call, code, time.monotonic() - self._began)


def is_retried(metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Return whether a client or proxy reports an earlier try; its caller may not know about it."""
    return any(value not in FIRST_TRIES.get(name, (value,)) for name, value in metadata)


def _level(api: str, code: str, call: Call) -> int:
    """Return the level of a call's line: whatever needs an operator is written with every LOG_LEVEL."""
    if "error_id" in call.reported or code == grpc.StatusCode.INTERNAL.name:
        return logging.ERROR
    if call.reported.get("outcome") == Outcome.UNKNOWN:
        return logging.WARNING
    return logging.INFO if api else logging.DEBUG


def _code_name(code: object) -> str:
    return next((known.name for known in grpc.StatusCode if code in {known, known.value[0]}), "UNKNOWN")
