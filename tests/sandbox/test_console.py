"""The console over HTTP: its pages, its commands, and what it refuses."""

from __future__ import annotations

from typing import Any, Final

import pytest

from clients.alipayhk.wire.errors import ResultError, Unsigned
from sandbox.journal import Journal, body_text
from sandbox.programme import ANSWERS_MAX, Programme, ProgrammeError
from tests.sandbox.callers import CLIENT_ID, PATHS, Merchant, bind_body, sync_body


async def test_overview_names_every_page(merchant: Merchant) -> None:
    reply = await merchant.http("GET", "/__sandbox/")
    for page in ("requests", "wallet", "faults", "answers", "reset"):
        assert f"/__sandbox/{page}" in reply.body.decode()


async def test_request_is_shown_with_all_its_details(merchant: Merchant) -> None:
    sealed = merchant.seal("SyncLinkage", sync_body())
    await merchant.send(sealed)
    entry = await merchant.latest()
    assert (entry["number"], entry["api"], entry["method"]) == (1, "SyncLinkage", "POST")
    assert entry["path"] == PATHS["SyncLinkage"]
    assert entry["request_id"] == "req-1"
    assert ["Client-Id", CLIENT_ID] in entry["headers"]
    assert entry["body"] == sealed.body.decode()
    assert entry["decrypted_body"] is None
    assert entry["content_to_sign"].endswith(entry["body"])
    assert entry["verified"] is True
    assert entry["http_status"] == 200
    assert '"resultStatus":"S"' in entry["answer_body"]
    assert "Signature" in [name for name, _ in entry["answer_headers"]]
    assert "T" in entry["time"]


async def test_requests_are_filtered(merchant: Merchant) -> None:
    await merchant.call("SyncLinkage", sync_body("a"), "a")
    await merchant.call("SyncLinkage", sync_body("b"), "b")
    await merchant.call("BindAccount", bind_body(), "b")

    async def found(query: str) -> list[tuple[str, str]]:
        entries = (await merchant.console(f"requests{query}"))["requests"]
        return [(entry["api"], entry["request_id"]) for entry in entries]

    assert await found("") == [("SyncLinkage", "a"), ("SyncLinkage", "b"), ("BindAccount", "b")]
    assert await found("?api=SyncLinkage") == [("SyncLinkage", "a"), ("SyncLinkage", "b")]
    assert await found("?request_id=b") == [("SyncLinkage", "b"), ("BindAccount", "b")]
    assert await found("?request_id=b&api=BindAccount") == [("BindAccount", "b")]
    assert await found("?request_id=c") == []


async def test_all_bad_filters_are_named(merchant: Merchant) -> None:
    reply = await merchant.http("GET", "/__sandbox/requests?api=Other&id=1&request_id=a&request_id=b")
    assert reply.status == 400
    assert reply.json() == {
        "faults": [
            "id: not a filter",
            "request_id: given more than once",
            "api: must be SyncLinkage or BindAccount",
        ]
    }


FOREIGN: Final[list[dict[str, str]]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("page", ["answers", "reset"])
async def test_a_web_page_of_another_origin_changes_nothing(
    merchant: Merchant, page: str, headers: dict[str, str]
) -> None:
    await merchant.call("SyncLinkage", sync_body())
    simple = {"Content-Type": "text/plain", **headers}  # a browser sends it without asking first
    reply = await merchant.http(
        "POST", f"/__sandbox/{page}", data='{"answers":[{"fault":"HANG"}]}', headers=simple
    )
    assert reply.status == 403
    assert reply.json() == {
        "faults": ["the header Origin: the console obeys no web page of another origin"]
    }
    assert await merchant.effects("SyncLinkage") == 1
    await merchant.call("SyncLinkage", sync_body("req-2"), "req-2")


async def test_a_web_page_of_the_sandbox_can_use_the_console(merchant: Merchant) -> None:
    headers = {"Origin": merchant.url, "Sec-Fetch-Site": "same-origin"}
    assert (await merchant.http("POST", "/__sandbox/reset", headers=headers)).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example.", 403),
        ("1.evil.example:8089", 403),
        ("localhost:1", 200),
        ("app.localhost", 200),
        ("sandbox:8089", 200),
        ("192.0.2.1", 200),
        ("[::1]:1", 200),
    ],
)
async def test_a_foreign_domain_does_not_lead_to_the_console(
    merchant: Merchant, host: str, status: int
) -> None:
    for page in ("wallet", "requests", ""):
        reply = await merchant.http("GET", f"/__sandbox/{page}", headers={"Host": host})
        assert reply.status == status


