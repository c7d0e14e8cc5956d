"""One simulated gateway process: the real delivery, client and protocols, without the gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from clients.alipayhk.api import Api
from clients.alipayhk.client import Client
from clients.alipayhk.transport import Transport
from service.credentials.callers import ANYBODY
from service.credentials.in_use import InUse
from service.delivery.clock_skew import ClockSkew
from service.delivery.delivery import Delivery, Limits
from service.delivery.flight import Flight
from service.delivery.ledger_monitor import LedgerMonitor
from service.delivery.ledger_session import LedgerSession
from service.delivery.outbound_request import OutboundRequest
from service.jobs.maintenance import maintain
from service.ledger.lease import LEASE_MARGIN_S, Clock
from service.ledger.vault import KEY_BYTES, Vault
from service.outcomes.call import Call
from service.outcomes.circumstances import Circumstances
from service.outcomes.result_codes import ResultCodes
from service.server.rpcs import bind_account, sync_linkage
from service.telemetry.metrics import Metrics

from .network import Connector, Network
from .store import RETENTION_S, FaultyLedger, Store
from .timeline import STARTED_S, Process, Timeline
from .wallet import CLIENT_ID, endpoints

UPSTREAM_TIMEOUT_S: Final = 4.0
LEASE_S: Final = UPSTREAM_TIMEOUT_S + LEASE_MARGIN_S
CONNECT_TIMEOUT_S: Final = 2.0
WINDOW_S: Final = 300.0
BIZ_TIME_MS: Final = 1_700_000_000_000
ENDPOINTS: Final = endpoints(gateway=True)
CODES: Final = ResultCodes()
WITHOUT_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Not used: the default one takes 100 ms to make."""


