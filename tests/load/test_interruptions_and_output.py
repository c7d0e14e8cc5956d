"""Runs that are interrupted, and reports or streams that cannot be written: no result is lost."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from tests.load.runs import CLIENT, NOISE, Counting, counting, load, server
from tests.peers.processes import ROOT, WAIT_MAX_S, environment, run
from tests.ports import free_port

QUICK = ("--rate", "40", "--duration", "500ms", "--warm-up", "0s", *NOISE)


def interrupted(
    directory: Path, called: Counting, after_calls: int, *flags: str, by: signal.Signals = signal.SIGINT
) -> tuple[dict[str, Any], float]:
    """Interrupt a run soon after so many calls; return its report, and the seconds until it exited."""
    written = directory / "report.json"
    process = subprocess.Popen(
        (*CLIENT, "--target", called.address, *flags, "--json", str(written)),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    called.wait_for_calls(after_calls)
    time.sleep(0.5)  # a run without more calls now waits for the last ones
    os.killpg(process.pid, by)
    since = time.monotonic()
    assert process.wait(WAIT_MAX_S) == 130
    return json.loads(written.read_text("utf-8")), time.monotonic() - since


def test_ctrl_c_counts_unfinished_calls_without_the_warm_up(tmp_path: Path) -> None:
    with counting("slow", "60000") as called:
        flags = ("--rate", "50", "--duration", "60s", "--warm-up", "500ms", "--deadline", "60s")
        report, _ = interrupted(tmp_path, called, 125, *flags)
    arrivals = report["arrivals"]
    assert arrivals["due"] == arrivals["started"] == arrivals["unfinished"] > 0
    # The second of waiting for responses is not part of the measured time.
    assert report["rates"]["intended"] == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_the_wait_for_the_last_calls_and_counts_them(
    tmp_path: Path, by: signal.Signals
) -> None:
    with counting("slow", "60000") as called:
        flags = ("--rate", "50", "--duration", "500ms", "--warm-up", "0s", "--deadline", "60s")
        report, took_s = interrupted(tmp_path, called, 25, *flags, by=by)
    assert report["arrivals"]["unfinished"] == 25 == report["arrivals"]["started"]
    assert "did not report" not in str(report["verdict"]["sentences"])
    assert took_s < 20


def test_the_other_reports_are_written_when_a_disk_is_full(tmp_path: Path, answering: str) -> None:
    page = tmp_path / "report.html"
    flags = ("--target", answering, *QUICK, "--json", "/dev/full", "--html", str(page))
    result = run(*CLIENT, *flags, env=environment())
    assert (result.status, result.err.count("\n")) == (1, 1)
    assert "--json: /dev/full cannot be written" in result.err
    assert "The generator kept up." in result.out
    assert "</html>" in page.read_text("utf-8")


def test_a_closed_pipe_on_standard_output_gives_one_line_and_no_traceback(
    tmp_path: Path, answering: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        (*CLIENT, "--target", answering, *QUICK, "--json", str(tmp_path / "report.json")),
        env=environment(),
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=WAIT_MAX_S,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done.stderr
    assert b"the report cannot be written" in done.stderr
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["success"]["count"] == 20


def test_a_run_works_with_standard_error_closed(answering: str) -> None:
    script = ("bash", "-c", '"$@" 2>&-', "-", *CLIENT, "--target", answering, *QUICK)
    result = run(*script, env=environment())
    assert result.status == 0, result
    assert result.out.startswith("run ")


def test_a_run_that_cannot_start_leaves_no_empty_report(tmp_path: Path) -> None:
    ran = load(tmp_path, f"127.0.0.1:{free_port()}", *QUICK, "--html", str(tmp_path / "report.html"))
    assert ran.status == 69
    assert "no gateway can be reached at 127.0.0.1:" in ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


def test_all_gates_fail_in_a_run_without_a_call(tmp_path: Path, answering: str) -> None:
    base = str(tmp_path / "base.json")
    assert run(*CLIENT, "--target", answering, *QUICK, "--json", base, env=environment()).status == 0
    flags = ("--rate", "0.1", "--duration", "500ms", "--warm-up", "200ms")
    ran = load(tmp_path, answering, *flags, "--max-p99", "1s", "--max-error-rate", "5", "--compare", base)
    assert ran.status == 1
    assert "Nothing was measured: no call was due after the warm-up." in ran.out
    failed = {gate["name"] for gate in ran.report["gates"] if not gate["passed"]}
    assert failed == {"--max-p99", "--max-error-rate", "--compare p99"}


def test_a_gate_reports_more_than_a_second_in_milliseconds(tmp_path: Path) -> None:
    with server("slow", "1500") as address:
        ran = load(tmp_path, address, *QUICK, "--max-p99", "1490ms")
    assert re.search(r"FAILED  --max-p99: p99 is \d{4,}\.\d ms; at most 1490 ms", ran.out), ran.out


def test_control_characters_from_a_server_are_escaped(tmp_path: Path) -> None:
    with server("rude") as address:
        ran = load(tmp_path, address, *QUICK)
    assert "\\x1b[2JBOO\\n" in ran.out
    assert "\x1b" not in ran.out


def test_the_panel_fits_a_narrow_terminal(answering: str) -> None:
    """A line that wraps cannot be erased completely when the panel is redrawn."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 20, 0, 0))
    flags = ("--target", answering, "--rate", "40", "--duration", "1s", "--warm-up", "0s")
    process = subprocess.Popen(
        (*CLIENT, *flags), env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs
    )
    process.wait(WAIT_MAX_S)
    os.set_blocking(ours, False)
    shown = os.read(ours, 65_536).decode()
    for number in (ours, theirs):
        os.close(number)
    drawn = re.sub(r"\x1b\[\d*[A-Z]|\r", "", shown).splitlines()
    assert "last second: 0 star" in drawn
    assert max(map(len, drawn)) == 19
