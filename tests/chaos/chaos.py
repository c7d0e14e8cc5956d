"""Kill the gateway again and again under load, and compare what callers were told with the wallet's memory.

    python -m tests.chaos.chaos --kills 500 --rate 200

Every caller keeps its request id and content until it knows the outcome, as the contract asks. What is
counted at the end: requests that took effect though their caller was told that they did not (told wrong),
requests that a caller was told of as done which the wallet does not know (lost), and requests without a
promise of idempotency that AlipayHK received twice (doubled).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from alipayhk_linkage.errors import LinkageError
from service.key_files import generate
from service.settings import environment_for_children
from tests.ports import free_port

SERVICE = "/alipayhk.linkage.v1.LinkageService/"
PATIENCE_S = 60.0
"""How long after the last kill every caller must know."""
WAIT_FIRST_S = 0.1
WAIT_MAX_S = 4.0


@dataclass
class Told:
    """What the callers know at the end, by API and request id."""

    outcomes: dict[tuple[str, str], str] = field(default_factory=dict)
    calls: int = 0
    asked: set[tuple[str, str]] = field(default_factory=set)
    """Those whose callers were told that the same request again is of no use."""


@dataclass
class Report:
    """What a run found."""

    kills: int
    requests: int
    calls: int
    outcomes: Counter[str]
    wrong: list[str]
    lost: list[str]
    doubled: list[str]
    left: list[str]
    """Those whose callers could never learn what came of them, nor that a person must tell."""

    @property
    def is_clean(self) -> bool:
        """Whether nobody was told wrong, nothing was lost and nothing doubled, and every caller knows."""
        return not (self.wrong or self.lost or self.doubled or self.left)

    def __str__(self) -> str:
        counts = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(self.outcomes.items()))
        found = f"told wrong: {len(self.wrong)}, lost: {len(self.lost)}, doubled: {len(self.doubled)}"
        found += f", left in the dark: {len(self.left)}"
        return f"{self.kills} kills, {self.requests} requests in {self.calls} calls ({counts}); {found}"


class World:
    """A sandbox that stays, and a gateway that comes and goes."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.ours, self.theirs = generate(directory, "merchant"), generate(directory, "alipayhk")
        self.gateway: asyncio.subprocess.Process | None = None
        self.sandbox: asyncio.subprocess.Process | None = None
        self.console = self.address = ""

    async def start_sandbox(self) -> None:
        """Start it on a port of the system's choice."""
        self.sandbox = await self._start(
            *("sandbox", "--listen", "127.0.0.1:0", "--client-id", "CHAOS"),
            *("--private-key-file", self.theirs["private_key_file"]),
            *("--merchant-public-key-files", f"1={self.ours['public_key_file']}"),
            log="sandbox.log",
        )
        assert self.sandbox.stdout is not None
        self.console = (await self.sandbox.stdout.readline()).decode().split()[-1]

    async def start_gateway(self) -> None:
        """Start it anew, on the port that it had before."""
        listen = self.address or f"127.0.0.1:{free_port()}"
        self.gateway = await self._start(
            "serve",
            log="gateway.log",
            LISTEN=listen,
            ADMIN_LISTEN="127.0.0.1:0",
            BASE_URL=self.console,
            CLIENT_ID="CHAOS",
            SIGNING_KEY_FILE=self.ours["private_key_file"],
            PUBLIC_KEY_FILES=f"1={self.theirs['public_key_file']}",
            SYNC_LINKAGE_PATH="/sandbox/binding/sync",
            BIND_ACCOUNT_PATH="/sandbox/account/bind",
            LEDGER_URL=f"sqlite:///{self.directory}/ledger.db",
            UPSTREAM_TIMEOUT_S="1",
            DRAIN_DELAY_S="0",
        )
        assert self.gateway.stdout is not None
        async for line in self.gateway.stdout:
            said = json.loads(line)
            if said.get("event") == "serving":
                self.address = said["listen"]
                asyncio.create_task(_drain(self.gateway.stdout))  # noqa: RUF006  (ends with its process)
                return
        raise RuntimeError(f"the gateway did not start: {(self.directory / 'gateway.log').read_text()}")

    async def kill_gateway(self) -> None:
        """End it as nothing can be prepared for."""
        assert self.gateway is not None
        self.gateway.kill()
        await self.gateway.wait()

    async def stop(self) -> None:
        """End everything."""
        for process in (self.gateway, self.sandbox):
            if process is not None and process.returncode is None:
                process.terminate()
                await process.wait()

    def wallet(self) -> dict[str, Any]:
        """Ask the sandbox what took effect."""
        with urllib.request.urlopen(f"{self.console}/__sandbox/wallet") as answer:
            return dict(json.load(answer)["requests"])

    async def _start(self, *arguments: str, log: str, **settings: str) -> asyncio.subprocess.Process:
        with (self.directory / log).open("ab") as errors:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service", *arguments),
                env=environment_for_children(**settings),
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        pass


