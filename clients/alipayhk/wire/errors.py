"""The ways a call to AlipayHK can end without a verified S.

A class says *when* the call failed and so whether it may have taken effect (`sent`). The text of an
error is for the log: it names the cause and holds no identity value, key or body.
"""

from __future__ import annotations

from .result import Result


class CallError(Exception):
    """A call that did not end with a verified S."""

    sent: bool
    """Whether a byte of the request may have left."""


class NotSent(CallError):
    """No byte of the request left."""

    sent = False


class Unreachable(NotSent):
    """DNS, connecting or the TLS handshake failed or took too long."""


class TlsInvalid(NotSent):
    """The server's certificate is not valid for its host."""


class LeaseExpired(NotSent):
    """The request's lease expired before the first byte was written."""


class NoAnswer(CallError):
    """The request may have been sent, and no whole answer came."""

    sent = True


class Timeout(NoAnswer):
    """No whole answer came in time."""


class ConnectionLost(NoAnswer):
    """The connection was lost, or spoke no HTTP, before an answer began."""


class Truncated(NoAnswer):
    """The answer was cut short, or was larger than allowed."""


class AnswerError(CallError):
    """An answer came that does not say what happened."""

    sent = True
    http_status: int = 0
    tracer_id: str = ""


class Unsigned(AnswerError):
    """The answer carries no signature: an HTTP error page, or a body that anybody may have written."""

    def __init__(
        self, cause: str, *, http_status: int, claimed_code: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(cause)
        self.http_status = http_status
        self.claimed_code = claimed_code
        """The result code in the unverified body; empty when it claims none."""
        self.retry_after_s = retry_after_s
        """The header Retry-After; 0 when absent."""


class SignatureInvalid(AnswerError):
    """There is a signature, and it does not verify."""


class Replayed(AnswerError):
    """The signature verifies, but the answer cannot be to this request."""


class Repeated(AnswerError):
    """The answer is an earlier one of the same connection again, so it is not to this request."""


class OutsideWindow(Replayed):
    """The signature verifies, but the answer's time is too far from ours: a replay, or a wrong clock."""

    def __init__(self, skew_s: float) -> None:
        super().__init__("the answer's time is outside the window")
        self.skew_s = skew_s
        """AlipayHK's time minus ours."""


class Malformed(AnswerError):
    """The signature verifies, but the answer cannot be decrypted or read."""


class NotEncrypted(AnswerError):
    """The signature verifies, but the answer is plain where encryption is required."""


class ResultError(CallError):
    """A verified answer whose status is not S."""

    sent = True

    def __init__(self, result: Result, *, http_status: int = 0, tracer_id: str = "") -> None:
        super().__init__("AlipayHK's result is not S")
        self.result = result
        self.http_status = http_status
        self.tracer_id = tracer_id
