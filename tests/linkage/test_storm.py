"""Eight workers who call while a harness kills the gateway, and write down what they were told."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any, Final

import pytest

from alipayhk_linkage import BindAccountRequest, LinkageClient, LinkageError, SyncLinkageRequest
from tests.linkage.where import Where

WORKERS: Final = 8
DEADLINE_S: Final = 3.0
PAUSE_S: Final = 0.05
"""After a call that nobody was there to take."""
USERS: Final = ("", "+DELAY_20", "+DELAY_300", "+USER_NOT_EXIST")

pytestmark = pytest.mark.callers


def request_number(number: int, run: str) -> Any:
    """Return a request that no other call makes."""
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
    """Call once, and say what was told."""
    syncs = isinstance(request, SyncLinkageRequest)
    reported = {"method": "SyncLinkage" if syncs else "BindAccount", "request_id": request.request_id}
    try:
        await (client.sync_linkage(request) if syncs else client.bind_account(request))
    except LinkageError as error:
        return reported | {"code": error.code.name, "reason": error.reason, "outcome": error.outcome}
    return reported | {"code": "OK", "reason": "", "outcome": "OK"}


async def storm(where: Where, give_up: float) -> list[dict[str, str]]:
    """Call until the time is up; return what was told."""
    numbers, reported = itertools.count(), []
    options = (("grpc.max_reconnect_backoff_ms", 200),)
    async with LinkageClient(where.target, tls=where.tls, timeout_s=DEADLINE_S, options=options) as client:

        async def work() -> None:
            while time.monotonic() < give_up:
                reported.append(await call(client, request_number(next(numbers), where.run)))
                if reported[-1]["code"] == "UNAVAILABLE":
                    await asyncio.sleep(PAUSE_S)

        await asyncio.gather(*(work() for _ in range(WORKERS)))
    return reported


def test_storm(where: Where) -> None:
    reported = asyncio.run(storm(where, time.monotonic() + float(os.environ["LINKAGE_STORM_S"])))
    lines = "".join(json.dumps(one) + "\n" for one in reported)
    Path(os.environ["LINKAGE_TOLD"]).write_text(lines, "utf-8")
    assert "OK" in {one["outcome"] for one in reported}