async def run(*, kills: int, rate: float, seed: int = 0) -> Report:
    """Call at a rate while the gateway is killed so many times; wait until every caller knows; compare."""
    told = Told()
    with tempfile.TemporaryDirectory(prefix="alipayhk-chaos-") as directory:
        world = World(Path(directory), seed)
        try:
            await world.start_sandbox()
            await world.start_gateway()
            killing = asyncio.create_task(_kill(world, kills))
            await _call_while(killing, world, told, rate)
            return _compare(kills, told, world.wallet())
        finally:
            await world.stop()


async def _kill(world: World, kills: int) -> None:
    for _ in range(kills):
        await asyncio.sleep(world.random.uniform(0.05, 0.6))
        await world.kill_gateway()
        await world.start_gateway()


async def _call_while(killing: asyncio.Task[None], world: World, told: Told, rate: float) -> None:
    async with grpc.aio.insecure_channel(
        world.address,
        options=[
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
        ],
    ) as channel:
        callers: set[asyncio.Task[None]] = set()
        number = 0
        while not killing.done():
            number += 1
            call = _sync_linkage if number % 2 else _bind_account
            callers.add(asyncio.create_task(call(world, channel, told, number)))
            await asyncio.sleep(world.random.expovariate(rate))
        await killing
        _, waiting = await asyncio.wait(callers, timeout=PATIENCE_S)
        for caller in waiting:
            caller.cancel()
        for caller in callers - waiting:
            caller.result()


async def _sync_linkage(world: World, channel: grpc.aio.Channel, told: Told, number: int) -> None:
    request = pb.SyncLinkageRequest(
        request_id=f"chaos-{number}",
        operate_type=pb.OPERATE_TYPE_UNBIND if number % 10 == 1 else pb.OPERATE_TYPE_BIND,
        external_identity_type=pb.EXTERNAL_IDENTITY_TYPE_UID,
        external_identity_value=f"member-{number}",
        user_id=_user_id(world),
        binding_target_type=pb.BINDING_TARGET_TYPE_USER_ID,
    )
    request.biz_time.FromMilliseconds(int(time.time() * 1000))
    await _until_known(channel, told, "SyncLinkage", request, pb.SyncLinkageResponse)


async def _bind_account(world: World, channel: grpc.aio.Channel, told: Told, number: int) -> None:
    request = pb.BindAccountRequest(
        request_id=f"chaos-{number}",
        merchant_account_id="2160400000002012",
        type="TELECOM",
        sub_type="MOBILE_SERVICE",
        account_id=str(number),
        user_id=_user_id(world),
    )
    request.timestamp.FromMilliseconds(int(time.time() * 1000))
    await _until_known(channel, told, "BindAccount", request, pb.BindAccountResponse)


def _user_id(world: World) -> str:
    """Mostly a user whose answers take a moment: kills should find requests on their way."""
    return "2160000000000001" + world.random.choice(["", "+DELAY_20", "+DELAY_100", "+DELAY_400"])


async def _until_known(
    channel: grpc.aio.Channel, told: Told, api: str, request: Any, response: Any
) -> None:
    """Repeat one request, with its id and content, until its outcome is known or only a person can tell.

    It waits as long as it is told to, as callers should: who asks at once, again and again, keeps a
    gateway that has just come back from answering anybody.
    """
    call = channel.unary_unary(
        SERVICE + api,
        request_serializer=type(request).SerializeToString,
        response_deserializer=response.FromString,
    )
    key = (api, request.request_id)
    told.outcomes[key] = "unknown"
    for retry in itertools.count():
        told.calls += 1
        try:
            await call(request, timeout=5)
        except grpc.aio.AioRpcError as failure:
            error = LinkageError.of(failure)
            if error.outcome == "rejected" or error.retry != "same_request_id":
                told.outcomes[key] = error.outcome
                told.asked.add(key)
                return
            wait_s = min(WAIT_MAX_S, WAIT_FIRST_S * 2**retry)
            await asyncio.sleep(max(error.retry_after_s or 0.0, random.uniform(0.5, 1) * wait_s))
        else:
            told.outcomes[key] = "OK"
            return


def _compare(kills: int, told: Told, wallet: dict[str, Any]) -> Report:
    wrong, lost, doubled, left = [], [], [], []
    for (api, request_id), outcome in told.outcomes.items():
        known = wallet.get(api, {}).get(request_id, {"effects": 0, "repeats": 0})
        name = f"{api} {request_id}: {outcome}, {known}"
        if outcome == "OK" and known["effects"] != 1:
            lost.append(name)
        if outcome in {"rejected", "not_sent"} and known["effects"]:
            wrong.append(name)
        if api == "BindAccount" and known["repeats"]:
            doubled.append(name)
        if outcome == "unknown" and (api, request_id) not in told.asked:
            left.append(name)
    outcomes = Counter(told.outcomes.values())
    return Report(kills, len(told.outcomes), told.calls, outcomes, wrong, lost, doubled, left)


def main() -> int:
    """Run from the command line; return 0 if nothing was wrong, lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    report = asyncio.run(run(kills=args.kills, rate=args.rate, seed=args.seed))
    print(report)  # noqa: T201
    for line in (*report.wrong, *report.lost, *report.doubled, *report.left)[:20]:
        print(" ", line)  # noqa: T201
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
