"""The faults end when the run ends."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.chaos.faults import stop
from tests.chaos.world import Options, World


async def test_a_stop_can_be_cancelled_after_its_process_was_killed(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    world = World(Options(("stop",)), tmp_path)
    gateway: Any = SimpleNamespace(name="a", processes=lambda: [process.pid])
    world.gateways.append(gateway)
    stopping = asyncio.create_task(stop(world, random.Random(0)))
    while not world.history.faults:  # noqa: ASYNC110  (nothing signals the start of a fault)
        await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    stopping.cancel()
    await asyncio.wait({stopping}, timeout=2)
    assert stopping.cancelled()
