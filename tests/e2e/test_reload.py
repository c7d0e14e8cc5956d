"""Under load, every kind of file is replaced, with good and with bad contents, and no call fails.

`RELOADS=50 .venv/bin/python -m pytest tests/e2e/test_reload.py` replaces each kind 50 times.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from grpc import StatusCode

from clients.alipayhk.wire.endpoint import Endpoint
from tests.certificates import Certificate
from tests.e2e import caller
from tests.e2e.caller import Reported
from tests.e2e.conftest import Run
from tests.e2e.gateway import Gateway, channel_to, get
from tests.e2e.material import Material, Pair, rsa_pair
from tests.e2e.samples import APIS, SYNC, Api, fresh_request, new_id
from tests.e2e.upstream import Request, Script, Upstream, responds
from tests.e2e.wallet import Wallet, id_of, result
from tests.ports import free_port

ROUNDS: Final = int(os.environ.get("RELOADS", "1"))
WAIT_S: Final = 30.0
PROBES: Final = 4
"""How many connections in a row must show what is in use: each can reach another worker."""
OF_NEXT: Final = "next-"
OF_CODE: Final = "code-"
"""The beginning of the id of a request that AlipayHK answers with its next key, or with a result code."""
ONE: Final = '[callers.both]\nsan = ["both.corp"]\nmethods = ["SyncLinkage", "BindAccount"]\n'
TWO: Final = ONE + '[callers.new]\nsan = ["new.corp"]\nmethods = ["SyncLinkage"]\n'
CODES: Final = '[SyncLinkage]\nLINKED_ALREADY = "ALREADY_EXISTS"\n'
GARBAGE: Final = b"garbage!"


@dataclass(frozen=True)
class RotatingWallet(Wallet):
    """AlipayHK while it knows two keys of the gateway, by version."""

    merchants: Mapping[str, RSAPublicKey] = field(default_factory=dict)

    def endpoint(self, api: Api, path: str = "") -> Endpoint:
        """Return an API's endpoint from AlipayHK's side."""
        endpoint = super().endpoint(api, path)
        return replace(endpoint, keys=replace(endpoint.keys, verifying=self.merchants))

    def answers(self, following: Pair) -> Script:
        """Return a script that answers by what a request id begins with."""

        def response(request: Request) -> Any:
            if id_of(request).startswith(OF_NEXT):
                return self.but(key=following.key, key_version="2").right(request)
            code = result("F", "LINKED_ALREADY") if id_of(request).startswith(OF_CODE) else None
            return self.right(request, code)

        return responds(response)


class Volume:
    """A directory as Kubernetes mounts a Secret: files are links into the directory behind `..data`."""

    def __init__(self, directory: Path, files: Mapping[str, bytes]) -> None:
        self.directory, self._number = directory, 0
        self.files: dict[str, bytes] = {}
        for name in files:
            (directory / name).symlink_to(f"..data/{name}")
        self.swap(files)

    def swap(self, files: Mapping[str, bytes]) -> None:
        """Replace files with one new link."""
        self.files |= files
        self._number += 1
        (new := self.directory / f"..{self._number}").mkdir()
        for name, data in self.files.items():
            (new / name).write_bytes(data)
        (link := self.directory / "..data_tmp").symlink_to(new.name)
        link.replace(self.directory / "..data")
        shutil.rmtree(self.directory / f"..{self._number - 1}", ignore_errors=True)

    def rename(self, files: Mapping[str, bytes]) -> None:
        """Replace files one after the other."""
        self.files |= files
        for name, data in files.items():
            (new := self.directory / f"{name}.new").write_bytes(data)
            new.replace(self.directory / "..data" / name)


@dataclass(frozen=True)
class Setup:
    """A gateway whose files can be replaced, and what its callers need."""

    gateway: Gateway
    volume: Volume
    upstream: Upstream
    material: Material
    servers: tuple[Certificate, Certificate]

    @asynccontextmanager
    async def channel(self, name: str = "both.corp") -> AsyncIterator[grpc.aio.Channel]:
        """Open a channel of its own with a caller's certificate."""
        ca = self.material.callers_ca
        issued = ca.issue(name, name)
        credentials = grpc.ssl_channel_credentials(ca.file.read_bytes(), issued.key, issued.chain)
        async with channel_to(self.gateway.address, credentials) as channel:
            yield channel

    async def code(self, name: str = "both.corp", prefix: str = "") -> StatusCode:
        """Make one call on a connection of its own; return its code."""
        async with self.channel(name) as channel:
            request = fresh_request(SYNC, request_id=f"{prefix}{new_id()}")
            found = await caller.call(channel, SYNC, request)
        return found.code if isinstance(found, Reported) else StatusCode.OK

    async def serial(self) -> int:
        """Return the serial number of the certificate that a handshake shows."""
        issued = self.material.callers_ca.issue("prober", "both.corp")
        context = self.material.callers_ca.client_context()
        context.load_cert_chain(issued.chain_file, issued.key_file)
        context.set_alpn_protocols(["h2"])
        host, _, port = self.gateway.address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
        der = shown.getpeercert(binary_form=True)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number

    async def version(self) -> str:
        """Return the version of the key that signs a new request."""
        async with self.channel() as channel:
            request = fresh_request(SYNC)
            await caller.accepted(channel, SYNC, request)
        newest = reversed(self.upstream.requests)
        sent = next(each for each in newest if id_of(each) == request.request_id)
        return sent.header("Signature").split(",")[1].removeprefix("keyVersion=")

    async def success(self) -> str:
        """Return the gauge."""
        _, page = await get(self.gateway.admin, "/metrics")
        (line,) = [each for each in page.splitlines() if each.startswith("alipayhk_config_reload_success")]
        return line.rpartition(" ")[2]


