"""Refuses calls with OVERLOADED while calls wait too long in gRPC's queue.

A refusal must cost far less than a served call; otherwise refusals use up all the time. So a refusal
happens before anything else of a call, its status is prepared once, and one log line per second counts
them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import cache, cached_property
from itertools import takewhile
from typing import Final, cast

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import RequestInfo
from google.rpc.status_pb2 import Status

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

from ..outcomes.call import certain_s, code_of_end
from ..outcomes.circumstances import Circumstances
from ..outcomes.details import DETAILS, PUSHBACK, pushback_of, status_of, trailers_of
from ..outcomes.refusal import Refusal
from ..outcomes.result_codes import ResultCodes
from ..outcomes.verdict import Verdict, verdict_of
from ..telemetry.logs import log
from ..telemetry.metrics import Metrics
from .access_log import is_retried
from .backlog import Backlog
from .first_message import MESSAGE_S, FirstMessage
from .linkage_service import RPCS
from .methods import Context, Handler, Handlers
from .rpcs import SERVICE, Rpc

OPEN_MAX: Final = 16_000
"""Maximum number of open calls, with or without their message; each takes about 25 KiB."""
WATCHES_MAX: Final = 1_000
"""Maximum number of streaming calls (reflection, Health/Watch), which have no time limit."""
SEND_S: Final = 5.0
"""Time for a caller to read its response; with a flow-control window of 0 it never reads it."""
CHECK_S: Final = 0.05
"""Delay after which gRPC has certainly delivered the first call of its queue."""
GAP_S: Final = 0.005
"""Time without a new call after which gRPC's queue seems empty, if TURNS iterations pass too."""
TURNS: Final = 5
"""Event loop iterations within which a delivered call reaches `service`; it takes three."""
LOG_EVERY_S: Final = 1.0
REQUEST_INFO: Final = f"type.googleapis.com/{RequestInfo.DESCRIPTOR.full_name}"


