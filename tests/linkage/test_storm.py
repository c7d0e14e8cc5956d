"""Eight workers make calls while a harness kills the gateway, and write the results to a file."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from alipayhk_linkage import BindAccountRequest, LinkageClient, LinkageError, SyncLinkageRequest
from tests.linkage.where import Where

WORKERS: Final = 8
DEADLINE_S: Final = 3.0
"""The deadline of a call, unless LINKAGE_DEADLINE_S is set."""
PAUSE_S: Final = 0.05
"""The pause after a call that failed with UNAVAILABLE."""
SHARED_LEDGER: Final = "LINKAGE_SHARED_LEDGER" in os.environ
USERS: Final = ("", "+DELAY_20", "+DELAY_300", *(() if SHARED_LEDGER else ("+USER_NOT_EXIST",)))
"""With a shared ledger no call may fail, so gRPC must retry; rejected calls use up its retry allowance."""

pytestmark = pytest.mark.callers


def request_number(number: int, run: str) -> Any:
    """Return the request with this number. No other call sends it."""
    name = f"{run}-storm-{number}"
    user_id = "2160000000000001" + USERS[number // 2 % len(USERS)]
    if number % 2:
        bind = BindAccountRequest(
            request_id=name,
            merchant_account_id="2160400000002012",
            type="TELECOM",
            sub_type="MOBILE_SERVICE",
            account_id=name,
            user_id=user_id,
        )
        bind.timestamp.GetCurrentTime()
        return bind
    sync = SyncLinkageRequest(
        request_id=name,
        operate_type="OPERATE_TYPE_BIND",
        external_identity_type="EXTERNAL_IDENTITY_TYPE_UID",
        external_identity_value=name,
        user_id=user_id,
        binding_target_type="BINDING_TARGET_TYPE_USER_ID",
    )
    sync.biz_time.GetCurrentTime()
    return sync


async def call(client: LinkageClient, request: Any) -> dict[str, str]:
    """Make one call; return its result."""
    is_sync = isinstance(request, SyncLinkageRequest)
    result = {"method": "SyncLinkage" if is_sync else "BindAccount", "request_id": request.request_id}
    try:
        await (client.sync_linkage(request) if is_sync else client.bind_account(request))
    except LinkageError as error:
        return result | {"code": error.code.name, "reason": error.reason, "outcome": error.outcome}
    return result | {"code": "OK", "reason": "", "outcome": "OK"}


async def storm(where: Where, is_over: Callable[[], bool]) -> list[dict[str, str]]:
    """Make calls until `is_over`; return their results."""
    numbers, results = itertools.count(), []
    options = (("grpc.max_reconnect_backoff_ms", 200),)
    async with LinkageClient(
        where.target,
        tls=where.tls,
        timeout_s=float(os.environ.get("LINKAGE_DEADLINE_S", DEADLINE_S)),
        shared_ledger=SHARED_LEDGER,
        options=options,
    ) as client:

        async def work() -> None:
            while not is_over():
                results.append(await call(client, request_number(next(numbers), where.run)))
                if results[-1]["code"] == "UNAVAILABLE":
                    await asyncio.sleep(PAUSE_S)

        await asyncio.gather(*(work() for _ in range(WORKERS)))
    return results


def test_storm(where: Where) -> None:
    give_up = time.monotonic() + float(os.environ["LINKAGE_STORM_S"])
    stop = Path(os.environ["LINKAGE_RESULTS"] + ".stop")
    results = asyncio.run(storm(where, lambda: time.monotonic() > give_up or stop.exists()))
    lines = "".join(json.dumps(result) + "\n" for result in results)
    Path(os.environ["LINKAGE_RESULTS"]).write_text(lines, "utf-8")
    assert "OK" in {result["outcome"] for result in results}
