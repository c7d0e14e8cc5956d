"""A Delivery with a scripted AlipayHK and a ledger whose operations can fail."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Final, TypeVar, cast

from google.protobuf.message import Message

from clients.alipayhk.client import Client
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.errors import CallError
from clients.alipayhk.wire.keys import Keys
from clients.alipayhk.wire.messages import VerifiedResponse
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from service.credentials.callers import ANYBODY, Caller
from service.credentials.in_use import InUse
from service.delivery.clock_skew import ClockSkew
from service.delivery.delivery import Delivery, Limits
from service.delivery.ledger_monitor import LedgerMonitor
from service.delivery.ledger_session import LedgerSession
from service.delivery.outbound_request import OutboundRequest
from service.ledger import Answer, Claim, Ending, Key, LedgerUnavailable, Row
from service.ledger.errors import LedgerBusy
from service.ledger.lease import Clock
from service.ledger.memory import MemoryLedger
from service.outcomes.call import Call
from service.outcomes.circumstances import Circumstances
from service.outcomes.result_codes import ResultCodes
from service.server.rpcs import bind_account, sync_linkage
from service.telemetry.metrics import Metrics
from tests.service.fakes import refused, vault_of, verified

UPSTREAM_TIMEOUT_S: Final = 4.0
LEASE_S: Final = UPSTREAM_TIMEOUT_S + 1.0
STARTED_S: Final = 1_800_000_000.0
"""The wall clock, in seconds since 1970, when the virtual monotonic clock is zero."""
BIZ_TIME_MS: Final = 1_700_000_000_000
T = TypeVar("T")


def wall_s() -> float:
    """Return the wall clock, which advances with the virtual one."""
    return STARTED_S + time.monotonic()


# -- AlipayHK


@dataclass(frozen=True)
class Step:
    """The script of one attempt. By default it is applied and its result is S."""

    error: Exception | None = None
    sent: bool = True
    before_s: float = 0.001
    """The time until the first byte is sent."""
    after_s: float = 0.001
    """The time from then until the response."""
    applies: bool = True
    """Whether the wallet applies it, even if the gateway gets an error."""
    skew_s: float | None = None
    """How far AlipayHK's clock is ahead, by its response."""
    halt: Callable[[], Awaitable[None]] | None = None
    """Called just before the first byte."""
    stubborn: bool = False
    """Whether the first byte is sent while the attempt is being cancelled."""


S: Final = Step()
U: Final = Step(refused("U", "UNKNOWN_EXCEPTION"))
SLOW: Final = Step(after_s=1.0)
HANG: Final = Step(after_s=math.inf)
"""Applied, and without a response."""
HANG_CONNECTING: Final = Step(sent=False, before_s=math.inf, applies=False)


def refusing(code: str) -> Step:
    """Return an attempt that is rejected with a signed F."""
    return Step(refused("F", code), applies=False)


def failing(error: CallError, *, applies: bool = False) -> Step:
    """Return an attempt that fails with an error."""
    return Step(error, sent=error.sent, applies=applies and error.sent)


UNREACHABLE: Final = failing(errors.Unreachable("ClientConnectorError"))
LOST: Final = failing(errors.ConnectionLost("reset"))
BAD_GATEWAY: Final = failing(errors.Unsigned("no signature", http_status=502))
UNSIGNED: Final = failing(errors.Unsigned("no signature", http_status=200))
LIMITED: Final = refusing("REQUEST_TRAFFIC_EXCEED_LIMIT")


@dataclass
class Wallet:
    """AlipayHK's memory: the content that it applied for each request id, and the order."""

    applied: dict[tuple[str, str], bytes] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def apply(self, api: str, request_id: str, body: bytes) -> None:
        """Apply a request once."""
        first = self.applied.setdefault((api, request_id), body)
        assert first == body, "changed content was sent under a used id"
        self.order.append(request_id)


class ScriptedClient(Client):
    """Makes attempts by its script, within the timeout of one attempt."""

    def __init__(self) -> None:
        self.scripts: defaultdict[str, deque[Step]] = defaultdict(deque)
        self.otherwise: Callable[[str], Step] = lambda _: S
        self.attempts: list[tuple[str, Attempt]] = []
        self.seen: list[tuple[str, bytes]] = []
        """The requests that were sent: request id and body."""
        self.sent_at: list[float] = []
        self.wallet = Wallet()
        self.at_once = self.at_once_max = 0

    def script(self, request_id: str, *steps: Step) -> None:
        """Set the script of a request; further attempts use `otherwise`."""
        self.scripts[request_id].extend(steps)

    def ids_seen(self) -> list[str]:
        """Return the ids of the requests that were sent, in order."""
        return [request_id for request_id, _ in self.seen]

    async def call(
        self, endpoint: Endpoint, request_id: str, body: bytes, attempt: Attempt
    ) -> VerifiedResponse:
        """Make one attempt."""
        self.attempts.append((request_id, attempt))
        script = self.scripts[request_id]
        step = script.popleft() if script else self.otherwise(request_id)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            async with asyncio.timeout(UPSTREAM_TIMEOUT_S):
                return await self._go(step, endpoint, request_id, body, attempt)
        except asyncio.CancelledError:
            attempt.sent |= step.stubborn
            raise
        except TimeoutError:
            raise (errors.Timeout if attempt.sent else errors.Unreachable)("no answer in time") from None
        finally:
            self.at_once -= 1

    async def _go(
        self, step: Step, endpoint: Endpoint, request_id: str, body: bytes, attempt: Attempt
    ) -> VerifiedResponse:
        await asyncio.sleep(step.before_s)
        if step.halt is not None:
            await step.halt()
        if step.sent:
            if not attempt.may_send():
                raise errors.LeaseExpired("the lease expired before the first byte was written")
            attempt.sent = True
            self.seen.append((request_id, body))
            self.sent_at.append(time.monotonic())
            if step.applies:
                self.wallet.apply(endpoint.api, request_id, body)
        await asyncio.sleep(step.after_s)
        attempt.skew_s = step.skew_s
        if step.error is not None:
            raise step.error
        return verified()


