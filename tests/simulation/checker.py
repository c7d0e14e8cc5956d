"""Check the history of a run: what callers were told, against what AlipayHK knows and what left a process.

Each invariant is a row of INVARIANTS. What a kind of store does not promise is not checked:
`History.known` says what a gateway still has to know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from clients.alipayhk.api import Api
from service.delivery.clock_skew import PROBE_EVERY_S
from service.ledger import FINAL, State

from .network import Sent
from .postgres_server import LATE_S as LATE_COMMIT_S
from .records import Made
from .store import RETENTION_S
from .wallet import ODD_REPEAT, Id
from .world import World

LATE_S: Final = 1.0
"""How long after its deadline a call may end: contract and reliability.md."""
UNANSWERED_S: Final = 10.0
"""After so many seconds no response to a request is awaited any more."""
UNDER_WAY_S: Final = 0.05
"""A request that is being claimed or renewed is still sent."""
UNSYNCED_S: Final = 0.1
"""How long a power loss can undo a SyncLinkage's outcome: `Ending.may_be_late`, and the commit after it."""
ADVICE: Final = {"REQUEST_ID_REUSED", "STALE_BIZ_TIME", "BIZ_TIME_TIE", "OUTCOME_IN_DOUBT"}
RETRY_SHARE: Final = 1.2
RETRIES_A_SECOND: Final = 10.0

Found = Iterator[str]