@dataclass(slots=True, eq=False)
class Host:
    """The machine of the gateways, or of one of them."""

    timeline: Timeline
    ahead_s: float = 0.0
    """How far its wall clock is ahead when nobody sets it, in seconds."""
    wall_step_s: float = 0.0
    """How far its wall clock was set ahead, in seconds."""
    steps: int = 0
    """How often its wall clock was set."""

    def wall_s(self) -> float:
        """Return the wall clock, in seconds since 1970."""
        return STARTED_S + self.timeline.now_s + self.ahead_s + self.wall_step_s

    def set_clock(self, step_s: float) -> None:
        """Set the wall clock ahead or back."""
        self.wall_step_s, self.steps = step_s, self.steps + 1


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks for."""

    api: Api
    request_id: str
    content: str
    user: str = ""
    biz_time: int = 0

    @property
    def id(self) -> tuple[str, str]:
        """API and request id."""
        return self.api, self.request_id

    def outbound(self) -> OutboundRequest:
        """Return the request in AlipayHK's names."""
        endpoint = ENDPOINTS[self.api]
        if self.api is Api.BIND_ACCOUNT:
            body = _json({"account": self.content})
            rpc = bind_account.RPC
            return OutboundRequest(endpoint, self.request_id, body, body, rpc.response, rpc.reply)
        members = {"bizTime": self.biz_time, "operate": self.content, "user": self.user}
        return OutboundRequest(
            endpoint,
            self.request_id,
            _json({"requestId": self.request_id, **members}),
            _json(members),
            sync_linkage.RPC.response,
            sync_linkage.reply,
            linkage=(self.user,),
            biz_time_ms=BIZ_TIME_MS + self.biz_time,
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What a call was told."""

    reason: str
    outcome: str = ""
    retry: str = ""
    result_code: str = ""
    replayed: bool = False
    answered: str = ""
    """What identifies the response: its Tracer-Id, or the account it is about."""
    resolved: bool = False

    @property
    def is_final(self) -> bool:
        """Whether it says what AlipayHK decided for this request."""
        return self.reason == "OK" or (self.reason == "WALLET_REJECTED" and self.outcome == "rejected")

    def __str__(self) -> str:
        """Return it in a line."""
        marks = [name for name in ("replayed", "resolved") if getattr(self, name)]
        return " ".join(filter(None, (self.reason, self.outcome, self.retry, self.result_code, *marks)))


GONE: Final = Report("CONNECTION_LOST_TO_GATEWAY", "unknown", "same_request_id")
"""What a caller sees when the gateway's process dies."""


@dataclass(slots=True)
class WatchedCall(Call):
    """A call that reports which flight it joins."""

    joined: Callable[[Flight], None] = lambda _: None


@dataclass(eq=False)
class Gateway:
    """One process."""

    name: str
    host: Host
    network: Network
    store: Store
    note: Callable[..., None]
    chance: Random
    limits: Limits
    process: Process = field(init=False)
    delivery: Delivery = field(init=False)
    session: LedgerSession = field(init=False)
    ledger: FaultyLedger = field(init=False)
    skew: ClockSkew = field(init=False)
    is_stopping: bool = False
    waiting: dict[asyncio.Task[Report], Callable[[Report], None]] = field(default_factory=dict)
    """The calls in progress, and who gets their reports."""
    _ended_tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Start the process."""
        self.process = process = Process(self.host.timeline, self.name)
        process.loop.connector = Connector(self.network, process)
        self.host.timeline.processes.append(process)
        with process.entered():
            self._start()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.alive

    def call(
        self,
        order: Order,
        left_s: float,
        done: Callable[[Report], None],
        joined: Callable[[Flight], None],
    ) -> Any:
        """Start a call; return its task, which can be cancelled."""
        with self.process.entered():
            task = self.process.loop.create_task(self._call(order, left_s, joined))
            self.waiting[task] = done
            task.add_done_callback(self._ended)
            return task

    def kill(self) -> None:
        """Kill the process: none of its callbacks runs any more."""
        self.process.alive = False
        self.host.timeline.processes.remove(self.process)
        self.network.drop(self.process)
        self.store.dropped(self.process)
        waiting, self.waiting = self.waiting, {}
        for done in waiting.values():
            done(GONE)

    def _start(self) -> None:
        clock = Clock(self.host.wall_s, lambda: self.host.timeline.now_s)
        metrics = Metrics()
        self.ledger = self.store.open(self.process, clock.now_ms)
        self.ledger.note = lambda *what: self.note(self.name, "ledger", *what)
        monitor = LedgerMonitor(self.ledger, metrics)
        vault = Vault(bytes(KEY_BYTES), random_bytes=self.chance.randbytes)
        self.skew = ClockSkew(metrics, window_s=WINDOW_S, clock=clock)
        self.session = LedgerSession(
            monitor,
            vault,
            metrics,
            lease_s=LEASE_S,
            biz_time_ahead_s=300.0,
            records=self.store.kind != "off",
            clock=clock,
        )
        self.transport = transport = Transport(
            timeout_s=UPSTREAM_TIMEOUT_S, connect_timeout_s=CONNECT_TIMEOUT_S, tls=WITHOUT_TLS
        )
        client = Client(transport, now=lambda: datetime.fromtimestamp(self.host.wall_s(), UTC))
        self.delivery = Delivery(
            client,
            self.session,
            metrics,
            apis=tuple(Api),
            codes=InUse(CODES),
            limits=self.limits,
            skew=self.skew,
            chance=self.chance.random,
        )
        self.maintenance = self.process.loop.create_task(
            maintain(self.session, monitor, self.skew, RETENTION_S)
        )

    async def _call(self, order: Order, left_s: float, joined: Callable[[Flight], None]) -> Report:
        api, idempotent = order.api, ENDPOINTS[order.api].idempotent
        deadline = self.process.monotonic_s() + left_s
        call = WatchedCall(
            deadline, Circumstances(api, idempotent), ANYBODY, order.request_id, joined=joined
        )
        try:
            response: Any = await self.delivery.deliver(order.outbound(), call)
        except Exception as error:  # noqa: BLE001  (as ErrorTranslation does)
            verdict = call.verdict_of(error, CODES)
            facts = verdict.facts
            return Report(
                verdict.reason_name,
                str(verdict.outcome),
                str(verdict.retry),
                facts.get("result_code", ""),
                facts.get("replayed") == "true",
                facts.get("tracer_id", ""),
            )
        answered = response.account.account_id if api is Api.BIND_ACCOUNT else response.tracer_id
        return Report(
            "OK",
            "applied",
            replayed=response.replayed,
            answered=answered,
            resolved=response.resolved_by_operator,
        )

    def _ended(self, task: asyncio.Task[Report]) -> None:
        done = self.waiting.pop(task)
        if not task.cancelled():
            done(task.result())

    def dispose(self) -> None:
        """End everything that still waits in a dead process, so that none of it runs later."""
        with self.process.entered():
            while tasks := [
                task for task in asyncio.all_tasks(self.process.loop) if task not in self._ended_tasks
            ]:
                for task in tasks:
                    self._ended_tasks.add(task)
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    coroutine: Any = task.get_coro()
                    with contextlib.suppress(Exception):
                        coroutine.close()
            for pool in self.transport._pools.values():
                pool._closed = True
        self.process.close()


def key_of(order: Order) -> tuple[str, str, str]:
    """Return the parts of the order's key in the ledger."""
    return CLIENT_ID, order.api, order.request_id


def _json(members: object) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()
