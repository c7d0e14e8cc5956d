"""The commands `alipayhk-client sync-linkage` and `bind-account`."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
from typing import Final

import grpc
import pytest

from tests.linkage.command import CLIENT, binding, client
from tests.linkage.fake_gateway import a_gateway
from tests.linkage.where import Where
from tests.peers.processes import run


def test_ok_is_printed_with_the_response(where: Where) -> None:
    result = client(*binding(where, "ok"))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("OK: AlipayHK accepted the request.\n")
    assert "  result.status: S\n" in result.stdout
    assert "  need_bind: true\n" in result.stdout


def test_sync_linkage_from_flags(where: Where) -> None:
    flags = (
        f"--request-id {where.run}-cli-sync --biz-time now --operate-type bind --external-identity-type UID"
    )
    more = f"--external-identity-value {where.run}-cli --user-id 2160000000000001"
    result = client(
        "sync-linkage",
        *where.flags,
        *flags.split(),
        *more.split(),
        "--binding-target-type",
        "USER_ID",
        "--json",
    )
    assert result.returncode == 0, result
    printed = json.loads(result.stdout)
    assert (printed["outcome"], printed["response"]["result"]["status"]) == ("OK", "S")


def test_a_template_form_from_flags(where: Where) -> None:
    arguments = binding(where, "form")
    at = arguments.index("--account-id")
    del arguments[at : at + 2]
    result = client(
        *arguments, "--form-code", "F1", "--form-value", "a=1", "--form-value", "b=x=y", "--json"
    )
    assert result.returncode == 0, result
    assert json.loads(result.stdout)["response"]["account"]["account_id"]


def test_a_request_as_json_on_standard_input(where: Where) -> None:
    request = {
        "requestId": f"{where.run}-cli-json",
        "merchantAccountId": "2160400000002012",
        "type": "TELECOM",
        "subType": "MOBILE_SERVICE",
        "accountId": "88781108",
        "userId": "2160000000000001+USER_NOT_EXIST",
        "timestamp": "2026-03-01T08:00:00Z",
    }
    result = client("bind-account", *where.flags, "--json", stdin=json.dumps(request))
    assert result.returncode == 11, result
    printed = json.loads(result.stdout)
    assert (printed["outcome"], printed["reason"], printed["retry"]) == (
        "rejected",
        "WALLET_REJECTED",
        "new_request_id",
    )
    assert printed["metadata"]["result_code"] == "USER_NOT_EXIST"
    assert printed["request_id"] == request["requestId"]
    assert printed["advice"] == (
        "AlipayHK rejected the request. It had no effect. Correct the request, and send it with a new id."
    )


def test_an_unknown_outcome_is_explained(where: Where) -> None:
    result = client(*binding(where, "doubt", user_id="2160000000000001+CLOSE"))
    assert result.returncode == 12, result
    first, *_, last = result.stdout.splitlines()
    assert first.startswith("UNKNOWN CONNECTION_LOST: The request was sent,")
    assert "  outcome: unknown\n  retry: operator\n  attempts: 1\n" in result.stdout
    assert last == (
        "The request may or may not have taken effect."
        " Do not send it again, and contact the operators of the gateway."
    )


def test_all_violations_of_a_request_are_printed(where: Where) -> None:
    result = client("sync-linkage", *where.flags, "--request-id", "a b", "--user-id", "x" * 65)
    assert result.returncode == 10, result
    for field in ("request_id", "biz_time", "operate_type", "user_id", "binding_target_type"):
        assert f"\n  {field}: " in result.stdout


def test_a_timeout_that_is_too_short_is_unknown_or_not_sent(where: Where) -> None:
    result = client(*binding(where, "short"), "--timeout", "0.001", "--no-retry")
    assert result.returncode in {10, 12, 69}, result


BAD: Final[dict[str, tuple[list[str], list[str]]]] = {
    "nothing": ([], ["the following arguments are required: COMMAND", "usage: alipayhk-client"]),
    "unknown flag": (["sync-linkage", "--nonsense"], ["unrecognized arguments: --nonsense"]),
    "values": (
        ["sync-linkage", "--biz-time", "yesterday", "--operate-type", "TIE", "--expiry-time", "2026-13-01"],
        [
            *("--biz-time: RFC 3339, such as", "--operate-type: must be one of BIND, UNBIND"),
            "--expiry-time: RFC 3339, such as",
        ],
    ),
    "form": (
        ["bind-account", "--account-id", "1", "--form-code", "a", "--form-value", "b"],
        ["--account-id and --form-code: give only one of them", "--form-value: not CODE=TEXT"],
    ),
    "form again": (
        [
            *("bind-account", "--account-id", "", "--form-code", "\udcff", "--form-value", "a=\udcff"),
            *("--form-value", "b=1", "--form-value", "b=2", "--user-id", "\udcff"),
        ],
        [
            *(
                "--account-id and --form-code: give only one of them",
                "--form-code: ",
                "--form-value: 'utf-8' codec",
            ),
            *("--form-value: 'b' is given twice", "--user-id: "),
        ],
    ),
    "connection": (
        ["bind-account", "--target", "nowhere", "--ca-file", "/none", "--cert-file", "/"],
        ["'nowhere' is not host:port", "--ca-file: /none: ", "must be given together", "--cert-file: /: "],
    ),
    "shared ledger": (
        ["bind-account", "--target", "nowhere"],
        ["'nowhere' is not host:port", "ALIPAYHK_CLIENT_SHARED_LEDGER: must be true or false"],
    ),
    "port": (
        ["bind-account", "--target", "gateway:99999", "--ca-file", "/none"],
        ["'gateway:99999' must have a port from 1 to 65535", "--ca-file: /none: "],
    ),
    "empty values": (
        ["bind-account", "--target", "", "--ca-file", ""],
        ["'' is not host:port", "--ca-file: : Is a directory"],
    ),
    "not PEM": (
        ["bind-account", "--type", "x", "--ca-file", __file__],
        ["the CA contains no PEM certificate"],
    ),
    "a device": (
        ["bind-account", "--type", "x", "--ca-file", "/dev/null", "--key-file", "/none"],
        ["--ca-file: /dev/null: it is a pipe, a socket or a device, and must be", "--key-file: /none: "],
    ),
    "timeout": (
        ["bind-account", "--type", "x", "--timeout", "0"],
        ["--timeout: must be more than 0 seconds"],
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_one_error_names_every_fault_of_the_command_line(kind: str) -> None:
    arguments, faults = BAD[kind]
    variables = {"ALIPAYHK_CLIENT_SHARED_LEDGER": "yes"} if kind == "shared ledger" else {}
    result = client(*arguments, **variables)
    assert (result.returncode, result.stdout) == (64, "")
    assert [fault for fault in faults if fault not in result.stderr] == [], result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("text", ["", "{", '{"requestId": 7}', '{"nonsense": 1}', "[]"])
def test_invalid_json_on_standard_input_is_refused(text: str) -> None:
    result = client("bind-account", stdin=text)
    assert (result.returncode, result.stdout) == (64, "")
    assert "standard input is not a BindAccountRequest in JSON" in result.stderr
    assert "Traceback" not in result.stderr


def test_no_json_is_read_from_a_terminal() -> None:
    primary, replica = pty.openpty()
    result = subprocess.run(
        (CLIENT, "bind-account"), stdin=replica, capture_output=True, text=True, check=False, timeout=60
    )
    os.close(primary)
    os.close(replica)
    assert result.returncode == 64
    assert "as flags, or the whole request as JSON on standard input" in result.stderr


def test_the_connection_can_be_set_in_the_environment() -> None:
    empty = {
        "ALIPAYHK_CLIENT_CA_FILE": "",
        "ALIPAYHK_CLIENT_CERT_FILE": "",
        "ALIPAYHK_CLIENT_SERVER_NAME": "",
    }
    arguments = ("bind-account", "--type", "x", "--no-retry")
    result = client(*arguments, ALIPAYHK_CLIENT_TARGET="127.0.0.1:1", **empty)
    assert result.returncode == 69
    assert result.stdout.startswith("UNAVAILABLE: There is no connection to the gateway at 127.0.0.1:1: ")
    result = client(*arguments, ALIPAYHK_CLIENT_KEY_FILE="/none")
    assert (result.returncode, result.stdout) == (64, "")
    assert "--key-file: /none: No such file" in result.stderr


@pytest.mark.parametrize(
    ("flags", "variable", "status"),
    [
        ([], "", 12),
        ([], "false", 12),
        (["--shared-ledger"], "", 0),
        (["--shared-ledger"], "false", 0),
        ([], "true", 0),
    ],
)
async def test_a_call_moves_on_to_another_gateway_only_with_a_shared_ledger(
    flags: list[str], variable: str, status: int
) -> None:
    async with a_gateway() as (one, first), a_gateway() as (_, second):
        one.codes, one.pushbacks = [grpc.StatusCode.UNAVAILABLE] * 4, ["500" if status == 0 else "-1"] * 4
        arguments = ("bind-account", "--type", "x", "--target", f"ipv4:{first},{second}", *flags)
        result = await asyncio.to_thread(client, *arguments, ALIPAYHK_CLIENT_SHARED_LEDGER=variable)
        assert result.returncode == status, result


@pytest.mark.parametrize("command", ["", "sync-linkage", "bind-account", "load"])
def test_every_command_has_help(command: str) -> None:
    result = run(CLIENT, *command.split(), "--help")
    assert result.status == 0
    assert "usage: alipayhk-client" in result.out


def test_version_is_printed() -> None:
    assert re.fullmatch(r"0\.1\.0 \(commit [0-9a-f]{12}\)\n", run(CLIENT, "--version").out)
