"""AlipayHK's result in every RPC's response."""

from __future__ import annotations

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.wire.result import Result


def result_message(result: Result) -> pb.Result:
    """Convert a result, with AlipayHK's strings unchanged."""
    return pb.Result(status=result.status, code=result.code, code_id=result.code_id, message=result.message)
