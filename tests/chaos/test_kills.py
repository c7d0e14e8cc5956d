"""A gateway that is killed under load loses nothing, doubles nothing and tells nobody wrong."""

from __future__ import annotations

from tests.chaos.chaos import run


async def test_twenty_kills_under_load() -> None:
    report = await run(kills=20, rate=100.0, seed=1)
    assert report.is_clean, f"{report}\n{report.wrong}\n{report.lost}\n{report.doubled}\n{report.left}"
    assert report.requests > 100, report
    assert report.outcomes["OK"] > report.requests / 2, report
