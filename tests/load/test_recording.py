"""Tests of histograms, recordings and totals."""

from __future__ import annotations

import random

import pytest
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped,unused-ignore]
from hypothesis import given
from hypothesis import strategies as st

from alipayhk_linkage.load.encoding import decode, encode
from alipayhk_linkage.load.histogram import HIGHEST_US, Histogram, bounds_of, merged, slot_of
from alipayhk_linkage.load.recording import CallResult, Group, Recording, Second, Variant
from alipayhk_linkage.load.totals import Totals

values = st.lists(st.integers(min_value=1, max_value=HIGHEST_US), min_size=1, max_size=300)


def histogram_of(microseconds: list[int]) -> Histogram:
    found = Histogram()
    for us in microseconds:
        found.record(us / 1e6)
    return found


@given(st.integers(min_value=1, max_value=HIGHEST_US))
def test_slots_equal_those_of_hdrhistogram(us: int) -> None:
    histogram = HdrHistogram(1, HIGHEST_US, 3)
    assert slot_of(us) == histogram._counts_index_for(us)
    low, high = bounds_of(slot_of(us))
    assert low <= us <= high
    assert high - low <= us / 1000


@given(values)
def test_percentiles_equal_those_of_hdrhistogram(microseconds: list[int]) -> None:
    histogram = HdrHistogram(1, HIGHEST_US, 3)
    for us in microseconds:
        histogram.record_value(us)
    found = histogram_of(microseconds)
    for percentile in (50, 90, 99, 99.9, 99.99):
        theirs = min(histogram.get_value_at_percentile(percentile), max(microseconds))
        assert found.at(percentile) == [theirs]
    assert found.max_us == max(microseconds)
    assert found.mean_us == pytest.approx(sum(microseconds) / len(microseconds))


@given(values, values)
def test_merging_two_histograms_is_exact(one: list[int], other: list[int]) -> None:
    assert merged([histogram_of(one), histogram_of(other)]) == histogram_of(one + other)


@given(values)
def test_decoding_an_encoded_histogram_returns_the_same(microseconds: list[int]) -> None:
    found = histogram_of(microseconds)
    assert decode(encode(found), max_us=found.max_us, sum_us=found.sum_us) == found
    assert HdrHistogram.decode(encode(found)).get_total_count() == len(microseconds)


@pytest.mark.parametrize("text", ["", "AAAA", "HISTFAAAAB542pNpmSzMwMDAxQABzFCaEUoz2X+AMIKZAEARAtM="])
def test_decoding_invalid_text_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="HdrHistogram"):
        decode(text, max_us=1, sum_us=1)


def test_percentiles_of_an_empty_histogram_are_0() -> None:
    assert Histogram().at(50, 99) == [0.0, 0.0]
    assert decode(encode(Histogram()), max_us=0, sum_us=0) == Histogram()


def test_a_duration_beyond_the_highest_slot_is_counted() -> None:
    found = histogram_of([5])
    found.record(500.0)
    assert (found.count, found.max_us) == (2, 500_000_000)
    assert found.at(99)[0] >= HIGHEST_US


@pytest.mark.parametrize(
    ("variant", "code", "reason", "group"),
    [
        (Variant.PLAIN, "OK", "", Group.SUCCESS),
        (Variant.PLAIN, "RESOURCE_EXHAUSTED", "OVERLOADED", Group.ERROR),
        (Variant.PLAIN, "FAILED_PRECONDITION", "STALE_BIZ_TIME", Group.ERROR),
        (Variant.DUPLICATE, "OK", "", Group.SUCCESS),
        (Variant.DUPLICATE, "ABORTED", "REQUEST_IN_PROGRESS", Group.ERROR),
        (Variant.OUT_OF_ORDER, "FAILED_PRECONDITION", "STALE_BIZ_TIME", Group.APART),
        (Variant.OUT_OF_ORDER, "INTERNAL", "GATEWAY_BUG", Group.ERROR),
        (Variant.CANCELLED, "CANCELLED", "", Group.APART),
        (Variant.SHORT_DEADLINE, "DEADLINE_EXCEEDED", "", Group.APART),
        (Variant.FAULT, "NOT_FOUND", "WALLET_REJECTED", Group.APART),
    ],
)
def test_group_of_a_call(variant: Variant, code: str, reason: str, group: Group) -> None:
    assert CallResult("SyncLinkage", variant, code, reason, "unknown").group is group


