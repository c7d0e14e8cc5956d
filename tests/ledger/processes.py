"""Other processes on the same ledger: `python -m tests.ledger.processes COMMAND DIRECTORY [WORD ...]`."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from service.ledger import Granted, Ledger, LedgerFault, LedgerUnavailable
from service.ledger.opening import fault_of
from service.ledger.sqlite.ledger import SqliteLedger
from tests.ledger.levels import APPLIED, NOW_MS, a_claim, ended, opened, sqlite_url

ROOT: Final = Path(__file__).resolve().parents[2]
NOBODY: Final = 65_534
PAGE_BYTES: Final = 4096


def started(command: str, directory: Path, *words: str) -> subprocess.Popen[str]:
    """Start a process that runs one of the commands below."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.processes", command, str(directory), *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def output_of(*processes: subprocess.Popen[str]) -> list[list[str]]:
    """Let waiting processes start together; return the output lines of each when all have exited."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


def emit(what: object) -> None:
    """Print a line and flush it."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def apply_forever(directory: Path, words: Sequence[str]) -> None:
    """Apply requests one after the other, and print each id; `words`: the key file, if any."""
    ledger = opened(sqlite_url(directory), *map(Path, words))[0]
    number = 0
    while True:
        claim = a_claim(f"id-{number}", linkage=b"%d" % number)
        await ended(ledger, claim)
        emit(claim.key.request_id)
        number += 1


async def claim_all(directory: Path, words: Sequence[str]) -> None:
    """Claim many ids concurrently, and print those that were granted."""
    ledger, _ = opened(sqlite_url(directory))
    claims = [a_claim(f"id-{number}", linkage=b"%d" % number) for number in range(int(words[0]))]
    await asyncio.to_thread(sys.stdin.readline)
    answers = await asyncio.gather(*(ledger.claim(claim, NOW_MS) for claim in claims))
    for claim, answer in zip(claims, answers, strict=True):
        if isinstance(answer, Granted):
            emit(f"{claim.key.request_id} {answer.token}")
    await ledger.close()


async def open_together(directory: Path, words: Sequence[str]) -> None:
    """Open the ledger together with the others, and print its key id; `words`: the key file, if any."""
    await asyncio.to_thread(sys.stdin.readline)
    ledger, vault = opened(sqlite_url(directory), *map(Path, words))
    emit(vault.key_id)
    await ledger.close()


async def open_as_nobody(directory: Path, _: Sequence[str]) -> None:
    """Open the ledger as a user without files; print the faults that `serve` and `config check` report."""
    if os.getuid() == 0:
        os.setuid(NOBODY)
    checked = fault_of(sqlite_url(directory), None)
    try:
        opened(sqlite_url(directory))
    except LedgerFault as fault:
        emit(fault)
        emit(checked)


async def refuse_as_nobody(key_file: Path, words: Sequence[str]) -> None:
    """Open a ledger on a server as a user without files; print what `serve` and `config check` report."""
    import_module("service.ledger.postgres.opening")  # that user may not be able to read the modules
    os.environ["HOME"] = "/"
    if os.getuid() == 0:
        os.setuid(NOBODY)
    try:
        opened(words[0], key_file)
    except LedgerFault as fault:
        emit(fault)
    emit(fault_of(words[0], key_file))


async def fill_the_disk(directory: Path, _: Sequence[str]) -> None:
    """Write until the file size limit, raise the limit, and write again; print the error and an answer."""
    ledger = opened(sqlite_url(directory))[0]

    def room(bytes_: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, resource.RLIM_INFINITY))

    room(40_000 + max(file.stat().st_size for file in os.scandir(directory)))
    await fill_and_recover(ledger, lambda: room(resource.RLIM_INFINITY))


async def fill_and_recover(ledger: Ledger, make_room: Callable[[], None]) -> None:
    """Apply requests until the ledger is full; after `make_room`, every answered request must be there."""
    applied = []
    try:
        for number in range(2_000):
            claim = a_claim(f"id-{number}", linkage=b"%d" % number)
            await ended(ledger, claim)
            applied.append(claim)
    except LedgerUnavailable as error:
        emit(error)
    assert 0 < len(applied) < 2_000
    looked = await ledger.look(applied[0], NOW_MS)
    make_room()
    await ended(ledger, a_claim("after", linkage=None))
    states = {row.key.request_id: row.state async for row in ledger.rows()}
    assert {states[claim.key.request_id] for claim in applied} == {APPLIED.state}
    assert states["after"] is APPLIED.state
    emit(type(looked).__name__)
    await ledger.close()


async def begin_a_checkpoint(directory: Path, _: Sequence[str]) -> None:
    """Apply requests, and be killed when a checkpoint has written only the first page of the main file.

    The limit acts as a full disk does: what the file has already can be written again.
    """
    ledger = cast("SqliteLedger", opened(sqlite_url(directory))[0])
    for number in range(100):
        await ended(ledger, a_claim(f"id-{number}", linkage=b"%d" % number))
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE_BYTES, PAGE_BYTES))
    with suppress(sqlite3.Error):
        ledger._writer._tables.connection.execute("PRAGMA wal_checkpoint").fetchone()
    os.kill(os.getpid(), signal.SIGKILL)


COMMANDS: Final[dict[str, Callable[[Path, Sequence[str]], Awaitable[None]]]] = {
    command.__name__: command
    for command in (
        apply_forever,
        claim_all,
        open_together,
        open_as_nobody,
        refuse_as_nobody,
        fill_the_disk,
        begin_a_checkpoint,
    )
}


async def main() -> None:
    _, command, directory, *words = sys.argv
    await COMMANDS[command](Path(directory), words)


if __name__ == "__main__":
    asyncio.run(main())
