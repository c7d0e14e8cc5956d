"""Calls at a steady rate to several replicas, and a check of what callers got against what was sent."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.e2e.caller import Reported
from tests.e2e.samples import APIS, BIND, Api, fresh_request
from tests.e2e.wallet import id_of
from tests.scenarios.system import System

RATE: Final = 50.0
BEHIND_S: Final = 0.5
"""How far the calls may be behind their rate on a busy machine; after that some are left out."""
TIMEOUT_S: Final = 3.0
PATIENT_S: Final = 10.0
"""The timeout where no call may meet its deadline, in seconds: on a busy machine some take long."""
LATE_S: Final = 1.0
"""How much later than its deadline a call may end on a busy machine."""
RECOVERS_WITHIN_S: Final = 40.0
UNHEARD: Final = {"UNAVAILABLE", "CANCELLED"}
"""Codes without details: no process listens, or gRPC has not handed the call to the gateway (ADR 19)."""
NOT_ACCEPTED: Final = {*UNHEARD, "SHUTTING_DOWN", "OVERLOADED"}
CONCURRENT: Final = 4
REPEATED_EVERY: Final = 5
"""One in so many calls that sent nothing is repeated, to save time."""


@dataclass(repr=False)
class Made:
    """A call that was made, and its result."""

    system: System
    api: Api
    request: Any
    started: float
    took_s: float = 0.0
    result: Any = None

    @property
    def outcome(self) -> str:
        """OK, or the outcome that the status reports; unknown if it has no details."""
        if not isinstance(self.result, Reported):
            return "OK"
        return self.result.metadata["outcome"] if self.result.status.details else "unknown"

    @property
    def reason(self) -> str:
        """OK, or the reason that the status reports; the code if it has no details."""
        if not isinstance(self.result, Reported):
            return "OK"
        return self.result.info.reason if self.result.status.details else self.result.code.name

    def __repr__(self) -> str:
        return f"{self.api} {self.request.request_id}: {self.reason}, {self.outcome}, {self.took_s:.1f} s"

    def wrong(self, sent: int, timeout_s: float) -> str:
        """Return what is wrong if AlipayHK received it so often, and applied it each time."""
        is_wrong = (
            (self.outcome == "OK" and not sent)
            or (self.outcome == "not_sent" and sent)
            or (self.api is BIND and sent > 1)
            or self.outcome == "rejected"
            or self.took_s > timeout_s + LATE_S
        )
        return f"{self}, sent {sent} times" if is_wrong else ""


@dataclass(repr=False)
class Load:
    """Calls with new request ids, to the replicas in turn, half of them for each API."""

    systems: list[System]
    timeout_s: float = TIMEOUT_S
    made: list[Made] = field(default_factory=list)
    _calls: list[asyncio.Task[None]] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make calls during the block; then wait for their results."""
        making = asyncio.create_task(self._make())
        try:
            yield
        finally:
            making.cancel()
            await asyncio.wait({making, *self._calls})
        await asyncio.gather(*self._calls)

    async def _make(self) -> None:
        due = time.monotonic()
        while True:
            await asyncio.sleep(due - time.monotonic())
            due = max(due + 1 / RATE, time.monotonic() - BEHIND_S)
            number = len(self.made)
            api, system = APIS[number // len(self.systems) % 2], self.systems[number % len(self.systems)]
            self.made.append(Made(system, api, fresh_request(api), time.monotonic()))
            self._calls.append(asyncio.create_task(self._call(self.made[-1])))

    async def _call(self, made: Made) -> None:
        made.result = await made.system.call(made.api, made.request, timeout_s=self.timeout_s)
        made.took_s = time.monotonic() - made.started

    async def until_ended(self) -> None:
        """Wait until the calls that were made before now have ended."""
        await asyncio.wait(self._calls)

    def ended(self, since: float, until: float = float("inf")) -> list[Made]:
        """Return the calls that started in this time and have ended."""
        return [made for made in self.made if made.took_s and since <= made.started <= until]

    def reasons(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        """Count the reasons of these calls."""
        return Counter(made.reason for made in self.ended(since, until))

    async def until_ok(self) -> None:
        """Wait until each replica has answered OK to a call that started after now."""
        now = time.monotonic()

        def is_ok(system: System) -> bool:
            return any(made.system is system and made.outcome == "OK" for made in self.ended(now))

        async with asyncio.timeout(RECOVERS_WITHIN_S):
            for system in self.systems:
                while not is_ok(system):  # noqa: ASYNC110  (only time brings more calls)
                    await asyncio.sleep(0.1)

    async def until_refused(self, since: float) -> None:
        """Wait until a call that started since then got LEDGER_UNAVAILABLE."""
        async with asyncio.timeout(RECOVERS_WITHIN_S):
            while not self.reasons(since)["LEDGER_UNAVAILABLE"]:  # noqa: ASYNC110  (only time brings more calls)
                await asyncio.sleep(0.1)

    def received(self) -> Counter[str]:
        """Count the requests that AlipayHK received, by their id."""
        return Counter(id_of(request) for request in self.systems[0].upstream.requests)

    def check(self) -> None:
        """Check every result against the requests that AlipayHK received."""
        received = self.received()
        sent = ((made, received[made.request.request_id]) for made in self.made)
        wrong = [text for made, count in sent if (text := made.wrong(count, self.timeout_s))]
        assert wrong == [], f"{wrong[:5]}, {self.reasons()}"
        late = self.reasons()["DEADLINE_EXCEEDED"]
        assert late < len(self.made) / 20, f"callers' own deadlines ended calls: {self.reasons()}"

    async def check_again(self, system: System, may_be_in_doubt: Sequence[Made] = ()) -> None:
        """Repeat the calls at one replica: what was OK is known, and what was not sent is sent now.

        A SyncLinkage that was OK is sent again if a crash lost its outcome, as ADR 9 allows.
        """
        before, slots = self.received(), asyncio.Semaphore(CONCURRENT)

        async def again(made: Made) -> None:
            async with slots:
                result = await system.served(made.api, made.request)
            if isinstance(result, Reported):
                assert result.info.reason == "OUTCOME_IN_DOUBT", (made, result.info)
                assert made in may_be_in_doubt, made
            elif made.api is BIND:
                assert result.replayed is (made.outcome == "OK"), made

        oks = [made for made in self.made if made.outcome == "OK"]
        others = [made for made in self.made if made.outcome == "not_sent"]
        await asyncio.gather(*map(again, (*oks, *others[::REPEATED_EVERY])))
        after = self.received()
        for made in self.made:
            count, count_before = after[made.request.request_id], before[made.request.request_id]
            assert count <= (1 if made.api is BIND else count_before + 1), made
