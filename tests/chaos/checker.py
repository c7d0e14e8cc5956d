"""Check a recorded history: every reported outcome is true, and no request was lost, doubled or mixed up.

Each invariant is a row of INVARIANTS: its name, its meaning, and a function that yields the requests that
break it. The checker sees the history only, not the run. test_checker.py plants each kind of fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.chaos.history import BIND, ByRequest, Call, History, Key, Request
from tests.chaos.rows import misrecorded

SLACK_S: Final = 0.05
"""Maximum time between the gateway's writing of a request and the proxy's reading of it."""
STOPS: Final = frozenset({"never"})
UNCHANGED_REUSED: Final = "REQUEST_ID_REUSED"

Found = Iterator[tuple[Key, str]]


@dataclass(frozen=True, slots=True)
class Invariant:
    """One rule that every history must keep."""

    name: str
    meaning: str
    broken_by: Callable[[ByRequest], Found]
    at_end: bool = False
    """Whether it holds only at the end of a run, when every caller is done."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One request that breaks one invariant."""

    invariant: str
    key: Key
    text: str


def check(history: History, *, ended: bool = True) -> list[Finding]:
    """Return a finding for each request and each invariant that it breaks."""
    grouped = ByRequest(history)
    return [
        Finding(invariant.name, key, text)
        for invariant in INVARIANTS
        if ended or not invariant.at_end
        for key, text in invariant.broken_by(grouped)
    ]


def _false_outcome(by: ByRequest) -> Found:
    for key in by.requests:
        applied = {arrival.content for arrival in by.applied(key)}
        for call in by.every_call(key):
            if call.outcome == "OK" and applied and call.content not in applied:
                yield key, "OK, but AlipayHK applied other content under this id"
            if call.outcome == "rejected" and call.content in applied:
                yield key, f"rejected ({call.result_code or 'resolved'}), but AlipayHK applied it"
        yield from _sent_by_not_sent(by, key)


def _sent_by_not_sent(by: ByRequest, key: Key) -> Found:
    """Find arrivals that can only be due to calls that ended with not_sent."""
    for arrival in by.arrivals(key):
        causes = [
            call
            for call in by.every_call(key)
            if call.started <= arrival.at and call.content == arrival.content
        ]
        if causes and all(call.outcome == "not_sent" for call in causes):
            reasons = ", ".join(sorted({call.reason for call in causes}))
            yield key, f"not_sent ({reasons}), but AlipayHK received this id and content from such a call"


def _lost(by: ByRequest) -> Found:
    for key in by.requests:
        if any(call.outcome == "OK" for call in by.every_call(key)) and not by.applied(key):
            yield key, "OK, but AlipayHK never applied it"
        if len(by.resolutions(key)) > 1:
            yield key, "a person resolved it, and it was in doubt again"
        final = by.first_final(key)
        if final is None:
            continue
        for call in by.calls(key):
            is_forgotten = call.started > final.ended and call.reason == "OUTCOME_IN_DOUBT"
            if is_forgotten and not by.is_excused(key, final.ended):
                yield key, f"{final.outcome} was reported, and a later call ended with OUTCOME_IN_DOUBT"
                break


def _doubled(by: ByRequest) -> Found:
    for key in by.requests:
        count = len(by.arrivals(key))
        if key[0] == BIND and count > 1:
            yield key, f"BindAccount was received {count} times"


def _changed(by: ByRequest) -> Found:
    for key in by.requests:
        if len({arrival.content for arrival in by.arrivals(key)}) > 1:
            yield key, "AlipayHK received two contents under one id"


def _sent_after(by: ByRequest) -> Found:
    for key in by.requests:
        resolution, final = next(iter(by.resolutions(key)), None), by.first_final(key)
        for arrival in by.arrivals(key):
            if resolution and arrival.at > resolution.at + SLACK_S:
                yield (
                    key,
                    f"sent by process {arrival.process} after a person resolved it as {resolution.state}",
                )
                break
            if final is None or arrival.at <= final.ended + SLACK_S:
                continue
            if not by.clock_moved_before(arrival.at) and not by.is_excused(key, final.ended):
                yield key, f"sent by process {arrival.process} after {final.outcome} was reported"
                break


def _concurrent(by: ByRequest) -> Found:
    for key in by.requests:
        for arrival in by.arrivals(key):
            if arrival.concurrent_with and not by.clock_moved_before(arrival.at):
                two = f"processes {arrival.concurrent_with} and {arrival.process}"
                yield key, f"{two} had an attempt in flight at the same time, within the lease of the first"
                break


def _wrong_result(by: ByRequest) -> Found:
    for key, request in by.requests.items():
        for call in by.every_call(key):
            if text := _of_another(by, request, call):
                yield key, text
                break


def _of_another(by: ByRequest, request: Request, call: Call) -> str:  # noqa: PLR0911  (a list of cases)
    """Return why a call's result is not AlipayHK's result for this request; empty if it is."""
    own = by.arrivals(request.key)
    if call.reason == UNCHANGED_REUSED and call.content == request.content:
        return "REQUEST_ID_REUSED, but this id has had no other content"
    if not call.is_final or call.resolved:
        return ""
    if call.outcome == "OK" and request.refused_with:
        return f"OK, but AlipayHK refuses this request with {request.refused_with}"
    if call.tracer and call.tracer not in {arrival.tracer for arrival in own}:
        return "its tracer id is that of another request's response"
    if call.account and call.account != request.account:
        return "its account is that of another request"
    results = {(arrival.status, arrival.result_code) for arrival in own if arrival.status}
    if call.result_code and results and (call.status, call.result_code) not in results:
        returned = ", ".join(f"{status} {code}" for status, code in sorted(results))
        return f"reported {call.status} {call.result_code}, but AlipayHK returned {returned}"
    return ""


