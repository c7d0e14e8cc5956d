"""The ledger cannot be used: nothing is sent without it, and what AlipayHK said is told all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.caller import Reported, check
from tests.e2e.conftest import Run
from tests.e2e.gateway import run as command
from tests.e2e.gateway import running
from tests.e2e.operations import metrics
from tests.e2e.samples import APIS, Api, apart
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet
from tests.ledger.trouble import locked, removed
from tests.scenarios.conftest import QUICK, Stage
from tests.scenarios.scene import LEDGER_UNAVAILABLE, Scene, held, kept_in

HEALS_WITHIN_S = 6.0


@contextmanager
def full(file: Path) -> Iterator[None]:
    """Fill its disk."""
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


async def refuses_before_sending(scene: Scene, trouble: Trouble, file: Path, api: Api) -> None:
    """Call while the trouble lasts, and after it."""
    request = apart(api)
    with trouble(file):
        await scene.reported(api, request, LEDGER_UNAVAILABLE)
        assert scene.sent(request) == 0
    await heals(scene, api, request)
    assert scene.sent(request) == 1
    await scene.ok(api, request, replayed=True)


async def tells_what_was_said(scene: Scene, trouble: Trouble, file: Path, api: Api) -> None:
    """Let the trouble begin while AlipayHK has the request."""
    request = apart(api)
    async with held(scene, api, request, timeout_s=3.0) as first:
        with trouble(file):
            answer = await first.let_go()
            assert not isinstance(answer, Reported), answer
            assert answer.result.status == "S"
            again = await scene.call(api, request, timeout_s=3.0)
            assert isinstance(again, Reported) or again == answer  # it may have joined the first call
            unrecorded = "alipayhk_ledger_unrecorded"
            assert (await metrics(scene.gateway))[unrecorded] == 1
        await heals(scene, api, request)
        await scene.ok(api, request, replayed=True)
        assert scene.sent(request) == 1
        assert (await metrics(scene.gateway))[unrecorded] == 0


async def heals(scene: Scene, api: Api, request: Any) -> Any:
    """Call until the ledger can be used again, which it must soon."""
    async with asyncio.timeout(HEALS_WITHIN_S):
        while isinstance(answer := await scene.call(api, request), Reported):
            check(answer, LEDGER_UNAVAILABLE, request)
            await asyncio.sleep(0.1)
    return answer


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_trouble_with_the_file(stage: Stage, tmp_path: Path, trouble: str) -> None:
    file = tmp_path / "ledger.db"
    async with stage({"UPSTREAM_TIMEOUT_S": "4"}) as scene:
        await scene.ok(APIS[0], apart(APIS[0]))
        for api in APIS:
            await refuses_before_sending(scene, TROUBLES[trouble], file, api)
            await tells_what_was_said(scene, TROUBLES[trouble], file, api)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a disk of its own that holds 32 megabytes."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", directory], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    yield directory
    subprocess.run(["umount", directory], check=True)


async def log_filled(scene: Scene, file: Path) -> None:
    """Call until the write-ahead log grows: before that it needs no more of the disk."""
    log = file.with_name(f"{file.name}-wal")
    await scene.ok(APIS[0], apart(APIS[0]))
    size = log.stat().st_size
    while log.stat().st_size == size:
        await scene.ok(APIS[0], apart(APIS[0]))


async def test_full_disk_refuses_new_requests_and_keeps_every_outcome(
    run: Run, upstream: Upstream, wallet: Wallet, small_disk: Path
) -> None:
    file = small_disk / "ledger.db"
    settings = {**kept_in(file), **QUICK, "UPSTREAM_TIMEOUT_S": "4"}
    request = apart(APIS[1])
    async with run(settings) as gateway:
        scene = Scene(gateway, upstream, wallet)
        await log_filled(scene, file)
        for api in APIS:
            await refuses_before_sending(scene, full, file, api)
        async with held(scene, APIS[1], request) as first:
            with full(file):
                assert (await first.let_go()).result.status == "S"
                assert (await metrics(scene.gateway))["alipayhk_ledger_unrecorded"] == 0
                await scene.gateway.kill()
    async with run(settings) as gateway:
        await Scene(gateway, upstream, wallet).ok(APIS[1], request, replayed=True)


async def test_answer_is_recorded_before_it_is_returned_if_the_lock_is_released_in_time(
    stage: Stage, tmp_path: Path
) -> None:
    api = APIS[1]
    request = apart(api)
    async with stage({"UPSTREAM_TIMEOUT_S": "4"}) as scene, held(scene, api, request) as first:
        with locked(tmp_path / "ledger.db"):
            returned = asyncio.create_task(first.let_go())
            await asyncio.sleep(1.5)
            assert not returned.done()
        assert (await returned).result.status == "S"
        await scene.gateway.kill()
    async with stage() as scene:
        await scene.ok(api, request, replayed=True)
        assert scene.sent(request) == 1


async def test_answer_that_could_not_be_recorded_to_the_end_is_in_doubt(
    stage: Stage, tmp_path: Path
) -> None:
    """Its caller knows; the ledger holds a request that was sent, and never sends it blindly."""
    api = APIS[1]
    request = apart(api)
    async with stage() as scene, held(scene, api, request, timeout_s=3.0) as first:
        with locked(tmp_path / "ledger.db"):
            assert (await first.let_go()).result.status == "S"
            await scene.gateway.kill()
    async with stage() as scene:
        reported = await scene.call(api, request)
        assert reported.info.reason == "OUTCOME_IN_DOUBT"
        assert scene.sent(request) == 1


def garbage(file: Path) -> None:
    """Write what is no database."""
    file.write_bytes(b"garbage" * 999)


BROKEN: dict[str, Callable[[Path], None]] = {
    "garbage": garbage,
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_ledger_that_cannot_be_opened_is_refused_at_the_start(
    settings: dict[str, str], tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "ledger.db"
    BROKEN[kind](file)
    listens = {"LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": "127.0.0.1:0"}
    ended = await command("serve", settings={**settings, **kept_in(file), **listens})
    assert ended.status == 78, ended.err
    assert "Traceback" not in ended.err
    heading, sentence = ended.err.splitlines()
    assert heading == "alipayhk-gateway: the configuration cannot be used:"
    assert str(file) in sentence or "the ledger" in sentence


async def test_shutdown_ends_while_the_disk_hangs(
    settings: dict[str, str], upstream: Upstream, wallet: Wallet, tmp_path: Path
) -> None:
    """One request waits for its claim, and the outcome of another one waits to be recorded."""
    hangs = tmp_path / "hangs"
    given = {
        **settings,
        **kept_in(tmp_path / "ledger.db"),
        **QUICK,
        "STOP_GRACE_S": "1",
        "DRAIN_DELAY_S": "0",
    }
    program = (sys.executable, "-m", "tests.scenarios.hanging_disk")
    async with running(given, program=program, environ={"HANG_WHILE": str(hangs)}) as gateway:
        scene = Scene(gateway, upstream, wallet)
        await scene.ok(APIS[0], apart(APIS[0]))
        async with held(scene, APIS[1], apart(APIS[1]), timeout_s=3.0) as first:
            hangs.touch()
            waits = asyncio.create_task(scene.call(APIS[0], apart(APIS[0]), timeout_s=3.0))
            assert (await first.let_go()).result.status == "S"
            assert isinstance(await waits, Reported)
            gateway.terminate()
            assert await gateway.ended() == 0
    assert any(record["event"] == "ledger not closed in time" for record in gateway.records)
