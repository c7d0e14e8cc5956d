"""Every scenario, by the asyncio client and by the blocking one."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from alipayhk_linkage import BlockingLinkageClient, LinkageClient, SyncLinkageRequest
from tests.linkage.scenes import SCENARIOS, play
from tests.linkage.where import Where


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
async def test_asyncio(scenario: dict[str, Any], where: Where) -> None:
    async with LinkageClient(where.target, tls=where.tls) as client:

        async def call(request: Any, timeout_s: float) -> Any:
            method = client.sync_linkage if isinstance(request, SyncLinkageRequest) else client.bind_account
            return await method(request, timeout_s=timeout_s)

        await play(scenario, anew(where, "async"), call)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
async def test_blocking(scenario: dict[str, Any], where: Where) -> None:
    with BlockingLinkageClient(where.target, tls=where.tls) as client:

        async def call(request: Any, timeout_s: float) -> Any:
            method = client.sync_linkage if isinstance(request, SyncLinkageRequest) else client.bind_account
            return await asyncio.to_thread(method, request, timeout_s=timeout_s)

        await play(scenario, anew(where, "blocking"), call)


def anew(where: Where, face: str) -> Where:
    """Give each face request ids of its own."""
    return dataclasses.replace(
        where, environment={**where.environment, "LINKAGE_RUN": f"{where.run}-{face}"}
    )
