"""Tests of the intended starts of calls, and of rate profiles."""

from __future__ import annotations

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alipayhk_linkage.load.arrivals import intended_times
from alipayhk_linkage.load.profile import Piece, Profile, constant, profile

rates = st.floats(min_value=0, max_value=500)
pieces = st.builds(Piece, rates, rates, st.floats(min_value=0.1, max_value=5))
profiles = st.lists(pieces, min_size=1, max_size=4).map(lambda found: Profile(tuple(found)))


def times(shape: Profile, *, poisson: bool = False, seed: str = "1", of: int = 1) -> list[float]:
    shares = [intended_times(shape, poisson=poisson, seed=seed, share=(which, of)) for which in range(of)]
    return sorted(itertools.chain(*shares))


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert times(constant(4, 2)) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75])


@given(profiles)
def test_intended_times_ascend_within_the_profile(shape: Profile) -> None:
    found = times(shape)
    assert found == sorted(found)
    assert all(-1e-9 <= at <= shape.duration + 1e-6 for at in found)
    assert abs(len(found) - shape.calls) <= 1 + 1e-6


@given(profiles, st.integers(min_value=2, max_value=5))
def test_processes_together_have_the_same_constant_arrivals_as_one(shape: Profile, of: int) -> None:
    assert times(shape, of=of) == pytest.approx(times(shape))


@given(pieces, st.floats(min_value=0, max_value=1))
def test_calls_of_a_piece_are_the_integral_of_its_rate(piece: Piece, share: float) -> None:
    into = piece.when(piece.calls * share) if piece.calls > 1e-6 else 0.0
    slope = (piece.end_rate - piece.start_rate) / piece.duration
    had = piece.start_rate * into + slope * into * into / 2
    assert had == pytest.approx(piece.calls * share if piece.calls > 1e-6 else 0.0, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("of", [1, 3])
def test_poisson_arrivals_have_the_mean_and_deviation_of_poisson(of: int) -> None:
    found = times(constant(200, 50), poisson=True, of=of)
    gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert statistics.fmean(gaps) == pytest.approx(1 / 200, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 200, rel=0.07)


def test_arrivals_depend_only_on_the_seed() -> None:
    shape = profile("ramp:10..100/3s")
    assert times(shape, poisson=True) == times(shape, poisson=True)
    assert times(shape, poisson=True) != times(shape, poisson=True, seed="2")


def test_a_ramp_increases_the_rate_linearly() -> None:
    found = times(profile("ramp:10..200/10s"))
    assert len(found) == 1050
    halves = sum(at < 5 for at in found), sum(at >= 5 for at in found)
    assert halves == pytest.approx((287.5, 762.5), abs=1.5)


def test_steps_and_spikes_have_the_given_rates_and_durations() -> None:
    steps = profile("steps:10..30/3x2s")
    assert [(piece.start_rate, piece.duration) for piece in steps.pieces] == [(10, 2), (20, 2), (30, 2)]
    spike = profile("spike:5..50/3s")
    assert [(piece.start_rate, piece.end_rate, piece.duration) for piece in spike.pieces] == [
        (5, 5, 1),
        (50, 50, 1),
        (5, 5, 1),
    ]


def test_one_error_names_every_fault_of_a_profile() -> None:
    with pytest.raises(ValueError, match="ramp:5/3s") as caught:
        profile("ramp:5/3s,hold:x/2s,what,steps:1..2/1x1s,hold:5/0s,spike:1..2/3y")
    text = str(caught.value)
    for part in (
        "'ramp:5/3s'",
        "'hold:x/2s'",
        "'what'",
        "'steps:1..2/1x1s'",
        "'hold:5/0s'",
        "'spike:1..2/3y'",
    ):
        assert part in text
    with pytest.raises(ValueError, match="the profile has no call"):
        profile("hold:0/3s")
