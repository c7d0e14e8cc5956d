"""AlipayHK's result and response time in every RPC's response."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.wire.messages import VerifiedResponse

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S: Final = 86_400


def set_result(
    response: pb.SyncLinkageResponse | pb.BindAccountResponse, verified: VerifiedResponse
) -> None:
    """Set the result, with AlipayHK's strings unchanged, and the time of the response if it has one."""
    result, given = response.result, verified.result
    result.status, result.code = given.status, given.code
    result.code_id, result.message = given.code_id, given.message
    if verified.response_time is not None:
        time, since = response.response_time, verified.response_time - _EPOCH
        time.seconds, time.nanos = since.days * _DAY_S + since.seconds, since.microseconds * 1000