class History:
    """The history of a run, by request."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: dict[Id, list[Made]] = defaultdict(list)
        for made in world.calls:
            self.calls[made.order.id].append(made)
        self.sent: dict[Id, list[Sent]] = defaultdict(list)
        for sent in world.network.sent:
            self.sent[sent.request].append(sent)
        self.resolved = {resolved.order_id: resolved for resolved in world.resolutions}

    def known(self, since_s: float, until_s: float) -> bool:
        """Return whether what was recorded at one time must still be known at another."""
        world = self.world
        if world.plan.store == "off" or any(since_s <= month_s for month_s in world.months):
            return False
        ended = any(since_s <= end_s <= until_s for end_s in world.ends)
        return world.store.outlives_process or not ended

    def final(self, request: Id) -> Made | None:
        """Return the first call that was told the final outcome, unless its record can be lost."""
        told = [made for made in self.calls[request] if made.report and made.report.is_final]
        first = min(told, key=lambda made: made.ended_s, default=None)
        others = self.world.deaths or self.world.plan.gateways > 1
        if first is None or first.report is None or (first.lost and others):
            return None
        unsynced_s = LATE_COMMIT_S if self.world.plan.store == "postgres" else UNSYNCED_S
        if request[0] == Api.SYNC_LINKAGE and any(
            first.started_s <= loss_s and self._ran_s(first.ended_s, loss_s) <= unsynced_s
            for loss_s in self.world.power_losses
        ):
            return None
        # The time that counts for retention is when it was recorded, which may be long before.
        started_s = min(made.started_s for made in self.calls[request])
        a_month = any(started_s <= month_s <= first.ended_s for month_s in self.world.months)
        return None if a_month or (first.report.replayed and self.world.months) else first

    def _ran_s(self, since_s: float, until_s: float) -> float:
        """Return how long every process ran between two times."""
        paused_s = sum(
            max(min(until_s, start_s + seconds) - max(since_s, start_s), 0.0)
            for start_s, seconds in self.world.pauses
        )
        return until_s - since_s - paused_s

    def applied(self, request: Id, content: str) -> bool:
        """Return whether AlipayHK applied a request, or a person said so."""
        resolved = self.resolved.get(request)
        said = resolved is not None and resolved.state is State.APPLIED
        return said or self.world.wallet.applied(request, content)


def _doubled(history: History) -> Found:
    effects: dict[int, int] = defaultdict(int)
    intentions = {made.order.id: made.intention for made in history.world.calls}
    for request, decision in history.world.wallet.decided.items():
        if request[0] != Api.BIND_ACCOUNT:
            continue
        sent = history.sent[request]
        known = history.known(sent[0].at_s, sent[-1].at_s)
        if decision.effects > 1 and known:
            yield f"{request[1]} took effect {decision.effects} times"
        if known:
            effects[intentions[request]] += min(decision.effects, 1)
    for intention, count in effects.items():
        if count > 1:
            yield f"call {intention} and its calls with new ids, as advised, took effect {count} times"


def _false_ok(history: History) -> Found:
    for made in history.world.calls:
        request = made.order.id
        if not made.report or made.report.reason != "OK" or history.applied(request, made.order.content):
            continue
        sent_s = history.sent[request][0].at_s if history.sent[request] else made.ended_s
        # AlipayHK returns the first result of an id, also for other content.
        if request not in history.world.wallet.changed or history.known(sent_s, made.ended_s):
            yield f"call {made.number}: OK, but AlipayHK did not apply it"


def _false_rejected(history: History) -> Found:
    for made in history.world.calls:
        report = made.report
        if report is None or report.outcome != "rejected":
            continue
        if report.reason == "GATEWAY_REFUSED":
            # It is about the attempts of this flight: those of a later one may be applied.
            own = [one for one in history.sent[made.order.id] if one.flight is made.flight]
            if any(one.took_effect for one in own):
                yield f"call {made.number}: {report}, but AlipayHK applied an attempt of its flight"
            continue
        request = made.order.id
        sent_s = history.sent[request][0].at_s if history.sent[request] else made.ended_s
        if report.result_code == ODD_REPEAT and not history.known(sent_s, made.ended_s):
            continue
        if history.world.wallet.applied(request, made.order.content):
            yield f"call {made.number}: {report}, but AlipayHK applied it"


def _false_not_sent(history: History) -> Found:
    for request, sent in history.sent.items():
        for one in sent:
            causes = [
                made
                for made in history.calls[request]
                if made.started_s <= one.at_s and made.order.content == one.content
            ]
            if causes and all(made.report and made.report.outcome == "not_sent" for made in causes):
                at_s = one.at_s - history.world.start_s
                yield f"{request[1]} was sent at {at_s:.4f}, but {causes[0].report}"


def _changed(history: History) -> Found:
    for request in history.world.wallet.changed:
        sent = history.sent[request]
        if history.known(sent[0].at_s, sent[-1].at_s):
            yield f"{request[1]} was sent with two contents"


def _unclaimed(history: History) -> Found:
    for leaving in history.world.leavings:
        was_set = leaving.clock_steps and not history.world.has_hosts
        if not leaving.claimed:
            yield f"{leaving.process} sent {leaving.order_id[1]} without a claim that holds"
        if leaving.busy_with and not was_set and history.world.store.outlives_process:
            yield f"{leaving.process} sent {leaving.order_id[1]} while {leaving.busy_with} was claimed"
        if leaving.at_once and not was_set and history.world.store.outlives_process:
            yield f"{leaving.process} sent {leaving.order_id[1]} while {leaving.at_once} was in flight"


def _stale(history: History) -> Found:
    by_linkage: dict[str, dict[Id, int]] = defaultdict(dict)
    for made in history.world.calls:
        if made.order.user:
            by_linkage[made.order.user][made.order.id] = made.order.biz_time
    for requests in by_linkage.values():
        for request, biz_time in requests.items():
            started_s = min(made.started_s for made in history.calls[request])
            for newer in (other for other, time in requests.items() if time > biz_time):
                final = history.final(newer)
                told = final is not None and final.report is not None and final.report.reason == "OK"
                if not told or final is None or final.ended_s >= started_s:
                    continue
                late = [one for one in history.sent[request] if history.known(final.started_s, one.at_s)]
                if late:
                    yield f"{request[1]} was sent after {newer[1]}, which is newer, had been applied"


def _tied(history: History) -> Found:
    """Compare contents that were sent: an id can have calls with two contents."""
    for request, sent in history.sent.items():
        order = history.calls[request][0].order
        started_s = min(made.started_s for made in history.calls[request])
        others = [
            other
            for other, calls in history.calls.items()
            if order.user
            and other != request
            and (calls[0].order.user, calls[0].order.biz_time) == (order.user, order.biz_time)
        ]
        finals = [final for other in others if (final := history.final(other)) is not None]
        same = {earlier.content for other in others for earlier in history.sent.get(other, ())}
        for one in sent:
            for final in finals:
                ended_s = final.ended_s if final.report and final.report.reason == "OK" else started_s
                known = ended_s < started_s and history.known(final.started_s, one.at_s)
                if known and one.content not in same | {final.order.content}:
                    yield f"{request[1]} was sent after {final.order.request_id}, which has its biz_time"


def _out_of_turn(history: History) -> Found:
    if not (history.world.plan.is_calm and history.world.store.outlives_process):
        return
    for user, (biz_time, name) in history.world.wallet.arrived.items():
        newest = history.world.wallet.linkages[user]
        if biz_time != newest[0]:
            yield f"{name} with biz_time {biz_time} is the last update of {user}, but {newest} was applied"


def _forgotten(history: History) -> Found:
    for request, calls in history.calls.items():
        final = history.final(request)
        if final is None or final.report is None:
            continue
        said = final.report
        for made in calls:
            report = made.report
            after = made.started_s > final.ended_s and made.order.content == final.order.content
            if report is None or not after or not history.known(final.started_s, made.ended_s):
                continue
            other = report.is_final and report.reason != said.reason
            if request not in history.resolved:
                other |= report.is_final and report.result_code != said.result_code
            if report.reason == "OUTCOME_IN_DOUBT" or other:
                yield f"call {made.number}: {report}, but call {final.number} had been told {said}"
        for one in history.sent[request]:
            if one.at_s > final.ended_s and history.known(final.started_s, one.at_s):
                yield f"{request[1]} was sent after call {final.number} had been told {said}"


def _late(history: History) -> Found:
    for made in history.world.calls:
        if made.report is None and not made.left:
            yield f"call {made.number} never ended"
        elif made.late_s > LATE_S and made.report and made.report.reason != "CONNECTION_LOST_TO_GATEWAY":
            yield f"call {made.number} ended {made.late_s:.3f} s after its deadline"


def _no_outcome(history: History) -> Found:
    for made in history.world.calls:
        report = made.report
        if not made.calm or report is None or report.is_final or report.reason in ADVICE:
            continue
        if report.reason == "CIRCUIT_OPEN" and history.world.months:
            continue  # a response that is read after the suspension looks a month old
        if not (report.reason == "WALLET_REJECTED" and report.retry == "operator"):
            yield f"call {made.number}: {report}, although nothing is disturbed"


def _false_refusal(history: History) -> Found:
    world = history.world
    for made in world.calls:
        reason = made.report.reason if made.report else ""
        others = [other for other in world.calls if other.order.user == made.order.user]
        applied = [
            other.order
            for other in others
            if other.order.user and history.applied(other.order.id, other.order.content)
        ]
        times = [order.biz_time for order in applied if order.id != made.order.id]
        contents = {call.order.content for call in history.calls[made.order.id]}
        if reason == "STALE_BIZ_TIME" and not any(time > made.order.biz_time for time in times):
            yield f"call {made.number}: {reason}, but nothing newer was applied"
        if reason == "BIZ_TIME_TIE" and made.order.biz_time not in times:
            yield f"call {made.number}: {reason}, but nothing with this biz_time was applied"
        if reason == "REQUEST_ID_REUSED" and len(contents) == 1:
            yield f"call {made.number}: {reason}, but its id had no other content"
        if reason == "OUTCOME_IN_DOUBT" and made.order.api != Api.BIND_ACCOUNT:
            yield f"call {made.number}: {reason} for SyncLinkage"
        # A claim may outlive its flight, and an attempt counts as sent before its first byte is written.
        unsure = history.sent[made.order.id] or made.lost or made.unclear
        unsure = unsure or made.order.id in world.watch.unsure
        if reason == "OUTCOME_IN_DOUBT" and not unsure:
            yield f"call {made.number}: {reason}, but nothing was ever sent under its id"


def _wrong_result(history: History) -> Found:
    for made in history.world.calls:
        report = made.report
        if report is None or report.reason != "OK" or report.resolved:
            continue
        own = {number for one in history.sent[made.order.id] for number in one.answers}
        if made.order.api == Api.BIND_ACCOUNT:
            own = {made.order.request_id}
        garbled = any(one.garbled for one in history.sent[made.order.id])
        if report.answered not in own and not garbled:
            yield f"call {made.number} got the response {report.answered}, which is another request's"


def _bug(history: History) -> Found:
    yield from history.world.complaints
    for made in history.world.calls:
        if made.report and made.report.reason == "GATEWAY_BUG":
            yield f"call {made.number}: GATEWAY_BUG"


def _sent_after_resolution(history: History) -> Found:
    for resolved in history.world.resolutions:
        for one in history.sent[resolved.order_id]:
            if one.at_s > resolved.at_s and history.known(resolved.at_s, one.at_s):
                yield f"{resolved.order_id[1]} was sent by {one.process} after a person resolved it"


def _rows(history: History) -> Found:
    world = history.world
    decided = world.wallet.decided
    now_ms = round(world.hosts[-1].wall_s() * 1000)  # the last gateway has read the rows
    for request, row in world.rows.items():
        resolved = history.resolved.get(request)
        applied = request in decided and decided[request].code == "S"
        if row.state is State.SENDING and not row.is_in_doubt(now_ms):
            yield f"the row of {request[1]} is still `sending`"
        if resolved is None and row.state is State.APPLIED and not applied:
            yield f"the row of {request[1]} is `applied`, but AlipayHK did not apply it"
        odd = row.ending is not None and row.ending.result_code == ODD_REPEAT
        forgotten = odd and (world.months or not world.store.outlives_process)
        if resolved is None and row.state is State.REJECTED and applied and not forgotten:
            yield f"the row of {request[1]} is `rejected`, but AlipayHK applied it"
    if not world.store.outlives_process:
        return
    for request in history.calls:
        final = history.final(request)
        if final is not None and final.report and history.known(final.started_s, world.timeline.now_s):
            state = State.APPLIED if final.report.reason == "OK" else State.REJECTED
            found = world.rows.get(request)
            if found is None or found.state is not state:
                yield f"call {final.number} was told {final.report}, but the row of {request[1]} is {found}"


def _unrecorded(history: History) -> Found:
    for made in history.world.calls:
        if not history.world.store.shows_rows or made.report is None or not made.report.is_final:
            continue
        if made.order.api == Api.SYNC_LINKAGE and any(
            made.started_s <= loss_s <= made.ended_s for loss_s in history.world.power_losses
        ):
            continue  # it was recorded, and lost before the call ended
        a_month_ago = any(month_s <= made.ended_s for month_s in history.world.months)
        if made.row is None and made.report.replayed and a_month_ago:
            continue  # it was recorded, and dropped by retention between the look-up and the response
        if not made.lost and (made.row is None or made.row.state not in FINAL):
            yield f"call {made.number} was told {made.report} before that was recorded"


def _too_many_attempts(history: History) -> Found:
    world = history.world
    if world.plan.is_outage:
        span_s = world.plan.calls[-1].at_s + max(call.left_s for call in world.plan.calls)
        allowed = RETRY_SHARE * world.accepted + RETRIES_A_SECOND * (span_s + 1.0) * world.plan.gateways
        if world.attempts > allowed:
            yield f"{world.attempts} attempts for {world.accepted} requests in an outage"


def _sent_with_a_wrong_clock(history: History) -> Found:
    """BindAccount is not sent again by a process that knows that AlipayHK's answer would not count."""
    world = history.world
    if world.plan.faults or world.months:
        return
    for made in world.calls:
        if (
            made.report is None
            or made.report.reason != "RESPONSE_REPLAYED"
            or made.order.api != Api.BIND_ACCOUNT
        ):
            continue
        for leaving in world.leavings:
            same = leaving.process == made.gateway and leaving.order_id[0] == Api.BIND_ACCOUNT
            died = any(made.started_s <= end_s <= leaving.at_s for end_s in world.ends)
            after = UNDER_WAY_S < leaving.at_s - made.ended_s < PROBE_EVERY_S
            if same and after and not died and leaving.clock_steps == made.clock_steps:
                yield f"{leaving.order_id[1]} was sent although call {made.number} was told {made.report}"


