"""Every scenario, with the asyncio client and with the blocking client."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from alipayhk_linkage import BlockingLinkageClient, LinkageClient, SyncLinkageRequest
from tests.linkage.scenes import SCENARIOS, play
from tests.linkage.where import Where


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
async def test_scenarios_with_asyncio(scenario: dict[str, Any], where: Where) -> None:
    async with LinkageClient(where.target, tls=where.tls) as client:

        async def call(request: Any, timeout_s: float) -> Any:
            method = client.sync_linkage if isinstance(request, SyncLinkageRequest) else client.bind_account
            return await method(request, timeout_s=timeout_s)

        await play(scenario, with_own_ids(where, "async"), call)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
async def test_scenarios_with_threads(scenario: dict[str, Any], where: Where) -> None:
    with BlockingLinkageClient(where.target, tls=where.tls) as client:

        async def call(request: Any, timeout_s: float) -> Any:
            method = client.sync_linkage if isinstance(request, SyncLinkageRequest) else client.bind_account
            return await asyncio.to_thread(method, request, timeout_s=timeout_s)

        await play(scenario, with_own_ids(where, "blocking"), call)


def with_own_ids(where: Where, client: str) -> Where:
    """Return `where` with a separate prefix of request ids for each client."""
    return dataclasses.replace(
        where, environment={**where.environment, "LINKAGE_RUN": f"{where.run}-{client}"}
    )