def _out_of_order(by: ByRequest) -> Found:
    for linkage, requests in by.by_linkage():
        applied = [request for request in requests if by.applied(request.key)]
        newest = max(applied, key=lambda request: request.biz_time_ms, default=None)
        held = by.history.linkages.get(linkage)
        if newest is not None and held is not None and held != newest.biz_time_ms:
            yield newest.key, "the newest applied biz_time, but the linkage's final state is another"
        for request in requests:
            yield from _stale(by, request, requests)


def _stale(by: ByRequest, request: Request, others: list[Request]) -> Found:
    newer = [other for other in others if other.biz_time_ms > request.biz_time_ms]
    calls, arrivals = by.calls(request.key), by.arrivals(request.key)
    for call in calls:
        applied = any(arrival.at < call.ended for other in newer for arrival in by.applied(other.key))
        if call.reason == "STALE_BIZ_TIME" and not applied:
            yield request.key, "STALE_BIZ_TIME, but no newer request of this linkage was applied"
            return
    if not calls or not arrivals:
        return
    started = min(call.started for call in calls)
    for other in newer:
        final = by.first_final(other.key)
        known = final is not None and final.outcome == "OK" and final.ended < started
        if known and final is not None and not by.is_excused(other.key, final.ended):
            yield (
                request.key,
                f"sent although {other.key[1]}, which is newer, had been applied and reported",
            )
            return


def _no_outcome(by: ByRequest) -> Found:
    for key in by.requests:
        calls = by.calls(key)
        advised = any(call.is_final or call.retry in {"operator", *STOPS} for call in calls)
        if any(call.outcome == "unknown" for call in calls) and not advised:
            yield key, f"unknown after {len(calls)} calls, and no call named a way out"


INVARIANTS: Final = (
    Invariant(
        "false outcome",
        "OK for content that was not applied; rejected for what was applied; not_sent for what was sent",
        _false_outcome,
    ),
    Invariant(
        "lost",
        "OK for what AlipayHK never applied; an outcome or a person's decision that the ledger forgot",
        _lost,
    ),
    Invariant("doubled", "a BindAccount was sent to AlipayHK more than once", _doubled),
    Invariant("changed", "other content was sent under a request id that was used", _changed),
    Invariant("sent after", "a request was sent after its outcome was reported or resolved", _sent_after),
    Invariant(
        "concurrent", "two processes sent one request at the same time, within one lease", _concurrent
    ),
    Invariant("wrong result", "a call returned the result of another request", _wrong_result),
    Invariant(
        "order",
        "a linkage does not end with its newest applied biz_time, or STALE_BIZ_TIME was wrong or omitted",
        _out_of_order,
    ),
    Invariant(
        "no outcome",
        "a caller does not know the outcome, and no status named the operator",
        _no_outcome,
        at_end=True,
    ),
    Invariant(
        "ledger",
        "a row is missing, contradicts AlipayHK, or is open although its outcome was or must be recorded",
        misrecorded,
    ),
)


def explain(history: History, key: Key) -> list[tuple[float, str]]:
    """Return the timeline of one request: its calls, arrivals, resolutions, and faults in that time."""
    lines: list[tuple[float, str]] = []
    for call in history.calls:
        if call.key == key:
            lines.append((call.started, f"call to {call.gateway} starts"))
            status = " ".join(filter(None, (call.grpc_code, call.reason, call.outcome, call.retry)))
            more = " ".join(filter(None, (call.status, call.result_code, call.tracer)))
            text = f"call to {call.gateway} (at {call.started:.3f}) ends: {status} {more}"
            lines.append((call.ended, text + " replayed" * call.replayed + " resolved" * call.resolved))
    for arrival in history.arrivals:
        if arrival.key == key:
            result = f"{arrival.status or '-'} {arrival.result_code} {arrival.tracer}"
            text = f"received from process {arrival.process}: AlipayHK returns {result}"
            lines.append((arrival.at, f"{text}; proxy: {arrival.answer}"))
    lines += [
        (resolution.at, f"a person resolves it as {resolution.state}")
        for resolution in history.resolutions
        if resolution.key == key
    ]
    started = min((at for at, _ in lines), default=0.0)
    ended = max((at for at, _ in lines if at < float("inf")), default=0.0)
    for fault in history.faults:
        if fault.started <= ended and fault.ended >= started:
            span = f"from {fault.started:.3f} to {fault.ended:.3f}"
            lines.append((max(fault.started, started), f"fault {fault.kind} {span}: {fault.detail}"))
    return sorted(lines)


def counts(findings: list[Finding]) -> dict[str, int]:
    """Return how many requests break each invariant."""
    found = {invariant.name: set[Key]() for invariant in INVARIANTS}
    for finding in findings:
        found[finding.invariant].add(finding.key)
    return {name: len(keys) for name, keys in found.items()}
