"""The log line of an attempt: how it ended, how long it took, and what an operator needs to know."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

import pytest

from clients.alipayhk.wire import errors
from tests.delivery.world import HANG, LOST, S, Step, World, refusing
from tests.service.fakes import LogStream

LINES: Final[dict[str, tuple[Step, dict[str, Any]]]] = {
    "success": (S, {"level": "info", "end": "success", "http_status": 200}),
    "rejection": (
        refusing("PROCESS_FAIL"),
        {"level": "info", "end": "ResultError", "result_status": "F", "result_code": "PROCESS_FAIL"},
    ),
    "failure": (LOST, {"level": "warning", "end": "ConnectionLost", "cause": "reset"}),
    "clock skew": (
        Step(errors.OutsideWindow(-600.0), skew_s=-600.0),
        {"level": "warning", "end": "OutsideWindow", "clock_skew_s": -600},
    ),
}


@pytest.mark.parametrize(("step", "expected"), LINES.values(), ids=LINES.keys())
async def test_attempt_is_logged_with_its_end_and_duration(
    world: World, log_lines: LogStream, step: Step, expected: dict[str, Any]
) -> None:
    world.client.script("a", step)
    await world.deliver(world.bind("a"))
    (line,) = log_lines.of("attempt")
    expected |= {"api": "BindAccount", "request_id": "a", "attempts": 1, "seconds": 0.002}
    assert {name: line.get(name) for name in expected} == expected
    seconds = world.metrics.registry.get_sample_value(
        "alipayhk_upstream_seconds_sum", {"api": "BindAccount"}
    )
    assert seconds == pytest.approx(0.002)


async def test_attempt_that_is_cancelled_after_its_first_byte_is_logged(
    world: World, log_lines: LogStream
) -> None:
    async def connect() -> None:
        world.client.attempts[-1][1].route.addresses.append("192.0.2.1:443")

    world.client.script("a", replace(HANG, halt=connect))
    call = world.start(world.bind("a"))
    await asyncio.sleep(0.1)
    (flight,) = world.delivery._flights.values()
    flight.cancel()
    assert (await call).outcome == "unknown"
    (line,) = log_lines.of("attempt")
    assert (line["level"], line["end"], line["seconds"]) == ("warning", "cancelled", 0.1)
    assert line["address"] == "192.0.2.1:443"


async def test_last_eight_addresses_of_a_failed_attempt_are_logged(
    world: World, log_lines: LogStream
) -> None:
    async def connect() -> None:
        _, attempt = world.client.attempts[-1]
        attempt.route.addresses.extend(f"192.0.2.{number}:443" for number in range(10))

    world.client.script("a", replace(LOST, halt=connect))
    await world.deliver(world.bind("a"))
    (line,) = log_lines.of("attempt")
    assert line["address"] == ", ".join(f"192.0.2.{number}:443" for number in range(2, 10))
