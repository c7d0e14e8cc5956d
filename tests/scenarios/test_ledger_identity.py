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
from tests.e2e.gateway import WAIT_MAX_S, Completed, channel_to
from tests.e2e.gateway import run as command
from tests.e2e.samples import BIND, fresh_request
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet
from tests.ledger.older import back_to_version
from tests.ports import free_port
from tests.scenarios.conftest import QUICK, RunSystem
from tests.scenarios.system import System, ledger_settings

LISTENS = {"LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": "127.0.0.1:0"}
Settings = Mapping[str, str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the ledger file of `run_system`."""
    return tmp_path / "ledger.db"


@pytest.fixture
def config(settings: dict[str, str], file: Path) -> dict[str, str]:
    """Return the settings of `run_system` for commands."""
    return {**settings, **ledger_settings(file), **LISTENS}


async def refusal_of(config: Settings) -> str:
    """Return the error message of `serve`; check that `config check` prints the same."""
    printed = []
    for words in (("config", "check"), ("serve",)):
        ended = await command(*words, settings=config)
        assert ended.status == 78, ended
        heading, sentence = ended.err.splitlines()
        assert heading == "alipayhk-gateway: the configuration cannot be used:"
        printed.append(sentence)
    assert len(set(printed)) == 1, printed
    return printed[0].removeprefix("  - ")


async def ledger_command(config: Settings, *words: str | Path) -> Completed:
    """Run a ledger command; check that it succeeds."""
    ended = await command("ledger", *words, settings=config)
    assert ended.status == 0, ended
    return ended


# -- damages to a ledger that a gateway has used; `live` is a copy of its file from a running gateway


def live_copy(file: Path, live: Path) -> None:
    live.replace(file)


def deleted(file: Path, live: Path) -> None:
    file.unlink()


def bytes_of(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def set_aside(file: Path, name: str) -> Path:
    return file.rename(file.with_name(name))


def damage_again(file: Path, live: Path, damage: Callable[[Path, Path], None]) -> None:
    """Damage the ledger file after an earlier damage."""
    file.touch()
    damage(file, Path(shutil.copy(live, file.with_name("again.db"))))


DAMAGES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "copied while in use": (live_copy, "same directory"),
    "missing": (deleted, "another directory"),
}
"""The damage, and where the key is."""


@pytest.mark.parametrize("kind", DAMAGES)
async def test_damaged_ledger_is_refused_and_nothing_is_resent(
    run_system: RunSystem, config: dict[str, str], file: Path, kind: str
) -> None:
    damage, key = DAMAGES[kind]
    more = {}
    if key == "another directory":
        (file.parent / "keys").mkdir()
        make_key_file(file.parent / "keys" / "key", random_bytes=os.urandom)
        more = {"LEDGER_KEY_FILE": str(file.parent / "keys" / "key")}
    request, live, kept = fresh_request(BIND), file.with_name("live.db"), file.with_name("kept.db")
    async with run_system(more) as system:
        await system.ok(BIND, fresh_request(BIND))
        await system.ok(BIND, request)
        shutil.copy(file, live)
    shutil.copy(file, kept)
    damage(file, live)
    before = bytes_of(file)
    sentence = await refusal_of(config | more)
    assert str(file) in sentence
    assert "alipayhk-gateway ledger restore" in sentence
    assert bytes_of(file) == before
    # The repair that the message names.
    await ledger_command(config | more, "restore", kept)
    async with run_system(more) as system:
        await system.ok(BIND, request, replayed=True)
        assert system.sent(request) == 1


async def test_database_and_key_moved_without_the_log_after_a_kill_are_refused(
    run_system: RunSystem, config: dict[str, str], file: Path
) -> None:
    async with run_system() as system:
        await system.ok(BIND, fresh_request(BIND))
    request = fresh_request(BIND)
    async with run_system() as system:
        await system.ok(BIND, request)
        await system.gateway.kill()
    (elsewhere := file.parent / "elsewhere").mkdir()
    for name in ("ledger.db", "ledger.db.key"):
        shutil.copy(file.with_name(name), elsewhere / name)
    sentence = await refusal_of(config | ledger_settings(elsewhere / "ledger.db"))
    assert "was not closed cleanly and its write-ahead log" in sentence
    # With its write-ahead log the ledger is complete.
    shutil.copy(file.with_name("ledger.db-wal"), elsewhere / "ledger.db-wal")
    async with run_system(ledger_settings(elsewhere / "ledger.db")) as system:
        await system.ok(BIND, request, replayed=True)
        assert system.sent(request) == 1


async def test_refused_ledger_serves_again_after_restore(
    run_system: RunSystem, config: dict[str, str], file: Path
) -> None:
    known, lost = fresh_request(BIND), fresh_request(BIND)
    async with run_system() as system:
        await system.ok(BIND, known)
    older = shutil.copy(file, file.with_name("older.db"))
    async with run_system() as system:
        await system.ok(BIND, lost)
    shutil.move(older, file)
    assert "is an older copy" in await refusal_of(config)
    printed = json.loads((await ledger_command(config, "restore", "--json")).out)
    assert printed["requests"] == 1
    assert printed["unknown_from"] < printed["unknown_until"]
    async with run_system() as system:
        await system.ok(BIND, known, replayed=True)
        assert system.sent(known) == 1


# -- starts


def ledger_ids(key: Path) -> list[str]:
    return list(json.loads(key.with_name(f"{key.name}.ledgers").read_bytes())["ledgers"])


async def test_two_concurrent_first_starts_share_one_ledger(
    settings: dict[str, str], run_all: RunAll, upstream: Upstream, wallet: Wallet, file: Path
) -> None:
    both = {name: {**settings, **ledger_settings(file), **QUICK} for name in ("one", "two")}
    request = fresh_request(BIND)
    async with run_all(both) as gateways:
        one, two = (System(gateway, upstream, wallet) for gateway in gateways.values())
        await one.ok(BIND, request)
        await two.ok(BIND, request, replayed=True)
        assert one.sent(request) == 1
    assert len(ledger_ids(file.with_name("ledger.db.key"))) == 1


async def test_first_start_with_two_workers_creates_one_ledger(run_system: RunSystem, file: Path) -> None:
    def more() -> dict[str, str]:
        return {"WORKERS": "2", "LISTEN": f"127.0.0.1:{free_port()}"}

    requests = [fresh_request(BIND) for _ in range(8)]
    async with run_system(more()) as system, AsyncExitStack() as stack:
        gateway = system.gateway
        await gateway.wait_for_workers(2)
        for request in requests:
            channel = await stack.enter_async_context(channel_to(gateway.address))
            result = await caller.call(channel, BIND, request)
            assert not isinstance(result, Reported), result
        await gateway.kill()
    async with asyncio.timeout(WAIT_MAX_S):
        # The workers stop after their supervisor was killed.
        while file.with_name("ledger.db-wal").exists():  # noqa: ASYNC110  (other processes)
            await asyncio.sleep(0.05)
    with closing(sqlite3.connect(f"file:{file}?immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT run, last_token FROM meta").fetchone() == (None, len(requests))
    marker = json.loads(file.with_name("ledger.db.key.ledgers").read_bytes())
    assert [entry["last_token"] for entry in marker["ledgers"].values()] == [len(requests)]
    async with run_system(more()) as system:
        for request in requests:
            await system.ok(BIND, request, replayed=True)
            assert system.sent(request) == 1


async def test_upgrade_needs_no_operator(run_system: RunSystem, config: dict[str, str], file: Path) -> None:
    request = fresh_request(BIND)
    async with run_system() as system:
        await system.ok(BIND, request)
    back_to_version(2, file)
    assert (await command("config", "check", settings=config)).status == 0
    async with run_system() as system:
        await system.ok(BIND, request, replayed=True)
        assert system.sent(request) == 1


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
    run_system: RunSystem, config: dict[str, str], file: Path, secret: Path
) -> None:
    more = {"LEDGER_KEY_FILE": str(secret)}
    sentence = await refusal_of(config | more)
    assert sentence.endswith(
        "before the very first start, create it once with: alipayhk-gateway ledger init"
    )
    assert bytes_of(file) is None
    made = await ledger_command(config | more, "init")
    assert "cannot be written (Read-only file system)" in made.out
    assert (await command("ledger", "init", settings=config | more)).status == 1
    request = fresh_request(BIND)
    async with run_system(more) as system:
        await system.ok(BIND, request)
        live = Path(shutil.copy(file, file.with_name("live.db")))
        (warning,) = [line for line in system.gateway.records if line["level"] == "warning"]
        assert (warning["event"], warning["cause"]) == ("ledger marker not writable", "EROFS")
    kept = set_aside(file, "kept.db")
    for damage in (deleted, live_copy):
        damage_again(file, live, damage)
        assert "alipayhk-gateway ledger restore" in await refusal_of(config | more)
    await ledger_command(config | more, "restore", kept)
    async with run_system(more) as system:
        await system.ok(BIND, request, replayed=True)
        assert system.sent(request) == 1
