"""A gateway whose log is not read, and one whose log goes to a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
from asyncio.subprocess import DEVNULL

from tests.e2e.caller import Reported, call
from tests.e2e.gateway import SCRIPT, Settings, channel_to, get
from tests.e2e.samples import SYNC, fresh_request
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet
from tests.peers.processes import environment
from tests.ports import free_port


async def test_unread_standard_output_blocks_neither_calls_nor_probes_nor_the_end(
    settings: Settings, upstream: Upstream, wallet: Wallet
) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    given = {**settings, "LISTEN": listen, "ADMIN_LISTEN": admin, "DRAIN_DELAY_S": "0"}
    process = await asyncio.create_subprocess_exec(
        SCRIPT, "serve", env=environment(given), stdin=DEVNULL, stdout=writer, stderr=DEVNULL
    )
    os.close(writer)
    try:
        async with channel_to(listen) as channel, asyncio.timeout(60):
            await channel.channel_ready()
            for _ in range(20):
                answer = await call(channel, SYNC, fresh_request(SYNC))
                assert not isinstance(answer, Reported), answer
            assert (await get(admin, "/livez"))[0] == 200
            process.terminate()
            assert await process.wait() == 0
    finally:
        os.close(reader)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_log_on_a_terminal_is_text_with_colours(settings: Settings, upstream: Upstream) -> None:
    terminal, stdout = pty.openpty()
    given = {**settings, "LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": f"127.0.0.1:{free_port()}"}
    process = await asyncio.create_subprocess_exec(
        SCRIPT,
        "serve",
        env=environment(given) | {"NO_COLOR": ""},
        stdin=DEVNULL,
        stdout=stdout,
        stderr=DEVNULL,
    )
    os.close(stdout)
    text = b""
    try:
        while b"gateway started" not in text:
            text += await asyncio.to_thread(os.read, terminal, 1 << 16)
    finally:
        process.terminate()
        await process.wait()
        os.close(terminal)
    assert b"\x1b[" in text
    assert b"{" not in text
