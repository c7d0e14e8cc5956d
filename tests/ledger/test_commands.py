"""The output and the exit statuses of `alipayhk-gateway ledger`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.commands.exit_codes import EX_CONFIG, EX_UNAVAILABLE
from service.commands.ledger import requests as ledger_commands
from service.commands.ledger.output import print_json
from service.ledger import Key, Known, Ledger, Resolution, State
from tests.ledger.levels import (
    APPLIED,
    IN_DOUBT,
    NOW_MS,
    a_bind,
    a_claim,
    ended,
    granted,
    opened,
    sqlite_url,
    the_row,
)

Run = Callable[..., int]


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a command line on the ledger of this test."""

    def run(*words: str, url: str | None = None, key_file: Path | None = None) -> int:
        parser = argparse.ArgumentParser()
        ledger_commands.configure(parser, add_config)
        args = parser.parse_args(words)
        return ledger_commands.run(args, sqlite_url(tmp_path) if url is None else url, key_file)

    return run


def prepared(directory: Path, *steps: Callable[[Ledger], Awaitable[object]]) -> None:
    """Run steps on the ledger before the command."""

    async def do() -> None:
        ledger, _ = opened(sqlite_url(directory))
        for step in steps:
            await step(ledger)
        await ledger.close()

    asyncio.run(do())


@pytest.fixture
def three(tmp_path: Path) -> None:
    """Prepare one applied request, one in doubt, and one with an expired lease."""
    prepared(
        tmp_path,
        lambda ledger: ended(ledger, a_claim("applied")),
        lambda ledger: ended(ledger, a_bind("doubt"), IN_DOUBT, NOW_MS + 1),
        lambda ledger: granted(ledger, a_bind("over"), NOW_MS + 2),
    )


# -- list, show


