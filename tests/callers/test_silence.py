"""A connection that is dropped in silence is noticed by its pings, and another one is made."""

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
from tests.peers.processes import PATIENCE_S, ROOT

STORM_S: Final = 75
"""Longer than a ping's 20 s and its answer's 5 s take, on a machine on which much else is going on."""
TOOLS: Final = [str(ROOT / ".tools" / f"{name}-venv" / "bin") for name in ("node", "go")]
PATH: Final = {"PATH": os.pathsep.join([*TOOLS, os.environ["PATH"]])}

pytestmark = pytest.mark.full


class Relay:
    """Stands before a gateway; it can swallow whatever else comes on the connections that it has."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._silences = 0
        self.taken: list[int] = []
        """For each connection, how many silences there were before it."""
        self.used = asyncio.Event()

    def fall_silent(self) -> None:
        """Leave the connections open, and let nothing more through."""
        self._silences += 1

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken.append(self._silences)
        self.used.set()
        to_reader, to_writer = await asyncio.open_connection(self._host, self._port)
        since = self._silences
        there = asyncio.create_task(self._pipe(reader, to_writer, since))
        back = asyncio.create_task(self._pipe(to_reader, writer, since))
        # When the gateway closes a connection that has fallen silent, nobody hears of that either.
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
    """Relay to a gateway until the end of the block."""
    relay = Relay(target)
    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield relay, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("language", LANGUAGES, ids=str)
async def test_silence(language: Language, tmp_path: Path) -> None:
    for command in language.prepare:
        await asyncio.to_thread(do, language, command, PATH)
    reported = tmp_path / "told.ndjson"
    with a_sandbox(tmp_path) as alipayhk, serving("plaintext", *alipayhk) as (where, _):
        async with relaying(where.target) as (relay, target):
            through = Where({**where.environment, "LINKAGE_TARGET": target})
            more = {"LINKAGE_STORM_S": str(STORM_S), "LINKAGE_TOLD": str(reported), **PATH}
            variables = variables_of(through, language, **more)
            storm = asyncio.create_task(asyncio.to_thread(do, language, language.storm, variables))
            async with asyncio.timeout(PATIENCE_S):
                await relay.used.wait()
            await asyncio.sleep(3)
            relay.fall_silent()
            await storm
    assert 1 in relay.taken, relay.taken
    last = [json.loads(line)["outcome"] for line in reported.read_text("utf-8").splitlines()[-50:]]
    assert "OK" in last, last
