"""Translate every exception of a call into the status that the caller gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc

from ..credentials.in_use import InUse
from ..outcomes.call import Call
from ..outcomes.details import trailers_of
from ..outcomes.result_codes import ResultCodes
from ..outcomes.verdict import Verdict
from ..telemetry.logs import code_text, stack_of
from .methods import Context

LOGGED_CODES: Final = ("result_status", "result_code", "unverified_result_code")
LOGGED_NUMBERS: Final = ("http_status", "clock_skew_s")
LOGGED_TEXTS: Final = ("tracer_id", "caller_names")
"""The facts of a verdict that are logged; AlipayHK's message is not."""


@dataclass(frozen=True, slots=True)
class ErrorTranslation:
    """Translates the exception of a call into its status and details."""

    codes: InUse[ResultCodes]

    async def send(self, call: Call, error: BaseException, context: Context) -> None:
        """Abort the call with the status of its exception, unless this is a status already.

        gRPC sends the text of any other exception to the caller.
        """
        if not isinstance(error, Exception) or isinstance(error, grpc.aio.AbortError):
            return
        verdict = call.verdict_of(error, self.codes.current)
        call.reported = _reported(verdict, error)
        trailers = trailers_of(
            verdict,
            call.request_id,
            left_s=call.caller_left_s,
            resends_ended=call.circumstances.resends_ended,
        )
        await context.abort(verdict.code, verdict.sentence, trailers)


def _reported(verdict: Verdict, error: Exception) -> dict[str, Any]:
    """Return members of the log line: the details for the caller, and the cause, which stays in the log."""
    reported: dict[str, Any] = {
        "reason": verdict.reason_name,
        "outcome": str(verdict.outcome),
        "retry": str(verdict.retry),
    }
    if error_id := verdict.facts.get("error_id"):
        return reported | {
            "error_id": error_id,
            "error_class": type(error).__name__,
            "stack": stack_of(error),
        }
    facts = verdict.facts
    reported |= {name: facts[name] for name in LOGGED_TEXTS if name in facts}
    reported |= {name: int(facts[name]) for name in LOGGED_NUMBERS if name in facts}
    reported |= {name: code_text(facts[name]) for name in LOGGED_CODES if name in facts}
    return reported | ({"cause": str(error)} if str(error) else {})
