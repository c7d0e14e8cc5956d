"""Every row of the table of faults, caused by a request in each protocol, plain and encrypted."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from clients.alipayhk.wire import errors
from clients.alipayhk.wire.errors import CallError, ResultError
from clients.alipayhk.wire.messages import SealedRequest
from sandbox.apis import APIS
from sandbox.faults import FAULTS, find_fault, table
from sandbox.results import RESULT_CODES
from tests.sandbox.callers import USER_ID, Merchant, body_of
from tests.sandbox.conftest import Sleeps

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "sandbox.md"

Failure = type[CallError] | None


@dataclass(frozen=True)
class Case:
    """The client's error for a fault in each protocol; None is a success."""

    suffix: str
    plain: Failure
    encrypted: Failure
    envelope: Failure


def alike(suffix: str, failure: Failure) -> Case:
    """Expect the same error in every protocol."""
    return Case(suffix, failure, failure, failure)


CASES: Final = {
    **{code: alike(code, ResultError) for code in RESULT_CODES},
    "STATUS_<status>": alike("STATUS_X", ResultError),
    "HTTP_<status>": alike("HTTP_502", errors.Unsigned),
    "DELAY_<ms>": alike("DELAY_20", None),
    "HANG": alike("HANG", errors.Timeout),
    "RESET": alike("RESET", errors.ConnectionLost),
    "CLOSE": alike("CLOSE", errors.ConnectionLost),
    "TRUNCATE": alike("TRUNCATE", errors.Truncated),
    "SLOW": alike("SLOW", errors.Timeout),
    "HUGE": alike("HUGE", errors.Truncated),
    "UNSIGNED": alike("UNSIGNED", errors.Unsigned),
    "BAD_SIGNATURE": alike("BAD_SIGNATURE", errors.SignatureInvalid),
    "EMPTY_SIGNATURE": alike("EMPTY_SIGNATURE", errors.SignatureInvalid),
    "TWO_SIGNATURES": Case(
        "TWO_SIGNATURES", errors.SignatureInvalid, errors.SignatureInvalid, errors.Malformed
    ),
    "UNKNOWN_KEY_VERSION": Case(
        "UNKNOWN_KEY_VERSION", errors.SignatureInvalid, errors.SignatureInvalid, ResultError
    ),
    "OTHER_ALGORITHM": Case(
        "OTHER_ALGORITHM", errors.SignatureInvalid, errors.SignatureInvalid, ResultError
    ),
    "OLD": alike("OLD", errors.OutsideWindow),
    "OTHER_REQUEST": alike("OTHER_REQUEST", errors.Replayed),
    "PLAIN": Case("PLAIN", None, errors.NotEncrypted, ResultError),
    "UNDECRYPTABLE": Case("UNDECRYPTABLE", errors.Malformed, errors.Malformed, ResultError),
    "DUPLICATE_MEMBER": alike("DUPLICATE_MEMBER", errors.Malformed),
    "NO_RESULT": alike("NO_RESULT", errors.Malformed),
}


def speaking(merchant: Merchant, way: str) -> tuple[str, Merchant]:
    """Return the API and the merchant for a protocol."""
    if way == "encrypted":
        return "SyncLinkage", merchant.encrypting(strictly=True)
    return ("BindAccount" if way == "envelope" else "SyncLinkage"), merchant


@pytest.mark.parametrize("way", ["plain", "encrypted", "envelope"])
@pytest.mark.parametrize("row", FAULTS)
async def test_each_fault_gives_the_expected_client_error_and_effect(
    merchant: Merchant, row: str, way: str
) -> None:
    case, fault = CASES[row], FAULTS[row]
    expected: Failure = getattr(case, way)
    api, caller = speaking(merchant, way)
    body = body_of(api, userId=f"{USER_ID}+{case.suffix}")
    expecting = nullcontext() if expected is None else pytest.raises(expected)
    timeout_s = 1.5 if expected is errors.Timeout else 5.0
    with expecting as raised:
        await caller.call(api, body, timeout_s=timeout_s)
    if expected is not None:
        assert type(raised.value) is expected  # type: ignore[union-attr]
    takes_effect = fault.takes_effect and fault.applies_to(APIS[api])
    assert await merchant.effects(api) == int(takes_effect)
    assert (await merchant.latest())["fault"] == (case.suffix if fault.applies_to(APIS[api]) else "")


def test_every_case_belongs_to_a_row() -> None:
    assert list(CASES) == list(FAULTS)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("code", RESULT_CODES)
async def test_documented_code_has_its_documented_status(merchant: Merchant, code: str, api: str) -> None:
    with pytest.raises(ResultError) as raised:
        await merchant.call(api, body_of(api, userId=f"{USER_ID}+{code}"))
    result = raised.value.result
    assert (result.status, result.code) == (RESULT_CODES[code][0], code)
    assert result.code_id == (code if api == "BindAccount" else "")


