"""One constant sentence for each reason, for the person who reads the status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

# fmt: off
SENTENCES: Final[Mapping[int, str]] = {
    reasons.ERROR_REASON_INVALID_REQUEST:
        "The request is not valid; its field violations say why. Nothing was sent.",
    reasons.ERROR_REASON_CALLER_UNAUTHENTICATED:
        "The caller's certificate is in no allow-list. Nothing was sent.",
    reasons.ERROR_REASON_CALLER_NOT_ALLOWED:
        "The caller is not allowed to call this method. Nothing was sent.",
    reasons.ERROR_REASON_DEADLINE_TOO_SHORT:
        "Too little time was left before the deadline. Nothing was sent.",
    reasons.ERROR_REASON_OVERLOADED:
        "Too many calls are in progress in this gateway. Nothing was sent.",
    reasons.ERROR_REASON_CALLER_QUOTA_EXCEEDED:
        "Too many calls of this caller are in progress. Nothing was sent.",
    reasons.ERROR_REASON_SHUTTING_DOWN:
        "This gateway is shutting down. Nothing was sent.",
    reasons.ERROR_REASON_CIRCUIT_OPEN:
        "AlipayHK has been failing, or its clock and this gateway's differ. Nothing was sent.",
    reasons.ERROR_REASON_LEDGER_UNAVAILABLE:
        "This gateway's ledger is unavailable. Nothing was sent.",
    reasons.ERROR_REASON_REQUEST_ID_REUSED:
        "The request id was used before with other content. Nothing was sent.",
    reasons.ERROR_REASON_STALE_BIZ_TIME:
        "A newer biz_time was already applied to this linkage. Nothing was sent.",
    reasons.ERROR_REASON_BIZ_TIME_TIE:
        "The same biz_time was already applied to this linkage with other content. Nothing was sent.",
    reasons.ERROR_REASON_REQUEST_IN_PROGRESS:
        "The same request is in progress and did not finish in time. It may take effect.",
    reasons.ERROR_REASON_LINKAGE_BUSY:
        "Another request for this linkage is in progress and did not finish in time. Nothing was sent.",
    reasons.ERROR_REASON_OUTCOME_IN_DOUBT:
        "An earlier request with this id may or may not have taken effect. Nothing more was sent.",
    reasons.ERROR_REASON_UPSTREAM_UNREACHABLE:
        "No connection to AlipayHK could be made. Nothing was sent.",
    reasons.ERROR_REASON_UPSTREAM_TLS_INVALID:
        "AlipayHK's TLS certificate is not valid. Nothing was sent.",
    reasons.ERROR_REASON_BIZ_TIME_IN_FUTURE:
        "biz_time is too far ahead of this gateway's clock. Nothing was sent.",
    reasons.ERROR_REASON_UPSTREAM_TIMEOUT:
        "The request was sent, and no response arrived in time. It may have taken effect.",
    reasons.ERROR_REASON_CONNECTION_LOST:
        "The request was sent, and the connection was lost. It may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_TRUNCATED:
        "AlipayHK's response was cut short. The request may have taken effect.",
    reasons.ERROR_REASON_UPSTREAM_HTTP_ERROR:
        "AlipayHK's front end returned an HTTP error. The request may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_UNSIGNED:
        "AlipayHK's response has no signature. The request may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_SIGNATURE_INVALID:
        "AlipayHK's signature does not verify. The request may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_REPLAYED:
        "AlipayHK's response belongs to another request or time. The request may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_MALFORMED:
        "AlipayHK's response cannot be decrypted or read. The request may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_NOT_ENCRYPTED:
        "AlipayHK's response is not encrypted. The request may have taken effect.",
    reasons.ERROR_REASON_WALLET_RESULT_UNKNOWN:
        "AlipayHK does not know the outcome. The request may have taken effect.",
    reasons.ERROR_REASON_WALLET_RATE_LIMITED:
        "AlipayHK is being called too often. The request may have taken effect.",
    reasons.ERROR_REASON_WALLET_REJECTED:
        "AlipayHK rejected the request, or a person recorded that. It has no effect.",
    reasons.ERROR_REASON_GATEWAY_REFUSED:
        "AlipayHK rejected this gateway: its configuration must be fixed. The request has no effect.",
    reasons.ERROR_REASON_GATEWAY_BUG:
        "This gateway has a bug; its log has the details under the error id.",
}
# fmt: on

DOUBTFUL_SENTENCES: Final[Mapping[int, str]] = {
    reason: f"{sentence.rpartition('. ')[0]}. An earlier attempt may have taken effect."
    for reason, sentence in SENTENCES.items()
    if sentence.endswith(("Nothing was sent.", "no effect."))
}
"""The sentences for a call with an earlier attempt that may have taken effect."""
