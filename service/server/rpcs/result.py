"""AlipayHK's result in a response; both RPCs carry it."""

from __future__ import annotations

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.wire.result import Result


def result_message(result: Result) -> pb.Result:
    """Write a result, each string as AlipayHK gave it."""
    return pb.Result(status=result.status, code=result.code, code_id=result.code_id, message=result.message)