def _kept_too_long(history: History) -> Found:
    world = history.world
    old_ms = (min(host.wall_s() for host in world.hosts) - RETENTION_S) * 1000
    # Nothing is dropped by a process that started later, or that read a response a month late, before it
    # has heard AlipayHK's time again, nor while the store fails. Only rows up to a token that was marked a
    # month ago are dropped; before the first response from AlipayHK, nothing is marked.
    unsure = bool(world.ends or world.plan.faults) or any(
        month_s - UNANSWERED_S <= one.at_s <= month_s
        for one in world.network.sent
        for month_s in world.months
    )
    is_marked = world.store.marked_s < world.timeline.now_s - RETENTION_S
    if world.plan.store != "shared" or unsure or not is_marked:
        return
    for request, row in world.rows.items():
        is_old = row.state in FINAL and row.updated_ms < old_ms
        if is_old and row.token <= world.store.marked_token:
            yield f"the row of {request[1]} was not dropped a month after its last change"


INVARIANTS: Final[dict[str, Callable[[History], Found]]] = {
    "doubled": _doubled,
    "false OK": _false_ok,
    "false rejected": _false_rejected,
    "false not_sent": _false_not_sent,
    "changed content": _changed,
    "unclaimed": _unclaimed,
    "stale": _stale,
    "tie": _tied,
    "out of turn": _out_of_turn,
    "forgotten": _forgotten,
    "late": _late,
    "no outcome": _no_outcome,
    "false refusal": _false_refusal,
    "wrong result": _wrong_result,
    "bug": _bug,
    "sent after resolution": _sent_after_resolution,
    "rows": _rows,
    "unrecorded": _unrecorded,
    "attempts": _too_many_attempts,
    "kept too long": _kept_too_long,
    "wrong clock": _sent_with_a_wrong_clock,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken invariant."""

    invariant: str
    text: str

    def __str__(self) -> str:
        """Return it in a line."""
        return f"{self.invariant}: {self.text}"


def check(world: World) -> list[Finding]:
    """Return what the run broke."""
    history = History(world)
    at_once = [Finding(*broken) for broken in (*world.watch.broken, *world.store.broken)]
    if world.false_resolutions:
        return at_once  # what callers are told is as wrong as that
    return at_once + [
        Finding(name, text) for name, broken_by in INVARIANTS.items() for text in broken_by(history)
    ]
