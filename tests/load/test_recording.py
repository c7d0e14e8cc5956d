"""Counting: HdrHistogram's slots, figures that add up, and what belongs where."""

from __future__ import annotations

import random

import pytest
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped,unused-ignore]
from hypothesis import given
from hypothesis import strategies as st

from alipayhk_linkage.load.encoding import decode, encode
from alipayhk_linkage.load.recording import Asked, End, Group, Recording, Second
from alipayhk_linkage.load.spread import HIGHEST_US, Spread, bounds_of, slot_of, together
from alipayhk_linkage.load.tally import Tally

values = st.lists(st.integers(min_value=1, max_value=HIGHEST_US), min_size=1, max_size=300)


def spread(microseconds: list[int]) -> Spread:
    found = Spread()
    for us in microseconds:
        found.record(us / 1e6)
    return found


@given(st.integers(min_value=1, max_value=HIGHEST_US))
def test_a_slot_is_hdrhistograms_own(us: int) -> None:
    histogram = HdrHistogram(1, HIGHEST_US, 3)
    assert slot_of(us) == histogram._counts_index_for(us)
    low, high = bounds_of(slot_of(us))
    assert low <= us <= high
    assert high - low <= us / 1000


@given(values)
def test_percentiles_are_hdrhistograms_own(microseconds: list[int]) -> None:
    histogram = HdrHistogram(1, HIGHEST_US, 3)
    for us in microseconds:
        histogram.record_value(us)
    found = spread(microseconds)
    for percentile in (50, 90, 99, 99.9, 99.99):
        theirs = min(histogram.get_value_at_percentile(percentile), max(microseconds))
        assert found.at(percentile) == [theirs]
    assert found.max_us == max(microseconds)
    assert found.mean_us == pytest.approx(sum(microseconds) / len(microseconds))


@given(values, values)
def test_two_processes_figures_add_up_exactly(one: list[int], other: list[int]) -> None:
    assert together([spread(one), spread(other)]) == spread(one + other)


@given(values)
def test_what_is_written_is_read_as_it_was(microseconds: list[int]) -> None:
    found = spread(microseconds)
    assert decode(encode(found), max_us=found.max_us, sum_us=found.sum_us) == found
    assert HdrHistogram.decode(encode(found)).get_total_count() == len(microseconds)


@pytest.mark.parametrize("text", ["", "AAAA", "HISTFAAAAB542pNpmSzMwMDAxQABzFCaEUoz2X+AMIKZAEARAtM="])
def test_what_is_no_histogram_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HdrHistogram"):
        decode(text, max_us=1, sum_us=1)


def test_an_empty_spread_says_nothing() -> None:
    assert Spread().at(50, 99) == [0.0, 0.0]
    assert decode(encode(Spread()), max_us=0, sum_us=0) == Spread()


def test_what_took_longer_than_the_histogram_knows_is_not_lost() -> None:
    found = spread([5])
    found.record(500.0)
    assert (found.count, found.max_us) == (2, 500_000_000)
    assert found.at(99)[0] >= HIGHEST_US


@pytest.mark.parametrize(
    ("asked", "code", "reason", "group"),
    [
        (Asked.PLAIN, "OK", "", Group.SUCCESS),
        (Asked.PLAIN, "RESOURCE_EXHAUSTED", "OVERLOADED", Group.ERROR),
        (Asked.PLAIN, "FAILED_PRECONDITION", "STALE_BIZ_TIME", Group.ERROR),
        (Asked.DUPLICATE, "OK", "", Group.SUCCESS),
        (Asked.DUPLICATE, "ABORTED", "REQUEST_IN_PROGRESS", Group.ERROR),
        (Asked.OUT_OF_ORDER, "FAILED_PRECONDITION", "STALE_BIZ_TIME", Group.APART),
        (Asked.OUT_OF_ORDER, "INTERNAL", "GATEWAY_BUG", Group.ERROR),
        (Asked.CANCELLED, "CANCELLED", "", Group.APART),
        (Asked.SHORT_DEADLINE, "DEADLINE_EXCEEDED", "", Group.APART),
        (Asked.FAULT, "NOT_FOUND", "WALLET_REJECTED", Group.APART),
    ],
)
def test_a_call_counts_where_it_belongs(asked: Asked, code: str, reason: str, group: Group) -> None:
    assert End("SyncLinkage", asked, code, reason, "unknown").group is group


