"""One attempt with its log line and its metrics, also if no call waits for it any more."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from clients.alipayhk.client import Client
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire.errors import AnswerError, CallError, ResultError, Unsigned
from clients.alipayhk.wire.messages import VerifiedResponse
from clients.alipayhk.wire.result import FAILURE

from ..outcomes.result_codes import CONFIGURATION_CODES, RATE_LIMITED
from ..telemetry.logs import FrequentEvent, code_text, log, stack_of
from ..telemetry.metrics import Metrics
from .flight import Flight

ADDRESSES_MAX: Final = 8
"""How many addresses that were tried are logged: the last ones."""
_ATTEMPT: Final = FrequentEvent("attempt", "api", "request_id", "attempts", "end", "seconds", "http_status")


async def logged_attempt(
    client: Client, metrics: Metrics, flight: Flight, attempt: Attempt
) -> VerifiedResponse:
    """Make an attempt; log and count its result."""
    request = flight.request
    api, began = request.endpoint.api, time.monotonic()
    count = len(flight.attempts)
    known: dict[str, str | int] = {"api": api, "request_id": request.request_id, "attempts": count}
    span = flight.span and flight.span.attempt(request.endpoint, resends=count - 1)
    end, is_failure, facts = "cancelled", True, dict[str, Any]()
    metrics.child(metrics.upstream_in_flight, api).inc()
    try:
        verified = await client.call(request.endpoint, request.request_id, request.body, attempt)
        end, is_failure, facts = "success", False, {"http_status": verified.http_status}
        if attempt.capture:
            log.info("exchange captured", **known, capture=attempt.capture)
        _ATTEMPT.log(*known.values(), end, _since(began), verified.http_status)
        return verified
    except CallError as error:
        end, is_failure = type(error).__name__, not _is_rejection(error)
        facts = _facts(attempt, error)
        write = log.warning if is_failure else log.info
        write("attempt", **known, end=end, seconds=_since(began), **facts)
        raise
    except asyncio.CancelledError:
        if attempt.sent:
            facts = _facts(attempt)
            log.warning("attempt", **known, end=end, seconds=_since(began), **facts)
        raise
    except Exception as error:
        end, facts = "bug", {"error_class": type(error).__name__, "stack": stack_of(error)}
        log.error("attempt", **known, end=end, seconds=_since(began), **facts)
        raise
    finally:
        metrics.child(metrics.upstream_in_flight, api).dec()
        metrics.child(metrics.upstream_attempts, api, end).inc()
        metrics.child(metrics.upstream_seconds, api).observe(time.monotonic() - began)
        if span is not None:
            span.end(end if is_failure else "", {"end": end, **facts})


def _is_rejection(error: CallError) -> bool:
    """Whether AlipayHK rejected the caller's request; any other failure concerns the operator."""
    if not isinstance(error, ResultError) or error.result.status != FAILURE:
        return False
    return error.result.code not in CONFIGURATION_CODES | {RATE_LIMITED}


def _facts(attempt: Attempt, error: CallError | None = None) -> dict[str, str | int]:
    """Return what an operator needs to find out why an attempt failed. None of it is personal data."""
    facts: dict[str, str | int] = {"address": ", ".join(attempt.route.addresses[-ADDRESSES_MAX:])}
    facts["capture"] = attempt.capture
    code = ""
    if attempt.head is not None:
        facts["http_status"] = attempt.head.http_status
        facts["tracer_id"] = attempt.head.tracer_id
        facts["key_version"] = attempt.head.key_version
    if isinstance(error, AnswerError | ResultError):
        facts["http_status"] = error.http_status
        facts["tracer_id"] = error.tracer_id
    if isinstance(error, ResultError):
        code = error.result.code
        facts |= {"result_status": code_text(error.result.status), "result_code": code_text(code)}
    elif error is not None:
        code = error.claimed_code if isinstance(error, Unsigned) else ""
        facts |= {"cause": str(error), "unverified_result_code": code_text(code)}
    if code in CONFIGURATION_CODES:
        facts["signing_key_version"] = attempt.signing_version
    present = {name: fact for name, fact in facts.items() if fact}
    return present if attempt.skew_s is None else present | {"clock_skew_s": round(attempt.skew_s)}


def _since(began: float) -> float:
    return round(time.monotonic() - began, 4)
