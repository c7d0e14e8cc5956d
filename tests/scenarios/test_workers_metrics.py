"""The metrics of several workers: each is shown once, and counts outlive their workers."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from service.version import commit, gateway_version
from tests.e2e.gateway import Gateway
from tests.e2e.operations import Samples, metrics
from tests.e2e.samples import BIND, SYNC, fresh_request
from tests.ports import free_port
from tests.scenarios.conftest import RunSystem
from tests.scenarios.system import System
from tests.scenarios.test_workers import workers_of

OK: Final = 'alipayhk_outcomes_total{api="SyncLinkage",outcome="",reason="OK"}'
BUILD_INFO: Final = (
    f'alipayhk_build_info{{commit="{commit()}",grpcio="{version("grpcio")}",'
    f'python="{platform.python_version()}",version="{gateway_version()}"}}'
)
WAIT_S: Final = 60.0


async def until(gateway: Gateway, **expected: float) -> Samples:
    """Wait until metrics have these values; return all of them."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with suppress(OSError, IndexError):  # a killed worker has the connection
                samples = await metrics(gateway)
                if all(samples.get(f"alipayhk_{name}") == value for name, value in expected.items()):
                    return samples
            await asyncio.sleep(0.2)


async def test_counts_outlive_their_workers_and_states_do_not(run_system: RunSystem) -> None:
    more = {
        "WORKERS": "2",
        "LISTEN": f"127.0.0.1:{free_port()}",
        "BIND_ACCOUNT_BASE_URL": f"http://127.0.0.1:{free_port()}",
    }
    async with run_system(more) as system:
        await system.gateway.wait_for_workers(2)
        samples = await until(system.gateway, workers=2)
        assert [name for name in samples if "build_info" in name] == [BUILD_INFO]
        assert samples['alipayhk_ledger_in_doubt{api="BindAccount"}'] == 0
        assert samples["alipayhk_ledger_in_doubt_oldest_seconds"] == 0
        for _ in range(3):
            await system.ok(SYNC, fresh_request(SYNC))
        opened = {f'breaker_open{{api="{api.name}"}}': float(api is BIND) for api in (BIND, SYNC)}
        calls = asyncio.create_task(keep_calling(system))
        counted = (await until(system.gateway, **opened))[OK]
        calls.cancel()
        directory = metrics_directory(system.gateway)
        killed, _ = workers_of(system.gateway)
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(WAIT_S):
            while (directory / f"counter_{killed}.db").exists():  # noqa: ASYNC110  (nothing reports it)
                await asyncio.sleep(0.1)
        assert (await until(system.gateway, workers=2))[OK] == counted >= 3
        assert len(list(directory.glob("counter_*.db"))) == 3


async def keep_calling(system: System) -> None:
    """Make calls that cannot reach AlipayHK."""
    while True:
        await asyncio.gather(*(system.call(BIND, fresh_request(BIND)) for _ in range(5)))


def metrics_directory(gateway: Gateway) -> Path:
    """Return the directory that the workers share."""
    (worker, *_) = workers_of(gateway)
    words = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    prefix = b"PROMETHEUS_MULTIPROC_DIR="
    return Path(next(word.removeprefix(prefix) for word in words if word.startswith(prefix)).decode())
