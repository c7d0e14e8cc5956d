"""The gRPC code for each result code of a verified F."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from grpc import StatusCode

RATE_LIMITED: Final = "REQUEST_TRAFFIC_EXCEED_LIMIT"

CONFIGURATION_CODES: Final = frozenset(
    {
        "INVALID_SIGNATURE",
        "INVALID_CLIENT",
        "KEY_NOT_FOUND",
        "ACCESS_DENIED",
        "INVALID_API",
        "METHOD_NOT_SUPPORTED",
        "MEDIA_TYPE_NOT_ACCEPTABLE",
    }
)
"""AlipayHK rejects this gateway, because it is misconfigured, and not the caller's request."""

RESULT_CODES: Final[Mapping[str, StatusCode]] = {
    "PARAM_ILLEGAL": StatusCode.INVALID_ARGUMENT,
    "USER_NOT_EXIST": StatusCode.NOT_FOUND,
    "PROCESS_FAIL": StatusCode.FAILED_PRECONDITION,
    "USER_STATUS_ABNORMAL": StatusCode.FAILED_PRECONDITION,
    "INVALID_CONTRACT": StatusCode.FAILED_PRECONDITION,
    "INVALID_CODE": StatusCode.FAILED_PRECONDITION,
    "EXPIRED_CODE": StatusCode.FAILED_PRECONDITION,
    "CURRENCY_NOT_SUPPORT": StatusCode.FAILED_PRECONDITION,
    "AUTH_CODE_EXPIRED": StatusCode.FAILED_PRECONDITION,
    "INVALID_AUTHCODE": StatusCode.FAILED_PRECONDITION,
    "OAUTH_FAILED": StatusCode.FAILED_PRECONDITION,
}
"""The codes documented for AlipayHK's header-signed APIs. To add a code, add a row."""

NEVER_RETRIED: Final = frozenset({"PROCESS_FAIL"})
"""AlipayHK's documentation of these codes says "do not retry"."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of a result code."""

    code: StatusCode
    known: bool
    """Whether a table contains the code."""
    never: bool
    """Whether the request must not be retried."""


@dataclass(frozen=True, slots=True)
class ResultCodes:
    """The rows above and, per RPC, the rows of RESULT_CODES_FILE."""

    more: Mapping[str, Mapping[str, StatusCode]] = field(default_factory=dict)
    file: Path | None = field(default=None, compare=False)
    """The file that they were read from."""

    def meaning_of(self, api: str, code: str) -> Meaning:
        """Return the meaning of a verified F with this code."""
        known = {**RESULT_CODES, **self.more.get(api, {})}
        grpc_code = known.get(code, StatusCode.FAILED_PRECONDITION)
        return Meaning(grpc_code, known=code in known, never=code in NEVER_RETRIED)
