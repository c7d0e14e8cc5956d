"""Two workers with one port and one ledger send each request only once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from service.config.reload import Reload
from service.config.settings import read_settings
from service.control import packed, send
from tests.e2e import caller
from tests.e2e.caller import Reported
from tests.e2e.gateway import SCRIPT, WAIT_MAX_S, Gateway, channel_to
from tests.e2e.samples import APIS, BIND, fresh_request, new_id
from tests.e2e.upstream import Peer, Request
from tests.peers.processes import environment
from tests.ports import free_port
from tests.scenarios.conftest import RunSystem
from tests.scenarios.system import IN_DOUBT, changed, held, reused

CHANNELS = 16


async def test_same_id_at_both_workers_is_sent_once(run_system: RunSystem) -> None:
    more = {"WORKERS": "2", "LISTEN": f"127.0.0.1:{free_port()}", "UPSTREAM_TIMEOUT_S": "4"}
    async with run_system(more) as system, AsyncExitStack() as stack:
        await system.gateway.wait_for_workers(2)
        right = system.upstream.script

        async def slow(request: Request, peer: Peer) -> None:
            await asyncio.sleep(0.4)
            await right(request, peer)

        system.upstream.script = slow
        channels = [
            await stack.enter_async_context(channel_to(system.gateway.address)) for _ in range(CHANNELS)
        ]
        for _ in range(3):
            request = fresh_request(BIND)
            results: list[Any] = await asyncio.gather(
                *(caller.call(channel, BIND, request) for channel in channels)
            )
            assert [result for result in results if isinstance(result, Reported)] == []
            assert system.sent(request) == 1
            assert {result.replayed for result in results} == {False, True}, "one worker served all calls"
            for channel in channels:
                await caller.refused(channel, BIND, changed(BIND, request), reused(BIND))
            assert system.sent(request) == 1


async def test_requests_of_a_killed_worker_are_in_doubt_for_the_others(run_system: RunSystem) -> None:
    more = {"WORKERS": "2", "LISTEN": f"127.0.0.1:{free_port()}"}
    request = fresh_request(BIND)
    async with run_system(more) as system:
        await system.gateway.wait_for_workers(2)
        async with held(system, BIND, request):
            for worker in workers_of(system.gateway):
                os.kill(worker, signal.SIGKILL)
        system.upstream.script = system.wallet.says()
        async with asyncio.timeout(20):
            while isinstance(result := await system.call(BIND, request), Reported):
                if result.status.details and result.info.reason == IN_DOUBT.reason:
                    break  # before that no worker listens, or the lease has not expired
                await asyncio.sleep(0.1)
        await system.reported(BIND, request, IN_DOUBT)
        assert system.sent(request) == 1


async def test_starting_workers_are_stopped_cleanly(settings: dict[str, str]) -> None:
    listens = {name: f"127.0.0.1:{free_port()}" for name in ("LISTEN", "ADMIN_LISTEN")}
    process = await asyncio.create_subprocess_exec(
        *(SCRIPT, "serve"),
        env=environment({**settings, **listens, "WORKERS": "2"}),
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_MAX_S):
        assert json.loads(await process.stdout.readline())["event"] == "workers started"
        process.terminate()
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_worker_sends_heartbeats_while_its_event_loop_runs(settings: dict[str, str]) -> None:
    ours, workers_end = socket.socketpair()
    with ours, workers_end:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        listens = {name: f"127.0.0.1:{free_port()}" for name in ("LISTEN", "ADMIN_LISTEN")}
        environ = environment({**settings, **listens, "WORKERS": "2"})
        send(ours, packed(Reload(read_settings(environ), success=True)))
        process = await asyncio.create_subprocess_exec(
            *(SCRIPT, "serve", "--worker"),
            env=environment(),
            stdin=workers_end.fileno(),
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        workers_end.close()
        async with asyncio.timeout(2 * WAIT_MAX_S):
            assert await loop.sock_recv(ours, 1) == b"."
            assert await loop.sock_recv(ours, 1) == b"."
            process.send_signal(signal.SIGSTOP)
            with suppress(BlockingIOError):
                while ours.recv(100):
                    pass
            await asyncio.sleep(2.5)
            with pytest.raises(BlockingIOError):
                ours.recv(1)
            process.send_signal(signal.SIGCONT)
            ours.close()
            assert await process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_workers_own_their_port_and_exit_with_their_supervisor(
    settings: dict[str, str], number: signal.Signals
) -> None:
    """Two gateways on one port with two ledgers would send a BindAccount twice."""
    listens = {name: f"127.0.0.1:{free_port()}" for name in ("LISTEN", "ADMIN_LISTEN")}
    environ = environment({**settings, **listens, "WORKERS": "2"})
    words = (SCRIPT, "serve")
    process = await asyncio.create_subprocess_exec(*words, env=environ, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(3 * WAIT_MAX_S):
            serving = 0
            while serving < 2:
                serving += json.loads(await process.stdout.readline())["event"] == "gateway started"
            other = await asyncio.create_subprocess_exec(*words, env=environ, stdout=PIPE, stderr=PIPE)
            _, err = await other.communicate()
            assert (other.returncode, b"cannot listen on" in err) == (69, True), err
            process.send_signal(number)
            # The output is closed when the last worker has exited.
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert out.count(b'"shutdown finished"') == 2
    assert process.returncode == (-number if number is signal.SIGKILL else 0)


def workers_of(gateway: Gateway) -> list[int]:
    """Return the workers' process ids."""
    pid = gateway.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


async def test_requests_for_one_linkage_never_overlap_at_both_workers(run_system: RunSystem) -> None:
    api, identity, in_progress, in_progress_max = APIS[0], f"會員-{new_id()}", 0, 0
    async with (
        run_system(
            {"WORKERS": "2", "LISTEN": f"127.0.0.1:{free_port()}", "UPSTREAM_TIMEOUT_S": "4"}
        ) as system,
        AsyncExitStack() as stack,
    ):
        await system.gateway.wait_for_workers(2)
        right = system.upstream.script

        async def watched(request: Request, peer: Peer) -> None:
            nonlocal in_progress, in_progress_max
            in_progress += 1
            in_progress_max = max(in_progress_max, in_progress)
            await asyncio.sleep(0.05)
            in_progress -= 1
            await right(request, peer)

        system.upstream.script = watched
        calls = []
        for _ in range(8):
            channel = await stack.enter_async_context(channel_to(system.gateway.address))
            request = fresh_request(api, external_identity_value=identity)
            calls.append(caller.call(channel, api, request))
        results = await asyncio.gather(*calls)
        assert [result for result in results if isinstance(result, Reported)] == []
        assert (in_progress_max, len(system.upstream.requests)) == (1, 8)
