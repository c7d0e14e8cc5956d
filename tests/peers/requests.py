"""The requests of the tools, in JSON with the API's field names, and the statuses that the tools print."""

from __future__ import annotations

import json
import re
from itertools import count
from typing import Any, Final

_NUMBERS: Final = count(1)
NOT_FOUND: Final = 64 + 5
INVALID_ARGUMENT: Final = 64 + 3
UNAVAILABLE: Final = 64 + 14
UNAUTHENTICATED: Final = 64 + 16
"""Exit statuses of grpcurl: 64 plus the gRPC code."""


def sync_linkage(**more: str) -> dict[str, str]:
    """Return a SyncLinkage request that AlipayHK applies."""
    number = next(_NUMBERS)
    return {
        "request_id": f"peers-{number}",
        "biz_time": "2026-03-01T08:00:00Z",
        "operate_type": "OPERATE_TYPE_BIND",
        "external_identity_type": "EXTERNAL_IDENTITY_TYPE_UID",
        "external_identity_value": f"member-{number:04}",
        "user_id": "2160000000000001",
        "binding_target_type": "BINDING_TARGET_TYPE_USER_ID",
        **more,
    }


def bind_account(**more: str) -> dict[str, str]:
    """Return a BindAccount request that AlipayHK applies."""
    return {
        "request_id": f"peers-{next(_NUMBERS)}",
        "merchant_account_id": "2160400000002012",
        "type": "TELECOM",
        "sub_type": "MOBILE_SERVICE",
        "account_id": "88781108",
        "user_id": "2160000000000001",
        "timestamp": "2026-03-01T08:00:00Z",
        **more,
    }


def details(printed: str) -> dict[str, dict[str, Any]]:
    """Return the details that grpcurl prints below an error, by message name."""
    _, found, rest = printed.partition("Details:\n")
    assert found, printed
    read = [json.loads(text) for text in re.split(r"^ +\d+\)\t", rest, flags=re.MULTILINE)[1:]]
    return {str(detail.pop("@type")).rpartition(".")[2]: detail for detail in read}
