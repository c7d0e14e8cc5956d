"""The command line: faults, Ctrl-C, the panel, silence, gates and the comparison."""

from __future__ import annotations

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
from tests.load.runs import CLIENT, load
from tests.peers.processes import PATIENCE_S, ROOT, environment, run

QUICK = ("--rate", "100", "--duration", "500ms", "--warm-up", "100ms")


def test_every_fault_is_named_at_once() -> None:
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
    ended = run(*CLIENT, *(f"{flag}={value}" for flag, value in flags.items()), env=environment())
    assert ended.status == 64
    assert [flag for flag in flags if flag not in ended.err] == []
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--closed", "--rate", "5"), "--rate has no meaning with --closed"),
        (("--closed", "--arrivals", "poisson"), "--arrivals has no meaning with --closed"),
        (("--profile", "hold:5/1s", "--duration", "5s"), "--duration has no meaning with --profile"),
        (("-c", "5"), "--concurrency has no meaning without --closed"),
        (("--encrypted", "5"), "--encrypted takes --encrypted-target"),
        (("--cancelled", "60", "--duplicates", "60"), "over 100 % together"),
        (("--closed", "-c", "1", "--processes", "2"), "--concurrency: there must be one at least"),
        (("--mix", "sync=0"), "one weight at least must be more than 0"),
        (("--json", "/no/such/directory/report.json"), "cannot be written"),
        (("--json", "r", "--html", "./r"), "--json and --html: one file cannot hold both"),
        (("--encrypted-target", "127.0.0.1:99999"), "--encrypted-target: '127.0.0.1:99999' is not"),
        (("--no-such-flag",), "--no-such-flag"),
        (("--deadline", "99999999h"), "is more than 720h"),
        (("--rate", "1000", "--duration", "1h", "--verify", "http://127.0.0.1:1"), "remembers 100000"),
    ],
)
def test_what_cannot_be_is_misuse(flags: tuple[str, ...], words: str) -> None:
    ended = run(*CLIENT, *flags, env=environment())
    assert (ended.status, ended.out) == (64, "")
    assert words in ended.err


def test_ctrl_c_ends_it_with_a_report(tmp_path: Path, answering: str) -> None:
    written, page = tmp_path / "report.json", tmp_path / "report.html"
    words = (*CLIENT, "--target", answering, "--rate", "50", "--duration", "60s", "--warm-up", "0s")
    process = subprocess.Popen(
        (*words, "--processes", "2", "--json", str(written), "--html", str(page)),
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all its processes
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (130, b"")
    assert b"INTERRUPTED" in out
    report = json.loads(written.read_text("utf-8"))
    assert report["run"]["interrupted"]
    assert 0 < report["success"]["count"] < 3_000
    assert report["arrivals"]["started"] == report["success"]["count"] + report["arrivals"]["unfinished"]
    assert "Interrupted" in page.read_text("utf-8")


def test_ctrl_c_before_the_start_ends_it_too(answering: str) -> None:
    process = subprocess.Popen(
        (*CLIENT, "--target", answering),
        env=environment(),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    time.sleep(0.9)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in {130, -signal.SIGINT}
    assert process.returncode == -signal.SIGINT or b"Traceback" not in err


def test_a_terminal_is_shown_what_goes_on(answering: str) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        (*CLIENT, "--target", answering, "--rate", "60", "--duration", "1500ms", "--warm-up", "100ms"),
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
        except OSError:  # EIO: nobody holds the other end any more
            break
        if not read:
            break
        shown += read
    out, _ = process.communicate(timeout=PATIENCE_S)
    os.close(ours)
    text = shown.decode()
    assert "succeeded" in text
    assert re.search(r"last second: [1-9]\d* started, \d+ succeeded; \d+ in flight", text), text
    assert re.search(r"p50 0\.\d+ ms|p50 \d", text)
    assert "errors: none" in text
    assert text.count("\x1b[4A") > 5, "it is drawn in place"
    assert text.endswith("\x1b[4A\r\x1b[J"), "it leaves nothing behind"
    assert b"\x1b" not in out


def test_elsewhere_it_is_silent(tmp_path: Path, answering: str) -> None:
    ran = load(tmp_path, answering, *QUICK)
    assert (ran.status, ran.err) == (0, "")
    assert "\x1b" not in ran.out


def test_json_takes_the_place_of_the_text(answering: str) -> None:
    ended = run(*CLIENT, "--target", answering, *QUICK, "--late-after", "1s", "--json", env=environment())
    assert ended.status == 0
    report = json.loads(ended.out)
    assert report["schema"] == "alipayhk-load/1"
    assert report["settings"]["target"] == answering


def test_gates_pass_and_fail(tmp_path: Path, answering: str) -> None:
    well = load(tmp_path, answering, *QUICK, "--max-p99", "10s", "--max-error-rate", "0.1%")
    assert well.status == 0, well.out
    assert well.out.count("passed  --max-") == 2
    ill = load(tmp_path, answering, *QUICK, "--max-p99", "1us", "--max-error-rate", "0")
    assert ill.status == 1
    assert re.search(r"FAILED  --max-p99: p99 is .* ms; at most 0\.001 ms", ill.out)
    assert "passed  --max-error-rate: 0 of 50 calls failed" in ill.out


def test_a_base_run_is_compared_with(tmp_path: Path, answering: str, slow: str, refusing: str) -> None:
    (bases := tmp_path / "bases").mkdir()
    flags = ("--rate", "150", "--duration", "1s", "--warm-up", "100ms")
    assert load(bases, answering, *flags).status == 0
    base = str((bases / "report.json").rename(bases / "base.json"))
    # Against itself on any machine: what is tolerated is out of all proportion.
    same = load(tmp_path, answering, *flags, "--compare", base, "--compare-tolerance", "100")
    assert {gate["name"] for gate in same.report["gates"]} == {"--compare p99", "--compare errors"}
    assert same.report["gates"][1]["passed"]
    worse = load(tmp_path, slow, *flags, "--compare", base)
    assert worse.status == 1, worse.out
    assert worse.report["comparison"]["p99_us"]["worse"]
    assert re.search(r"FAILED  --compare p99: p99 .* ms then, .* ms now: \+.* ms, 95 % interval", worse.out)
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
def test_what_is_no_report_is_misuse(tmp_path: Path, text: str) -> None:
    (base := tmp_path / "base.json").write_text(text, "utf-8")
    ended = run(*CLIENT, "--compare", str(base), env=environment())
    assert ended.status == 64
    assert "--compare" in ended.err


def test_a_base_whose_figures_cannot_be_is_misuse(tmp_path: Path, answering: str) -> None:
    """They would end the run in an exception, after the run."""
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


def test_help_names_every_flag_that_the_page_has() -> None:
    page = (ROOT / "docs" / "load.md").read_text("utf-8")
    ended = run(*CLIENT, "--help", env=environment())
    helped = set(re.findall(r"--[a-z][a-z0-9-]+", ended.out)) - {"--help"}
    tabled = set(re.findall(r"^\| `(?:-c, )?(--[a-z0-9-]+)", page, re.MULTILINE))
    connection = {"--target", "--ca-file", "--cert-file", "--key-file", "--server-name", "--tls"}
    assert tabled | connection == helped | connection, ended.out


def test_without_hdrhistogram_it_says_what_to_install() -> None:
    blocked = (
        "import sys; sys.modules['hdrh'] = None; "
        "from alipayhk_linkage.cli import main; sys.exit(main(['load']))"
    )
    ended = run(sys.executable, "-c", blocked, env=environment())
    assert ended.status == 64
    assert "alipayhk-linkage[load]" in ended.err