@dataclass(frozen=True)
class Kind:
    """What is replaced in each round: good files by the number of the round, and bad ones."""

    group: str
    good: Callable[[Setup, int], Mapping[str, bytes]]
    bad: Callable[[int], Mapping[str, bytes]]
    is_used: Callable[[Setup, int], Awaitable[bool]]
    """Whether one connection shows the good files of a round."""


def config(version: int, level: int) -> bytes:
    """Return the configuration file of these rounds."""
    log_level = ("info", "debug")[level % 2]
    return f'signing_key_version = "{version % 2 + 1}"\nlog_level = "{log_level}"\n'.encode()


def certificate(setup: Setup, number: int) -> Mapping[str, bytes]:
    issued = setup.servers[number % 2]
    return {"chain": issued.chain, "key": issued.key}


async def shows_certificate(setup: Setup, number: int) -> bool:
    chain = setup.servers[number % 2].chain
    return await setup.serial() == x509.load_pem_x509_certificate(chain).serial_number


async def signs(setup: Setup, number: int) -> bool:
    return await setup.version() == str(number % 2 + 1)


async def verifies(setup: Setup, number: int) -> bool:
    codes = (StatusCode.INTERNAL, StatusCode.OK)
    return await setup.code(prefix=OF_NEXT) is codes[number % 2]


async def knows_caller(setup: Setup, number: int) -> bool:
    codes = (StatusCode.UNAUTHENTICATED, StatusCode.OK)
    return await setup.code("new.corp") is codes[number % 2]


async def knows_result_code(setup: Setup, number: int) -> bool:
    codes = (StatusCode.FAILED_PRECONDITION, StatusCode.ALREADY_EXISTS)
    return await setup.code(prefix=OF_CODE) is codes[number % 2]


async def anything(_: Setup, __: int) -> bool:
    return True


def theirs(setup: Setup, number: int) -> Mapping[str, bytes]:
    pairs = (setup.material.unknown_key, setup.material.theirs_next)
    return {"theirs-2": pairs[number % 2].public_file.read_bytes()}


KINDS: Final = (
    Kind("server certificate", certificate, lambda _: {"key": GARBAGE}, shows_certificate),
    Kind(
        "own keys",
        lambda _, number: {"gateway.toml": config(number, number - 1)},
        lambda _: {"own-2": GARBAGE},
        signs,
    ),
    Kind("AlipayHK's keys", theirs, lambda _: {"theirs-2": GARBAGE}, verifies),
    Kind(
        "callers",
        lambda _, number: {"callers.toml": (ONE, TWO)[number % 2].encode()},
        lambda _: {"callers.toml": b"[callers"},
        knows_caller,
    ),
    Kind(
        "result codes",
        lambda _, number: {"codes.toml": ("", CODES)[number % 2].encode()},
        lambda _: {"codes.toml": b'[SyncLinkage]\nA = "UNAVAILABLE"\n'},
        knows_result_code,
    ),
    Kind(
        "log level",
        lambda _, number: {"gateway.toml": config(number, number)},
        lambda number: {"gateway.toml": config(number, number).replace(b"log_level", b"log_level = 1 #")},
        anything,
    ),
)