async def test_the_wallet_is_shown(merchant: Merchant) -> None:
    await merchant.call("SyncLinkage", sync_body())
    await merchant.call("BindAccount", bind_body(), "m-1")
    wallet = await merchant.console("wallet")
    assert wallet["linkages"] == [{**sync_body(), "bound": True}]
    assert wallet["accounts"][0]["accountId"] == "88781108"
    assert wallet["requests"] == {
        "SyncLinkage": {"req-1": {"effects": 1, "repeats": 0}},
        "BindAccount": {"m-1": {"effects": 1, "repeats": 0}},
    }


async def test_the_faults_are_listed(merchant: Merchant) -> None:
    names = [row["name"] for row in (await merchant.console("faults"))["faults"]]
    assert "HANG" in names
    assert "DELAY_<ms>" in names


async def test_reset_deletes_everything_except_the_request_count(merchant: Merchant) -> None:
    await merchant.programme("HANG")
    await merchant.http("POST", "/elsewhere")
    assert (await merchant.http("POST", "/__sandbox/reset")).status == 200
    assert (await merchant.console("requests")) == {"requests": []}
    assert (await merchant.console("wallet"))["requests"] == {}
    await merchant.call("SyncLinkage", sync_body())
    assert (await merchant.latest())["number"] == 2


async def test_each_request_uses_one_programmed_fault(merchant: Merchant) -> None:
    reply = await merchant.programme("UNKNOWN_EXCEPTION", "DELAY_1", "")
    assert reply.json() == {"waiting": 3}
    with pytest.raises(ResultError) as raised:
        await merchant.call("SyncLinkage", sync_body())
    assert raised.value.result.code == "UNKNOWN_EXCEPTION"
    assert (await merchant.call("SyncLinkage", sync_body())).result.status == "S"
    assert (await merchant.latest())["fault"] == "DELAY_1"
    assert (await merchant.call("BindAccount", bind_body())).result.status == "S"
    assert await merchant.effects("SyncLinkage") == 1


async def test_programmed_fault_takes_precedence_over_the_users_suffix(merchant: Merchant) -> None:
    await merchant.programme("")
    body = sync_body(userId="1+USER_NOT_EXIST")
    assert (await merchant.call("SyncLinkage", body)).result.status == "S"


async def test_programmed_fault_of_one_api_waits_for_that_api(merchant: Merchant) -> None:
    await merchant.programme("UNSIGNED", api="BindAccount")
    assert (await merchant.call("SyncLinkage", sync_body())).result.status == "S"
    with pytest.raises(Unsigned):
        await merchant.call("BindAccount", bind_body())


async def test_programmed_fault_waits_for_an_api_that_it_applies_to(merchant: Merchant) -> None:
    await merchant.programme("PLAIN", "UNSIGNED")
    with pytest.raises(Unsigned):
        await merchant.call("BindAccount", bind_body())
    assert (await merchant.call("BindAccount", bind_body())).result.status == "S"
    assert (await merchant.call("SyncLinkage", sync_body())).result.status == "S"
    assert (await merchant.latest())["fault"] == "PLAIN"


async def test_rejected_request_uses_no_programmed_fault(merchant: Merchant) -> None:
    await merchant.programme("UNSIGNED")
    with pytest.raises(ResultError):
        await merchant.call("SyncLinkage", sync_body(bizTime=None))
    with pytest.raises(Unsigned):
        await merchant.call("SyncLinkage", sync_body())


