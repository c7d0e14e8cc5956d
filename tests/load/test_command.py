"""The command line: faults, Ctrl-C, the live panel, output, gates and the comparison with a base run."""

from __future__ import annotations

import asyncio
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alipayhk_linkage.load.comparison import read_base
from tests.linkage.fake_gateway import a_gateway
from tests.load.runs import CLIENT, counting, load
from tests.peers.processes import ROOT, WAIT_MAX_S, environment, run

QUICK = ("--rate", "100", "--duration", "500ms", "--warm-up", "100ms")


def test_one_error_names_every_fault_of_the_command_line() -> None:
    flags = {
        "--target": "nowhere",
        "--rate": "x",
        "--duration": "0s",
        "--arrivals": "random",
        "--concurrency": "3",
        "--warm-up": "-1s",
        "--max-in-flight": "0",
        "--late-after": "soon",
        "--deadline": "1d",
        "--processes": "65",
        "--mix": "sync=1,call=2,bind",
        "--encrypted-target": "here",
        "--duplicates": "101",
        "--out-of-order": "x",
        "--short-deadline-of": "y",
        "--faults": "what ever=1",
        "--max-p99": "50",
        "--max-error-rate": "-1",
        "--compare": "no-such-file.json",
        "--compare-tolerance": "z",
        "--verify": "127.0.0.1:8089",
    }
    result = run(*CLIENT, *(f"{flag}={value}" for flag, value in flags.items()), env=environment())
    assert result.status == 64
    assert [flag for flag in flags if flag not in result.err] == []
    assert "Traceback" not in result.err


@pytest.mark.parametrize("flags", [(), ("--shared-ledger",)], ids=["", "shared ledger"])
async def test_load_is_spread_over_all_addresses_only_with_a_shared_ledger(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    async with a_gateway() as (one, first), a_gateway() as (other, second):
        result = await asyncio.to_thread(load, tmp_path, f"ipv4:{first},{second}", *QUICK, *flags)
        assert result.status == 0, result
        assert bool(one.metadata and other.metadata) is bool(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--closed", "--rate", "5"), "--rate cannot be used with --closed"),
        (("--closed", "--arrivals", "poisson"), "--arrivals cannot be used with --closed"),
        (("--profile", "hold:5/1s", "--duration", "5s"), "--duration cannot be used with --profile"),
        (("-c", "5"), "--concurrency can only be used with --closed"),
        (("--encrypted", "5"), "--encrypted needs --encrypted-target"),
        (("--cancelled", "60", "--duplicates", "60"), "more than 100 % in total"),
        (
            ("--closed", "-c", "1", "--processes", "2"),
            "--concurrency: must be at least the number of processes",
        ),
        (("--mix", "sync=0"), "at least one weight must be more than 0"),
        (("--json", "/no/such/directory/report.json"), "cannot be written"),
        (("--json", "r", "--html", "./r"), "--json and --html: give two different files"),
        (
            ("--encrypted-target", "127.0.0.1:99999"),
            "--encrypted-target: '127.0.0.1:99999' must have a port from 1 to 65535",
        ),
        (("--no-such-flag",), "--no-such-flag"),
        (("--deadline", "99999999h"), "is more than 720h"),
        (("--rate", "1000", "--duration", "1h", "--verify", "http://127.0.0.1:1"), "remembers 100000"),
    ],
)
def test_invalid_flags_exit_with_64(flags: tuple[str, ...], message: str) -> None:
    result = run(*CLIENT, *flags, env=environment())
    assert (result.status, result.out) == (64, "")
    assert message in result.err


