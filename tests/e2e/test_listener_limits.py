"""Limits of a listener against unknown and careless clients: descriptors, metadata and memory."""

from __future__ import annotations

import asyncio
import resource
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from service.server.limits import METADATA_BYTES_MAX
from tests.e2e.conftest import Run
from tests.e2e.gateway import SCRIPT, WAIT_MAX_S, Gateway, channel_to, get
from tests.e2e.http2 import CONTINUATION, HEADERS, USUAL, block, connected, frame
from tests.e2e.material import Material
from tests.e2e.operations import NOT_SERVING, SERVING, health, watching
from tests.ports import free_port

CHECK: Final = "/grpc.health.v1.Health/Check"
CALLS: Final = 8
DESCRIPTORS: Final = 512
SILENT: Final = 450
FLOODS: Final = 8
FLOOD_BYTES: Final = 2 << 20
ENDLESS: Final = frame(CONTINUATION, 0, 1, block((b"a", b"")))
MEMORY_KIB: Final = 64 * 1024


def limited(shell: str) -> tuple[str | Path, ...]:
    """Return the command that starts the gateway after a line of shell."""
    return ("sh", "-c", f'{shell} && exec "$@"', "sh", SCRIPT)


def descriptors_of(gateway: Gateway) -> tuple[int, int]:
    """Return the soft and the hard descriptor limit of a gateway."""
    return resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)


async def test_soft_limit_of_descriptors_is_raised_to_the_hard_one_and_core_dumps_are_off(
    run: Run,
) -> None:
    async with run(program=limited("ulimit -Sn 256; ulimit -c unlimited")) as gateway:
        soft, hard = descriptors_of(gateway)
        assert soft == hard > 256
        assert resource.prlimit(gateway.process.pid, resource.RLIMIT_CORE) == (0, 0)


async def test_silent_connections_leave_descriptors_for_callers_operators_and_probes(
    run: Run, material: Material
) -> None:
    server, client = (material.callers_ca.issue(name, "127.0.0.1") for name in ("flooded", "good"))
    settings = {
        "TLS_CERT_FILE": str(server.chain_file),
        "TLS_KEY_FILE": str(server.key_file),
        "TLS_CLIENT_CA_FILE": str(material.callers_ca.file),
        "HEALTH_LISTEN": f"127.0.0.1:{free_port()}",
        "MAX_IN_FLIGHT": "10",
    }
    credentials = grpc.ssl_channel_credentials(
        material.callers_ca.file.read_bytes(), client.key, client.chain
    )
    program = limited(f"ulimit -n {DESCRIPTORS}")
    async with (
        run(settings, credentials=credentials, program=program) as gateway,
        AsyncExitStack() as stack,
    ):
        assert descriptors_of(gateway) == (DESCRIPTORS, DESCRIPTORS)
        assert await health(gateway.channel) == SERVING
        host, _, port = gateway.address.rpartition(":")
        for _ in range(SILENT):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.enter_context(closing(writer))
        for _ in range(5):
            assert await health(gateway.channel) == SERVING
            assert (await get(gateway.admin, "/readyz"))[0] == 200
            async with channel_to(settings["HEALTH_LISTEN"]) as probe:
                assert await health(probe) == SERVING
            await asyncio.sleep(0.2)
        # The gateway closes connections without a handshake after a while, so new callers can connect.
        async with asyncio.timeout(WAIT_MAX_S), channel_to(gateway.address, credentials) as channel:
            await channel.channel_ready()
            assert await health(channel) == SERVING
    assert len(gateway.out) + len(gateway.err) < 50, "silent connections fill the log"


async def test_low_descriptor_limit_is_logged_as_a_warning(run: Run) -> None:
    async with run(program=limited("ulimit -n 300")) as gateway:
        warned = await gateway.logged(lambda line: line["event"] == "low file descriptor limit")
        assert (warned["level"], warned["count"]) == ("warning", 300)
        assert await health(gateway.channel) == SERVING


@pytest.mark.parametrize(
    ("size", "code"), [(METADATA_BYTES_MAX - 1024, "OK"), (METADATA_BYTES_MAX + 1024, "RESOURCE_EXHAUSTED")]
)
async def test_metadata_has_one_limit(gateway: Gateway, size: int, code: str) -> None:
    check: Any = gateway.channel.unary_unary(CHECK)
    codes = set()
    for _ in range(CALLS):
        call = check(b"", metadata=(("x-padding", "a" * size),), timeout=WAIT_MAX_S)
        codes.add((await call.code()).name)
    assert codes == {code}


async def test_endless_headers_use_no_memory_of_the_health_listener(run: Run) -> None:
    """Without a limit each of these connections uses tens of MiB."""
    settings = {"HEALTH_LISTEN": f"127.0.0.1:{free_port()}"}
    async with run(settings) as gateway, AsyncExitStack() as stack:
        assert await health(gateway.channel) == SERVING
        before = gateway.resident_kib()
        for _ in range(FLOODS):
            connection = await stack.enter_async_context(connected(settings["HEALTH_LISTEN"]))
            connection.send(frame(HEADERS, 0, 1, block(*USUAL)), ENDLESS * (FLOOD_BYTES // len(ENDLESS)))
        for _ in range(5):
            await asyncio.sleep(0.3)
            assert await health(gateway.channel) == SERVING
            async with channel_to(settings["HEALTH_LISTEN"]) as probe:
                assert await health(probe) == SERVING
        assert gateway.resident_kib() - before < MEMORY_KIB


async def test_watching_probe_gets_not_serving_on_shutdown(run: Run) -> None:
    settings = {"HEALTH_LISTEN": f"127.0.0.1:{free_port()}", "DRAIN_DELAY_S": "2"}
    async with (
        run(settings) as gateway,
        channel_to(settings["HEALTH_LISTEN"]) as channel,
        watching(channel) as statuses,
    ):
        assert await anext(statuses) == SERVING
        gateway.terminate()
        assert await anext(statuses) == NOT_SERVING
