"""Read RESULT_CODES_FILE: result codes of AlipayHK that this release does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from grpc import StatusCode

from ..methods import METHODS
from ..outcomes.result_codes import CONFIGURATION_CODES, RATE_LIMITED, ResultCodes
from .toml import read_toml

ALLOWED: Final[Mapping[str, StatusCode]] = {
    code.name: code
    for code in (
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.ALREADY_EXISTS,
        StatusCode.PERMISSION_DENIED,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.OUT_OF_RANGE,
        StatusCode.UNIMPLEMENTED,
    )
}
"""What RESULT_CODES_FILE may choose: codes that no client takes for an invitation to retry."""

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def result_codes_file(text: str) -> ResultCodes:
    """Read `[SyncLinkage]` and `[BindAccount]` tables of `CODE = "GRPC_CODE"` from a TOML file.

    Raises ValueError with every fault.
    """
    tables = read_toml(Path(text))
    if faults := list(_faults(tables)):
        raise ValueError("; ".join(faults))
    return ResultCodes(
        {api: {code: ALLOWED[name] for code, name in rows.items()} for api, rows in tables.items()}
    )


def _faults(tables: Mapping[str, object]) -> Iterator[str]:
    for api, rows in tables.items():
        if api not in METHODS or not isinstance(rows, dict):
            yield f"may hold the tables {' and '.join(METHODS)} only"
            continue
        for code, name in rows.items():
            if not _CODE.fullmatch(code):
                yield f"[{api}] has a name that is no result code"
            elif code in CONFIGURATION_CODES or code == RATE_LIMITED:
                yield f"[{api}] {code} has a meaning of its own that cannot be changed"
            elif not isinstance(name, str) or name not in ALLOWED:
                yield f"[{api}] {code} must be one of {', '.join(ALLOWED)}"