def test_ctrl_c_stops_the_run_and_writes_the_reports(tmp_path: Path) -> None:
    written, page = tmp_path / "report.json", tmp_path / "report.html"
    flags = ("--rate", "50", "--duration", "60s", "--warm-up", "0s", "--processes", "2")
    with counting("answers") as called:
        process = subprocess.Popen(
            (*CLIENT, "--target", called.address, *flags, "--json", str(written), "--html", str(page)),
            env=environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        called.wait_for_calls(50)
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole process group
        out, err = process.communicate(timeout=WAIT_MAX_S)
    assert (process.returncode, err) == (130, b"")
    assert b"INTERRUPTED" in out
    report = json.loads(written.read_text("utf-8"))
    assert report["run"]["interrupted"]
    assert 0 < report["success"]["count"] < 3_000
    assert report["arrivals"]["started"] == report["success"]["count"] + report["arrivals"]["unfinished"]
    assert "Interrupted" in page.read_text("utf-8")


def test_ctrl_c_before_the_start_stops_the_run(answering: str) -> None:
    process = subprocess.Popen(
        (*CLIENT, "--target", answering),
        env=environment(),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while b"cygrpc" not in Path(f"/proc/{process.pid}/maps").read_bytes():
        assert process.poll() is None  # a signal before the first import would end Python with status 1
        time.sleep(0.02)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_MAX_S)
    assert process.returncode in {130, -signal.SIGINT}
    assert process.returncode == -signal.SIGINT or b"Traceback" not in err


def test_progress_is_shown_on_a_terminal(answering: str) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        (*CLIENT, "--target", answering, "--rate", "60", "--duration", "2500ms", "--warm-up", "100ms"),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            read = os.read(ours, 65_536)
        except OSError:  # EIO: the process closed the other side
            break
        if not read:
            break
        shown += read
    out, _ = process.communicate(timeout=WAIT_MAX_S)
    os.close(ours)
    text = shown.decode()
    assert "succeeded" in text
    assert re.search(r"last second: [1-9]\d* started, \d+ succeeded; \d+ in flight", text), text
    assert re.search(r"p50 0\.\d+ ms|p50 \d", text)
    assert "errors: none" in text
    assert text.count("\x1b[4A") > 5, "the panel must be redrawn in place"
    assert text.endswith("\x1b[4A\r\x1b[J"), "the panel must be removed at the end"
    assert b"\x1b" not in out


def test_no_progress_without_a_terminal(tmp_path: Path, answering: str) -> None:
    ran = load(tmp_path, answering, *QUICK)
    assert (ran.status, ran.err) == (0, "")
    assert "\x1b" not in ran.out


def test_json_without_a_file_replaces_the_text_report(answering: str) -> None:
    result = run(*CLIENT, "--target", answering, *QUICK, "--late-after", "1s", "--json", env=environment())
    assert result.status == 0
    report = json.loads(result.out)
    assert report["schema"] == "alipayhk-load/1"
    assert report["settings"]["target"] == answering


def test_gates_pass_and_fail(tmp_path: Path, answering: str) -> None:
    passing = load(tmp_path, answering, *QUICK, "--max-p99", "10s", "--max-error-rate", "0.1%")
    assert passing.status == 0, passing.out
    assert passing.out.count("passed  --max-") == 2
    failing = load(tmp_path, answering, *QUICK, "--max-p99", "1us", "--max-error-rate", "0")
    assert failing.status == 1
    assert re.search(r"FAILED  --max-p99: p99 is .* ms; at most 0\.001 ms", failing.out)
    assert "passed  --max-error-rate: 0 of 50 calls failed" in failing.out


def test_compare_fails_a_slower_run_and_one_with_more_errors(
    tmp_path: Path, answering: str, slow: str, refusing: str
) -> None:
    (bases := tmp_path / "bases").mkdir()
    flags = ("--rate", "150", "--duration", "1s", "--warm-up", "100ms")
    assert load(bases, answering, *flags).status == 0
    base = str((bases / "report.json").rename(bases / "base.json"))
    # Both runs call the same server. The large tolerance makes the result the same on any machine.
    same = load(tmp_path, answering, *flags, "--compare", base, "--compare-tolerance", "100")
    assert {gate["name"] for gate in same.report["gates"]} == {"--compare p99", "--compare errors"}
    assert same.report["gates"][1]["passed"]
    worse = load(tmp_path, slow, *flags, "--compare", base)
    assert worse.status == 1, worse.out
    assert worse.report["comparison"]["p99_us"]["worse"]
    failed = r"FAILED  --compare p99: p99 .* ms in the base run, .* ms now: \+.* ms, 95 % interval"
    assert re.search(failed, worse.out)
    broken = load(tmp_path, refusing, "--rate", "50", "--duration", "500ms", "--compare", base)
    assert broken.status == 1
    assert broken.report["comparison"]["error_rate"]["worse"]
    differing = broken.report["comparison"]["settings_that_differ"]
    assert any("duration_s" in difference for difference in differing)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": "alipayhk-load/1"}', '{"schema": "other"}', "[" * 100_000],
    ids=["empty", "list", "object", "schema", "other", "deep"],
)
def test_compare_with_a_file_that_is_not_a_report_exits_with_64(tmp_path: Path, text: str) -> None:
    (base := tmp_path / "base.json").write_text(text, "utf-8")
    result = run(*CLIENT, "--compare", str(base), env=environment())
    assert result.status == 64
    assert "--compare" in result.err


def test_a_base_report_with_impossible_figures_is_refused(tmp_path: Path, answering: str) -> None:
    """Otherwise the comparison raises an exception after the run."""
    report = load(tmp_path, answering, *QUICK).report
    for group, figure, value in (("error", "count", -7), ("success", "count", math.nan)):
        (base := tmp_path / "base.json").write_text(
            json.dumps({**report, group: {**report[group], figure: value}}), "utf-8"
        )
        with pytest.raises(ValueError, match="is not a report"):
            read_base(str(base))
    report["seconds"][0]["latency"]["max_us"] = math.inf
    base.write_text(json.dumps(report), "utf-8")
    with pytest.raises(ValueError, match="is not a report"):
        read_base(str(base))


def test_help_and_docs_have_the_same_flags() -> None:
    page = (ROOT / "docs" / "load.md").read_text("utf-8")
    result = run(*CLIENT, "--help", env=environment())
    in_help = set(re.findall(r"--[a-z][a-z0-9-]+", result.out)) - {"--help"}
    in_docs = set(re.findall(r"^\| `(?:-c, )?(--[a-z0-9-]+)", page, re.MULTILINE))
    files = {"--ca-file", "--cert-file", "--key-file"}
    connection = {"--target", *files, "--server-name", "--shared-ledger", "--tls"}
    assert in_docs | connection == in_help | connection, result.out


def test_missing_hdrhistogram_is_reported_with_the_package_to_install() -> None:
    blocked = (
        "import sys; sys.modules['hdrh'] = None; "
        "from alipayhk_linkage.cli import main; sys.exit(main(['load']))"
    )
    result = run(sys.executable, "-c", blocked, env=environment())
    assert result.status == 64
    assert "alipayhk-linkage[load]" in result.err
