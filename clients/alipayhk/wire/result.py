"""AlipayHK's result: S success, F final failure, anything else unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

SUCCESS: Final = "S"
FAILURE: Final = "F"


@dataclass(frozen=True, slots=True)
class Result:
    """AlipayHK's words, verbatim; empty where it gave none."""

    status: str
    code: str = ""
    code_id: str = ""
    message: str = field(default="", repr=False)


def text_of(value: object) -> str:
    """Return `value` if it is text, else nothing: how every optional member of an answer is read."""
    return value if isinstance(value, str) else ""
