"""Random calls and faults: every reported outcome is true, and nothing takes effect twice.

Two gateways share a ledger and an AlipayHK. AlipayHK decides each request once and always gives the same
result. The faults of its network, its front end and the ledger are random. A failing test names its seed,
and a seed always runs alike.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from dataclasses import dataclass, field
from typing import Final

import pytest

from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.messages import VerifiedResponse
from service.credentials.callers import ANYBODY, Caller
from service.delivery.outbound_request import OutboundRequest
from tests.delivery.virtual_time import run
from tests.delivery.world import (
    FAILS,
    LEASE_S,
    LOSES,
    Fault,
    FaultyLedger,
    Reported,
    ScriptedClient,
    Step,
    World,
)
from tests.service.fakes import refused, verified

SEEDS: Final = 300
SEEDS_A_TEST: Final = 30
ANSWERED_LATE_S: Final = 0.3
"""How long after its deadline, in seconds, a call may end while the ledger hangs."""
LOYALTY: Final = Caller("loyalty", frozenset(), 3)
KNOWN_CODES: Final = ("PARAM_ILLEGAL", "USER_NOT_EXIST", "PROCESS_FAIL")
ROUTE_CODES: Final = ("INVALID_SIGNATURE", "ACCESS_DENIED")

Id = tuple[str, str]


class Bank:
    """AlipayHK behind its front end: decides each request once."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.decided: dict[Id, str] = {}
        """S, or the code of a rejection."""
        self.content: dict[Id, bytes] = {}
        self.effects: dict[Id, int] = {}

    def decide(self, endpoint: Endpoint, request_id: str, body: bytes) -> str:
        """Decide a request: SyncLinkage once, BindAccount each time that it arrives."""
        key = (endpoint.api, request_id)
        if endpoint.idempotent and key in self.decided:
            assert self.content[key] == body, "changed content was sent under a used id"
            return self.decided[key]
        code = "S" if self._dice.random() < 0.8 else self._dice.choice((*KNOWN_CODES, "NO_TABLE_KNOWS"))
        self.decided[key], self.content[key] = code, body
        if code == "S":
            self.effects[key] = self.effects.get(key, 0) + 1
        return code


@dataclass
class Made:
    """A call to one gateway."""

    order: OutboundRequest
    left_s: float
    began_s: float
    reported: Reported | None = None
    gone: bool = False

    @property
    def may_send(self) -> bool:
        """Whether the request may be sent on behalf of this call."""
        return self.gone or self.reported is None or self.reported.outcome == "unknown"


class HonestClient(ScriptedClient):
    """Carries requests to the bank, with random faults."""

    def __init__(self, bank: Bank, dice: random.Random) -> None:
        super().__init__()
        self._bank, self._dice = bank, dice
        self.made: list[Made] = []
        self.faults = 0.5

    async def _go(
        self, step: Step, endpoint: Endpoint, request_id: str, body: bytes, attempt: Attempt
    ) -> VerifiedResponse:
        dice, faulty = self._dice, self._dice.random() < self.faults
        await asyncio.sleep(dice.choice((0.0, 0.01, 0.5)))
        if faulty and dice.random() < 0.3:
            await asyncio.sleep(dice.choice((0.0, 1.0, math.inf)))
            raise dice.choice((errors.Unreachable("x"), errors.TlsInvalid("x")))
        attempt.sent = True
        self._check_sent(endpoint, request_id, body)
        await asyncio.sleep(dice.choice((0.0, 0.01, 0.5, 2.0)))
        if faulty and dice.random() < 0.4:
            return await self._lost()
        repeated = endpoint.idempotent and (endpoint.api, request_id) in self._bank.decided
        code = self._bank.decide(endpoint, request_id, body)
        await asyncio.sleep(dice.choice((0.0, 0.01, 0.5)))
        if faulty:
            return await self._lost(decided=True)
        if code != "S":
            raise refused("F", code)
        if repeated and self.faults and dice.random() < 0.4:
            raise refused("F", "ALREADY_DONE_IN_OTHER_WORDS")
        return verified()

    async def _lost(self, *, decided: bool = False) -> VerifiedResponse:
        """Fail in a random way."""
        dice = self._dice
        ends: list[Exception] = [
            errors.ConnectionLost("x"),
            errors.Truncated("x"),
            errors.SignatureInvalid("x"),
            errors.Malformed("x"),
            *(errors.Unsigned("x", http_status=status) for status in (200, 403, 429, 503)),
            refused("U"),
            refused("F", "REQUEST_TRAFFIC_EXCEED_LIMIT"),
        ]
        if not decided:
            # The front end rejects this attempt before the bank, which may have decided an earlier one.
            ends += [refused("F", code) for code in ROUTE_CODES]
        if dice.random() < 0.3:
            await asyncio.sleep(math.inf)
        raise dice.choice(ends)

    def _check_sent(self, endpoint: Endpoint, request_id: str, body: bytes) -> None:
        """Check that the request is sent for a call that was not told `not_sent`."""
        assert any(
            made.may_send
            for made in self.made
            if (made.order.endpoint.api, made.order.request_id) == (endpoint.api, request_id)
            and made.order.body == body
        ), f"{request_id} was sent after every call had been told not_sent"


