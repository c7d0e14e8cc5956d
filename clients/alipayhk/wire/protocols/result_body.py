"""Read the result from a verified response body."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ..errors import Malformed
from ..messages import RawResponse, VerifiedResponse
from ..result import FAILURE, Result, id_text_of, text_of


def verified_response(
    raw: RawResponse, body: Mapping[str, object], response_time: datetime | None
) -> VerifiedResponse:
    """Return a response whose signature was verified, with its verified body; raise Malformed."""
    return VerifiedResponse(
        http_status=raw.http_status,
        result=result_of(body),
        body=body,
        response_time=response_time,
        tracer_id=raw.tracer_id,
    )


def result_of(body: Mapping[str, object]) -> Result:
    """Return the result in a verified body, from its member `result` or `resultInfo`.

    The status alone decides about success: a success with an odd or missing code is still a success. If the
    status is F, the code says what the failure means, so F without a code is malformed.

    AlipayHK's page "9. Account Binding" contradicts itself about names. It has `result` and `resultInfo`,
    and `resultMessage` and `resultMsg`: the first that is present and has the right type is used. A
    code may be a JSON integer.
    """
    members = body.get("result")
    if not isinstance(members, dict):
        members = body.get("resultInfo")
    if not isinstance(members, dict):
        raise Malformed("the response has no result")
    status, code = members.get("resultStatus"), id_text_of(members.get("resultCode"))
    if not isinstance(status, str):
        raise Malformed("the result has no status")
    if status == FAILURE and not code:
        raise Malformed("the result has status F and no code")
    return Result(
        status=status,
        code=code,
        code_id=id_text_of(members.get("resultCodeId")),
        message=text_of(members.get("resultMessage")) or text_of(members.get("resultMsg")),
    )
