"""Resends with the same id: when they happen, and what the caller and the ledger get."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import pytest
from grpc import StatusCode

from clients.alipayhk.wire import errors
from clients.alipayhk.wire.errors import CallError
from service.outcomes.result_codes import ResultCodes
from tests.delivery.world import (
    BAD_GATEWAY,
    HANG,
    HANG_CONNECTING,
    LIMITED,
    LOST,
    OK,
    UNREACHABLE,
    UNSIGNED,
    Make,
    S,
    Step,
    U,
    World,
    failing,
    refusing,
)

AGAIN: Final = {
    "U": U,
    "timeout": HANG,
    "reset": LOST,
    "truncated": failing(errors.Truncated("short")),
    "502": BAD_GATEWAY,
    "408": failing(errors.Unsigned("x", http_status=408)),
    "unsigned": UNSIGNED,
    "an earlier answer again": failing(errors.Repeated("x")),
    "unreachable": UNREACHABLE,
    "connecting hangs": HANG_CONNECTING,
}


@pytest.mark.parametrize("step", AGAIN.values(), ids=AGAIN.keys())
async def test_sync_linkage_is_resent_with_the_same_bytes(world: World, step: Step) -> None:
    world.client.script("a", step, step, S)
    reported = await world.deliver(world.sync("a"), left_s=20.0)
    assert reported.short == OK
    assert not reported.response.replayed
    assert len(world.client.attempts) == 3
    assert len(set(world.client.seen)) == 1
    assert await world.state("a") == "applied"
    row = await world.row("a")
    assert row is not None
    assert row.attempts == (3 if step.sent else 1)


async def test_resend_after_a_repeated_response_uses_a_fresh_connection(world: World) -> None:
    repeated = failing(errors.Repeated("x"))
    world.client.script("a", U, repeated, UNREACHABLE, LOST, S)
    assert (await world.deliver(world.sync("a"), left_s=20.0)).short == OK
    fresh = [attempt.fresh_connection for _, attempt in world.client.attempts]
    assert fresh == [False, False, True, True, False]


async def test_repeated_response_without_time_to_resend_is_reported_as_replayed(world: World) -> None:
    world.client.script("a", replace(failing(errors.Repeated("x")), after_s=1.0))
    reported = await world.deliver(world.sync("a"), left_s=1.05)
    assert (reported.short, reported.code) == (
        ("RESPONSE_REPLAYED", "unknown", "same_request_id"),
        "UNAVAILABLE",
    )
    assert len(world.client.attempts) == 1
    assert await world.state("a") == "in_doubt"


NOT_AGAIN: Final[dict[str, tuple[Step, tuple[str, str, str], str]]] = {
    "a rate limit": (LIMITED, ("WALLET_RATE_LIMITED", "unknown", "same_request_id"), "in_doubt"),
    "HTTP 429": (
        failing(errors.Unsigned("x", http_status=429)),
        ("WALLET_RATE_LIMITED", "unknown", "same_request_id"),
        "in_doubt",
    ),
    "HTTP 403": (
        failing(errors.Unsigned("x", http_status=403)),
        ("UPSTREAM_HTTP_ERROR", "unknown", "operator"),
        "in_doubt",
    ),
    "an unsigned set-up code": (
        failing(errors.Unsigned("x", http_status=200, claimed_code="INVALID_CLIENT")),
        ("RESPONSE_UNSIGNED", "unknown", "operator"),
        "in_doubt",
    ),
    "a bad certificate": (
        failing(errors.TlsInvalid("x")),
        ("UPSTREAM_TLS_INVALID", "not_sent", "operator"),
        "none",
    ),
    **{
        name: (failing(error), (reason, "unknown", "operator"), "in_doubt")
        for name, error, reason in (
            ("a bad signature", errors.SignatureInvalid("x"), "RESPONSE_SIGNATURE_INVALID"),
            ("a replay", errors.Replayed("x"), "RESPONSE_REPLAYED"),
            ("nonsense", errors.Malformed("x"), "RESPONSE_MALFORMED"),
            ("plain text", errors.NotEncrypted("x"), "RESPONSE_NOT_ENCRYPTED"),
        )
    },
    "a refusal": (
        refusing("USER_NOT_EXIST"),
        ("WALLET_REJECTED", "rejected", "new_request_id"),
        "rejected",
    ),
    "a refusal of this gateway": (
        refusing("INVALID_CLIENT"),
        ("GATEWAY_REFUSED", "rejected", "operator"),
        "refused",
    ),
}


@pytest.mark.parametrize(("step", "short", "state"), NOT_AGAIN.values(), ids=NOT_AGAIN.keys())
@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_failure_that_a_resend_cannot_fix_is_sent_once(
    world: World, api: str, step: Step, short: tuple[str, str, str], state: str
) -> None:
    world.client.script("a", step)
    reported = await world.deliver(getattr(world, api)("a"))
    if api == "bind" and short[2] == "same_request_id":
        short = (*short[:2], "operator")
    assert reported.short == short
    assert reported.facts["attempts"] == "1"
    assert len(world.client.attempts) == 1
    assert await world.state("a") == state


@pytest.mark.parametrize("name", [name for name, step in AGAIN.items() if step.sent])
async def test_bind_account_is_sent_once(world: World, name: str) -> None:
    world.client.script("a", AGAIN[name])
    reported = await world.deliver(world.bind("a"))
    assert reported.short[1:] == ("unknown", "operator")
    assert reported.code in {"UNKNOWN", "DEADLINE_EXCEEDED"}
    assert len(world.client.seen) == 1
    assert await world.state("a") == "in_doubt"
    again = await world.deliver(world.bind("a"))
    assert (again.short, again.code) == (("OUTCOME_IN_DOUBT", "unknown", "operator"), "UNKNOWN")
    assert len(world.client.seen) == 1


@pytest.mark.parametrize("name", [name for name, step in AGAIN.items() if not step.sent])
async def test_bind_account_is_retried_while_nothing_was_sent(world: World, name: str) -> None:
    world.client.script("a", AGAIN[name], AGAIN[name], S)
    assert (await world.deliver(world.bind("a"), left_s=20.0)).short == OK
    assert len(world.client.attempts) == 3
    assert len(world.client.seen) == 1
    assert await world.state("a") == "applied"


async def test_bind_account_is_resent_if_it_is_idempotent(make: Make) -> None:
    world = make(bind_account_idempotent=True)
    world.client.script("a", U, LOST, S)
    assert (await world.deliver(world.bind("a"))).short == OK
    assert len(world.client.seen) == 3


# -- time


async def test_backoff_doubles_and_leaves_time_for_the_last_response(make: Make) -> None:
    world = make(attempts_max=100)
    world.client.otherwise = lambda _: U
    reported = await world.deliver(world.sync("a"), left_s=2.4)
    assert reported.short == ("WALLET_RESULT_UNKNOWN", "unknown", "same_request_id")
    waits = [
        after - before
        for before, after in zip(world.client.sent_at, world.client.sent_at[1:], strict=False)
    ]
    assert waits == pytest.approx([0.2, 0.4, 0.8, 0.74], abs=0.02)
    assert reported.took_s < 2.2


@pytest.mark.parametrize("step", AGAIN.values(), ids=AGAIN.keys())
async def test_no_call_makes_more_attempts_than_allowed(make: Make, step: Step) -> None:
    world = make(attempts_max=3)
    world.client.otherwise = lambda _: step
    reported = await world.deliver(world.sync("a"), left_s=60.0)
    assert reported.retry == "same_request_id"
    assert reported.resends_ended
    assert (len(world.client.attempts), reported.facts["attempts"]) == (3, "3")


async def test_call_that_ends_at_its_deadline_does_not_set_resends_ended(world: World) -> None:
    world.client.otherwise = lambda _: U
    reported = await world.deliver(world.sync("a"), left_s=1.0)
    assert (reported.reason, reported.resends_ended) == ("WALLET_RESULT_UNKNOWN", False)


async def test_call_that_the_retry_budget_ends_sets_resends_ended(make: Make) -> None:
    world = make(attempts_max=100, chance=lambda: 0.0)
    world.client.otherwise = lambda _: U
    reported = await world.deliver(world.sync("a"), left_s=60.0)
    assert reported.resends_ended
    assert len(world.client.attempts) == 11


async def test_resend_waits_for_retry_after(world: World) -> None:
    world.client.script("a", failing(errors.Unsigned("x", http_status=503, retry_after_s=3.0)), S)
    assert (await world.deliver(world.sync("a"))).short == OK
    first, second = world.client.sent_at
    assert second - first == pytest.approx(3.0, abs=0.01)


async def test_request_is_not_resent_if_retry_after_passes_the_deadline(world: World) -> None:
    world.client.script("a", failing(errors.Unsigned("x", http_status=503, retry_after_s=30.0)))
    reported = await world.deliver(world.sync("a"))
    assert reported.short == ("UPSTREAM_HTTP_ERROR", "unknown", "same_request_id")
    assert reported.took_s < 0.1
    assert len(world.client.seen) == 1


# -- which of several attempts is reported

SENT: Final[dict[str, tuple[CallError, str]]] = {
    "reset": (errors.ConnectionLost("x"), "CONNECTION_LOST"),
    "truncated": (errors.Truncated("x"), "RESPONSE_TRUNCATED"),
    "502": (errors.Unsigned("x", http_status=502), "UPSTREAM_HTTP_ERROR"),
}


@pytest.mark.parametrize(("error", "reason"), SENT.values(), ids=SENT.keys())
async def test_reason_is_that_of_the_last_attempt_that_was_sent(
    world: World, error: CallError, reason: str
) -> None:
    world.client.script("a", U, failing(error))
    world.client.otherwise = lambda _: UNREACHABLE
    reported = await world.deliver(world.sync("a"), left_s=5.0)
    assert reported.short == (reason, "unknown", "same_request_id")
    assert int(reported.facts["attempts"]) > 2
    assert len(world.client.seen) == 2
    assert await world.state("a") == "in_doubt"


async def test_bad_certificate_does_not_replace_the_failure_of_an_attempt_that_was_sent(
    world: World,
) -> None:
    world.client.script("a", LOST)
    world.client.otherwise = lambda _: failing(errors.TlsInvalid("x"))
    reported = await world.deliver(world.sync("a"), left_s=2.0)
    assert reported.short == ("CONNECTION_LOST", "unknown", "same_request_id")
    assert await world.state("a") == "in_doubt"


async def test_bad_signature_after_a_doubt_is_reported_and_stays_in_doubt(world: World) -> None:
    world.client.script("a", LOST, failing(errors.SignatureInvalid("x")))
    reported = await world.deliver(world.sync("a"))
    assert reported.short == ("RESPONSE_SIGNATURE_INVALID", "unknown", "operator")
    assert await world.state("a") == "in_doubt"


# -- a rejection after a doubt

DOUBTS: Final = {"timeout": HANG, "reset": LOST, "U": U, "unsigned": UNSIGNED}


@pytest.mark.parametrize("doubt", DOUBTS.values(), ids=DOUBTS.keys())
async def test_rejection_of_this_gateway_after_a_doubt_stays_in_doubt(world: World, doubt: Step) -> None:
    world.client.script("a", doubt, refusing("INVALID_SIGNATURE"))
    reported = await world.deliver(world.sync("a"))
    assert reported.short == ("GATEWAY_REFUSED", "unknown", "operator")
    assert await world.state("a") == "in_doubt"
    again = await world.deliver(world.sync("a"))
    assert again.short == OK
    assert not again.response.replayed


@pytest.mark.parametrize("doubt", DOUBTS.values(), ids=DOUBTS.keys())
async def test_unknown_code_after_a_doubt_may_mean_already_done(world: World, doubt: Step) -> None:
    world.client.script("a", doubt, refusing("ALREADY_LINKED"))
    reported = await world.deliver(world.sync("a"))
    assert reported.short == ("WALLET_REJECTED", "unknown", "operator")
    assert reported.facts["result_code"] == "ALREADY_LINKED"
    assert await world.state("a") == "in_doubt"


@pytest.mark.parametrize("doubt", DOUBTS.values(), ids=DOUBTS.keys())
async def test_known_code_after_a_doubt_is_final(world: World, doubt: Step) -> None:
    world.client.script("a", doubt, refusing("USER_NOT_EXIST"))
    reported = await world.deliver(world.sync("a"))
    assert reported.short == ("WALLET_REJECTED", "rejected", "new_request_id")
    assert await world.state("a") == "rejected"


async def test_code_in_result_codes_file_after_a_doubt_is_final(make: Make) -> None:
    world = make(codes=ResultCodes({"SyncLinkage": {"NOT_OURS": StatusCode.NOT_FOUND}}))
    world.client.script("a", LOST, refusing("NOT_OURS"))
    reported = await world.deliver(world.sync("a"))
    assert (reported.short, reported.code) == (
        ("WALLET_REJECTED", "rejected", "new_request_id"),
        "NOT_FOUND",
    )


async def test_doubt_of_an_earlier_call_counts_too(world: World) -> None:
    for request_id, code in (("a", "INVALID_CLIENT"), ("b", "ALREADY_LINKED")):
        world.client.script(request_id, HANG, refusing(code))
        assert (await world.deliver(world.sync(request_id), left_s=2.0)).reason == "UPSTREAM_TIMEOUT"
        await asyncio.sleep(10.0)
        reported = await world.deliver(world.sync(request_id))
        assert reported.short[1:] == ("unknown", "operator")
        assert await world.state(request_id) == "in_doubt"


async def test_unreachable_after_the_doubt_of_an_earlier_call_is_not_reported_as_not_sent(
    world: World,
) -> None:
    world.client.script("a", HANG)
    await world.deliver(world.sync("a"), left_s=2.0)
    await asyncio.sleep(10.0)
    world.client.otherwise = lambda _: UNREACHABLE
    reported = await world.deliver(world.sync("a"), left_s=2.0)
    assert reported.short == ("UPSTREAM_UNREACHABLE", "unknown", "same_request_id")
    assert await world.state("a") == "in_doubt"


# -- results in the ledger


@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_rejection_of_this_gateway_is_not_final_and_the_id_is_sent_again(
    world: World, api: str
) -> None:
    order_of = getattr(world, api)
    world.client.script("a", refusing("INVALID_CLIENT"), S)
    reported = await world.deliver(order_of("a"))
    assert reported.short == ("GATEWAY_REFUSED", "rejected", "operator")
    # The id keeps the content that was sent under it.
    reused = await world.deliver(order_of("a", content="mended"))
    assert reused.short == ("REQUEST_ID_REUSED", "not_sent", "new_request_id")
    again = await world.deliver(order_of("a"))
    assert again.short == OK
    assert not again.response.replayed
    assert len(world.client.seen) == 2


CODES: Final = ("PARAM_ILLEGAL", "USER_NOT_EXIST", "PROCESS_FAIL", "USER_STATUS_ABNORMAL", "NO_TABLE_KNOWS")


@pytest.mark.parametrize("api", ["sync", "bind"])
@pytest.mark.parametrize("code", CODES)
async def test_rejection_is_replayed_with_the_same_text(world: World, api: str, code: str) -> None:
    world.client.script("a", refusing(code))
    order = getattr(world, api)("a")
    first, again = await world.deliver(order), await world.deliver(order)
    assert (first.short, first.code) == (again.short, again.code)
    assert first.short[1] == "rejected"
    assert first.facts.pop("attempts") == "1"
    assert again.facts.pop("replayed") == "true"
    again.facts.pop("attempts", None)
    assert first.facts == again.facts
    assert len(world.client.seen) == 1


@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_success_is_replayed_completely(world: World, api: str) -> None:
    order = getattr(world, api)("a")
    first, again = await world.deliver(order), await world.deliver(order)
    assert again.response.replayed
    again.response.replayed = False
    assert first.response == again.response
    assert len(world.client.seen) == 1


async def test_unhandled_exception_in_the_reply_is_opaque_and_leaves_the_request_in_doubt(
    world: World,
) -> None:
    def reply(_: object) -> None:
        raise KeyError("SECRET")

    order = replace(world.sync("a"), reply=reply)  # type: ignore[arg-type]
    reported = await world.deliver(order)
    assert reported.short == ("GATEWAY_BUG", "unknown", "operator")
    assert "SECRET" not in repr(reported)
    assert await world.state("a") == "in_doubt"


@pytest.mark.parametrize("sent", [True, False])
async def test_unhandled_exception_in_an_attempt_is_unknown_only_if_it_was_sent(
    world: World, sent: bool
) -> None:
    world.client.script("a", Step(KeyError("SECRET"), sent=sent, applies=sent))
    reported = await world.deliver(world.sync("a"))
    assert reported.short == ("GATEWAY_BUG", "unknown" if sent else "not_sent", "operator")
    assert await world.state("a") == ("in_doubt" if sent else "none")
