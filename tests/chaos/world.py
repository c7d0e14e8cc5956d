"""The processes of a chaos run: one sandbox, a proxy, and several gateways on one ledger."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shlex
import shutil
import signal
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sandbox.apis import APIS
from service.commands.exit_codes import EX_UNAVAILABLE
from service.commands.keys import generate
from service.config.environment import environment_for_children
from service.ledger import Ledger
from service.ledger.opening import open_ledger
from service.ledger.vault import make_key_file
from tests.chaos.clock import Clock
from tests.chaos.history import UPSTREAM_TIMEOUT_S, FaultWindow, History
from tests.chaos.proxy import Proxy
from tests.ports import free_port
from tests.postgres.server import Postgres

ROOT: Final = Path(__file__).resolve().parents[2]
STARTS_WITHIN_S: Final = 90.0
"""Long enough for a busy machine."""
START_AGAIN_S: Final = 0.2
"""The wait before a gateway that found no database is started again, as a service manager does."""
LOG_LINES_MAX: Final = 400_000
FULL_BYTES: Final = 4_096
"""The size of a file on a full disk: less than one page of the write-ahead log."""

KEY: Final = "ledger.key"
LEDGER_TIMEOUT_S: Final = 5.0
"""Time limit of the operator's operations on PostgreSQL."""
SQLITE: Final = "sqlite"
POSTGRES: Final = "postgres"


@dataclass(frozen=True)
class Options:
    """The options of a run."""

    faults: tuple[str, ...]
    ledger: str = SQLITE
    gateways: int = 1
    workers: int = 1
    kills: int = 20
    seconds: float = 60.0
    """The duration of a run without kills."""
    rate: float = 100.0
    seed: int = 0
    mutant: str = ""
    answer_share: float = 0.12
    duplicate_share: float = 0.04

    def dice(self, name: str) -> random.Random:
        """Return separate dice for a part of the run, so that its draws do not depend on other parts."""
        return random.Random(f"{self.seed} {name}")


