"""Gateways with a sandbox for the client's tests (unless a harness provides them), and a fake gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest
import pytest_asyncio

from tests.linkage.fake_gateway import Gateway, a_gateway
from tests.linkage.where import KINDS, Where, a_sandbox, given, serving


@pytest.fixture(scope="session", params=["given"] if given() else KINDS)
def where(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Where]:
    """Return the addresses of a gateway and its sandbox."""
    if found := given():
        yield found
        return
    directory = tmp_path_factory.mktemp("linkage")
    kind = cast("str", request.param)
    with a_sandbox(directory) as (material, console), serving(kind, material, console) as (found, _):
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def gateway() -> AsyncIterator[tuple[Gateway, str]]:
    """Run a `Gateway`; return it with its address."""
    async with a_gateway() as found:
        yield found