@pytest.fixture
def start(run: Run, material: Material, upstream: Upstream, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that runs a gateway whose files are in a volume."""

    @asynccontextmanager
    async def start(workers: int, every_s: str = "0.2") -> AsyncIterator[Setup]:
        pairs = {"1": material.ours, "2": rsa_pair(tmp_path, "ours-next")}
        servers = tuple(material.callers_ca.issue(f"server-{each}", "127.0.0.1") for each in "ab")
        (directory := tmp_path / "volume").mkdir()
        files = {
            **{f"own-{version}": pair.private_file.read_bytes() for version, pair in pairs.items()},
            "theirs-1": material.theirs.public_file.read_bytes(),
            "theirs-2": material.unknown_key.public_file.read_bytes(),
            "chain": servers[0].chain,
            "key": servers[0].key,
            "ca": material.callers_ca.file.read_bytes(),
            "callers.toml": ONE.encode(),
            "codes.toml": b"",
            "gateway.toml": config(0, 0),
        }
        volume = Volume(directory, files)
        merchants = {version: pair.key.public_key() for version, pair in pairs.items()}
        wallet = RotatingWallet(material.theirs.key, merchants["1"], merchants=merchants)
        upstream.script = wallet.answers(material.theirs_next)
        settings = {
            "SIGNING_KEY_FILE": "",
            "SIGNING_KEY_FILES": f"1={directory}/own-1,2={directory}/own-2",
            "PUBLIC_KEY_FILES": f"1={directory}/theirs-1,2={directory}/theirs-2",
            "TLS_CERT_FILE": f"{directory}/chain",
            "TLS_KEY_FILE": f"{directory}/key",
            "TLS_CLIENT_CA_FILE": f"{directory}/ca",
            "CALLERS_FILE": f"{directory}/callers.toml",
            "RESULT_CODES_FILE": f"{directory}/codes.toml",
            "WORKERS": str(workers),
            "LISTEN": f"127.0.0.1:{free_port()}",
            "RELOAD_EVERY_S": every_s,
        }
        async with run(settings, config=directory / "gateway.toml") as gateway:
            await gateway.wait_for_workers(workers)
            yield Setup(gateway, volume, upstream, material, (servers[0], servers[1]))

    return start


def workers_of(gateway: Gateway) -> list[int]:
    """Return the workers' process ids."""
    pid = gateway.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


class Load:
    """Calls on one connection, and calls on a connection of their own, until it is stopped."""

    def __init__(self, setup: Setup) -> None:
        self.calls, self.failed = 0, list[Reported]()
        self._setup, self._is_stopped = setup, False

    async def run(self) -> None:
        """Call until it is stopped."""
        async with self._setup.channel() as steady:
            while not self._is_stopped:
                await self._call(steady)
                async with self._setup.channel() as fresh:
                    await self._call(fresh)
                await asyncio.sleep(0.05)

    async def _call(self, channel: grpc.aio.Channel) -> None:
        for api in APIS:
            found = await caller.call(channel, api, fresh_request(api))
            self.calls += 1
            # A busy machine can let calls wait in gRPC's queue.
            if isinstance(found, Reported) and found.code is not StatusCode.RESOURCE_EXHAUSTED:
                self.failed.append(found)

    def stop(self) -> None:
        """Stop after the calls in progress."""
        self._is_stopped = True


async def eventually_used(setup: Setup, kind: Kind, number: int) -> None:
    """Wait until several connections in a row show the good files of a round."""
    async with asyncio.timeout(WAIT_S):
        row = 0
        while row < PROBES:
            row = row + 1 if await kind.is_used(setup, number) else 0


async def is_successful(setup: Setup, success: str) -> None:
    """Wait until the gauge has a value."""
    async with asyncio.timeout(WAIT_S):
        while await setup.success() != success:  # noqa: ASYNC110  (a page has no event to wait for)
            await asyncio.sleep(0.05)


async def replace_once(
    setup: Setup, kind: Kind, number: int, put: Callable[[Mapping[str, bytes]], None]
) -> None:
    """Replace a kind with good files, then with bad ones, then with the good ones again."""
    gateway = setup.gateway

    async def put_and_wait(files: Mapping[str, bytes], event: str) -> dict[str, Any]:
        after = len(gateway.out)
        put(files)
        return await gateway.logged(
            lambda line: line["event"] == event and line.get("group", kind.group) == kind.group, after=after
        )

    await put_and_wait(kind.good(setup, number), "configuration reloaded")
    await eventually_used(setup, kind, number)
    await is_successful(setup, "1.0")  # a pair can have been seen half-written before
    bad = kind.bad(number)
    good = {name: setup.volume.files[name] for name in bad}
    line = await put_and_wait(bad, "configuration reload failed")
    assert line["level"] == "error"
    assert {"setting", "cause"} <= line.keys()
    assert ("file" in line) == (kind.group != "log level")
    await is_successful(setup, "0.0")
    for _ in range(PROBES):
        assert await kind.is_used(setup, number), "the old one is kept"
    await put_and_wait(good, "configuration unchanged")
    await is_successful(setup, "1.0")


@pytest.mark.parametrize("workers", [1, 2])
async def test_each_kind_of_file_is_replaced_and_no_call_fails(
    start: Callable[..., Any], workers: int
) -> None:
    async with start(workers) as setup:
        load = Load(setup)
        loading = asyncio.create_task(load.run())
        ways = (setup.volume.rename, setup.volume.swap)
        for number in range(1, ROUNDS + 1):
            for place, kind in enumerate(KINDS):
                await replace_once(setup, kind, number, ways[(place + number + workers) % 2])
        load.stop()
        await loading
        assert load.failed == []
        assert load.calls > ROUNDS
        assert all("dropped" not in line for line in setup.gateway.records)


async def test_worker_that_starts_later_uses_the_last_good_files(start: Callable[..., Any]) -> None:
    async with start(2) as setup:
        gateway, after = setup.gateway, len(setup.gateway.out)
        setup.volume.swap({"gateway.toml": config(1, 0)})
        await gateway.logged(lambda line: line["event"] == "configuration reloaded", after=after)
        setup.volume.swap({"own-1": GARBAGE, "own-2": GARBAGE, "gateway.toml": b"[", "key": GARBAGE})
        await gateway.logged(lambda line: line["event"] == "configuration reload failed", after=after)
        for worker in workers_of(gateway):
            after = len(gateway.out)
            os.kill(worker, signal.SIGKILL)
            line = await gateway.logged(lambda line: line["event"] == "signing key loaded", after=after)
            assert line["version"] == "2"
            await gateway.logged(lambda line: line["event"] == "gateway started", after=after)
        await eventually_used(setup, KINDS[1], 1)
        assert await setup.success() == "0.0"


@pytest.mark.parametrize("workers", [1, 2])
async def test_files_are_read_only_at_a_signal_if_they_are_not_watched(
    start: Callable[..., Any], workers: int
) -> None:
    async with start(workers, every_s="0") as setup:
        gateway, after = setup.gateway, len(setup.gateway.out)
        setup.volume.rename({"callers.toml": TWO.encode()})
        await asyncio.sleep(1.5)
        assert await setup.code("new.corp") is StatusCode.UNAUTHENTICATED
        gateway.process.send_signal(signal.SIGHUP)
        line = await gateway.logged(lambda line: line["event"] == "configuration reloaded", after=after)
        assert (line["group"], line["count"]) == ("callers", 2)
        await eventually_used(setup, KINDS[3], 1)


async def test_workers_ignore_sighup(start: Callable[..., Any]) -> None:
    async with start(2, every_s="0") as setup:
        gateway = setup.gateway
        workers = workers_of(gateway)
        for pid in (*workers, gateway.process.pid):
            os.kill(pid, signal.SIGHUP)
        await gateway.logged(lambda line: line["event"] == "configuration unchanged")
        assert await setup.code() is StatusCode.OK
        assert workers_of(gateway) == workers