# -- the ledger


@dataclass(frozen=True)
class Fault:
    """A fault of one ledger operation."""

    before_s: float = 0.0
    """How long it hangs before it takes effect, in seconds."""
    fails: bool = False
    """Whether it fails without taking effect."""
    loses: bool = False
    """Whether it takes effect and reports a failure."""
    busy: bool = False
    """Whether it fails because another process holds the lock."""
    after_s: float = 0.0
    """How long it hangs after it took effect, in seconds."""


BUSY: Final = Fault(before_s=0.5, busy=True)
FAILS: Final = Fault(fails=True)
LOSES: Final = Fault(loses=True)


class FaultyLedger(MemoryLedger):
    """A ledger in memory with faults; it claims to outlive a crash."""

    outlives_process = True

    def __init__(self, clock_ms: Callable[[], int] = lambda: round(wall_s() * 1000)) -> None:
        super().__init__(clock_ms)
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.broken = False
        """Whether every operation fails."""
        self.done: list[str] = []

    def fault(self, operation: str, *faults: Fault) -> None:
        """Set the faults of the next operations of one kind."""
        self.faults[operation].extend(faults)

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Claim, with the next fault."""
        work = super().claim
        return await self._through("claim", lambda: work(claim, now_ms))

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Look up, with the next fault."""
        work = super().look
        return await self._through("look", lambda: work(claim, now_ms))

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Renew, with the next fault."""
        work = super().renew
        return await self._through("renew", lambda: work(key, token, lease_ms, now_ms))

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Extend, with the next fault."""
        work = super().extend
        return await self._through("extend", lambda: work(key, token, lease_ms, now_ms))

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Record, with the next fault."""
        work = super().record
        return await self._through("record", lambda: work(key, token, ending, now_ms))

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Undo, with the next fault."""
        work = super().undo
        return await self._through("undo", lambda: work(key, token, now_ms))

    async def _through(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        faults = self.faults[operation]
        fault = faults.popleft() if faults else FAILS if self.broken else Fault()
        await asyncio.sleep(fault.before_s)
        if fault.fails:
            raise LedgerUnavailable("disk full")
        if fault.busy:
            raise LedgerBusy("locked")
        self.done.append(operation)
        result = await work()
        await asyncio.sleep(fault.after_s)
        if fault.loses:
            raise LedgerUnavailable("disk failed")
        return result


# -- the whole gateway


@dataclass(frozen=True)
class Reported:
    """The result of a call, and when it came."""

    reason: str
    outcome: str = ""
    retry: str = ""
    code: str = "OK"
    facts: dict[str, str] = field(default_factory=dict)
    response: Any = None
    took_s: float = 0.0
    resends_ended: bool = False

    @property
    def short(self) -> tuple[str, str, str]:
        """Return reason, outcome and retry."""
        return self.reason, self.outcome, self.retry


OK: Final = ("OK", "", "")
IN_PROGRESS: Final = ("REQUEST_IN_PROGRESS", "unknown", "same_request_id")
STALE: Final = ("STALE_BIZ_TIME", "not_sent", "never")
TIMEOUT: Final = ("UPSTREAM_TIMEOUT", "unknown", "same_request_id")
UNAVAILABLE: Final = ("LEDGER_UNAVAILABLE", "not_sent", "same_request_id")
UNREACHABLE_TOLD: Final = ("UPSTREAM_UNREACHABLE", "not_sent", "same_request_id")


class World:
    """The delivery of one gateway, with its ledger and AlipayHK."""

    def __init__(
        self,
        *,
        client: ScriptedClient | None = None,
        ledger: MemoryLedger | None = None,
        max_in_flight: int = 1000,
        attempts_max: int = 5,
        workers: int = 1,
        chance: Callable[[], float] = lambda: 1.0,
        without_ledger: bool = False,
        bind_account_idempotent: bool = False,
        codes: ResultCodes | None = None,
    ) -> None:
        self.wall_step_s = 0.0
        """How far the gateway's wall clock was set ahead, in seconds."""
        self.client = ScriptedClient() if client is None else client
        self.metrics = Metrics()
        self.codes = codes or ResultCodes()
        clock = Clock(lambda: wall_s() + self.wall_step_s, time.monotonic)
        self.ledger = FaultyLedger(clock.now_ms) if ledger is None else ledger
        self.session = LedgerSession(
            LedgerMonitor(self.ledger, self.metrics),
            vault_of(),
            self.metrics,
            lease_s=LEASE_S,
            biz_time_ahead_s=300.0,
            idempotent_without=without_ledger,
            clock=clock,
        )
        self.delivery = Delivery(
            self.client,
            self.session,
            self.metrics,
            apis=("SyncLinkage", "BindAccount"),
            codes=InUse(self.codes),
            limits=Limits(max_in_flight, attempts_max, workers),
            skew=ClockSkew(self.metrics, clock=clock),
            chance=chance,
        )
        keys = cast("Keys", SimpleNamespace(signing_version="1"))  # nothing here signs
        one = Endpoint("SyncLinkage", HeaderSigned(), "https://h", "/s", "C", keys, idempotent=True)
        self._sync = one
        self._bind = replace(
            one,
            api="BindAccount",
            protocol=EnvelopeSigned("f", "1.0.0"),
            idempotent=bind_account_idempotent,
        )

    @property
    def faulty(self) -> FaultyLedger:
        """Return the ledger, to set faults."""
        assert isinstance(self.ledger, FaultyLedger)
        return self.ledger

    def sync(
        self, request_id: str, *, content: str = "bind", biz_time: int = 1, user: str | None = None
    ) -> OutboundRequest:
        """Return a SyncLinkage request; every request has a linkage of its own unless a user is given."""
        members: dict[str, Any] = {"bizTime": biz_time, "operate": content, "user": user or request_id}
        return OutboundRequest(
            self._sync,
            request_id,
            _json({"requestId": request_id, **members}),
            _json(members),
            sync_linkage.RPC.response,
            sync_linkage.reply,
            linkage=(user or request_id,),
            biz_time_ms=BIZ_TIME_MS + biz_time,
        )

    def bind(self, request_id: str, *, content: str = "x") -> OutboundRequest:
        """Return a BindAccount request."""
        body = _json({"account": content})
        rpc = bind_account.RPC
        return OutboundRequest(self._bind, request_id, body, body, rpc.response, rpc.reply)

    async def deliver(
        self,
        order: OutboundRequest,
        left_s: float = 10.0,
        caller: Caller = ANYBODY,
        *,
        retried: bool = False,
    ) -> Reported:
        """Deliver a request, and return the caller's result as the server would report it."""
        api, idempotent = order.endpoint.api, order.endpoint.idempotent
        began = time.monotonic()
        circumstances = Circumstances(api, idempotent, retried=retried)
        call = Call(began + left_s, circumstances, caller, order.request_id)
        try:
            response: Message = await self.delivery.deliver(order, call)
        except Exception as error:  # noqa: BLE001  (as ErrorTranslation does)
            verdict = call.verdict_of(error, self.codes)
            took_s = time.monotonic() - began
            names = (verdict.reason_name, str(verdict.outcome), str(verdict.retry), verdict.code.name)
            ended = call.circumstances.resends_ended
            return Reported(*names, dict(verdict.facts), None, took_s, ended)
        return Reported("OK", response=response, took_s=time.monotonic() - began)

    def start(
        self,
        order: OutboundRequest,
        left_s: float = 10.0,
        caller: Caller = ANYBODY,
        *,
        retried: bool = False,
    ) -> asyncio.Task[Reported]:
        """Deliver a request in a task of its own, as gRPC does."""
        return asyncio.create_task(self.deliver(order, left_s, caller, retried=retried))

    async def row(self, request_id: str) -> Row | None:
        """Return the ledger's row of a request id."""
        rows: Sequence[Row] = await self.ledger.find(request_id)
        return rows[0] if rows else None

    async def state(self, request_id: str) -> str:
        """Return the state of a request id's row in the ledger, or "none"."""
        row = await self.row(request_id)
        return "none" if row is None else str(row.state)

    async def nothing_is_left(self) -> None:
        """Wait until no request is in flight, and check that nothing of them remains."""
        assert await self.delivery.idle(1000.0)
        await asyncio.sleep(0)
        delivery = self.delivery
        assert not delivery._flights
        assert not delivery._linkages._waiting
        assert not any(delivery._by_caller.values())
        for sender in delivery._senders.values():
            assert (sender.pace.limiter._taken, list(sender.pace.limiter._waiting)) == (0, [])
            assert not sender.pace.breaker._probing
        ours = ("Delivery.", "Sender.", "LedgerSession.", "World.")
        left = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
        assert not [name for name in left if name.startswith(ours)]


Make = Callable[..., World]
"""The type of the fixture `make`, which makes a World with other options."""


def _json(members: object) -> bytes:
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()