@pytest.mark.parametrize("api", APIS)
async def test_odd_status_is_returned_verbatim(merchant: Merchant, api: str) -> None:
    with pytest.raises(ResultError) as raised:
        await merchant.call(api, body_of(api, userId=f"{USER_ID}+STATUS_P"))
    assert raised.value.result.status == "P"


@pytest.mark.parametrize(
    "suffix",
    [
        "NOWHERE",
        "USER_NOT_EXITS",
        "STATUS_S",
        "STATUS_F",
        "STATUS_",
        "DELAY_",
        "DELAY_60001",
        "DELAY_x",
        "HTTP_200",
        "HTTP_600",
        "HTTP_²",
        "DELAY_<ms>",
        "HANG+HANG",
    ],
)
@pytest.mark.parametrize("api", APIS)
async def test_unknown_suffix_is_an_illegal_parameter(merchant: Merchant, api: str, suffix: str) -> None:
    with pytest.raises(ResultError) as raised:
        await merchant.call(api, body_of(api, userId=f"{USER_ID}+{suffix}"))
    result = raised.value.result
    assert (result.status, result.code) == ("F", "PARAM_ILLEGAL")
    assert result.message.startswith("userId: ")
    assert USER_ID not in result.message
    assert await merchant.effects(api) == 0


async def test_misspelt_fault_gets_the_most_similar_name(merchant: Merchant) -> None:
    with pytest.raises(ResultError, match="not S") as raised:
        await merchant.call("SyncLinkage", body_of("SyncLinkage", userId="1+USER_NOT_EXITS"))
    assert "USER_NOT_EXIST" in raised.value.result.message


async def test_open_id_names_the_fault_without_a_user_id(merchant: Merchant) -> None:
    with pytest.raises(ResultError) as raised:
        await merchant.call("BindAccount", body_of("BindAccount", userId=None, openId="o+USER_NOT_EXIST"))
    assert raised.value.result.code == "USER_NOT_EXIST"


async def test_open_id_names_no_fault_with_a_user_id(merchant: Merchant) -> None:
    answer = await merchant.call("BindAccount", body_of("BindAccount", openId="o+USER_NOT_EXIST"))
    assert answer.result.status == "S"


async def test_empty_suffix_causes_no_fault(merchant: Merchant) -> None:
    answer = await merchant.call("SyncLinkage", body_of("SyncLinkage", userId=f"{USER_ID}+"))
    assert answer.result.status == "S"


async def test_user_with_a_suffix_is_stored_like_any_other(merchant: Merchant) -> None:
    await merchant.call("SyncLinkage", body_of("SyncLinkage", userId=f"{USER_ID}+DELAY_0"))
    (linkage,) = (await merchant.console("wallet"))["linkages"]
    assert linkage["userId"] == f"{USER_ID}+DELAY_0"


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("status", ["300", "302", "304", "400", "403", "408", "429", "500", "503", "599"])
async def test_http_status_fault_returns_an_unsigned_page(
    merchant: Merchant, api: str, status: str
) -> None:
    sealed = merchant.seal(api, body_of(api, userId=f"{USER_ID}+HTTP_{status}"))
    reply = await merchant.send(sealed)
    assert reply.status == int(status)
    assert reply.header("Signature") is None
    assert b"signature" not in reply.body
    assert reply.header("Retry-After") == ("1" if status in ("429", "503") else None)
    assert reply.header("Content-Type") == "text/html; charset=UTF-8"


async def test_delay_is_as_long_as_requested(sleepless: Merchant, sleeps: Sleeps) -> None:
    await sleepless.call("SyncLinkage", body_of("SyncLinkage", userId=f"{USER_ID}+DELAY_60000"))
    assert sleeps == [60.0]


async def test_hanging_response_closes_after_60_s_without_a_byte(
    sleepless: Merchant, sleeps: Sleeps
) -> None:
    body = body_of("SyncLinkage", userId=f"{USER_ID}+HANG")
    assert await received(sleepless, sleepless.seal("SyncLinkage", body)) == b""
    assert sleeps == [60.0]


async def test_slow_response_waits_one_second_for_each_byte(sleepless: Merchant, sleeps: Sleeps) -> None:
    answer = await sleepless.call("SyncLinkage", body_of("SyncLinkage", userId=f"{USER_ID}+SLOW"))
    assert answer.result.status == "S"
    assert set(sleeps) == {1.0}
    assert len(sleeps) == len((await sleepless.latest())["answer_body"])


