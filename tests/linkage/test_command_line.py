"""`alipayhk-client sync-linkage` and `bind-account`, as people type them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import Final

import pytest

from tests.linkage.command import CLIENT, binding, client
from tests.linkage.where import Where
from tests.peers.processes import run


def test_ok_is_told_with_what_alipayhk_said(where: Where) -> None:
    ended = client(*binding(where, "ok"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("OK: AlipayHK did it.\n")
    assert "  result.status: S\n" in ended.stdout
    assert "  need_bind: true\n" in ended.stdout


def test_a_linkage_by_flags(where: Where) -> None:
    words = (
        f"--request-id {where.run}-cli-sync --biz-time now --operate-type bind --external-identity-type UID"
    )
    more = f"--external-identity-value {where.run}-cli --user-id 2160000000000001"
    ended = client(
        "sync-linkage",
        *where.flags,
        *words.split(),
        *more.split(),
        "--binding-target-type",
        "USER_ID",
        "--json",
    )
    assert ended.returncode == 0, ended
    said = json.loads(ended.stdout)
    assert (said["outcome"], said["response"]["result"]["status"]) == ("OK", "S")


def test_a_form_by_flags(where: Where) -> None:
    words = binding(where, "form")
    at = words.index("--account-id")
    del words[at : at + 2]
    ended = client(*words, "--form-code", "F1", "--form-value", "a=1", "--form-value", "b=x=y", "--json")
    assert ended.returncode == 0, ended
    assert json.loads(ended.stdout)["response"]["account"]["account_id"]


def test_json_on_standard_input(where: Where) -> None:
    request = {
        "requestId": f"{where.run}-cli-json",
        "merchantAccountId": "2160400000002012",
        "type": "TELECOM",
        "subType": "MOBILE_SERVICE",
        "accountId": "88781108",
        "userId": "2160000000000001+USER_NOT_EXIST",
        "timestamp": "2026-03-01T08:00:00Z",
    }
    ended = client("bind-account", *where.flags, "--json", stdin=json.dumps(request))
    assert ended.returncode == 11, ended
    said = json.loads(ended.stdout)
    assert (said["outcome"], said["reason"], said["retry"]) == (
        "rejected",
        "WALLET_REJECTED",
        "new_request_id",
    )
    assert said["metadata"]["result_code"] == "USER_NOT_EXIST"
    assert said["request_id"] == request["requestId"]
    assert said["advice"] == (
        "AlipayHK refused it for good; it had no effect. Mend the request, and send it under a new id."
    )


def test_a_doubt_is_explained(where: Where) -> None:
    ended = client(*binding(where, "doubt", user_id="2160000000000001+CLOSE"))
    assert ended.returncode == 12, ended
    first, *_, last = ended.stdout.splitlines()
    assert first.startswith("UNKNOWN CONNECTION_LOST: The request was sent,")
    assert "  outcome: unknown\n  retry: operator\n  attempts: 1\n" in ended.stdout
    assert last == (
        "It may or may not have taken effect. Do not send it again; tell the people who run the gateway."
    )


def test_every_fault_of_a_request_is_shown(where: Where) -> None:
    ended = client("sync-linkage", *where.flags, "--request-id", "a b", "--user-id", "x" * 65)
    assert ended.returncode == 10, ended
    for field in ("request_id", "biz_time", "operate_type", "user_id", "binding_target_type"):
        assert f"\n  {field}: " in ended.stdout


def test_a_deadline_without_end_is_one(where: Where) -> None:
    assert client(*binding(where, "endless"), "--timeout", "inf").returncode == 0


def test_time_that_is_too_short_is_unknown_or_not_sent(where: Where) -> None:
    ended = client(*binding(where, "short"), "--timeout", "0.001", "--no-retry")
    assert ended.returncode in {10, 12}, ended


BAD: Final[dict[str, tuple[list[str], list[str]]]] = {
    "nothing": ([], ["the following arguments are required: COMMAND", "usage: alipayhk-client"]),
    "unknown flag": (["sync-linkage", "--nonsense"], ["unrecognized arguments: --nonsense"]),
    "values": (
        ["sync-linkage", "--biz-time", "yesterday", "--operate-type", "TIE", "--expiry-time", "2026-13-01"],
        ["--biz-time: RFC 3339, as", "--operate-type: one of BIND, UNBIND", "--expiry-time: RFC 3339, as"],
    ),
    "form": (
        ["bind-account", "--account-id", "1", "--form-code", "a", "--form-value", "b"],
        ["--account-id and --form-code: one of them", "--form-value: not CODE=TEXT"],
    ),
    "form again": (
        [
            *("bind-account", "--account-id", "", "--form-code", "\udcff", "--form-value", "a=\udcff"),
            *("--form-value", "b=1", "--form-value", "b=2", "--user-id", "\udcff"),
        ],
        [
            *("--account-id and --form-code: one of them", "--form-code: ", "--form-value: 'utf-8' codec"),
            *("--form-value: 'b' is given twice", "--user-id: "),
        ],
    ),
    "connection": (
        ["bind-account", "--target", "nowhere", "--ca-file", "/none", "--cert-file", "/"],
        ["'nowhere' is not host:port", "--ca-file: /none: ", "given together", "--cert-file: /: "],
    ),
    "empty words": (
        ["bind-account", "--target", "", "--ca-file", ""],
        ["'' is not host:port", "--ca-file: : Is a directory"],
    ),
    "not PEM": (["bind-account", "--type", "x", "--ca-file", "/dev/null"], ["the CA holds no certificate"]),
    "timeout": (["bind-account", "--type", "x", "--timeout", "0"], ["--timeout: more than 0 seconds"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_words_are_named_all_at_once(kind: str) -> None:
    words, faults = BAD[kind]
    ended = client(*words)
    assert (ended.returncode, ended.stdout) == (64, "")
    assert [fault for fault in faults if fault not in ended.stderr] == [], ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("text", ["", "{", '{"requestId": 7}', '{"nonsense": 1}', "[]"])
def test_what_is_no_request_is_refused(text: str) -> None:
    ended = client("bind-account", stdin=text)
    assert (ended.returncode, ended.stdout) == (64, "")
    assert "standard input is not a BindAccountRequest in JSON" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_at_a_terminal_nobody_waits_for_json() -> None:
    primary, replica = pty.openpty()
    ended = subprocess.run(
        (CLIENT, "bind-account"), stdin=replica, capture_output=True, text=True, check=False, timeout=60
    )
    os.close(primary)
    os.close(replica)
    assert ended.returncode == 64
    assert "as flags, or the request as JSON on standard input" in ended.stderr


def test_the_connection_may_stand_in_the_environment() -> None:
    empty = {
        "ALIPAYHK_CLIENT_CA_FILE": "",
        "ALIPAYHK_CLIENT_CERT_FILE": "",
        "ALIPAYHK_CLIENT_SERVER_NAME": "",
    }
    words = ("bind-account", "--type", "x", "--no-retry")
    ended = client(*words, ALIPAYHK_CLIENT_TARGET="127.0.0.1:1", **empty)
    assert ended.returncode == 12
    assert ended.stdout.startswith("UNAVAILABLE: ")
    ended = client(*words, ALIPAYHK_CLIENT_KEY_FILE="/none")
    assert (ended.returncode, ended.stdout) == (64, "")
    assert "--key-file: /none: No such file" in ended.stderr


@pytest.mark.parametrize("command", ["", "sync-linkage", "bind-account", "load"])
def test_help_is_there(command: str) -> None:
    ended = run(CLIENT, *command.split(), "--help")
    assert ended.status == 0
    assert "usage: alipayhk-client" in ended.out


def test_version_is_there() -> None:
    assert run(CLIENT, "--version").out.strip() == "0.1.0"
