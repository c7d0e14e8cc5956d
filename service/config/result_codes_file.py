"""Read RESULT_CODES_FILE: gRPC codes for result codes of AlipayHK that this release does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from grpc import StatusCode

from clients.alipayhk.api import API_NAMES

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
"""The gRPC codes that RESULT_CODES_FILE can choose: those that clients do not retry automatically."""

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def result_codes_file(text: str) -> ResultCodes:
    """Read tables `[API]` of `CODE = "GRPC_CODE"` from a TOML file.

    Raise ValueError with every error.
    """
    tables = read_toml(file := Path(text))
    if faults := list(_faults(tables)):
        raise ValueError("; ".join(faults))
    return ResultCodes(
        {api: {code: ALLOWED[name] for code, name in rows.items()} for api, rows in tables.items()}, file
    )


def _faults(tables: Mapping[str, object]) -> Iterator[str]:
    for api, rows in tables.items():
        if api not in API_NAMES or not isinstance(rows, dict):
            yield f"can contain the tables {' and '.join(API_NAMES)} only"
            continue
        for code, name in rows.items():
            if not _CODE.fullmatch(code):
                yield f"[{api}] has a name that is not a result code"
            elif code in CONFIGURATION_CODES or code == RATE_LIMITED:
                yield f"[{api}] {code} has a fixed meaning and cannot be changed"
            elif not isinstance(name, str) or name not in ALLOWED:
                yield f"[{api}] {code} must be one of {', '.join(ALLOWED)}"
