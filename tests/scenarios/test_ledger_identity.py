"""`serve` refuses a ledger that is lost, empty or an older copy, so that no BindAccount is sent twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from service.ledger.vault import make_key_file
from tests.e2e import caller
from tests.e2e.caller import Reported
from tests.e2e.conftest import RunAll
from tests.e2e.gateway import PATIENCE_S, Ended, channel_to
from tests.e2e.gateway import run as command
from tests.e2e.samples import BIND, apart
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet
from tests.ledger.older import back_to_version
from tests.ports import free_port
from tests.scenarios.conftest import QUICK, Stage
from tests.scenarios.scene import Scene, kept_in

LISTENS = {"LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": "127.0.0.1:0"}
Settings = Mapping[str, str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the ledger file of `stage`."""
    return tmp_path / "ledger.db"


@pytest.fixture
def config(settings: dict[str, str], file: Path) -> dict[str, str]:
    """Return the settings of `stage` for commands."""
    return {**settings, **kept_in(file), **LISTENS}


async def refusal_of(config: Settings) -> str:
    """Return the error message of `serve`; check that `config check` prints the same."""
    said = []
    for words in (("config", "check"), ("serve",)):
        ended = await command(*words, settings=config)
        assert ended.status == 78, ended
        heading, sentence = ended.err.splitlines()
        assert heading == "alipayhk-gateway: the configuration cannot be used:"
        said.append(sentence)
    assert len(set(said)) == 1, said
    return said[0].removeprefix("  - ")


async def done(config: Settings, *words: str | Path) -> Ended:
    """Run a ledger command; check that it succeeds."""
    ended = await command("ledger", *words, settings=config)
    assert ended.status == 0, ended
    return ended


# -- damages to a ledger that a gateway has used; `live` is a copy of its file from a running gateway


def live_copy(file: Path, live: Path) -> None:
    live.replace(file)


def gone(file: Path, live: Path) -> None:
    file.unlink()


def bytes_of(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def set_aside(file: Path, name: str) -> Path:
    return file.rename(file.with_name(name))


def harmed(file: Path, live: Path, harm: Callable[[Path, Path], None]) -> None:
    """Damage the ledger file after an earlier damage."""
    file.touch()
    harm(file, Path(shutil.copy(live, file.with_name("again.db"))))


HARMS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "copied while in use": (live_copy, "same directory"),
    "missing": (gone, "another directory"),
}
"""The damage, and where the key is."""


@pytest.mark.parametrize("kind", HARMS)
async def test_damaged_ledger_is_refused_and_nothing_is_resent(
    stage: Stage, config: dict[str, str], file: Path, kind: str
) -> None:
    harm, key = HARMS[kind]
    more = {}
    if key == "another directory":
        (file.parent / "keys").mkdir()
        make_key_file(file.parent / "keys" / "key", random_bytes=os.urandom)
        more = {"LEDGER_KEY_FILE": str(file.parent / "keys" / "key")}
    request, live, kept = apart(BIND), file.with_name("live.db"), file.with_name("kept.db")
    async with stage(more) as scene:
        await scene.ok(BIND, apart(BIND))
        await scene.ok(BIND, request)
        shutil.copy(file, live)
    shutil.copy(file, kept)
    harm(file, live)
    before = bytes_of(file)
    sentence = await refusal_of(config | more)
    assert str(file) in sentence
    assert "alipayhk-gateway ledger restore" in sentence
    assert bytes_of(file) == before
    # The repair that the message names.
    await done(config | more, "restore", kept)
    async with stage(more) as scene:
        await scene.ok(BIND, request, replayed=True)
        assert scene.sent(request) == 1


async def test_database_and_key_moved_without_the_log_after_a_kill_are_refused(
    stage: Stage, config: dict[str, str], file: Path
) -> None:
    async with stage() as scene:
        await scene.ok(BIND, apart(BIND))
    request = apart(BIND)
    async with stage() as scene:
        await scene.ok(BIND, request)
        await scene.gateway.kill()
    (elsewhere := file.parent / "elsewhere").mkdir()
    for name in ("ledger.db", "ledger.db.key"):
        shutil.copy(file.with_name(name), elsewhere / name)
    sentence = await refusal_of(config | kept_in(elsewhere / "ledger.db"))
    assert "was not closed cleanly and its write-ahead log" in sentence
    # With its write-ahead log the ledger is complete.
    shutil.copy(file.with_name("ledger.db-wal"), elsewhere / "ledger.db-wal")
    async with stage(kept_in(elsewhere / "ledger.db")) as scene:
        await scene.ok(BIND, request, replayed=True)
        assert scene.sent(request) == 1


