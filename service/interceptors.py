"""What surrounds every call, one purpose each, outermost first: observe, tell; `authorization` comes next.

Each is an async context manager around the call; `Around` makes a gRPC interceptor of it. The map of
errors to statuses stands outside everything that can fail, because gRPC hands an uncaught exception to
the caller together with its text.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

from .call import CURRENT, Call, Circumstances, Undecodable, answer_by, certain_s, code_of_end
from .details import trailers_of
from .linkage import RPCS
from .logs import log, stack_of
from .metrics import Metrics
from .refusal import Refusal
from .result_codes import ResultCodes
from .status import Verdict, verdict_of

UNDECODABLE: Final = "the bytes are not the message"
FIRST_TRIES: Final[Mapping[str, tuple[str, ...]]] = {
    "grpc-previous-rpc-attempts": ("0",),
    "x-envoy-attempt-count": ("0", "1"),
}
"""What gRPC clients and Envoy write of a first try; whatever else they write there marks a retry."""

# gRPC's own context and handlers are only loosely typed.
Context = Any
Handler = Any


@dataclass(frozen=True, slots=True)
class Method:
    """A registered method."""

    path: str
    kind: str
    """As metrics name it: unary, server_stream or bidi_stream."""


Surround = Callable[[Method, Any, Context], AbstractAsyncContextManager[None]]


class Around(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Puts a context manager around every call of every registered method."""

    def __init__(self, surround: Surround) -> None:
        self._surround = surround

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the handler; an unregistered method has none, and is gRPC's own to refuse."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        path, codec = handler_call_details.method, (_deserializer(handler), handler.response_serializer)
        if not handler.response_streaming and not handler.request_streaming:
            one = self._one(Method(path, "unary"), handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(one, *codec)
        if handler.request_streaming and handler.response_streaming:
            many = self._many(Method(path, "bidi_stream"), handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(many, *codec)
        if handler.response_streaming:
            many = self._many(Method(path, "server_stream"), handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(many, *codec)
        raise NotImplementedError(path)

    def _one(self, method: Method, inner: Callable[..., Awaitable[object]]) -> Callable[..., object]:
        async def behaviour(request: object, context: Context) -> object:
            async with self._surround(method, request, context):
                return await inner(request, context)

        return behaviour

    def _many(self, method: Method, inner: Callable[..., Any]) -> Callable[..., object]:
        async def yields(request: object, context: Context) -> AsyncIterator[object]:
            async with self._surround(method, request, context):
                async for response in inner(request, context):
                    yield response

        async def writes(request: object, context: Context) -> None:
            async with self._surround(method, request, context):
                await inner(request, context)

        return yields if inspect.isasyncgenfunction(inner) else writes


@dataclass(frozen=True, slots=True)
class Observe:
    """Begins the call's record, and writes the access log and metrics when it has ended."""

    metrics: Metrics
    idempotent: Mapping[str, bool]
    """Whether each RPC's request may be sent again without harm, by the RPC's name."""
    default_deadline_s: float
    deadline_max_s: float

    @asynccontextmanager
    async def __call__(self, method: Method, request: object, context: Context) -> AsyncIterator[None]:
        """Observe one call."""
        began, left_s = time.monotonic(), certain_s(context.time_remaining())
        rpc = RPCS.get(method.path)
        call = Call(
            answer_by(left_s, default_s=self.default_deadline_s, max_s=self.deadline_max_s),
            self._circumstances(rpc.name, context) if rpc else Circumstances(),
            request_id=rpc.valid_request_id(request) if rpc else "",
            deadline=None if left_s is None else began + left_s,
        )
        CURRENT.set(call)
        labels = (method.kind, *service_and_name(method))
        self.metrics.grpc_started.labels(*labels).inc()
        code = "UNKNOWN"
        try:
            yield
            code = "OK"
        except grpc.aio.AbortError:
            code = _code_name(context.code())
            raise
        except (asyncio.CancelledError, grpc.aio.InternalError):
            # InternalError: the call had ended before its status could be sent; its caller did not get it.
            call.told = call.told if "error_id" in call.told else {}
            code = code_of_end(context.time_remaining())
            raise
        finally:
            seconds = time.monotonic() - began
            self.metrics.grpc_handled.labels(*labels, code).inc()
            self.metrics.grpc_seconds.labels(*labels).observe(seconds)
            self._log(method.path, call, code, seconds)

    def _circumstances(self, api: str, context: Context) -> Circumstances:
        retried = is_retried(context.invocation_metadata() or ())
        return Circumstances(api, idempotent=self.idempotent[api], retried=retried)

    def _log(self, method: str, call: Call, code: str, seconds: float) -> None:
        api = call.circumstances.api
        # Whoever is told an error id must find it here, whatever the method and LOG_LEVEL.
        record = log.error if "error_id" in call.told else log.info if api else log.debug
        record(
            "call",
            method=method,
            code=code,
            seconds=round(seconds, 4),
            request_id=call.request_id,
            caller=call.caller.name,
            attempts=call.circumstances.attempts,
            **call.told,
        )
        if api:
            reason, outcome = call.told.get("reason", code), call.told.get("outcome", "")
            self.metrics.outcomes.labels(api, reason, outcome).inc()


@dataclass(frozen=True, slots=True)
class Tell:
    """Turns whatever a call ended with into what its caller is told."""

    codes: ResultCodes

    @asynccontextmanager
    async def __call__(self, _: Method, __: object, context: Context) -> AsyncIterator[None]:
        """Tell the caller of one call."""
        try:
            yield
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  (the last one who can keep its text from the caller)
            call = CURRENT.get()
            verdict = verdict_of(error, call.circumstances, self.codes)
            call.told = _told(verdict, error)
            trailers = trailers_of(
                verdict,
                call.request_id,
                left_s=call.caller_left_s,
                resends_ended=call.circumstances.resends_ended,
            )
            await context.abort(verdict.code, verdict.sentence, trailers)


def _deserializer(handler: Handler) -> Callable[[bytes], object] | None:
    """Have gRPC never see a deserializer fail; a stream's fails within Tell, where the stream is read."""

    def deserialize(data: bytes) -> object:
        try:
            return handler.request_deserializer(data)
        except Exception:  # noqa: BLE001  (whatever it was, its text must not reach the caller)
            if handler.request_streaming:
                raise Refusal(reasons.ERROR_REASON_INVALID_REQUEST, cause=UNDECODABLE) from None
            return Undecodable()

    return deserialize if handler.request_deserializer else None


def is_retried(metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Whether a client or a proxy says that it tried before, which its caller may not know of."""
    return any(value not in FIRST_TRIES.get(name, (value,)) for name, value in metadata)


def _told(verdict: Verdict, error: Exception) -> dict[str, Any]:
    """Keep for the log what the caller is told, and the cause that the caller is not."""
    told: dict[str, Any] = {
        "reason": verdict.reason_name,
        "outcome": str(verdict.outcome),
        "retry": str(verdict.retry),
    }
    if error_id := verdict.facts.get("error_id"):
        return told | {"error_id": error_id, "error_class": type(error).__name__, "stack": stack_of(error)}
    if names := verdict.facts.get("caller_names"):
        told["caller_names"] = names
    return told | ({"cause": str(error)} if str(error) else {})


def service_and_name(method: Method) -> tuple[str, str]:
    """Split a method's path into the service's full name and the method's name."""
    service, _, name = method.path.removeprefix("/").partition("/")
    return service, name


def _code_name(code: object) -> str:
    return next((known.name for known in grpc.StatusCode if code in {known, known.value[0]}), "UNKNOWN")
