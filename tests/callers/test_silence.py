"""The clients detect a silently dropped connection with pings, and reconnect."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.callers.languages import LANGUAGES, Language, do, variables_of
from tests.linkage.where import Where, a_sandbox, serving
from tests.peers.processes import ROOT, WAIT_MAX_S

STORM_S: Final = 75
"""Longer than the ping interval of 20 s and the ping timeout of 5 s, with a margin for a busy machine."""
TOOLS: Final = [str(ROOT / ".tools" / f"{name}-venv" / "bin") for name in ("node", "go")]
PATH: Final = {"PATH": os.pathsep.join([*TOOLS, os.environ["PATH"]])}

pytestmark = pytest.mark.full


class Relay:
    """A relay in front of a gateway. It can drop all further bytes of its open connections."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._silences = 0
        self.taken: list[int] = []
        """For each connection, the number of silences before it."""
        self.used = asyncio.Event()

    def fall_silent(self) -> None:
        """Keep the open connections open, and relay nothing more on them."""
        self._silences += 1

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken.append(self._silences)
        self.used.set()
        to_reader, to_writer = await asyncio.open_connection(self._host, self._port)
        since = self._silences
        there = asyncio.create_task(self._pipe(reader, to_writer, since))
        back = asyncio.create_task(self._pipe(to_reader, writer, since))
        # If the gateway closes a silent connection, the client must not notice that either.
        back.add_done_callback(lambda _: writer.close() if self._silences == since else None)
        await there
        to_writer.close()
        await back
        writer.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, since: int) -> None:
        with suppress(ConnectionError):
            while some := await reader.read(65_536):
                if since == self._silences:
                    writer.write(some)


@asynccontextmanager
async def relaying(target: str) -> AsyncIterator[tuple[Relay, str]]:
    """Run a relay in front of a gateway until the end of the block."""
    relay = Relay(target)
    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield relay, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("language", LANGUAGES, ids=str)
async def test_clients_recover_from_a_silently_dropped_connection(
    language: Language, tmp_path: Path
) -> None:
    for command in language.prepare:
        await asyncio.to_thread(do, language, command, PATH)
    results = tmp_path / "results.ndjson"
    with a_sandbox(tmp_path) as alipayhk, serving("plaintext", *alipayhk) as (where, _):
        async with relaying(where.target) as (relay, target):
            through = Where({**where.environment, "LINKAGE_TARGET": target})
            more = {"LINKAGE_STORM_S": str(STORM_S), "LINKAGE_RESULTS": str(results), **PATH}
            variables = variables_of(through, language, **more)
            storm = asyncio.create_task(asyncio.to_thread(do, language, language.storm, variables))
            async with asyncio.timeout(WAIT_MAX_S):
                await relay.used.wait()
            await asyncio.sleep(3)
            relay.fall_silent()
            await storm
    assert 1 in relay.taken, relay.taken
    last = [json.loads(line)["outcome"] for line in results.read_text("utf-8").splitlines()[-50:]]
    assert "OK" in last, last