def test_the_warm_up_is_in_no_figure_whenever_its_calls_end() -> None:
    recording = Recording(warm_up=2, late_after=0.01, remember=False)
    end = End("SyncLinkage", Asked.PLAIN, "OK", "", "applied")
    recording.arrival(1.99, 2.5, 1, room=True)
    recording.end(end, 1.99, 1.99, 1.995)
    assert (recording.ends, recording.seconds, recording.start_lag.count) == ({}, {}, 0)
    recording.end(end, 1.99, 2.5, 3.5)
    assert (recording.ends, recording.start_lag.count) == ({}, 0)
    assert recording.seconds.pop(1) == Second(carried=1)
    recording.arrival(2.0, 2.0, 1, room=True)
    recording.end(end, 2.0, 2.0, 3.5)
    assert recording.ends[end].latency.count == 1
    assert sorted(recording.seconds) == [0, 1]


def test_what_ends_after_the_end_counts_in_no_second_before_it() -> None:
    recording = Recording(warm_up=1, late_after=0.01, remember=False, over=3.5)
    end = End("SyncLinkage", Asked.PLAIN, "OK", "", "applied")
    for now in (3.4, 3.6, 4.2):
        recording.end(end, 2.0, 2.0, now)
    assert {number: second.ends[Group.SUCCESS] for number, second in recording.seconds.items()} == {
        2: 1,
        3: 2,
    }


def test_what_was_in_flight_at_once_is_not_doubled_where_a_second_is_told_of_twice() -> None:
    recording = Recording(warm_up=0, late_after=0.01, remember=False)
    recording.arrival(0.5, 0.5, 7, room=True)
    tally = Tally()
    tally.add_seconds(recording.take(1))
    recording.arrival(0.9, 1.4, 8, room=True)
    tally.add(recording)
    assert {number: second.in_flight for number, second in tally.seconds.items()} == {0: 7, 1: 8}
    assert tally.seconds[0].due == 2


def test_what_runs_out_makes_no_second_look_idle() -> None:
    tally = Tally(measured=2.0)
    for number, busy in ((0, 0.9), (1, 0.95), (2, 0.1)):
        tally.seconds[number].busy = busy
    assert tally.busy == [0.9, 0.95]


def test_lateness_and_drops_are_counted_apart() -> None:
    recording = Recording(warm_up=0, late_after=0.01, remember=False)
    recording.arrival(0.5, 0.505, 1, room=True)
    recording.arrival(0.6, 0.62, 2, room=True)
    recording.arrival(0.7, 0.701, 2, room=False)
    recording.arrival(0.8, 0.82, 2, room=False)
    second = recording.seconds[0]
    assert (second.due, second.started, second.late) == (4, 2, 1)
    assert (second.dropped, second.dropped_late, second.dropped_by_generator) == (2, 1, 1)
    second.busy = 0.99
    assert second.dropped_by_generator == 2


def test_seconds_are_handed_over_once() -> None:
    recording = Recording(warm_up=0, late_after=0.01, remember=False)
    draw = random.Random(1)
    for _ in range(1_000):
        at = draw.uniform(0, 5)
        recording.arrival(at, at, 1, room=True)
    taken = [recording.take(before) for before in range(7)]
    assert [sorted(seconds) for seconds in taken] == [[], [0], [1], [2], [3], [4], []]
    assert sum(second.due for seconds in taken for second in seconds.values()) == 1_000
