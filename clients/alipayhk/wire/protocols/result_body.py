"""Read the result in a verified response body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import Malformed
from ..result import FAILURE, Result, text_of

_RESULT_NAMES: Final = ("result", "resultInfo")


def result_of(body: Mapping[str, object]) -> Result:
    """Read `result` (or `resultInfo`) of a verified body.

    The status decides first. Beside an S, an odd or missing member never undoes the success; beside
    an F the code decides what the failure means, so an F without one is malformed. Where the pages
    know two names of a member, the first that holds what it should counts.
    """
    members = next((value for name in _RESULT_NAMES if isinstance(value := body.get(name), dict)), None)
    if members is None:
        raise Malformed("the answer has no result")
    status, code = members.get("resultStatus"), members.get("resultCode")
    if not isinstance(status, str):
        raise Malformed("the result has no status")
    if status == FAILURE and not text_of(code):
        raise Malformed("the result is F and has no code")
    return Result(
        status=status,
        code=text_of(code),
        code_id=text_of(members.get("resultCodeId")),
        message=text_of(members.get("resultMessage")) or text_of(members.get("resultMsg")),
    )
