"""Against servers of known behaviour: what is so must show, and only that."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.load.runs import CLIENT, NOISE, load, server
from tests.peers.processes import PATIENCE_S, ROOT, environment

ALWAYS = ("--warm-up", "100ms")


def test_a_stall_shows_in_an_open_loop_and_hides_in_a_closed_one(tmp_path: Path, stalling: str) -> None:
    opened = load(tmp_path, stalling, *ALWAYS, "--rate", "150", "--duration", "2s")
    assert opened.status == 0, opened.out
    assert opened.report["arrivals"]["due"] == 300
    # A tenth of all arrivals fall into the stalls, and one in a hundred waits for nearly all of one.
    assert opened.p99_ms() > 70
    closed = load(tmp_path, stalling, *ALWAYS, "--closed", "-c", "1", "--duration", "2s")
    assert closed.status == 0, closed.out
    assert closed.report["success"]["latency"]["max_us"] > 50_000
    assert closed.p99_ms() < opened.p99_ms() / 2
    assert "Closed loop" in closed.out


def test_a_capped_server_is_saturated_and_the_dropped_are_counted(tmp_path: Path, capped: str) -> None:
    flags = (*ALWAYS, "--rate", "200", "--duration", "2s", "--max-in-flight", "20")
    ran = load(tmp_path, capped, *flags)
    assert ran.status == 0, ran.out
    arrivals = ran.report["arrivals"]
    assert ran.report["verdict"]["saturated"]
    assert ran.report["verdict"]["kept_up"]
    assert arrivals["due"] == 400 == arrivals["started"] + arrivals["dropped"]
    # 50 a second for 2 s, and the 20 that were under way.
    assert 220 <= arrivals["dropped"] <= 320
    assert 40 <= ran.report["success"]["count"] / 2.3 <= 65
    assert f"THE SERVER IS SATURATED: {arrivals['dropped']} of 400 arrivals" in ran.out
    assert sum(second["dropped"] for second in ran.report["seconds"]) == arrivals["dropped"]


def test_what_succeeds_long_after_the_end_is_no_throughput(tmp_path: Path, capped: str) -> None:
    """The queue of a server that is too slow is worked off in the run-out: that is not what it can do."""
    ran = load(tmp_path, capped, "--warm-up", "500ms", "--rate", "200", "--duration", "1500ms")
    arrivals, rates = ran.report["arrivals"], ran.report["rates"]
    assert arrivals["due"] == 300 == ran.report["success"]["count"]
    assert rates["intended"] == pytest.approx(200)
    # What was due in the warm-up stands in front, and its answers are what the server did meanwhile.
    assert 30 <= rates["succeeded"] <= 60
    assert sum(second["success"] for second in ran.report["seconds"]) == 300
    assert sum(second["carried_over"] for second in ran.report["seconds"]) > 30


def test_what_was_dropped_is_not_left_out_of_the_gates(tmp_path: Path, capped: str) -> None:
    flags = (*ALWAYS, "--rate", "200", "--duration", "1s", "--max-in-flight", "5")
    ran = load(tmp_path, capped, *flags, "--max-p99", "5s", "--max-error-rate", "10")
    assert ran.status == 1
    assert [gate["passed"] for gate in ran.report["gates"]] == [False, False]
    assert "FAILED  --max-p99: over 1 % of the calls never succeeded" in ran.out


def test_a_generator_that_fell_behind_says_so_and_blames_nobody_else(
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
    """What overload delays is the start; a generator that measured from it would have nothing to tell."""
    flags = (*ALWAYS, "--rate", "30000", "--duration", "1s", "--max-in-flight", "2")
    ran = load(tmp_path, answering, *flags, patient=False)
    latency, service = ran.report["success"]["latency"], ran.report["success"]["service"]
    assert latency["count"] == service["count"] > 0
    assert latency["sum_us"] > service["sum_us"]
    assert latency["max_us"] >= service["max_us"]


def test_a_process_that_is_lost_is_no_secret(tmp_path: Path, answering: str) -> None:
    flags = ("--rate", "50", "--duration", "4s", "--warm-up", "0s", "--processes", "2", *NOISE)
    words = (*CLIENT, "--target", answering, *flags)
    process = subprocess.Popen(
        words, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(2.5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(workers[0]), signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3, (out, err)
    assert b"1 of its 2 processes did not report" in out
    assert b"Traceback" not in err


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_several_processes_make_one_load(tmp_path: Path, answering: str, arrivals: str) -> None:
    flags = ("--rate", "240", "--duration", "1s", "--arrivals", arrivals, "--processes", "3", "--seed", "5")
    ran = load(tmp_path, answering, *ALWAYS, *flags)
    assert ran.status == 0, ran.out
    due = ran.report["arrivals"]["due"]
    assert due == 240 if arrivals == "constant" else 180 <= due <= 300
    assert ran.report["success"]["count"] == due == ran.report["success"]["latency"]["count"]
    assert sum(second["success"] for second in ran.report["seconds"]) == due
    assert sum(second["latency"]["count"] for second in ran.report["seconds"]) == due


def test_a_profile_is_followed(tmp_path: Path, answering: str) -> None:
    ran = load(tmp_path, answering, "--profile", "hold:20/1s,hold:80/1s", "--warm-up", "100ms")
    assert ran.status == 0, ran.out
    # One that is due at the very end of a second may fall into the next by the last bit of a float.
    assert [second["due"] for second in ran.report["seconds"]][:2] == pytest.approx([20, 80], abs=1)


def test_errors_are_told_by_reason_and_outcome_apart_from_successes(tmp_path: Path, refusing: str) -> None:
    ran = load(tmp_path, refusing, *ALWAYS, "--rate", "50", "--duration", "1s", "--max-error-rate", "1%")
    assert ran.status == 1
    assert (ran.report["success"]["count"], ran.report["error"]["count"]) == (0, 50)
    [end] = ran.report["outcomes"]
    reported = ("RESOURCE_EXHAUSTED", "OVERLOADED", "not_sent", "error")
    assert (end["code"], end["reason"], end["outcome"], end["group"]) == reported
    assert ran.report["seconds"][0]["errors"].keys() == {"OVERLOADED"}
    assert ran.report["error"]["latency"]["p99_us"] > 0


def test_shares_are_set_apart(tmp_path: Path) -> None:
    shares = ("--cancelled", "30", "--short-deadline", "30", "--short-deadline-of", "30ms")
    with server("slow", "200") as address:
        ran = load(tmp_path, address, *ALWAYS, *shares, "--rate", "100", "--duration", "1s", "--seed", "1")
    assert ran.status == 0, ran.out
    assert ran.report["error"]["count"] == 0
    ended = {(end["asked"], end["code"]): end["count"] for end in ran.report["outcomes"]}
    assert ended.keys() == {
        ("plain", "OK"),
        ("cancelled", "CANCELLED"),
        ("short deadline", "DEADLINE_EXCEEDED"),
    }
    assert (
        ran.report["apart"]["count"]
        == ended["cancelled", "CANCELLED"] + ended["short deadline", "DEADLINE_EXCEEDED"]
    )
    assert ran.p99_ms() >= 200


def test_the_warm_up_is_left_out(tmp_path: Path, answering: str) -> None:
    ran = load(tmp_path, answering, "--rate", "50", "--duration", "1s", "--warm-up", "500ms")
    assert ran.report["arrivals"]["due"] == 50 == ran.report["success"]["count"]
    assert ran.report["run"]["measured_s"] == 1
