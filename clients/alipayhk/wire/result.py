"""AlipayHK's result: status S is success, F is a final failure, and any other status is unknown.

Sources: AlipayHK's pages "Synchronize Account Linkage Status" and "9. Account Binding", received for this
project. They name the statuses S, F and U.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

SUCCESS: Final = "S"
FAILURE: Final = "F"


@dataclass(frozen=True, slots=True)
class Result:
    """The members of a result, verbatim; an absent member is empty."""

    status: str
    code: str = ""
    code_id: str = ""
    message: str = field(default="", repr=False)


def text_of(value: object) -> str:
    """Return `value` if it is a string, otherwise an empty one. Optional members are read this way."""
    return value if isinstance(value, str) else ""


def id_text_of(value: object) -> str:
    """Return a code or an id: a string as it is, a JSON integer as its digits; otherwise an empty string.

    AlipayHK documents strings; a number has the same meaning.
    """
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
