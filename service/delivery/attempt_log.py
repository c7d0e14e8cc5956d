"""One attempt with its log line and its metrics, also if no call waits for it any more."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Final

from clients.alipayhk.client import Client
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire.errors import CallError, ResultError
from clients.alipayhk.wire.messages import VerifiedResponse

from ..telemetry.logs import log, stack_of
from ..telemetry.metrics import Metrics
from .flight import Flight

CODE: Final = re.compile(r"(?!.*\d{5})[A-Z0-9_]{0,64}")
"""The format of a result code. It matches no user id, telephone number or card number."""


async def logged_attempt(
    client: Client, metrics: Metrics, flight: Flight, attempt: Attempt
) -> VerifiedResponse:
    """Make an attempt; log and count its result."""
    request = flight.request
    api, began = request.endpoint.api, time.monotonic()
    record = log.bind(api=api, request_id=request.request_id, attempts=len(flight.attempts))
    end = "cancelled"
    metrics.upstream_in_flight.labels(api).inc()
    try:
        verified = await client.call(request.endpoint, request.request_id, request.body, attempt)
        end = "success"
        record.info("attempt", end=end, seconds=_since(began), http_status=verified.http_status)
        return verified
    except ResultError as error:
        end = type(error).__name__
        result = error.result
        said = {"result_status": _code(result.status), "result_code": _code(result.code)}
        record.info("attempt", end=end, seconds=_since(began), **said)
        raise
    except CallError as error:
        end = type(error).__name__
        skew = {} if attempt.skew_s is None else {"clock_skew_s": round(attempt.skew_s)}
        record.warning("attempt", end=end, seconds=_since(began), cause=str(error), **skew)
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
        metrics.upstream_in_flight.labels(api).dec()
        metrics.upstream_attempts.labels(api, end).inc()
        metrics.upstream_seconds.labels(api).observe(time.monotonic() - began)


def _code(text: str) -> str:
    """Return the text if it is safe to log: AlipayHK may echo anything, personal data included."""
    return text if CODE.fullmatch(text) else "other"


def _since(began: float) -> float:
    return round(time.monotonic() - began, 4)
