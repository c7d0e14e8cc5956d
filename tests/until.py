"""Wait until something is true that only another thread or process can make true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(is_true: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Wait until this is true; raise TimeoutError."""
    async with asyncio.timeout(within_s):
        while not is_true():  # noqa: ASYNC110  (nothing sets an event)
            await asyncio.sleep(0.01)