def test_list_shows_the_oldest_update_first_and_names_the_ledger(
    run: Run, three: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("list") == 0
    out, err = capsys.readouterr()
    assert err == f"3 requests in {tmp_path}/ledger.db\n"
    lines = out.splitlines()
    assert [line.split()[5] for line in lines] == ["applied", "doubt", "over"]
    assert lines[0].split() == [
        *("1970-01-01T00:16:40.000+00:00", "applied", "1"),
        *("SyncLinkage", "client-1", "applied", "loyalty", "SUCCESS"),
    ]


def test_list_in_doubt_shows_only_unknown_outcomes(
    run: Run, three: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list", "--in-doubt", "--json") == 0
    requests = json.loads(capsys.readouterr().out)["requests"]
    assert [(row["request_id"], row["state"]) for row in requests] == [
        ("doubt", "in_doubt"),
        ("over", "in_doubt"),
    ]


def test_show_prints_every_public_member(run: Run, three: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "applied", "--json") == 0
    assert json.loads(capsys.readouterr().out)["requests"] == [
        {
            "client_id": "client-1",
            "api": "SyncLinkage",
            "request_id": "applied",
            "caller": "loyalty",
            "state": "applied",
            "attempts": 1,
            "biz_time": "1970-01-01T00:16:40.000+00:00",
            "created": "1970-01-01T00:16:40.000+00:00",
            "updated": "1970-01-01T00:16:40.000+00:00",
            "change": 2,
            "result_status": "S",
            "result_code": "SUCCESS",
            "resolved": None,
        }
    ]
    assert run("show", "doubt") == 0
    assert "state: in_doubt\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", [("list",), ("show", "applied"), ("export", "--since", "1970-01-01")])
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_neither_hashes_nor_sealed_bytes_are_shown(
    run: Run,
    three: None,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    flags: tuple[str, ...],
) -> None:
    assert run(*command, *flags) == 0
    out = capsys.readouterr().out
    assert "applied" in out
    for secret in (a_claim("applied").fingerprint, b"linkage L", APPLIED.sealed):
        assert secret.decode() not in out
        assert secret.hex() not in out


@pytest.mark.parametrize("request_id", ["absent", "é", "\udcff"], ids=["absent", "no ASCII", "no text"])
def test_show_of_an_unknown_id_exits_with_status_1(
    run: Run, three: None, capsys: pytest.CaptureFixture[str], request_id: str
) -> None:
    assert run("show", request_id) == 1
    assert capsys.readouterr().err == "alipayhk-gateway: no request has this id\n"


# -- resolve


@pytest.mark.parametrize("flag", ["--applied", "--rejected"])
@pytest.mark.parametrize("request_id", ["doubt", "over"])
def test_resolve_records_the_decision_and_its_audit(
    run: Run, three: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, request_id: str
) -> None:
    words = ("resolve", request_id, flag, "--reason", "AlipayHK's ticket 7", "--who", "ann")
    assert run(*words, "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)["requests"]
    assert shown["state"] == flag.removeprefix("--")
    assert shown["resolved"]["who"] == "ann"
    assert shown["resolved"]["why"] == "AlipayHK's ticket 7"

    async def check(ledger: Ledger) -> None:
        row = await the_row(ledger, a_bind(request_id))
        assert row.resolved == Resolution("ann", "AlipayHK's ticket 7", row.updated_ms)
        answer = await ledger.claim(a_bind(request_id), row.updated_ms)
        assert isinstance(answer, Known)
        assert answer.ending.resolved_by_operator
        assert answer.ending.state is State(flag.removeprefix("--"))
        assert answer.ending.sealed == b""

    prepared(tmp_path, check)
    assert run(*words) == 1
    assert "not in doubt" in capsys.readouterr().err
    assert run("show", request_id) == 0
    assert "resolved who: ann\n" in capsys.readouterr().out


def test_resolve_names_the_os_user_by_default(
    run: Run, three: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("resolve", "doubt", "--applied", "--reason", "asked", "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)["requests"]
    assert shown["resolved"]["who"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("absent",), "no such request"),
        (("\udcff",), "no such request"),
        (
            ("applied",),
            "this request is not in doubt: state applied since 1970-01-01T00:16:40.000+00:00",
        ),
        (("doubt", "--api", "SyncLinkage"), "no such request"),
        (("doubt", "--client-id", "client-2"), "no such request"),
    ],
)
def test_resolve_of_a_request_not_in_doubt_exits_with_status_1(
    run: Run,
    three: None,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    assert run("resolve", *words, "--applied", "--reason", "asked") == 1
    assert capsys.readouterr().err == f"alipayhk-gateway: {sentence}\n"


def test_resolve_of_a_request_in_progress_says_until_when(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun_ms = time.time_ns() // 1_000_000
    prepared(tmp_path, lambda ledger: granted(ledger, a_bind("held", lease_ms=60_000), begun_ms))
    assert run("resolve", "held", "--applied", "--reason", "asked") == 1
    until = datetime.fromtimestamp(begun_ms / 1000 + 60, UTC).isoformat(timespec="milliseconds")
    assert capsys.readouterr().err == (
        f"alipayhk-gateway: this request is in progress until {until}: try again then\n"
    )


def test_resolve_of_an_ambiguous_id_asks_for_api_or_client_id(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(
        tmp_path,
        lambda ledger: ended(ledger, a_claim("twice"), IN_DOUBT),
        lambda ledger: ended(ledger, a_bind("twice"), IN_DOUBT),
        lambda ledger: ended(ledger, a_bind("twice", key=Key("c-2", "BindAccount", "twice")), IN_DOUBT),
    )
    words = ("resolve", "twice", "--rejected", "--reason", "asked")
    assert run(*words) == 1
    assert run(*words, "--api", "BindAccount") == 1
    assert "name one with --api and --client-id" in capsys.readouterr().err
    assert run(*words, "--api", "BindAccount", "--client-id", "c-2") == 0
    assert run(*words, "--api", "SyncLinkage") == 0


@pytest.mark.parametrize(
    "words",
    [
        ("resolve", "doubt", "--applied"),
        ("resolve", "doubt", "--reason", "asked"),
        ("resolve", "doubt", "--applied", "--rejected", "--reason", "asked"),
        ("resolve", "doubt", "--applied", "--reason", " "),
        ("resolve", "doubt", "--applied", "--reason", "two\nlines"),
        ("resolve", "doubt", "--applied", "--reason", "x" * 501),
        ("export",),
        ("resolve", "doubt", "--applied", "--reason", "asked", "--api", "bindaccount"),
        ("export", "--since", "yesterday"),
        ("export", "--after", "-1"),
        ("export", "--after", "1" * 30),
        ("export", "--after", "1", "--since", "1970-01-01"),
        (),
    ],
)
def test_invalid_arguments_are_refused(run: Run, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        run(*words)


# -- export


def test_export_writes_one_line_per_request_changed_since_a_time(
    run: Run, three: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "--since", "1970-01-01T00:16:40.001+00:00") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ["doubt", "over"]


def test_export_after_a_change_has_what_changed_since_whatever_the_clock(
    run: Run, three: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", "--since", "1970-01-01") == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])["change"]
    prepared(
        tmp_path, lambda ledger: ended(ledger, a_claim("other", linkage=b"M"), now_ms=NOW_MS - 600_000)
    )
    assert run("export", "--after", str(last)) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert (json.loads(line)["request_id"], json.loads(line)["change"]) == ("other", last + 2)


@pytest.mark.parametrize("command", [("list",), ("list", "--in-doubt")])
def test_list_is_streamed_as_the_same_json(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    prepared(tmp_path)
    assert run(*command, "--json") == 0
    assert capsys.readouterr().out == json.dumps({"requests": []}, indent=2) + "\n"
    binds = [a_bind(f"id-{number}") for number in range(1_001)]
    prepared(tmp_path, lambda ledger: asyncio.gather(*(ended(ledger, bind, IN_DOUBT) for bind in binds)))
    resolved = a_bind("resolved")
    prepared(
        tmp_path,
        lambda ledger: ended(ledger, resolved, IN_DOUBT),
        lambda ledger: ledger.resolve(resolved.key, APPLIED, who="ann", why="asked", now_ms=NOW_MS),
    )
    assert run(*command, "--json") == 0
    text = capsys.readouterr().out
    assert len(json.loads(text)["requests"]) == 1_001 + text.count("ann")
    assert text == json.dumps(json.loads(text), indent=2) + "\n"


async def test_many_rows_are_listed_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def rows() -> AsyncIterator[dict[str, object]]:
        for number in range(20_000):
            yield {"request_id": f"id-{number}", "state": "applied"}

    tracemalloc.start()
    try:
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=lambda _: 0))
        await print_json(rows())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000


@pytest.mark.parametrize(
    ("since", "count"),
    [
        ("1970-01-01T00:16:40.001", 2),
        ("1970-01-01T01:16:40.002+01:00", 1),
        ("1970-01-02", 0),
        ("0001-01-01", 3),
        ("0001-01-01T00:00:00+08:00", 3),
        ("9999-12-31T23:59:59-08:00", 0),
    ],
)
@pytest.mark.parametrize("zone", ["Asia/Hong_Kong", "America/New_York"])
def test_time_without_an_offset_is_utc_in_every_time_zone(
    run: Run,
    three: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    since: str,
    count: int,
    zone: str,
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert run("export", "--since", since) == 0
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert len(capsys.readouterr().out.splitlines()) == count


def test_help_says_that_a_time_without_an_offset_is_utc(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("export", "--help")
    out = " ".join(capsys.readouterr().out.split())
    assert "Write the requests changed since a time or a change, one JSON object a line." in out
    assert "UTC if it has no offset" in out


# -- ledgers that cannot be used


@pytest.mark.parametrize("url", ["off", "memory:", "nonsense"])
def test_level_that_does_not_outlive_the_gateway_is_bad_configuration(
    run: Run, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    assert run("list", url=url) == EX_CONFIG
    assert "LEDGER_URL" in capsys.readouterr().err


def test_missing_ledger_is_bad_configuration_and_is_not_created(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list") == EX_CONFIG
    assert "there is no ledger" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_missing_key_is_bad_configuration(
    run: Run, three: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list", key_file=tmp_path / "absent.key") == EX_CONFIG
    assert "cannot be read" in capsys.readouterr().err


def test_locked_ledger_is_reported_as_unavailable(
    run: Run, three: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert run("resolve", "doubt", "--applied", "--reason", "asked") == EX_UNAVAILABLE
    assert "SQLITE_BUSY" in capsys.readouterr().err


# -- a reader that closes the pipe


@pytest.mark.parametrize("rows", [3, 2000], ids=["a few", "many"])
@pytest.mark.parametrize(
    "words", [("list",), ("list", "--json"), ("export", "--since", "1970-01-01T00:00:00+00:00")]
)
def test_closed_output_pipe_stops_the_command_without_an_error_text(
    tmp_path: Path, rows: int, words: tuple[str, ...]
) -> None:
    async def fill(ledger: Ledger) -> None:
        await asyncio.gather(*(ended(ledger, a_bind(f"id-{number}")) for number in range(rows)))

    prepared(tmp_path, fill)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        (sys.executable, "-m", "service", "ledger", *words),
        env={**os.environ, "ALIPAYHK_LEDGER_URL": sqlite_url(tmp_path)},
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == ledger_commands.READER_GONE
