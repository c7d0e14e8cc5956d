"""AlipayHK's documented result codes, and the form of a result in each API.

Source: AlipayHK's pages of its header-signed APIs, such as applyToken and codeConsult. Account.bind's page
documents no failure codes.
"""

from __future__ import annotations

from typing import Final

from clients.alipayhk.wire.result import FAILURE, Result

UNKNOWN: Final = "U"

SYNC_LINKAGE_SUCCESS: Final = Result(status="S", code="SUCCESS", message="success")
BIND_ACCOUNT_SUCCESS: Final = Result(status="S", code="0000", code_id="0000", message="SUCCESS")


def documented(code: str, message: str = "") -> Result:
    """Return the result with a documented code; without `message` it has the code's own sentence."""
    status, sentence = RESULT_CODES[code]
    return Result(status=status, code=code, code_id=code, message=message or sentence)


def sync_linkage_result(result: Result) -> dict[str, object]:
    """Return a result in the form of BINDING_SYNC."""
    return {
        "resultCode": result.code,
        "resultStatus": result.status,
        "resultMessage": result.message,
    }


def bind_account_result(result: Result) -> dict[str, object]:
    """Return a result in the form of account.bind."""
    return {
        "resultStatus": result.status,
        "resultCode": result.code,
        "resultCodeId": result.code_id,
        "resultMessage": result.message,
    }


RESULT_CODES: Final[dict[str, tuple[str, str]]] = {
    "PARAM_ILLEGAL": (FAILURE, "Illegal parameters"),
    "PROCESS_FAIL": (FAILURE, "Business process failure, do not retry"),
    "INVALID_SIGNATURE": (FAILURE, "The signature is invalid"),
    "INVALID_CLIENT": (FAILURE, "The client is invalid"),
    "KEY_NOT_FOUND": (FAILURE, "The key is not found"),
    "ACCESS_DENIED": (FAILURE, "Access is denied"),
    "INVALID_API": (FAILURE, "The API is invalid or not active"),
    "METHOD_NOT_SUPPORTED": (FAILURE, "The HTTP method is not supported"),
    "MEDIA_TYPE_NOT_ACCEPTABLE": (FAILURE, "The media type is not acceptable"),
    "USER_NOT_EXIST": (FAILURE, "The user does not exist"),
    "USER_STATUS_ABNORMAL": (FAILURE, "The user's status is abnormal"),
    "INVALID_CONTRACT": (FAILURE, "The contract is invalid"),
    "INVALID_CODE": (FAILURE, "The code is invalid"),
    "EXPIRED_CODE": (FAILURE, "The code has expired"),
    "CURRENCY_NOT_SUPPORT": (FAILURE, "The currency is not supported"),
    "AUTH_CODE_EXPIRED": (FAILURE, "The authorization code has expired"),
    "INVALID_AUTHCODE": (FAILURE, "The authorization code is invalid"),
    "OAUTH_FAILED": (FAILURE, "The authorization failed"),
    "REQUEST_TRAFFIC_EXCEED_LIMIT": (UNKNOWN, "The request traffic exceeds the limit"),
    "UNKNOWN_EXCEPTION": (UNKNOWN, "Unknown exception, query or retry"),
    "SYSTEM_ERROR": (UNKNOWN, "System error, query or retry"),
}