async def test_refused_ledger_serves_again_after_restore(
    stage: Stage, config: dict[str, str], file: Path
) -> None:
    known, lost = apart(BIND), apart(BIND)
    async with stage() as scene:
        await scene.ok(BIND, known)
    older = shutil.copy(file, file.with_name("older.db"))
    async with stage() as scene:
        await scene.ok(BIND, lost)
    shutil.move(older, file)
    assert "is an older copy" in await refusal_of(config)
    said = json.loads((await done(config, "restore", "--json")).out)
    assert said["requests"] == 1
    assert said["unknown_from"] < said["unknown_until"]
    async with stage() as scene:
        await scene.ok(BIND, known, replayed=True)
        assert scene.sent(known) == 1


# -- starts


def ledger_ids(key: Path) -> list[str]:
    return list(json.loads(key.with_name(f"{key.name}.ledgers").read_bytes())["ledgers"])


async def test_two_concurrent_first_starts_share_one_ledger(
    settings: dict[str, str], run_all: RunAll, upstream: Upstream, wallet: Wallet, file: Path
) -> None:
    both = {name: {**settings, **kept_in(file), **QUICK} for name in ("one", "two")}
    request = apart(BIND)
    async with run_all(both) as gateways:
        one, two = (Scene(gateway, upstream, wallet) for gateway in gateways.values())
        await one.ok(BIND, request)
        await two.ok(BIND, request, replayed=True)
        assert one.sent(request) == 1
    assert len(ledger_ids(file.with_name("ledger.db.key"))) == 1


async def test_first_start_with_two_workers_creates_one_ledger(stage: Stage, file: Path) -> None:
    def more() -> dict[str, str]:
        return {"WORKERS": "2", "LISTEN": f"127.0.0.1:{free_port()}"}

    requests = [apart(BIND) for _ in range(8)]
    async with stage(more()) as scene, AsyncExitStack() as stack:
        gateway = scene.gateway
        await gateway.logged(lambda _: sum(line["event"] == "serving" for line in gateway.records) == 2)
        for request in requests:
            channel = await stack.enter_async_context(channel_to(gateway.address))
            answer = await caller.call(channel, BIND, request)
            assert not isinstance(answer, Reported), answer
        await gateway.kill()
    async with asyncio.timeout(PATIENCE_S):
        # The workers stop after their supervisor was killed.
        while file.with_name("ledger.db-wal").exists():  # noqa: ASYNC110  (other processes)
            await asyncio.sleep(0.05)
    with closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT run, last_token FROM meta").fetchone() == (None, len(requests))
    marker = json.loads(file.with_name("ledger.db.key.ledgers").read_bytes())
    assert [entry["last_token"] for entry in marker["ledgers"].values()] == [len(requests)]
    async with stage(more()) as scene:
        for request in requests:
            await scene.ok(BIND, request, replayed=True)
            assert scene.sent(request) == 1


async def test_upgrade_needs_no_operator(stage: Stage, config: dict[str, str], file: Path) -> None:
    request = apart(BIND)
    async with stage() as scene:
        await scene.ok(BIND, request)
    back_to_version(2, file)
    assert (await command("config", "check", settings=config)).status == 0
    async with stage() as scene:
        await scene.ok(BIND, request, replayed=True)
        assert scene.sent(request) == 1


# -- a key in a directory that cannot be written


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """Return a key on a read-only file system, as Kubernetes mounts a Secret."""
    (keys := tmp_path / "secret").mkdir()
    make_key_file(keys / "key", random_bytes=os.urandom)
    for words in (("--bind", str(keys)), ("-o", "remount,bind,ro")):
        mounted = subprocess.run(["mount", *words, str(keys)], capture_output=True, check=False)
        if mounted.returncode:
            subprocess.run(["umount", str(keys)], capture_output=True, check=False)
            pytest.skip("nothing can be mounted here")
    yield keys / "key"
    subprocess.run(["umount", str(keys)], check=True)


async def test_ledger_works_with_a_read_only_key(
    stage: Stage, config: dict[str, str], file: Path, secret: Path
) -> None:
    more = {"LEDGER_KEY_FILE": str(secret)}
    sentence = await refusal_of(config | more)
    assert sentence.endswith("before the very first start, make it once with: alipayhk-gateway ledger init")
    assert bytes_of(file) is None
    made = await done(config | more, "init")
    assert "cannot be written (Read-only file system)" in made.out
    assert (await command("ledger", "init", settings=config | more)).status == 1
    request = apart(BIND)
    async with stage(more) as scene:
        await scene.ok(BIND, request)
        live = Path(shutil.copy(file, file.with_name("live.db")))
        (warning,) = [line for line in scene.gateway.records if line["level"] == "warning"]
        assert (warning["event"], warning["cause"]) == ("ledger marker cannot be written", "EROFS")
    kept = set_aside(file, "kept.db")
    for harm in (gone, live_copy):
        harmed(file, live, harm)
        assert "alipayhk-gateway ledger restore" in await refusal_of(config | more)
    await done(config | more, "restore", kept)
    async with stage(more) as scene:
        await scene.ok(BIND, request, replayed=True)
        assert scene.sent(request) == 1
