"""Run the gateway as operators do: as the installed console script, in its own process."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from tests.peers.processes import environment
from tests.ports import free_port

SCRIPT: Final = Path(sys.executable).parent / "alipayhk-gateway"
WAIT_MAX_S: Final = 60.0
"""The longest wait, in seconds: some tests start many gateways at the same time on a busy machine."""
CHANNEL_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

Settings = Mapping[str, str]
Record = dict[str, Any]


@dataclass(frozen=True)
class Completed:
    """A command that has exited."""

    status: int
    out: str
    err: str


async def run(
    *arguments: str | Path, settings: Settings | None = None, program: tuple[str | Path, ...] = (SCRIPT,)
) -> Completed:
    """Run a command until it exits."""
    process = await asyncio.create_subprocess_exec(
        *program, *arguments, env=environment(settings or {}), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(WAIT_MAX_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    return Completed(process.returncode or 0, out.decode(), err.decode())


@dataclass
class Gateway:
    """A running gateway."""

    process: Process
    admin: str
    """host:port of the operators' listener."""
    settings: Settings
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    address: str = ""
    ends_with: int = 0
    """The expected exit status."""
    channel: grpc.aio.Channel = field(init=False)
    _received: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def records(self) -> list[Record]:
        """Every line of the log."""
        return [json.loads(line) for line in self.out]

    def call_records(self, request_id: str) -> list[Record]:
        """Return the lines of the access log for a request id."""
        return [
            line for line in self.records if line["event"] == "call" and line["request_id"] == request_id
        ]

    async def logged(self, wanted: Callable[[Record], bool], *, after: int = 0) -> Record:
        """Wait for a log line, after the first ones, that the condition accepts; return it."""

        def found() -> Record | None:
            return next((record for record in map(json.loads, self.out[after:]) if wanted(record)), None)

        async with asyncio.timeout(WAIT_MAX_S), self._received:
            record = await self._received.wait_for(lambda: found() or self.process.returncode is not None)
        assert isinstance(record, dict), f"the gateway exited: {self.err}"
        return record

    async def wait_for_workers(self, count: int) -> None:
        """Wait until the log contains this number of started workers."""
        await self.logged(
            lambda _: sum(line["event"] == "gateway started" for line in self.records) == count
        )

    async def call_logged(self, request_id: str) -> Record:
        """Wait until the access log contains the call; return its line."""
        return await self.logged(
            lambda record: record["event"] == "call" and record["request_id"] == request_id
        )

    async def cancel_logged(self, request_id: str) -> Record:
        """Wait until the access log contains the cancelled call; return its line."""
        return await self.logged(
            lambda record: record.get("code") == "CANCELLED" and record["request_id"] == request_id
        )

    async def attempt_logged(self, request_id: str) -> Record:
        """Wait until the log contains a finished attempt; return its line."""
        return await self.logged(
            lambda record: record["event"] == "attempt" and record["request_id"] == request_id
        )

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait until it exits; return its exit status."""
        async with asyncio.timeout(WAIT_MAX_S):
            return await self.process.wait()

    async def kill(self) -> None:
        """Send SIGKILL, and wait until it is gone."""
        self.ends_with = -signal.SIGKILL
        self.process.kill()
        assert await self.ended() == self.ends_with

    def resident_kib(self) -> int:
        """Return the resident memory of the process in KiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text("ascii").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))

    async def collect(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        """Append every line of a stream to `lines`."""
        async for line in stream:
            async with self._received:
                lines.append(line.decode())
                self._received.notify_all()
        async with self._received:
            self._received.notify_all()


async def get(address: str, path: str) -> tuple[int, str]:
    """GET a page of the operators' listener; return its status and text."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(WAIT_MAX_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    return int(head.split(b" ")[1]), body.decode()


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    program: tuple[str | Path, ...] = (SCRIPT,),
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> AsyncIterator[Gateway]:
    """Run a gateway with extra environment variables; then stop it and check its exit status."""
    admin = f"127.0.0.1:{free_port()}"
    settings = {"LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": admin, **settings}
    process = await asyncio.create_subprocess_exec(
        *(*program, "serve", *(("--config", config) if config else ())),
        env={**environment(settings), **(environ or {})},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    gateway = Gateway(process, admin, settings)
    collecting = [
        asyncio.create_task(gateway.collect(process.stdout, gateway.out)),
        asyncio.create_task(gateway.collect(process.stderr, gateway.err)),
    ]
    try:
        serving = await gateway.logged(lambda record: record["event"] == "gateway started")
        gateway.address = serving["listen"]
        async with channel_to(gateway.address, credentials) as gateway.channel:
            yield gateway
        if process.returncode is None:
            gateway.terminate()
        assert await gateway.ended() == gateway.ends_with, gateway.err
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.gather(*collecting)


@asynccontextmanager
async def running_all(all_settings: Mapping[str, Settings]) -> AsyncIterator[dict[str, Gateway]]:
    """Run several gateways; start and stop them concurrently."""
    stop = asyncio.Event()
    started: dict[str, asyncio.Future[Gateway]] = {}

    async def keep(name: str, settings: Settings) -> None:
        try:
            async with running(settings) as gateway:
                started[name].set_result(gateway)
                await stop.wait()
        except BaseException as error:
            if not started[name].done():
                started[name].set_exception(error)
            raise

    for name in all_settings:
        started[name] = asyncio.get_running_loop().create_future()
    keeping = [asyncio.create_task(keep(name, settings)) for name, settings in all_settings.items()]
    try:
        yield {name: await gateway for name, gateway in started.items()}
    finally:
        stop.set()
        await asyncio.gather(*keeping)


def channel_to(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """Open a channel with its own connections."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