@dataclass
class Run:
    """One random run."""

    seed: int
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.bank = Bank(self.dice)
        self.ledger = FaultyLedger()
        self.clients = [HonestClient(self.bank, self.dice) for _ in range(2)]
        self.worlds = [
            World(
                client=client,
                ledger=self.ledger,
                max_in_flight=self.dice.choice((3, 100)),
                chance=self.dice.random,
            )
            for client in self.clients
        ]

    async def go(self) -> None:
        """Make calls under faults; then, without faults, repeat each request once."""
        self._draw_faults()
        calls = []
        for _ in range(self.dice.randrange(10, 50)):
            calls.append(asyncio.create_task(self._call()))
            await asyncio.sleep(self.dice.choice((0.0, 0.0, 0.05, 0.5, 2.0)))
        await asyncio.gather(*calls)
        self._end_faults()
        await asyncio.sleep(60.0)
        for world in self.worlds:
            await world.session.flush()
            await world.nothing_is_left()
            assert not world.session._pending
        assert not [key for key, count in self.bank.effects.items() if count > 1]
        await self._ask_again()

    def _draw_faults(self) -> None:
        dice = self.dice
        faults = (FAILS, LOSES, Fault(before_s=0.3), Fault(after_s=0.3), Fault(after_s=1.0), Fault())
        for operation in ("claim", "look", "renew", "extend", "record", "undo"):
            share = dice.choice((0.0, 0.0, 0.2, 0.6))
            # The lease may have expired when the answer arrives.
            more = (Fault(after_s=LEASE_S + 1.0),) if operation in {"claim", "renew", "extend"} else ()
            drawn = [dice.choice(faults + more) if dice.random() < share else Fault() for _ in range(40)]
            self.ledger.fault(operation, *drawn)
        for client in self.clients:
            client.faults = dice.choice((0.0, 0.3, 0.7, 1.0))

    def _end_faults(self) -> None:
        self.ledger.faults.clear()
        for client in self.clients:
            client.faults = 0.0

    def _order(self, world: World) -> OutboundRequest:
        name = str(self.dice.randrange(12))
        content = self.dice.choice(("bind",) * 9 + ("unbind",))
        if self.dice.random() < 0.4:
            return world.bind(name, content=content)
        return world.sync(name, content=content, biz_time=int(name) // 2, user=f"u{int(name) % 3}")

    async def _call(self) -> None:
        at = self.dice.randrange(2)
        world, client = self.worlds[at], self.clients[at]
        made = Made(self._order(world), self.dice.choice((0.05, 0.3, 1.0, 5.0, 10.0)), time.monotonic())
        client.made.append(made)
        seen_before = made.order.key in self.ledger._rows
        retried, decided_before = self.dice.random() < 0.3, self._is_decided(made.order)
        caller = self.dice.choice((ANYBODY, LOYALTY))
        call = world.start(made.order, made.left_s, caller, retried=retried)
        if self.dice.random() < 0.2:
            await asyncio.sleep(self.dice.choice((0.0, 0.02, 0.3, 1.0)))
            made.gone = call.cancel()
        await asyncio.wait({call})
        if not call.cancelled():
            made.gone = False
            made.reported = call.result()
            self._check(made, made.reported, seen_before=seen_before)
            # An earlier attempt of a retried call may be the one that the bank decided.
            assert not (retried and decided_before and made.reported.outcome == "not_sent"), made.reported

    def _check(self, made: Made, reported: Reported, *, seen_before: bool) -> None:
        """Compare the reported outcome with the bank's decision."""
        key = (made.order.endpoint.api, made.order.request_id)
        decided, content = self.bank.decided.get(key), self.bank.content.get(key)
        assert reported.took_s <= max(made.left_s, 0.0) + ANSWERED_LATE_S, reported
        assert reported.reason != "GATEWAY_BUG", reported
        if reported.reason == "OK":
            assert (decided, content) == ("S", made.order.body), reported
        elif reported.outcome == "rejected" and reported.reason != "GATEWAY_REFUSED":
            # GATEWAY_REFUSED is about this attempt; another gateway's attempt may have been applied since.
            assert decided != "S" or content != made.order.body, reported
        elif reported.outcome == "not_sent" and not seen_before:
            same = [other for other in self._made(made.order) if other is not made]
            assert content != made.order.body or any(other.may_send or other.reported for other in same), (
                reported
            )

    def _is_decided(self, order: OutboundRequest) -> bool:
        key = (order.endpoint.api, order.request_id)
        return key in self.bank.decided and self.bank.content[key] == order.body

    def _made(self, order: OutboundRequest) -> list[Made]:
        return [
            made
            for client in self.clients
            for made in client.made
            if made.order.key == order.key and made.order.body == order.body
        ]

    async def _ask_again(self) -> None:
        """Repeat each request: both gateways must report the same, and it must be the bank's decision."""
        for key in {made.order.key: None for client in self.clients for made in client.made}:
            decided = self.bank.decided.get((key.api, key.request_id))
            contents = {b"bind", b"unbind"} if decided is None else {self._content(key.api, key.request_id)}
            for content in contents:
                orders = [self._same(world, key.api, key.request_id, content) for world in self.worlds]
                for client, order in zip(self.clients, orders, strict=True):
                    client.made.append(Made(order, 20.0, time.monotonic()))
                reported = [
                    await world.deliver(order, left_s=20.0)
                    for world, order in zip(self.worlds, orders, strict=True)
                ]
                assert reported[0].short == reported[1].short, reported
                self._check_again(key.api, key.request_id, reported[1])

    def _check_again(self, api: str, request_id: str, reported: Reported) -> None:
        decided = self.bank.decided.get((api, request_id))
        if reported.reason == "OK":
            assert decided == "S"
        elif reported.outcome == "rejected" and reported.reason != "GATEWAY_REFUSED":
            # GATEWAY_REFUSED is about this attempt; another gateway's attempt may have been applied since.
            assert decided not in {None, "S"}
        else:
            refusals = {"REQUEST_ID_REUSED", "STALE_BIZ_TIME", "BIZ_TIME_TIE", "OUTCOME_IN_DOUBT"}
            # After a doubt, a code that no table knows is left to an operator.
            assert reported.reason in refusals or decided == "NO_TABLE_KNOWS", (reported, decided)
        assert self.bank.effects.get((api, request_id), 0) <= 1

    def _content(self, api: str, request_id: str) -> bytes:
        members = json.loads(self.bank.content[api, request_id])
        return str(members.get("operate") or members["account"]).encode()

    def _same(self, world: World, api: str, name: str, content: bytes) -> OutboundRequest:
        if api == "BindAccount":
            return world.bind(name, content=content.decode())
        number = int(name)
        return world.sync(name, content=content.decode(), biz_time=number // 2, user=f"u{number % 3}")


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_reported_outcomes_are_true_under_any_faults(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        try:
            run(Run(seed).go())
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
