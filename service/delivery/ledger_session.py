"""The ledger operations of a flight: claim, renew, record, undo; and what the ledger's answers mean.

The operations of a flight, in order: `look` (optional), `claim` until it is granted, `renew` before each
resend, then `applied`, `rejected`, `refused`, `in_doubt` or `undo`. A result that cannot be written becomes
a pending write; until it is written, its request and its linkage are not claimed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.wire.errors import ResultError
from clients.alipayhk.wire.result import Result

from ..ledger import (
    Answer,
    Claim,
    ClaimRejected,
    Ending,
    Granted,
    InProgress,
    Known,
    Ledger,
    LedgerUnavailable,
    LinkageBusy,
    Reused,
    State,
)
from ..ledger.lease import Clock
from ..ledger.rules import Linkage, answer_to
from ..ledger.vault import Vault
from ..outcomes.refusal import Refusal
from ..telemetry.logs import code_text, log
from ..telemetry.metrics import Metrics
from .flight import Flight, Held
from .ledger_wait import POLL_MIN_S, POLL_S, REFUSALS, Busy, LedgerProgress
from .pending_writes import PendingWrites
from .replay import rejection_data, replay
from .state import FlightState

Read = Callable[[Claim, int], Awaitable[Answer]]


class LedgerSession:
    """Reads and writes the ledger for flights."""

    def __init__(  # noqa: PLR0913  (one argument for each setting)
        self,
        ledger: Ledger,
        vault: Vault,
        metrics: Metrics,
        *,
        lease_s: float,
        biz_time_ahead_s: float,
        records: bool = True,
        idempotent_without: bool = False,
        clock: Clock | None = None,
        on_late_claim: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._vault = vault
        self._lease_ms = round(lease_s * 1000)
        self._biz_time_ahead_ms = round(biz_time_ahead_s * 1000)
        self._records = records
        self._idempotent_without = idempotent_without
        self._clock = clock or Clock()
        self._on_late_claim = on_late_claim
        self._pending = PendingWrites(metrics, self._clock.now_ms)
        self.progress = LedgerProgress()

    async def look(self, flight: Flight) -> Message | Busy | None:
        """Read the ledger; return the replay, Busy, or None if it may be sent; else raise Refusal."""
        return self._meaning(flight, await self._ask(flight, self._ledger.look, self._clock.now_ms()))

    async def claim(self, flight: Flight) -> Message | Busy | None:
        """Return as `look` does. None means: it is committed that the request is about to be sent."""
        asked = self._clock.now()
        answer = await self._ask(flight, self._ledger.claim, asked.ms)
        if isinstance(answer, Granted) and answer.token:
            flight.held = Held(answer.token, asked.lease(self._lease_ms))
        meaning = self._meaning(flight, answer)
        flight.has_place = isinstance(meaning, Busy)
        if meaning is not None and not isinstance(meaning, Busy):
            return meaning
        if meaning is not None:
            flight.enter(FlightState.WAITING_FOR_OTHER, blocked_by=meaning.reason)
        flight.end_if_cancelled()
        if meaning is None and self._clock.is_late(asked):
            held = await self.renew(flight)
            flight.end_if_cancelled()
            if not held:
                self._on_late_claim()
                raise Refusal(reasons.ERROR_REASON_LEDGER_UNAVAILABLE, cause="the claim took too long")
        return meaning

    async def queue(self, flight: Flight) -> None:
        """Keep its place, by its biz_time, among the requests of all gateways that wait for its linkage."""
        flight.has_place = True
        with suppress(LedgerUnavailable):  # then the order holds among the requests of this process
            await self._ledger.queue(self._claim_of(flight, self._clock.now_ms()))

    def leave(self, flight: Flight) -> None:
        """Give up that place if it has one."""
        if flight.has_place:
            self._ledger.leave(flight.request.key)

    async def wait(self, busy: Busy) -> None:
        """Wait until it may be worth asking again."""
        await self._ledger.wait(busy.answer, busy.wait_s)

    async def renew(self, flight: Flight) -> bool:
        """Extend the lease for another attempt; return whether it may be sent.

        A request that was never sent and whose lease has expired needs a new claim: a newer request for its
        linkage may have been applied since.
        """
        asked, held = self._clock.now(), flight.held
        if held is None:
            return True
        if not flight.sent and not self.may_send(flight):
            return False
        write = self._ledger.renew if flight.sent else self._ledger.extend
        try:
            is_held = await write(flight.request.key, held.token, self._lease_ms, asked.ms)
        except LedgerUnavailable:
            return False
        flight.held = Held(held.token, asked.lease(self._lease_ms))
        return is_held and not self._clock.is_late(asked)

    def may_send(self, flight: Flight) -> bool:
        """Return whether the claim still holds, so that the first byte may be sent."""
        return flight.held is None or flight.held.lease.holds(self._clock)

    async def hold(self, flight: Flight, wait_s: float) -> None:
        """Extend the lease of a request that was not sent, if it would expire during a wait."""
        if not flight.sent and flight.held and not flight.held.lease.holds(self._clock, wait_s):
            await self.renew(flight)

    async def applied(self, flight: Flight, response: Message) -> None:
        """Record a success, with the response for replays."""
        await self._record(flight, State.APPLIED, response.SerializeToString, Result("S"))

    async def rejected(self, flight: Flight, error: ResultError) -> None:
        """Record a final rejection, with the data for replays."""
        await self._record(flight, State.REJECTED, partial(rejection_data, error), error.result)

    async def refused(self, flight: Flight, error: ResultError) -> None:
        """Record that AlipayHK rejected this gateway: the id keeps its content and may be sent again."""
        await self._record(flight, State.GATEWAY_REJECTED, bytes, error.result)

    async def in_doubt(self, flight: Flight) -> None:
        """Record that it may or may not have taken effect."""
        await self._record(flight, State.IN_DOUBT, bytes, Result(""))

    async def undo(self, flight: Flight) -> None:
        """Take the claim back, because no byte was sent: the row is as it was before."""
        key, held = flight.request.key, flight.held
        if held:
            await self._pending.write(flight, partial(self._ledger.undo, key, held.token), retry=False)

    async def flush(self) -> None:
        """Try to write the pending results."""
        await self._pending.flush()

    async def drop(self, *, older_than_s: float) -> None:
        """Drop final results that are older than `older_than_s`."""
        now_ms, age_ms = self._clock.now_ms(), round(older_than_s * 1000)
        await self._ledger.drop(before_ms=now_ms - age_ms, now_ms=now_ms)

    async def close(self) -> None:
        """Try to write the pending results, and close the ledger."""
        await self._pending.close()
        for key in await self._ledger.close():
            log.error("claim not undone at shutdown", api=key.api, request_id=key.request_id)

    async def _ask(self, flight: Flight, read: Read, now_ms: int) -> Answer:
        if self._records and not flight.fingerprint:
            flight.fingerprint = self._vault.fingerprint(flight.request.content)
            if flight.request.linkage is not None:
                flight.linkage = self._vault.linkage(flight.request.linkage)
        claim = self._claim_of(flight, now_ms)
        without = self._idempotent_without and claim.may_repeat
        try:
            if self._pending:
                flight.in_doubt |= claim.key in self._pending  # it may have been sent
                if not await self._pending.flush_for(claim.key, claim.linkage):
                    raise LedgerUnavailable("an earlier result is not recorded yet")
            answer = await read(claim, now_ms)
            self.progress.answered()
            flight.looked_up = self._ledger.outlives_process and not without
        except LedgerUnavailable as error:
            if not without:
                raise Refusal(reasons.ERROR_REASON_LEDGER_UNAVAILABLE, cause=str(error)) from None
            answer = answer_to(claim, None, Linkage(), now_ms, token=0)
        if without and isinstance(answer, Granted):
            # It may have been sent while the ledger was unavailable.
            return replace(answer, was_in_doubt=True)
        return answer

    def _claim_of(self, flight: Flight, now_ms: int) -> Claim:
        latest_ms = now_ms + self._biz_time_ahead_ms
        return flight.claim(lease_ms=self._lease_ms, biz_time_max_ms=latest_ms)

    def _meaning(self, flight: Flight, answer: Answer) -> Message | Busy | None:
        # Forget the ledger's earlier answer: the attempt that was in progress then may have been undone.
        flight.in_doubt = isinstance(answer, (Granted, LinkageBusy)) and answer.was_in_doubt
        match answer:
            case Granted():
                return None
            case Known():
                flight.replayed = True
                return replay(flight.request, answer.ending, self._vault)
            case InProgress():
                flight.in_doubt = True
                return self._busy(answer, reasons.ERROR_REASON_REQUEST_IN_PROGRESS)
            case LinkageBusy():
                return self._busy(answer, reasons.ERROR_REASON_LINKAGE_BUSY)
            case Reused():
                raise flight.request.reused(answer.state)
            case ClaimRejected.IN_FUTURE:
                raise flight.request.in_future(self._clock.now_s(), self._biz_time_ahead_ms / 1000)
            case _:
                raise Refusal(REFUSALS[answer])

    def _busy(self, answer: InProgress | LinkageBusy, reason: reasons.ErrorReason) -> Busy:
        left_s = answer.until_ms / 1000 - self._clock.now_s()
        return Busy(answer, min(max(left_s, 0.0), POLL_S) + POLL_MIN_S, reason)

    async def _record(
        self, flight: Flight, state: State, data_of: Callable[[], bytes], result: Result
    ) -> None:
        key, held = flight.request.key, flight.held
        if not held or not self._records:
            return
        data = data_of()
        sealed = self._vault.seal(data, key) if data else b""
        # An idempotent change of a linkage that is in doubt is sent again, and gets the same outcome.
        may_be_late = flight.request.linkage is not None and flight.request.endpoint.idempotent
        code = code_text(result.code)  # it may be anything; a replay has it from the sealed data
        ending = Ending(state, result.status, code, sealed, may_be_late=may_be_late)
        record = partial(self._ledger.record, key, held.token, ending)
        # An expired lease means in doubt, too.
        is_held = await self._pending.write(flight, record, retry=state is not State.IN_DOUBT)
        flight.in_doubt |= not is_held  # another attempt, or an operator, has overtaken it
