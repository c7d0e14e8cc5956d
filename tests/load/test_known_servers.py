"""Runs against servers with known behaviour: the report must show this behaviour, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.load.runs import CLIENT, NOISE, counting, load, server
from tests.peers.processes import ROOT, WAIT_MAX_S, environment

ALWAYS = ("--warm-up", "100ms")


def test_an_open_loop_shows_a_stall_and_a_closed_loop_hides_it(tmp_path: Path, stalling: str) -> None:
    opened = load(tmp_path, stalling, *ALWAYS, "--rate", "150", "--duration", "2s")
    assert opened.status == 0, opened.out
    assert opened.report["arrivals"]["due"] == 300
    # 10 % of all arrivals are in a stall, and 1 % wait for almost a whole stall.
    assert opened.p99_ms() > 70
    closed = load(tmp_path, stalling, *ALWAYS, "--closed", "-c", "1", "--duration", "2s")
    assert closed.status == 0, closed.out
    assert closed.report["success"]["latency"]["max_us"] > 50_000
    # Each stall delays one call. On a busy machine the run has so few calls that this can be 1 % of them.
    assert closed.report["success"]["latency"]["p90_us"] / 1000 < opened.p99_ms() / 2
    assert "Closed loop" in closed.out


def test_a_saturated_server_is_reported_and_dropped_arrivals_are_counted(
    tmp_path: Path, capped: str
) -> None:
    flags = (*ALWAYS, "--rate", "200", "--duration", "2s", "--max-in-flight", "20")
    ran = load(tmp_path, capped, *flags)
    assert ran.status == 0, ran.out
    arrivals = ran.report["arrivals"]
    assert ran.report["verdict"]["saturated"]
    assert ran.report["verdict"]["kept_up"]
    assert arrivals["due"] == 400 == arrivals["started"] + arrivals["dropped"]
    # The server takes 50 calls per second for 2 s, and 20 are in flight.
    assert 220 <= arrivals["dropped"] <= 320
    assert 40 <= ran.report["success"]["count"] / 2.3 <= 65
    assert f"THE SERVER IS SATURATED: {arrivals['dropped']} of 400 arrivals" in ran.out
    assert sum(second["dropped"] for second in ran.report["seconds"]) == arrivals["dropped"]


def test_successes_after_the_measured_time_are_not_throughput(tmp_path: Path, capped: str) -> None:
    """A server that is too slow processes its queue after the last arrival. This is not throughput."""
    ran = load(tmp_path, capped, "--warm-up", "500ms", "--rate", "200", "--duration", "1500ms")
    arrivals, rates = ran.report["arrivals"], ran.report["rates"]
    assert arrivals["due"] == 300 == ran.report["success"]["count"]
    assert rates["intended"] == pytest.approx(200)
    # The server processes the calls of the warm-up first, so they are its throughput in the measured time.
    assert 30 <= rates["succeeded"] <= 60
    assert sum(second["success"] for second in ran.report["seconds"]) == 300
    assert sum(second["carried_over"] for second in ran.report["seconds"]) > 30


def test_dropped_arrivals_count_in_the_gates(tmp_path: Path, capped: str) -> None:
    flags = (*ALWAYS, "--rate", "200", "--duration", "1s", "--max-in-flight", "5")
    ran = load(tmp_path, capped, *flags, "--max-p99", "5s", "--max-error-rate", "10")
    assert ran.status == 1
    assert [gate["passed"] for gate in ran.report["gates"]] == [False, False]
    assert "FAILED  --max-p99: more than 1 % of the calls never succeeded" in ran.out


def test_a_generator_that_fell_behind_is_reported_and_not_the_server(
    tmp_path: Path, answering: str
) -> None:
    flags = (*ALWAYS, "--rate", "100000", "--duration", "1s", "--max-error-rate", "100")
    ran = load(tmp_path, answering, *flags, patient=False)
    assert ran.status == 3, ran.out
    assert "THE GENERATOR FELL BEHIND" in ran.out
    assert "SATURATED" not in ran.out
    assert not ran.report["verdict"]["kept_up"]


def test_latency_counts_from_the_intended_start_and_service_from_the_actual_one(
    tmp_path: Path, answering: str
) -> None:
    """Overload delays the start of calls. Latency from the actual start would hide this delay."""
    flags = (*ALWAYS, "--rate", "30000", "--duration", "1s", "--max-in-flight", "2")
    ran = load(tmp_path, answering, *flags, patient=False)
    latency, service = ran.report["success"]["latency"], ran.report["success"]["service"]
    assert latency["count"] == service["count"] > 0
    assert latency["sum_us"] > service["sum_us"]
    assert latency["max_us"] >= service["max_us"]


def test_a_killed_process_of_the_generator_is_reported() -> None:
    flags = ("--rate", "50", "--duration", "4s", "--warm-up", "0s", "--processes", "2", *NOISE)
    with counting("answers") as called:
        command = (*CLIENT, "--target", called.address, *flags)
        process = subprocess.Popen(
            command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        called.wait_for_calls(25)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(int(workers[0]), signal.SIGKILL)
        out, err = process.communicate(timeout=WAIT_MAX_S)
    assert process.returncode == 3, (out, err)
    assert b"1 of its 2 processes did not report" in out
    assert b"Traceback" not in err


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_several_processes_share_one_load(tmp_path: Path, answering: str, arrivals: str) -> None:
    flags = ("--rate", "240", "--duration", "1s", "--arrivals", arrivals, "--processes", "3", "--seed", "5")
    ran = load(tmp_path, answering, *ALWAYS, *flags)
    assert ran.status == 0, ran.out
    due = ran.report["arrivals"]["due"]
    assert due == 240 if arrivals == "constant" else 180 <= due <= 300
    assert ran.report["success"]["count"] == due == ran.report["success"]["latency"]["count"]
    assert sum(second["success"] for second in ran.report["seconds"]) == due
    assert sum(second["latency"]["count"] for second in ran.report["seconds"]) == due


def test_arrivals_follow_the_profile(tmp_path: Path, answering: str) -> None:
    ran = load(tmp_path, answering, "--profile", "hold:20/1s,hold:80/1s", "--warm-up", "100ms")
    assert ran.status == 0, ran.out
    # Rounding can move an arrival at the very end of a second into the next one.
    assert [second["due"] for second in ran.report["seconds"]][:2] == pytest.approx([20, 80], abs=1)


def test_errors_are_reported_by_reason_and_outcome_separately_from_successes(
    tmp_path: Path, refusing: str
) -> None:
    ran = load(tmp_path, refusing, *ALWAYS, "--rate", "50", "--duration", "1s", "--max-error-rate", "1%")
    assert ran.status == 1
    assert (ran.report["success"]["count"], ran.report["error"]["count"]) == (0, 50)
    [row] = ran.report["outcomes"]
    reported = ("RESOURCE_EXHAUSTED", "OVERLOADED", "not_sent", "error")
    assert (row["code"], row["reason"], row["outcome"], row["group"]) == reported
    assert ran.report["seconds"][0]["errors"].keys() == {"OVERLOADED"}
    assert ran.report["error"]["latency"]["p99_us"] > 0


def test_cancelled_calls_and_short_deadlines_are_set_apart(tmp_path: Path) -> None:
    shares = ("--cancelled", "30", "--short-deadline", "30", "--short-deadline-of", "30ms")
    with server("slow", "200") as address:
        ran = load(tmp_path, address, *ALWAYS, *shares, "--rate", "100", "--duration", "1s", "--seed", "1")
    assert ran.status == 0, ran.out
    assert ran.report["error"]["count"] == 0
    outcomes = {(row["asked"], row["code"]): row["count"] for row in ran.report["outcomes"]}
    assert outcomes.keys() == {
        ("plain", "OK"),
        ("cancelled", "CANCELLED"),
        ("short deadline", "DEADLINE_EXCEEDED"),
    }
    assert (
        ran.report["apart"]["count"]
        == outcomes["cancelled", "CANCELLED"] + outcomes["short deadline", "DEADLINE_EXCEEDED"]
    )
    assert ran.p99_ms() >= 200


def test_figures_exclude_the_warm_up(tmp_path: Path, answering: str) -> None:
    ran = load(tmp_path, answering, "--rate", "50", "--duration", "1s", "--warm-up", "500ms")
    assert ran.report["arrivals"]["due"] == 50 == ran.report["success"]["count"]
    assert ran.report["run"]["measured_s"] == 1