class Gateway:
    """One gateway; it is killed and restarted on the same port."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: dict[str, str],
        settings: dict[str, str],
        workers: int,
    ) -> None:
        self.name = name
        self.workers = workers
        self.address = f"127.0.0.1:{free_port()}"
        self.logs: deque[tuple[float, str]] = deque(maxlen=LOG_LINES_MAX)
        self._starting = asyncio.Lock()
        self.start_s = 0.0
        """The duration of its last start."""
        self._command = command
        self._environment = environment
        self._settings = {
            **settings,
            "LISTEN": self.address,
            "ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
            "WORKERS": str(workers),
        }
        self._process: asyncio.subprocess.Process | None = None
        self._serving = asyncio.Event()
        self._readers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start it, again if it finds no database, and wait until one of its processes serves."""
        started = time.monotonic()
        self._serving.clear()
        serving = asyncio.create_task(self._serving.wait())
        while not serving.done() and time.monotonic() - started < STARTS_WITHIN_S:
            ended = asyncio.create_task((await self._launch()).wait())
            await asyncio.wait({serving, ended}, timeout=STARTS_WITHIN_S, return_when="FIRST_COMPLETED")
            if ended.done() and ended.result() != EX_UNAVAILABLE:
                break
            ended.cancel()
            await asyncio.wait({serving}, timeout=START_AGAIN_S)
        if not serving.done():
            serving.cancel()
            output = "\n".join(line for _, line in list(self.logs)[-20:])
            raise RuntimeError(f"gateway {self.name} did not start:\n{output}")
        self.start_s = time.monotonic() - started

    async def _launch(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            "serve",
            env=environment_for_children(**self._settings) | self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._readers.append(asyncio.create_task(self._read(self._process.stdout)))
        return self._process

    def processes(self) -> list[int]:
        """Return the ids of the processes that serve."""
        if self._process is None or self._process.returncode is not None:
            return []
        if self.workers == 1:
            return [self._process.pid]
        return [pid for pid in _children(self._process.pid) if _is_alive(pid)]

    async def restart(self) -> None:
        """Kill all its processes, and start it again."""
        async with self._starting:
            await self._kill()
            await self.start()

    async def ensure_running(self) -> None:
        """Start it unless it runs."""
        async with self._starting:
            if not self.processes():
                await self._kill()
                await self.start()

    async def _kill(self) -> None:
        """Kill all its processes."""
        if self._process is None:
            return
        workers = self.processes()
        for pid in {self._process.pid, *workers}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._process.wait()
        for pid in workers:
            while _is_alive(pid):  # noqa: ASYNC110  (orphans cannot be waited for)
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Kill it, and read its log to the end."""
        async with self._starting:
            await self._kill()
        await asyncio.gather(*self._readers)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            text = line.decode("utf-8", "replace").rstrip()
            self.logs.append((time.monotonic(), text))
            if '"gateway started"' in text:
                self._serving.set()


class World:
    """The processes and the history of a run."""

    def __init__(self, options: Options, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.history = History()
        self.clock = Clock(directory)
        self.ledger_file = directory / "ledger.db"
        self.ledger_url = f"sqlite:///{self.ledger_file}"
        self._postgres: Postgres | None = None
        self._of_server = threading.Lock()
        """Held during a fault of the database server."""
        shares = {"answer": options.answer_share, "duplicate": options.duplicate_share}
        given = {kind: share for kind, share in shares.items() if kind in options.faults}
        self.proxy = Proxy(self.history, options.dice("proxy"), given)
        self.gateways: list[Gateway] = []
        self.kills_left = options.kills
        self.burst: Callable[[int], None] = lambda _: None
        """Start a number of requests immediately; the workload replaces this function."""
        self._sandbox: asyncio.subprocess.Process | None = None
        self.console = ""

    async def start(self) -> None:
        """Start the sandbox, the proxy and the gateways, in this order."""
        ours, theirs = generate(self.directory, "merchant"), generate(self.directory, "alipayhk")
        await self._start_sandbox(ours, theirs)
        if self.options.ledger == POSTGRES:
            self._postgres = await asyncio.to_thread(Postgres.start, fsync=False)
            await asyncio.to_thread(self._postgres.create_database, "ledger")
            self.ledger_url = self._postgres.url("ledger")
            make_key_file(self.directory / KEY, random_bytes=os.urandom)
        shim = self._write_shim()
        settings = {
            "BASE_URL": await self.proxy.start(self.console),
            "CLIENT_ID": "CHAOS",
            "SIGNING_KEY_FILE": ours["private_key_file"],
            "PUBLIC_KEY_FILES": f"1={theirs['public_key_file']}",
            **{f"{api.name.name}_PATH": api.path for api in APIS.values()},
            "UPSTREAM_TIMEOUT_S": str(UPSTREAM_TIMEOUT_S),
            "DRAIN_DELAY_S": "0",
        }
        environment = self.clock.environment() if "clock" in self.options.faults else {}
        for name in "abcdefgh"[: self.options.gateways]:
            own = settings | self._ledger_settings(name)
            gateway = Gateway(name, (str(shim),), environment, own, self.options.workers)
            self.gateways.append(gateway)
            await gateway.start()

    async def stop(self) -> None:
        """Stop everything."""
        await asyncio.gather(*(gateway.close() for gateway in self.gateways))
        await self.proxy.stop()
        if self._sandbox is not None and self._sandbox.returncode is None:
            self._sandbox.kill()
            await self._sandbox.wait()
        await asyncio.to_thread(self._close_server)

    def _close_server(self) -> None:
        with self._of_server:
            if self._postgres is not None:
                self._postgres.close()
            self._postgres = None

    async def disturb_server(
        self, kind: str, work: Callable[[Postgres, float], None], seconds: float
    ) -> None:
        """Disturb the database server, one fault at a time, to its end even if this is cancelled."""

        def run() -> None:
            with self._of_server:
                if self._postgres is not None:
                    with self.fault(kind, f"for {seconds:.1f} s"):
                        work(self._postgres, seconds)

        await asyncio.shield(asyncio.to_thread(run))

    def _ledger_settings(self, host: str) -> dict[str, str]:
        """Return the settings of the ledger; with PostgreSQL each host has a copy of the key."""
        settings = {"LEDGER_URL": self.ledger_url}
        if self._postgres is not None:
            settings["LEDGER_KEY_FILE"] = str(self._copy_of_key(host))
        return settings

    def _copy_of_key(self, host: str) -> Path:
        directory = self.directory / host
        directory.mkdir()
        return Path(shutil.copy(self.directory / KEY, directory))

    def open_ledger(self) -> Ledger:
        """Open the ledger as an operator's host does."""
        key_file = None if self._postgres is None else self._copy_of_key("operator")
        ledger, _ = open_ledger(
            self.ledger_url,
            key_file,
            random_bytes=os.urandom,
            create=False,
            pool_max=4,
            timeout_s=LEDGER_TIMEOUT_S,
        )
        return ledger

    def wallet(self) -> dict[str, Any]:
        """Return the sandbox's state."""
        with urllib.request.urlopen(f"{self.console}/__sandbox/wallet") as answer:
            return dict(json.load(answer))

    @property
    def kills(self) -> int:
        """How many kills there were."""
        return self.options.kills - self.kills_left

    @contextmanager
    def fault(self, kind: str, detail: str) -> Iterator[None]:
        """Record a fault that lasts as long as the context."""
        window = FaultWindow(kind, detail, time.monotonic())
        self.history.faults.append(window)
        try:
            yield
        finally:
            window.ended = time.monotonic()

    async def _start_sandbox(self, ours: dict[str, str], theirs: dict[str, str]) -> None:
        with (self.directory / "sandbox.log").open("ab") as errors:
            self._sandbox = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service", "sandbox", "--listen", "127.0.0.1:0"),
                *("--client-id", "CHAOS", "--private-key-file", theirs["private_key_file"]),
                *("--merchant-public-key-files", f"1={ours['public_key_file']}"),
                env=environment_for_children(),
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        assert self._sandbox.stdout is not None
        self.console = (await self._sandbox.stdout.readline()).decode().split()[-1]

    def _write_shim(self) -> Path:
        """Write the program that runs as a gateway and as its workers."""
        shim = self.directory / "gateway"
        program = ROOT / "tests" / "chaos" / "gateway_process.py"
        command = (sys.executable, "-P", program, shim, self.options.mutant)
        shim.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
        shim.chmod(0o700)
        return shim


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_alive(pid: int) -> bool:
    """Return whether a process runs or is stopped; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return False
    return state not in {"Z", "X"}
