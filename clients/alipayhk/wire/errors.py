"""How a call to AlipayHK can fail to get a verified response with status S.

The class says *when* the call failed, and so whether the request may have taken effect (`sent`). The text
is for the log: it names the cause, and contains no identity value, key or body.
"""

from __future__ import annotations

from .result import Result


class CallError(Exception):
    """A call that did not get a verified response with status S."""

    sent: bool
    """Whether the first byte of the request may have been sent."""


class NotSent(CallError):
    """No byte of the request was sent."""

    sent = False


class Unreachable(NotSent):
    """DNS, connecting or the TLS handshake failed or timed out."""


class TlsInvalid(NotSent):
    """The server's certificate is not valid for its host."""


class LeaseExpired(NotSent):
    """The request's lease expired before the first byte was written."""


class NoAnswer(CallError):
    """The request may have been sent, and no complete response was received."""

    sent = True


class Timeout(NoAnswer):
    """No complete response was received in time."""


class ConnectionLost(NoAnswer):
    """The connection was lost, or its bytes were not HTTP, before a response was received."""


class Truncated(NoAnswer):
    """The response was cut short, or is larger than allowed."""


class AnswerError(CallError):
    """A response was received that does not show whether the request took effect."""

    sent = True
    http_status: int = 0
    tracer_id: str = ""


class Unsigned(AnswerError):
    """The response has no signature that can be read: anyone could have written it.

    It is an HTTP error page, a body without a signature, or a response whose head is not correct HTTP.
    """

    def __init__(
        self, cause: str, *, http_status: int, claimed_code: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(cause)
        self.http_status = http_status
        self.claimed_code = claimed_code
        """The result code in the unverified body; empty if the body has no code."""
        self.retry_after_s = retry_after_s
        """The header Retry-After, in seconds; 0 if it is absent or in the past."""


class SignatureInvalid(AnswerError):
    """The response has a signature that does not verify."""


class Replayed(AnswerError):
    """The signature verifies, but the response cannot belong to this request."""


class Repeated(AnswerError):
    """The response repeats an earlier one of the same connection, so it does not belong to this request."""


class OutsideWindow(Replayed):
    """The signature verifies, but the response's time is too far from ours: a replay, or clock skew."""

    def __init__(self, skew_s: float) -> None:
        super().__init__("the response's time is outside the window")
        self.skew_s = skew_s
        """AlipayHK's time minus ours, in seconds."""


class Malformed(AnswerError):
    """The signature verifies, but the response cannot be decrypted or read."""


class NotEncrypted(AnswerError):
    """The signature verifies, but the response is not encrypted, and encryption is required."""


class ResultError(CallError):
    """A verified response with another status than S."""

    sent = True

    def __init__(self, result: Result, *, http_status: int = 0, tracer_id: str = "") -> None:
        super().__init__("AlipayHK's result is not S")
        self.result = result
        self.http_status = http_status
        self.tracer_id = tracer_id
