"""The levels under test, and the requests that the tests claim."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from service.ledger import Claim, Ending, Granted, Key, Ledger, Row, State
from service.ledger.opening import open_ledger
from service.ledger.vault import Vault

LEASE_MS: Final = 5_000
NOW_MS: Final = 1_000_000
"""The time at which most tests start."""
FUTURE_MS: Final = NOW_MS + 300_000
APPLIED: Final = Ending(State.APPLIED, "S", "SUCCESS", b"sealed reply")
REJECTED: Final = Ending(State.REJECTED, "F", "PROCESS_FAIL", b"sealed refusal")
GATEWAY_REJECTED: Final = Ending(State.GATEWAY_REJECTED, "F", "ACCESS_DENIED")
IN_DOUBT: Final = Ending(State.IN_DOUBT, "U", "UNKNOWN_EXCEPTION")


def sqlite_url(directory: Path) -> str:
    return f"sqlite:///{directory}/ledger.db"


URLS: Final[Mapping[str, Callable[[Path], str]]] = {
    "memory": lambda _: "memory:",
    "sqlite": sqlite_url,
}
"""Every level that records; all of them must give the same answers."""


def opened(url: str, key_file: Path | None = None, **options: Any) -> tuple[Ledger, Vault]:
    return open_ledger(url, key_file, random_bytes=os.urandom, **options)


def a_claim(request_id: str = "id-1", **changes: Any) -> Claim:
    """Return a SyncLinkage of the linkage L, with different content for each id."""
    claim = Claim(
        key=Key("client-1", "SyncLinkage", request_id),
        caller="loyalty",
        fingerprint=b"content of " + request_id.encode(),
        linkage=b"linkage L",
        biz_time_ms=NOW_MS,
        biz_time_max_ms=FUTURE_MS,
        may_repeat=True,
        lease_ms=LEASE_MS,
    )
    return replace(claim, **changes)


def a_bind(request_id: str = "id-1", **changes: Any) -> Claim:
    """Return a BindAccount, which has no order and must not be repeated."""
    bind: dict[str, Any] = {
        "key": Key("client-1", "BindAccount", request_id),
        "linkage": None,
        "biz_time_ms": None,
        "biz_time_max_ms": None,
        "may_repeat": False,
    }
    return a_claim(request_id, **bind | changes)


async def granted(ledger: Ledger, claim: Claim, now_ms: int = NOW_MS) -> int:
    """Claim a request that must be granted; return the token."""
    answer = await ledger.claim(claim, now_ms)
    assert isinstance(answer, Granted), answer
    return answer.token


async def ended(ledger: Ledger, claim: Claim, ending: Ending = APPLIED, now_ms: int = NOW_MS) -> int:
    """Claim a request and record its outcome; return the token."""
    token = await granted(ledger, claim, now_ms)
    assert await ledger.record(claim.key, token, ending, now_ms)
    return token


async def row_of(ledger: Ledger, claim: Claim) -> Row | None:
    rows = [row for row in await ledger.find(claim.key.request_id) if row.key == claim.key]
    assert len(rows) <= 1
    return rows[0] if rows else None


async def the_row(ledger: Ledger, claim: Claim) -> Row:
    row = await row_of(ledger, claim)
    assert row is not None
    return row
