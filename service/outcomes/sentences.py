"""One constant sentence a reason, for the person who reads the status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

# fmt: off
SENTENCES: Final[Mapping[int, str]] = {
    reasons.ERROR_REASON_INVALID_REQUEST:
        "The request is not valid; its field violations say why. Nothing was sent.",
    reasons.ERROR_REASON_CALLER_UNAUTHENTICATED:
        "The caller's certificate stands in no allow-list. Nothing was sent.",
    reasons.ERROR_REASON_CALLER_NOT_ALLOWED:
        "The caller may not call this method. Nothing was sent.",
    reasons.ERROR_REASON_DEADLINE_TOO_SHORT:
        "Too little time was left to try. Nothing was sent.",
    reasons.ERROR_REASON_OVERLOADED:
        "Too many calls are under way in this gateway. Nothing was sent.",
    reasons.ERROR_REASON_CALLER_QUOTA_EXCEEDED:
        "Too many calls of this caller are under way. Nothing was sent.",
    reasons.ERROR_REASON_SHUTTING_DOWN:
        "This gateway is going down. Nothing was sent.",
    reasons.ERROR_REASON_CIRCUIT_OPEN:
        "AlipayHK has been failing, or its clock and ours differ; this gateway waits. Nothing was sent.",
    reasons.ERROR_REASON_LEDGER_UNAVAILABLE:
        "This gateway's ledger cannot be used. Nothing was sent.",
    reasons.ERROR_REASON_REQUEST_ID_REUSED:
        "The request id was used before with other content. Nothing was sent.",
    reasons.ERROR_REASON_STALE_BIZ_TIME:
        "A newer biz_time has been applied to this linkage already. Nothing was sent.",
    reasons.ERROR_REASON_BIZ_TIME_TIE:
        "The same biz_time has been applied to this linkage with other content. Nothing was sent.",
    reasons.ERROR_REASON_REQUEST_IN_PROGRESS:
        "The same request is under way and did not end in time. It may take effect.",
    reasons.ERROR_REASON_LINKAGE_BUSY:
        "Another request for this linkage is under way and did not end in time. Nothing was sent.",
    reasons.ERROR_REASON_OUTCOME_IN_DOUBT:
        "An earlier request of this id may or may not have taken effect. Nothing more was sent.",
    reasons.ERROR_REASON_UPSTREAM_UNREACHABLE:
        "No connection to AlipayHK could be made. Nothing was sent.",
    reasons.ERROR_REASON_UPSTREAM_TLS_INVALID:
        "AlipayHK's TLS certificate is not valid. Nothing was sent.",
    reasons.ERROR_REASON_BIZ_TIME_IN_FUTURE:
        "biz_time is too far ahead of this gateway's clock. Nothing was sent.",
    reasons.ERROR_REASON_UPSTREAM_TIMEOUT:
        "The request was sent, and no answer came in time. It may have taken effect.",
    reasons.ERROR_REASON_CONNECTION_LOST:
        "The request was sent, and the connection was lost. It may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_TRUNCATED:
        "AlipayHK's answer was cut short. The request may have taken effect.",
    reasons.ERROR_REASON_UPSTREAM_HTTP_ERROR:
        "AlipayHK's front end answered with an HTTP error. The request may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_UNSIGNED:
        "AlipayHK's answer carries no signature. The request may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_SIGNATURE_INVALID:
        "AlipayHK's signature does not verify. The request may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_REPLAYED:
        "AlipayHK's answer belongs to another request or another time. The request may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_MALFORMED:
        "AlipayHK's answer cannot be decrypted or read. The request may have taken effect.",
    reasons.ERROR_REASON_RESPONSE_NOT_ENCRYPTED:
        "AlipayHK's answer is not encrypted. The request may have taken effect.",
    reasons.ERROR_REASON_WALLET_RESULT_UNKNOWN:
        "AlipayHK does not know the outcome. The request may have taken effect.",
    reasons.ERROR_REASON_WALLET_RATE_LIMITED:
        "AlipayHK is being called too often. The request may have taken effect.",
    reasons.ERROR_REASON_WALLET_REJECTED:
        "AlipayHK refused the request. It has no effect.",
    reasons.ERROR_REASON_GATEWAY_REFUSED:
        "AlipayHK refused this gateway, whose set-up must be mended. The request has no effect.",
    reasons.ERROR_REASON_GATEWAY_BUG:
        "This gateway has a bug; its log has more under the error id.",
}
# fmt: on

DOUBTFUL_SENTENCES: Final[Mapping[int, str]] = {
    reason: f"{sentence.rpartition('. ')[0]}. An earlier attempt may have taken effect."
    for reason, sentence in SENTENCES.items()
    if sentence.endswith(("Nothing was sent.", "no effect."))
}
"""What is said instead where an earlier attempt is in doubt."""