def test_calls_of_the_warm_up_count_only_as_carried_over() -> None:
    recording = Recording(warm_up=2, late_after=0.01, remember=False)
    result = CallResult("SyncLinkage", Variant.PLAIN, "OK", "", "applied")
    recording.arrival(1.99, 2.5, 1, accepted=True)
    recording.result(result, 1.99, 1.99, 1.995)
    assert (recording.results, recording.seconds, recording.start_lag.count) == ({}, {}, 0)
    recording.result(result, 1.99, 2.5, 3.5)
    assert (recording.results, recording.start_lag.count) == ({}, 0)
    assert recording.seconds.pop(1) == Second(carried=1)
    recording.arrival(2.0, 2.0, 1, accepted=True)
    recording.result(result, 2.0, 2.0, 3.5)
    assert recording.results[result].latency.count == 1
    assert sorted(recording.seconds) == [0, 1]


def test_a_result_after_the_last_arrival_counts_in_a_later_second() -> None:
    recording = Recording(warm_up=1, late_after=0.01, remember=False, stopped_at=3.5)
    result = CallResult("SyncLinkage", Variant.PLAIN, "OK", "", "applied")
    for now in (3.4, 3.6, 4.2):
        recording.result(result, 2.0, 2.0, now)
    assert {number: second.results[Group.SUCCESS] for number, second in recording.seconds.items()} == {
        2: 1,
        3: 2,
    }


def test_the_maximum_in_flight_is_not_doubled_when_a_second_is_reported_twice() -> None:
    recording = Recording(warm_up=0, late_after=0.01, remember=False)
    recording.arrival(0.5, 0.5, 7, accepted=True)
    totals = Totals()
    totals.add_seconds(recording.take(1))
    recording.arrival(0.9, 1.4, 8, accepted=True)
    totals.add(recording)
    assert {number: second.in_flight for number, second in totals.seconds.items()} == {0: 7, 1: 8}
    assert totals.seconds[0].due == 2


def test_busy_time_excludes_the_wait_for_the_last_calls() -> None:
    totals = Totals(measured=2.0)
    for number, busy in ((0, 0.9), (1, 0.95), (2, 0.1)):
        totals.seconds[number].busy = busy
    assert totals.busy == [0.9, 0.95]


def test_late_and_dropped_arrivals_are_counted_separately() -> None:
    recording = Recording(warm_up=0, late_after=0.01, remember=False)
    recording.arrival(0.5, 0.505, 1, accepted=True)
    recording.arrival(0.6, 0.62, 2, accepted=True)
    recording.arrival(0.7, 0.701, 2, accepted=False)
    recording.arrival(0.8, 0.82, 2, accepted=False)
    second = recording.seconds[0]
    assert (second.due, second.started, second.late) == (4, 2, 1)
    assert (second.dropped, second.dropped_late, second.dropped_by_generator) == (2, 1, 1)
    second.busy = 0.99
    assert second.dropped_by_generator == 2


def test_take_returns_each_second_once() -> None:
    recording = Recording(warm_up=0, late_after=0.01, remember=False)
    draw = random.Random(1)
    for _ in range(1_000):
        at = draw.uniform(0, 5)
        recording.arrival(at, at, 1, accepted=True)
    taken = [recording.take(before) for before in range(7)]
    assert [sorted(seconds) for seconds in taken] == [[], [0], [1], [2], [3], [4], []]
    assert sum(second.due for seconds in taken for second in seconds.values()) == 1_000