class Admission(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """Counts accepted calls and refuses excess calls; gRPC asks it for the handler of each call."""

    def __init__(
        self,
        handlers: Handlers,
        backlog: Backlog,
        metrics: Metrics,
        idempotent: Mapping[str, bool],
        *,
        deadline_max_s: float,
    ) -> None:
        self._handlers = handlers
        self._backlog = backlog
        self._first_message = FirstMessage()
        self._call_s = MESSAGE_S + deadline_max_s + SEND_S
        self._check_is_due = self._gap_is_due = False
        self._watches = set[asyncio.Task[object]]()
        self._unary: dict[asyncio.Task[object], float] = {}
        """When each unary call was accepted, in seconds on the monotonic clock; oldest first."""
        self._refusals = {
            path: Refusals(rpc, metrics, idempotent=idempotent[rpc.name]) for path, rpc in RPCS.items()
        }

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The server's event loop, because `get_running_loop` asks the system for the process id."""
        return asyncio.get_running_loop()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a call, or one that refuses the call unless its connection is light.

        gRPC calls this once for each call, in the task of the call, also for unknown methods.
        """
        is_long, began_s = self._backlog.accept(), time.monotonic()
        task = cast("asyncio.Task[object]", asyncio.current_task(self._loop))
        number = self._backlog.accepted
        self._unary[task] = began_s
        task.add_done_callback(lambda task: self._ended(task, number))
        if not self._gap_is_due:
            self._gap_is_due = True
            self._loop.call_later(GAP_S, self._find_gap, number)
        if self._backlog.is_waiting and not self._check_is_due:
            self._check_is_due = True
            self._loop.call_later(CHECK_S, self._check_late, number)
        method, details = handler_call_details.method, handler_call_details
        refusals = self._refusals.get(method)
        if self._backlog.open > OPEN_MAX:
            self._end_unread(began_s)
            return _refused_unread(refusals, details, began_s)
        handler = self._handlers.get(method)
        if handler is not None and handler.response_streaming:
            if len(self._watches) >= WATCHES_MAX:
                return _refused_unread(refusals, details, began_s)
            self._watches.add(task)
            del self._unary[task]
        elif is_long and refusals is not None:
            return self._refused_unless_light(refusals, handler, details, began_s)
        return handler

    def _refused_unless_light(
        self, refusals: Refusals, served: Handler, details: grpc.HandlerCallDetails, began_s: float
    ) -> Handler:
        async def behaviour(requests: object, context: Context) -> object:
            if not self._backlog.is_light(context.peer()):
                request = await self._first_message.read(context)
                retried = is_retried(details.invocation_metadata or ())
                await refusals.refuse(request, context, began_s, retried=retried)
            return await served.stream_unary(requests, context)

        return grpc.stream_unary_rpc_method_handler(
            behaviour, served.request_deserializer, served.response_serializer
        )

    def _end_unread(self, now_s: float) -> None:
        """Cancel the calls that are open for longer than a call can take: their callers do not read."""
        late = list(takewhile(lambda task: now_s - self._unary[task] > self._call_s, self._unary))
        for task in late:
            del self._unary[task]
            task.cancel()

    def _ended(self, task: asyncio.Task[object], number: int) -> None:
        self._backlog.end()
        if self._unary.pop(task, None) is None:
            self._watches.discard(task)
        # grpc.aio requests the next call from gRPC before it requests the message of this one.
        if self._backlog.is_waiting:
            self._check(number)

    def _find_gap(self, number: int, turns: int = TURNS) -> None:
        """Report to the backlog when no call has arrived for GAP_S and `turns` event loop iterations."""
        loop, newest = self._loop, self._backlog.accepted
        if number != newest:
            loop.call_later(GAP_S, self._find_gap, newest)
        elif turns:
            loop.call_soon(self._find_gap, number, turns - 1)
        else:
            self._gap_is_due = False
            self._backlog.seems_empty()

    def _check_late(self, number: int) -> None:
        self._check_is_due = False
        self._check(number)

    def _check(self, number: int, turns: int = TURNS) -> None:
        """Report to the backlog if no call arrives after this one within `turns` event loop iterations."""
        if number != self._backlog.accepted:
            return
        if turns:
            self._loop.call_soon(self._check, number, turns - 1)
        else:
            self._backlog.nothing_came_after(number)


class Refusals:
    """Refuses calls of one RPC, and counts the refusals."""

    def __init__(self, rpc: Rpc, metrics: Metrics, *, idempotent: bool) -> None:
        labels = ("unary", SERVICE, rpc.name)
        self._rpc = rpc
        self._idempotent = idempotent
        self._prepared = cache(self._prepare)
        self._outcomes = cache(lambda reason, outcome: metrics.outcomes.labels(rpc.name, reason, outcome))
        self._handled = cache(lambda code: metrics.grpc_handled.labels(*labels, code))
        self._started = metrics.grpc_started.labels(*labels)
        self._seconds = metrics.grpc_seconds.labels(*labels)
        self._unlogged = 0
        self._logged_s = float("-inf")

    async def refuse(self, request: object, context: Context, began_s: float, *, retried: bool) -> None:
        """Abort one call; `began_s` is when it was accepted, on the monotonic clock."""
        verdict, status = self._prepared(retried)
        if request_id := self._rpc.valid_request_id(request):
            status += _request_info(request_id)
        pushback = pushback_of(verdict, left_s=certain_s(context.time_remaining()), resends_ended=False)
        trailers = ((DETAILS, status), (PUSHBACK, pushback))
        code, reason, outcome = verdict.code.name, verdict.reason_name, str(verdict.outcome)
        try:
            await context.abort(verdict.code, verdict.sentence, trailers)
        except (asyncio.CancelledError, grpc.aio.InternalError):
            # The call was over already: its deadline had passed, or its caller had disconnected.
            code = reason = code_of_end(context.time_remaining())
            outcome = ""
            raise
        finally:
            self._count(code, reason, outcome, time.monotonic() - began_s)

    def _prepare(self, retried: bool) -> tuple[Verdict, bytes]:  # noqa: FBT001  (the key of a cache)
        circumstances = Circumstances(self._rpc.name, idempotent=self._idempotent, retried=retried)
        verdict = verdict_of(Refusal(reasons.ERROR_REASON_OVERLOADED), circumstances, ResultCodes())
        return verdict, status_of(verdict, "").SerializeToString()

    def _count(self, code: str, reason: str, outcome: str, seconds: float) -> None:
        self._started.inc()
        self._handled(code).inc()
        self._seconds.observe(seconds)
        self._outcomes(reason, outcome).inc()
        self._unlogged += 1
        if (now_s := time.monotonic()) - self._logged_s >= LOG_EVERY_S:
            log.warning("calls refused", method=self._rpc.path, reason="OVERLOADED", count=self._unlogged)
            self._unlogged, self._logged_s = 0, now_s


def _refused_unread(refusals: Refusals | None, details: grpc.HandlerCallDetails, began_s: float) -> Handler:
    """Return a handler that refuses a call without reading its message, to save memory."""
    retried = is_retried(details.invocation_metadata or ())

    async def behaviour(_: object, context: Context) -> None:
        if refusals is not None:
            await refusals.refuse(None, context, began_s, retried=retried)
        verdict = verdict_of(
            Refusal(reasons.ERROR_REASON_OVERLOADED), Circumstances(retried=retried), ResultCodes()
        )
        trailers = trailers_of(verdict, "", left_s=certain_s(context.time_remaining()))
        await context.abort(verdict.code, verdict.sentence, trailers)

    return grpc.stream_stream_rpc_method_handler(behaviour)


def _request_info(request_id: str) -> bytes:
    """Return bytes that add RequestInfo to the details of a serialized google.rpc.Status when appended.

    Protobuf merges concatenated messages: https://protobuf.dev/programming-guides/encoding/
    """
    info = RequestInfo(request_id=request_id).SerializeToString()
    data: bytes = Status(details=[Any(type_url=REQUEST_INFO, value=info)]).SerializeToString()
    return data
