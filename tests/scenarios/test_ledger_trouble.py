"""While the ledger is unavailable nothing is sent, but callers still get results that AlipayHK returned."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import disks
from tests.e2e.caller import Reported, check
from tests.e2e.conftest import Run
from tests.e2e.gateway import running
from tests.e2e.operations import metrics
from tests.e2e.samples import APIS, Api, fresh_request
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet
from tests.ledger.trouble import locked, removed
from tests.scenarios.conftest import PATIENT, QUICK, RunSystem
from tests.scenarios.system import LEDGER_UNAVAILABLE, System, held, ledger_settings

RECOVERS_WITHIN_S = 30.0
DEADLINE = {"DEFAULT_DEADLINE_S": "3"}
"""For calls that end at their deadline: on a busy machine a caller's own one could expire before that."""


@contextmanager
def full(file: Path) -> Iterator[None]:
    """Fill the disk of the file during the block."""
    filler = file.with_name("filler")
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass
    yield
    filler.unlink()


Trouble = Callable[[Path], AbstractContextManager[Any]]
TROUBLES: dict[str, Trouble] = {
    "locked": locked,
    "removed": removed,
}


async def check_refused_and_not_sent(system: System, trouble: Trouble, file: Path, api: Api) -> None:
    """Check that calls are refused and not sent during the trouble, and sent after it."""
    request = fresh_request(api)
    with trouble(file):
        await system.reported(api, request, LEDGER_UNAVAILABLE)
        assert system.sent(request) == 0
    await wait_until_recovered(system, api, request)
    assert system.sent(request) == 1
    await system.ok(api, request, replayed=True)


async def check_result_is_returned(system: System, trouble: Trouble, file: Path, api: Api) -> None:
    """Check that the caller gets AlipayHK's result if the trouble starts while a request is in progress."""
    request = fresh_request(api)
    async with held(system, api, request, timeout_s=None) as first:
        with trouble(file):
            result = await first.release()
            assert not isinstance(result, Reported), result
            assert result.result.status == "S"
            again = await system.call(api, request, timeout_s=None)
            assert isinstance(again, Reported) or again == result  # it may have joined the first call
            unrecorded = "alipayhk_ledger_unrecorded"
            assert (await metrics(system.gateway))[unrecorded] == 1
        await wait_until_recovered(system, api, request)
        await system.ok(api, request, replayed=True)
        assert system.sent(request) == 1
        assert (await metrics(system.gateway))[unrecorded] == 0


async def wait_until_recovered(system: System, api: Api, request: Any) -> Any:
    """Call until the ledger is available again; fail if that takes longer than the limit."""
    async with asyncio.timeout(RECOVERS_WITHIN_S):
        while isinstance(result := await system.served(api, request), Reported):
            check(result, LEDGER_UNAVAILABLE, request)
            await asyncio.sleep(0.1)
    return result


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_calls_are_refused_and_results_kept_during_trouble_with_the_file(
    run_system: RunSystem, tmp_path: Path, trouble: str
) -> None:
    file = tmp_path / "ledger.db"
    async with run_system({"UPSTREAM_TIMEOUT_S": "4", **DEADLINE}) as system:
        await system.ok(APIS[0], fresh_request(APIS[0]))
        for api in APIS:
            await check_refused_and_not_sent(system, TROUBLES[trouble], file, api)
            await check_result_is_returned(system, TROUBLES[trouble], file, api)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on its own file system of 32 MiB."""
    with disks.small(tmp_path / "disk") as directory:
        if directory is None:
            pytest.skip("no disk can be mounted here")
        yield directory


async def log_filled(system: System, file: Path) -> None:
    """Call until the write-ahead log grows; until then a full disk has no effect."""
    log = file.with_name(f"{file.name}-wal")
    await system.ok(APIS[0], fresh_request(APIS[0]))
    size = log.stat().st_size
    while log.stat().st_size == size:
        await system.ok(APIS[0], fresh_request(APIS[0]))


async def test_full_disk_refuses_new_requests_and_keeps_every_outcome(
    run: Run, upstream: Upstream, wallet: Wallet, small_disk: Path
) -> None:
    file = small_disk / "ledger.db"
    settings = {**ledger_settings(file), **QUICK, "UPSTREAM_TIMEOUT_S": "4"}
    request = fresh_request(APIS[1])
    async with run(settings) as gateway:
        system = System(gateway, upstream, wallet)
        await log_filled(system, file)
        for api in APIS:
            await check_refused_and_not_sent(system, full, file, api)
        async with held(system, APIS[1], request) as first:
            with full(file):
                assert (await first.release()).result.status == "S"
                assert (await metrics(system.gateway))["alipayhk_ledger_unrecorded"] == 0
                await system.gateway.kill()
    async with run(settings) as gateway:
        await System(gateway, upstream, wallet).ok(APIS[1], request, replayed=True)


async def test_answer_is_recorded_before_it_is_returned_if_the_lock_is_released_in_time(
    run_system: RunSystem, tmp_path: Path
) -> None:
    api = APIS[1]
    request = fresh_request(api)
    async with run_system({"UPSTREAM_TIMEOUT_S": "4"}) as system, held(system, api, request) as first:
        with locked(tmp_path / "ledger.db"):
            returned = asyncio.create_task(first.release())
            await asyncio.sleep(1.5)
            assert not returned.done()
        assert (await returned).result.status == "S"
        await system.gateway.kill()
    async with run_system() as system:
        await system.ok(api, request, replayed=True)
        assert system.sent(request) == 1


async def test_unrecorded_response_is_in_doubt_after_a_kill(run_system: RunSystem, tmp_path: Path) -> None:
    """The caller knows the outcome, the ledger knows only that the request was sent: it is not resent."""
    api = APIS[1]
    request = fresh_request(api)
    async with run_system(DEADLINE) as system, held(system, api, request, timeout_s=None) as first:
        with locked(tmp_path / "ledger.db"):
            assert (await first.release()).result.status == "S"
            await system.gateway.kill()
    async with run_system() as system:
        reported = await system.call(api, request)
        assert reported.info.reason == "OUTCOME_IN_DOUBT"
        assert system.sent(request) == 1


async def test_shutdown_ends_while_the_disk_hangs(
    settings: dict[str, str], upstream: Upstream, wallet: Wallet, tmp_path: Path
) -> None:
    """One request waits for its claim, and the outcome of another one waits to be recorded."""
    hangs = tmp_path / "hangs"
    given = {
        **settings,
        **ledger_settings(tmp_path / "ledger.db"),
        **PATIENT,
        **DEADLINE,
        "STOP_GRACE_S": "1",
        "DRAIN_DELAY_S": "0",
    }
    program = (sys.executable, "-m", "tests.scenarios.hanging_disk")
    async with running(given, program=program, environ={"HANG_WHILE": str(hangs)}) as gateway:
        system = System(gateway, upstream, wallet)
        await system.ok(APIS[0], fresh_request(APIS[0]))
        async with held(system, APIS[1], fresh_request(APIS[1]), timeout_s=None) as first:
            hangs.touch()
            waits = asyncio.create_task(system.call(APIS[0], fresh_request(APIS[0]), timeout_s=None))
            assert (await first.release()).result.status == "S"
            assert isinstance(await waits, Reported)
            gateway.terminate()
            assert await gateway.ended() == 0
    assert any(record["event"] == "ledger not closed in time" for record in gateway.records)
