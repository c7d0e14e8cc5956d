"""Encode a verdict for gRPC: google.rpc.Status details and trailers, under 6 KiB in all."""

from __future__ import annotations

from typing import Final

from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from .refusal import Violation
from .table import Retry
from .verdict import Verdict

DOMAIN: Final = "linkage.alipayhk"
DETAILS_BYTES_MAX: Final = 6 * 1024 - 1
FACT_CHARACTERS_MAX: Final = 128
LONG_FACTS: Final = {"result_message": 256, "caller_names": 512}
"""Facts with a limit of their own, in characters."""
NOTE_BYTES: Final = 128
"""Reserved for the last violation, which counts those that are not listed."""
PUSHBACK_MARGIN_S: Final = 0.5
"""The least time in seconds that gRPC's next attempt must have left after its wait."""

DETAILS: Final = "grpc-status-details-bin"
PUSHBACK: Final = "grpc-retry-pushback-ms"

Trailers = tuple[tuple[str, str | bytes], ...]


def trailers_of(
    verdict: Verdict, request_id: str, *, left_s: float | None = None, resends_ended: bool = False
) -> Trailers:
    """Return the trailers of a status: its details, and when gRPC's retry policy may try again.

    `left_s` is the time until the caller's deadline in seconds, None without a deadline. The pushback is -1
    in two cases. If the wait does not fit into `left_s`, gRPC would wait past the deadline and lose these
    details. After `resends_ended`, gRPC would multiply the attempts of this gateway by its own.
    """
    return (
        (DETAILS, status_of(verdict, request_id).SerializeToString()),
        (PUSHBACK, pushback_of(verdict, left_s=left_s, resends_ended=resends_ended)),
    )


def pushback_of(verdict: Verdict, *, left_s: float | None, resends_ended: bool) -> str:
    """Return the wait in milliseconds after which gRPC's retry policy may try again; -1 forbids it."""
    wait_ms = _wait_ms(verdict)
    fits = left_s is None or wait_ms / 1000 + PUSHBACK_MARGIN_S <= left_s
    return str(wait_ms) if verdict.retry is Retry.SAME_REQUEST_ID and fits and not resends_ended else "-1"


def status_of(verdict: Verdict, request_id: str) -> Status:
    """Return the status with all details."""
    status = Status(code=verdict.code.value[0], message=verdict.sentence)
    facts = {name: _fact(name, text) for name, text in verdict.facts.items()}
    info = ErrorInfo(
        reason=verdict.reason_name,
        domain=DOMAIN,
        metadata={"outcome": verdict.outcome, "retry": verdict.retry, **facts},
    )
    _add(status, info)
    if verdict.retry is Retry.SAME_REQUEST_ID:
        retry_info = RetryInfo()
        retry_info.retry_delay.FromMilliseconds(_wait_ms(verdict))
        _add(status, retry_info)
    if request_id:
        _add(status, RequestInfo(request_id=request_id))
    if verdict.violations:
        _add(status, _bad_request(verdict.violations, DETAILS_BYTES_MAX - status.ByteSize()))
    return status


def _fact(name: str, text: str) -> str:
    """Truncate a fact, and replace lone surrogates: an encoding error here would reach the caller."""
    characters_max = LONG_FACTS.get(name, FACT_CHARACTERS_MAX)
    return text[:characters_max].encode("utf-8", "replace").decode()


def _bad_request(violations: tuple[Violation, ...], bytes_max: int) -> BadRequest:
    """List the violations that fit into `bytes_max`; if some do not fit, the last one counts them."""
    request = BadRequest()
    for done, violation in enumerate(violations):
        request.field_violations.add(field=violation.field, description=violation.description)
        if request.ByteSize() > bytes_max - NOTE_BYTES:
            del request.field_violations[-1]
            more = f"{len(violations) - done} more violations are not listed"
            request.field_violations.add(description=more)
            break
    return request


def _add(status: Status, detail: ErrorInfo | RetryInfo | RequestInfo | BadRequest) -> None:
    packed = Any()
    packed.Pack(detail)
    status.details.append(packed)


def _wait_ms(verdict: Verdict) -> int:
    return round(verdict.retry_after_s * 1000)
