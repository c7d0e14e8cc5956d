"""What `bench.compare` measures: one row each."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

from bench.machine import core, resident_mib, tree
from service.jobs.captures import ask_for_next
from service.ledger.vault import make_key_file
from tests.e2e.material import Material
from tests.peers.gateways import CLIENT_ID, Identities, gateway, identities, tls
from tests.peers.processes import ROOT, Running, run, running
from tests.ports import free_port
from tests.postgres.server import Postgres

BUILT: Final = ROOT / "build" / "bench"
SYNC_PATH: Final = "/sync"
PEERS: Final[dict[str, tuple[str | Path, ...]]] = {
    "naive": (sys.executable, ROOT / "bench/peers/python/gateway.py"),
    "naive-fast": (sys.executable, ROOT / "bench/peers/python/gateway.py", "--fast"),
    "go": (BUILT / "go",),
    "node": ("node", ROOT / "bench/peers/node/gateway.js"),
    "echo": (sys.executable, "-m", "bench.floor", "echo"),
}
"""The commands of the servers that are not ours."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A server and the calls that measure it."""

    name: str
    group: str
    meaning: str
    ledger: str = ""
    """The level of our gateway's ledger; empty for a peer."""
    kind: str = "sync"
    channels: int = 10
    in_flight: int = 16
    expected: str = "OK"
    """The status code of every call."""
    floor: str = "plain"
    """The floor in `tables.FLOORS` that it is compared with."""
    workers: int = 1
    pinned: bool = True
    """Whether it has one core, and loader and upstream the other one."""
    rows: int = 0
    """The number of requests in the ledger before the first call."""
    caller: str = ""
    """The client certificate of the calls: `loyalty` may call, `unknown` may not; empty for plaintext."""
    encrypt: bool = False
    captures: int = 0
    """How many exchanges are captured each second."""


SUBJECTS: Final = (
    Subject("naive", "gateways", "Python: grpc.aio, aiohttp, cryptography"),
    Subject("naive-fast", "gateways", "the same with uvloop and orjson"),
    Subject("go", "gateways", "Go: grpc-go, net/http"),
    Subject("node", "gateways", "Node: grpc-js, undici"),
    Subject("off", "gateways", "**ours**, `LEDGER_URL=off`", "off"),
    Subject("memory", "gateways", "**ours**, `memory:`", "memory"),
    Subject("sqlite", "gateways", "**ours**, SQLite (the default)", "sqlite"),
    Subject("postgres", "gateways", "**ours**, PostgreSQL on the loader's core", "postgres"),
    Subject("bind", "calls", "BindAccount, a new connection each", "sqlite", kind="bind", floor="bind"),
    Subject("encrypted", "calls", "SyncLinkage, encrypted", "sqlite", floor="encrypted", encrypt=True),
    Subject("invalid", "calls", "refused: invalid", "sqlite", kind="invalid", expected="InvalidArgument"),
    Subject("tls", "calls", "SyncLinkage over mTLS", "sqlite", caller="loyalty"),
    Subject(
        "unlisted",
        "calls",
        "refused over mTLS: not in `CALLERS_FILE`",
        "sqlite",
        caller="unknown",
        expected="Unauthenticated",
    ),
    *(
        Subject(f"captures-{count}", "captures", f"{count} captures each second", "sqlite", captures=count)
        for count in (10, 100)
    ),
    *(
        Subject(f"channels-{count}", "channels", f"{count:,} channels", "sqlite", channels=count)
        for count in (1, 10, 100, 1_000)
    ),
    *(
        Subject(f"rows-{count}", "rows", f"{count:,} requests in the ledger", "sqlite", rows=count)
        for count in (1_000, 100_000, 1_000_000)
    ),
    *(
        Subject(
            f"workers-{count}",
            "workers",
            f"`WORKERS={count}`, all cores",
            "sqlite",
            workers=count,
            channels=100,
            in_flight=32,
            pinned=False,
        )
        for count in (1, 2)
    ),
)


@dataclass(frozen=True, slots=True)
class Server:
    """A running subject."""

    address: str
    process: Running

    @property
    def pids(self) -> list[int]:
        """The processes with CPU time that counts."""
        return tree(self.process.process.pid)

    def resident_mib(self) -> float:
        """Return its memory in MiB."""
        return resident_mib(self.process.process.pid)