@pytest.mark.parametrize(
    ("members", "faults"),
    [
        ({}, ["answers: must be a list with at least one member"]),
        ({"answers": []}, ["answers: must be a list with at least one member"]),
        (
            {"answers": [{}, {"fault": 1}, "HANG", {"fault": "HANG", "more": 1}]},
            [f"answers[{at}].fault: must be a string, and the only member" for at in range(4)],
        ),
        (
            {"answers": [{"fault": "HTTP_200"}, {"fault": ""}], "api": "Other", "more": 1},
            [
                "more: not a member",
                "api: must be SyncLinkage or BindAccount",
                "answers[0].fault: HTTP_<status>: the status must be from 300 to 599",
            ],
        ),
        (
            {"answers": [{"fault": "PLAIN"}], "api": "BindAccount"},
            ["answers[0].fault: does not apply to BindAccount"],
        ),
        (
            {"answers": [{"fault": "HANG"}], "api": ["BindAccount"]},
            ["api: must be SyncLinkage or BindAccount"],
        ),
        (
            {"answers": [{"fault": ""}] * (ANSWERS_MAX + 1)},
            ["answers: the queue would have more than 1000"],
        ),
    ],
)
async def test_bad_programme_is_refused_and_every_fault_is_named(
    merchant: Merchant, members: dict[str, Any], faults: list[str]
) -> None:
    reply = await merchant.http("POST", "/__sandbox/answers", json=members)
    assert (reply.status, reply.json()) == (400, {"faults": faults})


@pytest.mark.parametrize("body", [b"", b"[]", b'{"answers":[],"answers":[]}', bytes(300 * 1024)])
async def test_programme_that_is_not_a_json_object_is_refused(merchant: Merchant, body: bytes) -> None:
    reply = await merchant.http("POST", "/__sandbox/answers", data=body)
    assert reply.status == 400
    assert reply.json()["faults"][0].startswith("the body: ")


def test_refused_programme_queues_nothing() -> None:
    programme = Programme()
    with pytest.raises(ProgrammeError, match="answers"):
        programme.add({"answers": [{"fault": "HANG"}, {"fault": "NOWHERE"}]})
    assert programme.take("SyncLinkage") is None


async def test_journal_keeps_the_last_1000_requests(merchant: Merchant) -> None:
    for _ in range(1_003):
        await merchant.http("POST", "/elsewhere")
    entries = (await merchant.console("requests"))["requests"]
    assert [entries[0]["number"], entries[-1]["number"], len(entries)] == [4, 1_003, 1_000]


def test_a_long_body_is_cut() -> None:
    assert body_text(b"x" * 8192) == "x" * 8192
    assert body_text(b"x" * 8193) == "x" * 8192 + "… (8193 bytes in all)"
    assert body_text(b"\xff") == "\N{REPLACEMENT CHARACTER}"


def test_empty_journal_has_no_entries() -> None:
    assert Journal().entries() == []


@pytest.mark.parametrize(
    ("method", "path", "status", "fault"),
    [
        ("GET", "/__sandbox/reset", 405, "GET: this page accepts POST only"),
        ("PUT", "/__sandbox/answers", 405, "PUT: this page accepts POST only"),
        ("POST", "/__sandbox/wallet", 405, "POST: this page accepts GET only"),
        ("GET", "/__sandbox", 404, "/__sandbox: there is no such page; GET /__sandbox/ lists the pages"),
        (
            "GET",
            "/__sandbox/nope",
            404,
            "/__sandbox/nope: there is no such page; GET /__sandbox/ lists the pages",
        ),
    ],
)
async def test_unknown_console_path_or_method_is_not_an_api_call(
    merchant: Merchant, method: str, path: str, status: int, fault: str
) -> None:
    reply = await merchant.http(method, path)
    assert (reply.status, reply.json()) == (status, {"faults": [fault]})
    assert (await merchant.console("requests"))["requests"] == []
