"""Getting one request to AlipayHK: one detached, tracked attempt within the caller's deadline.

The caller's cancel, or its deadline, never abandons half a send: an attempt that has begun to send is
given its whole time, and its end is logged. One that has not is cancelled first, and only then may the
caller be told `not_sent`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.client import Client
from clients.alipayhk.endpoint import Endpoint
from clients.alipayhk.errors import CallError, ResultError, Timeout, Unreachable
from clients.alipayhk.messages import VerifiedResponse
from clients.alipayhk.transport import Attempt

from .call import Call
from .logs import log, stack_of
from .metrics import Metrics
from .refusal import Refusal

CODE_MAX: Final = 64
LEFT_MIN_S: Final = 0.1
"""With less time than this left, nothing is sent."""


class Delivery:
    """Sends requests, and knows which are under way."""

    def __init__(self, client: Client, metrics: Metrics, *, max_in_flight: int) -> None:
        self._client = client
        self._metrics = metrics
        self._max_in_flight = max_in_flight
        self._tasks: set[asyncio.Task[VerifiedResponse]] = set()
        self._by_caller: Counter[str] = Counter()
        self._closing = False

    async def deliver(
        self, endpoint: Endpoint, request_id: str, body: bytes, call: Call
    ) -> VerifiedResponse:
        """Send one request; return a verified S, or raise Refusal or CallError in the caller's time."""
        self._admit(call)
        attempt = Attempt()
        call.attempts.append(attempt)
        task = self._start(endpoint, request_id, body, attempt, call)
        try:
            await asyncio.wait({task}, timeout=call.left_s)
        finally:
            if not task.done() and not attempt.sent:
                task.cancel()
        if not task.done() and not attempt.sent:
            await asyncio.wait({task})
        if task.cancelled() or not task.done():
            raise (Timeout if attempt.sent else Unreachable)("the caller's time was up")
        return task.result()

    def close(self) -> None:
        """Refuse what comes from now on."""
        self._closing = True

    async def idle(self, timeout_s: float) -> bool:
        """Wait until nothing is under way; return whether that came true in time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        return not self._tasks

    def _admit(self, call: Call) -> None:
        if self._closing:
            raise Refusal(reasons.ERROR_REASON_SHUTTING_DOWN)
        if call.left_s < LEFT_MIN_S:
            raise Refusal(reasons.ERROR_REASON_DEADLINE_TOO_SHORT)
        quota = call.caller.max_in_flight
        if quota is not None and self._by_caller[call.caller.name] >= quota:
            raise Refusal(reasons.ERROR_REASON_CALLER_QUOTA_EXCEEDED)
        if len(self._tasks) >= self._max_in_flight:
            raise Refusal(reasons.ERROR_REASON_OVERLOADED)

    def _start(
        self, endpoint: Endpoint, request_id: str, body: bytes, attempt: Attempt, call: Call
    ) -> asyncio.Task[VerifiedResponse]:
        task = asyncio.create_task(self._attempt(endpoint, request_id, body, attempt))
        in_flight = self._metrics.upstream_in_flight.labels(endpoint.api)
        self._tasks.add(task)
        self._by_caller[call.caller.name] += 1
        in_flight.inc()

        def ended(task: asyncio.Task[VerifiedResponse]) -> None:
            self._tasks.discard(task)
            self._by_caller[call.caller.name] -= 1
            in_flight.dec()
            if not task.cancelled():
                task.exception()  # nobody may be waiting for it any more, and it is logged already

        task.add_done_callback(ended)
        return task

    async def _attempt(
        self, endpoint: Endpoint, request_id: str, body: bytes, attempt: Attempt
    ) -> VerifiedResponse:
        """Make one attempt, and log and count how it ended, whoever is still waiting for it."""
        began = time.monotonic()
        record = log.bind(api=endpoint.api, request_id=request_id)
        end = "cancelled"
        try:
            verified = await self._client.call(endpoint, request_id, body, attempt)
            end = "success"
            record.info("attempt", end=end, seconds=_since(began), http_status=verified.http_status)
            return verified
        except ResultError as error:
            end = type(error).__name__
            result = error.response.result
            said = {"result_status": result.status[:CODE_MAX], "result_code": result.code[:CODE_MAX]}
            record.info("attempt", end=end, seconds=_since(began), **said)
            raise
        except CallError as error:
            end = type(error).__name__
            record.warning("attempt", end=end, seconds=_since(began), cause=str(error))
            raise
        except asyncio.CancelledError:
            if attempt.sent:
                record.warning("attempt", end=end, seconds=_since(began))
            raise
        except Exception as error:
            end = "bug"
            record.error("attempt", end=end, error_class=type(error).__name__, stack=stack_of(error))
            raise
        finally:
            self._metrics.upstream_attempts.labels(endpoint.api, end).inc()
            self._metrics.upstream_seconds.labels(endpoint.api).observe(time.monotonic() - began)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 4)