async def test_a_slow_response_is_slow(merchant: Merchant) -> None:
    sealed = merchant.seal("SyncLinkage", body_of("SyncLinkage", userId=f"{USER_ID}+SLOW"))
    began = time.monotonic()
    reader, writer = await connected(merchant, sealed)
    await reader.readuntil(b"\r\n\r\n")
    assert len(await reader.read(100)) == 1
    assert 0.5 < time.monotonic() - began < 10
    writer.close()
    await writer.wait_closed()


async def test_reset_sends_rst_and_close_sends_fin(merchant: Merchant) -> None:
    closing = merchant.seal("SyncLinkage", body_of("SyncLinkage", userId=f"{USER_ID}+CLOSE"))
    assert await received(merchant, closing) == b""
    resetting = merchant.seal("SyncLinkage", body_of("SyncLinkage", userId=f"{USER_ID}+RESET"))
    with pytest.raises(ConnectionResetError):
        await received(merchant, resetting)


async def test_truncated_response_announces_more_than_it_sends(merchant: Merchant) -> None:
    sealed = merchant.seal("SyncLinkage", body_of("SyncLinkage", userId=f"{USER_ID}+TRUNCATE"))
    head, _, body = (await received(merchant, sealed)).partition(b"\r\n\r\n")
    (announced,) = (line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    assert 0 < len(body) < int(announced.split(b":")[1])


async def test_two_signatures_are_two_headers(merchant: Merchant) -> None:
    sealed = merchant.seal("SyncLinkage", body_of("SyncLinkage", userId=f"{USER_ID}+TWO_SIGNATURES"))
    reply = await merchant.send(sealed)
    assert [name for name, _ in reply.headers].count("Signature") == 2


async def test_huge_response_is_signed_and_over_the_limit(merchant: Merchant) -> None:
    reply = await merchant.send(merchant.seal("BindAccount", body_of("BindAccount", userId="1+HUGE")))
    assert len(reply.body) > 256 * 1024
    assert reply.json()["signature"]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("suffix", ["HANG", "RESET", "CLOSE", "TRUNCATE", "UNSIGNED", "BAD_SIGNATURE"])
async def test_repeat_after_a_lost_response_gets_the_first_result_with_one_effect(
    merchant: Merchant, api: str, suffix: str
) -> None:
    body = body_of(api, userId=f"{USER_ID}+{suffix}")
    with pytest.raises(CallError):
        await merchant.call(api, body, timeout_s=1.5)
    await merchant.programme("")
    answer = await merchant.call(api, body)
    assert answer.result.status == "S"
    assert answer.body.get("needBind") == ("true" if api == "BindAccount" else None)
    assert await merchant.effects(api) == 1


async def test_reset_works_on_many_connections_concurrently(merchant: Merchant) -> None:
    async def one(number: int) -> Any:
        body = body_of("SyncLinkage", f"req-{number}", userId=f"{USER_ID}+RESET")
        return await merchant.call("SyncLinkage", body)

    outcomes = await asyncio.gather(*(one(number) for number in range(10)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {errors.ConnectionLost}


def test_table_names_the_apis_of_each_row() -> None:
    rows = {row["name"]: row for row in table()}
    assert rows["PLAIN"]["apis"] == ["SyncLinkage"]
    assert rows["HANG"] == {
        "name": "HANG",
        "does": "sends no response; closes the connection after 60 s",
        "takes_effect": True,
        "apis": ["SyncLinkage", "BindAccount"],
    }


def test_documentation_has_every_row_of_the_table() -> None:
    page = PAGE.read_text("utf-8")
    for name, fault in FAULTS.items():
        if name not in RESULT_CODES:
            applies = "both" if fault.applies_to(APIS["BindAccount"]) else "SyncLinkage"
            effect = "yes" if fault.takes_effect else "no"
            assert f"| `+{name}` | {fault.does} | {effect} | {applies} |" in page
    for code, (status, _) in RESULT_CODES.items():
        assert f"| `+{code}` | returns {status} {code} | no | both |" in page


def test_response_without_a_fault_has_no_name() -> None:
    assert find_fault("").takes_effect


async def connected(
    merchant: Merchant, sealed: SealedRequest
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request on a new socket."""
    host, _, port = merchant.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), family=socket.AF_INET)
    headers = (*sealed.headers, ("Host", host), ("Content-Length", str(len(sealed.body))))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    writer.write(f"POST {sealed.path} HTTP/1.1\r\n{lines}\r\n".encode() + sealed.body)
    await writer.drain()
    return reader, writer


async def received(merchant: Merchant, sealed: SealedRequest) -> bytes:
    """Return all received bytes until the other side closes."""
    reader, writer = await connected(merchant, sealed)
    try:
        return await reader.read()
    finally:
        writer.close()