class World:
    """Keys, certificates and the upstream, shared by all subjects."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.material = Material(directory)
        self.upstream = ""
        self._running = ExitStack()

    @cached_property
    def who(self) -> Identities:
        """The certificates, for the subjects that use TLS."""
        return identities(self.material)

    @cached_property
    def postgres(self) -> Postgres:
        """The database server, with the durability that it has by default."""
        with core(1):
            return self._running.enter_context(Postgres.start(shared_buffers="128MB"))

    def _postgres_settings(self) -> dict[str, str]:
        """Return the settings of a gateway on a new database, with a key of its own."""
        name = f"bench_{secrets.token_hex(4)}"
        self.postgres.create_database(name)
        key = self.directory / f"{name}.key"
        make_key_file(key, random_bytes=os.urandom)
        return {"LEDGER_URL": self.postgres.url(name), "LEDGER_KEY_FILE": str(key)}

    def close(self) -> None:
        """Stop the database server."""
        self._running.close()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Run the upstream inside the block."""
        keys = ("-key", self.material.theirs.private_file, "-gateway-key", self.material.ours.public_file)
        api = ("-client-id", CLIENT_ID, "-sync-path", SYNC_PATH)
        with core(1), running(BUILT / "traffic", "upstream", *keys, *api) as process:
            self.upstream = f"http://{_listening(process)}"
            yield

    @contextmanager
    def serving(self, subject: Subject) -> Iterator[Server]:
        """Run a subject inside the block."""
        with core(0 if subject.pinned else None):
            if not subject.ledger:
                with self.peer(subject.name) as server:
                    yield server
                return
            with tempfile.TemporaryDirectory(dir=self.directory) as fresh:
                ledger = self.directory / subject.name if subject.rows else Path(fresh)
                settings = self._settings(subject, ledger)
                if subject.captures:
                    settings |= self._capture_settings(captures := Path(fresh, "captures"))
                with ExitStack() as stack:
                    ours = stack.enter_context(gateway(self.material, self.upstream, **settings))
                    if subject.captures:
                        stack.enter_context(_asking(captures, subject.captures))
                    yield Server(ours.address, ours.running)

    @contextmanager
    def peer(self, name: str) -> Iterator[Server]:
        """Run a server that is not ours."""
        flags = (
            *("--base-url", self.upstream, "--path", SYNC_PATH, "--client-id", CLIENT_ID),
            *("--signing-key", self.material.ours.private_file),
            *("--public-key", self.material.theirs.public_file),
        )
        with running(*PEERS[name], *(() if name == "echo" else flags)) as process:
            yield Server(_listening(process), process)

    def _settings(self, subject: Subject, ledger: Path) -> dict[str, str]:
        url = {"off": "off", "memory": "memory:"}.get(subject.ledger, f"sqlite:///{ledger}/ledger.db")
        settings = {
            "LEDGER_URL": url,
            "SYNC_LINKAGE_PATH": SYNC_PATH,
            "BIND_ACCOUNT_WITHOUT_LEDGER": str(subject.ledger in {"off", "memory"}).lower(),
            "LOG_LEVEL": "info",
            "WORKERS": str(subject.workers),
            "ENCRYPT": str(subject.encrypt).lower(),
            "REQUIRE_ENCRYPTED_RESPONSE": str(subject.encrypt).lower(),
        }
        if subject.ledger == "postgres":
            settings |= self._postgres_settings()
        if subject.workers > 1:
            settings["LISTEN"] = f"127.0.0.1:{free_port()}"
        if subject.caller:
            callers = self.directory / "callers.toml"
            callers.write_text('[callers.a]\nsan = ["spiffe://corp/loyalty"]\nmethods = ["SyncLinkage"]\n')
            more = {"TLS_CLIENT_CA_FILE": self.who.ca, "CALLERS_FILE": str(callers)}
            settings |= tls(self.who, **more)
        return settings

    def _capture_settings(self, directory: Path) -> dict[str, str]:
        """Return the settings of a gateway that captures exchanges in a new directory."""
        directory.mkdir()
        return {
            "CAPTURE_DIR": str(directory),
            "CAPTURE_RECIPIENT_FILE": str(self.material.ours.public_file),
        }

    def load(self, server: Server, subject: Subject, seconds: float, rate: float = 0) -> dict[str, Any]:
        """Run the loader against a subject; return its report."""
        pids = ",".join(map(str, server.pids))
        flags = ["-target", server.address, "-kind", subject.kind, "-pids", pids]
        flags += ["-channels", str(subject.channels), "-in-flight", str(subject.in_flight)]
        flags += ["-rate", str(rate), "-duration", f"{seconds}s", "-warm-up", f"{seconds / 3:.3f}s"]
        if subject.caller:
            own = self.who.loyalty if subject.caller == "loyalty" else self.who.unknown
            flags += ["-ca", self.who.ca, "-cert", str(own.chain_file), "-key", str(own.key_file)]
        with core(1 if subject.pinned else None):
            done = run(BUILT / "traffic", "load", *flags, timeout_s=3 * seconds + 300)
        if done.status:
            raise RuntimeError(f"{subject.name}: {done.output}")
        report: dict[str, Any] = json.loads(done.out)
        return report

    def part(self, name: str, seconds: float) -> float:
        """Return the CPU time of a part of the floor, in microseconds."""
        ours = self.material.ours
        keys = ("--signing-key", ours.private_file, "--public-key", ours.public_file)
        words = ("-m", "bench.floor", name, *keys, "--seconds", str(seconds))
        with core(0):
            done = run(sys.executable, *words, "--url", self.upstream + SYNC_PATH)
        if done.status:
            raise RuntimeError(f"{name}: {done.output}")
        return float(done.out)


@contextmanager
def _asking(directory: Path, count: int) -> Iterator[None]:
    """Ask for so many captures each second inside the block, as `capture next` does."""
    ended = Event()

    def ask() -> None:
        while not ended.wait(1):
            ask_for_next(directory, count)

    thread = Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _listening(process: Running) -> str:
    found = re.search(r"listening on (\S+)\n", process.wait_for_output("listening on "))
    if found is None:
        raise RuntimeError(process.output())
    return found[1]
