"""Deadlines, cancelled callers, limits and shutdown: attempts in progress finish, others do not start."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any, Final

import pytest
from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.keys import Keys
from clients.alipayhk.wire.messages import RawResponse, VerifiedResponse
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from service.credentials.callers import Caller
from service.ledger import State
from service.outcomes.call import Call
from service.outcomes.refusal import Refusal
from service.server.rpcs import sync_linkage
from service.telemetry.metrics import Metrics
from tests.service.fakes import (
    FakeClient,
    Gate,
    LogStream,
    call_of,
    delivery_of,
    fail,
    known,
    order_of,
    refused,
    succeed,
    turns,
    verified,
)

LOYALTY: Final = Caller("loyalty", frozenset(), 2)
BILLING: Final = Caller("billing", frozenset(), 1)


ANSWER: Final = sync_linkage.reply(verified())


class Sender:
    """A Delivery with a fake client."""

    def __init__(self, client: FakeClient, endpoint: Endpoint, max_in_flight: int) -> None:
        self.client = client
        self.metrics = Metrics()
        self.delivery = delivery_of(client, self.metrics, max_in_flight=max_in_flight, chance=lambda: 1.0)
        self._endpoint = endpoint
        self._ids = count(1)

    async def send(self, call: Call | None = None) -> Message:
        """Deliver one request with a new id."""
        return await self.delivery.deliver(
            order_of(self._endpoint, f"req-{next(self._ids)}"), call or call_of()
        )

    def start(self, call: Call | None = None) -> asyncio.Task[Message]:
        """Deliver one request in a task of its own, as gRPC does."""
        return asyncio.create_task(self.send(call))

    def counted(self, name: str, **labels: str) -> float | None:
        """Return a metric."""
        return self.metrics.registry.get_sample_value(name, {"api": "SyncLinkage", **labels})

    @property
    def in_flight(self) -> float | None:
        """Return the metric of attempts in flight."""
        return self.counted("alipayhk_upstream_in_flight")

    def ended(self, end: str) -> float:
        """Return how many attempts ended with this result, by the metric."""
        return self.counted("alipayhk_upstream_attempts_total", end=end) or 0.0


def impatient() -> Call:
    """Return a call that leaves no time for a second attempt."""
    return call_of(left_s=0.25)


Make = Callable[..., Sender]


@pytest.fixture
def make(keys: Keys) -> Make:
    """Return a function that makes a Sender."""
    endpoint = Endpoint(
        api="SyncLinkage",
        protocol=HeaderSigned(),
        base_url="https://open.alipay.hk",
        path="/sync",
        client_id="C",
        keys=keys,
        idempotent=True,
    )

    def sender(behaviour: Any = None, *, max_in_flight: int = 10) -> Sender:
        return Sender(FakeClient(behaviour), endpoint, max_in_flight)

    return sender


@pytest.fixture(autouse=True)
async def nobody_complains(log_lines: LogStream) -> AsyncIterator[None]:
    """Check that no exception reaches the loop's handler and that every state transition is legal."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield
    await turns()
    assert complaints == []
    assert log_lines.of("illegal state transition") == []


def others() -> set[asyncio.Task[Any]]:
    """Return the tasks of the code under test."""
    names = ("Delivery._fly", "Sender.send", "Sender._abandon", "LedgerSession._ask")
    return {task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") in names}


def lines(log_lines: LogStream) -> list[dict[str, Any]]:
    """Return the log lines about attempts, without times."""
    return [
        {name: value for name, value in line.items() if name not in {"time", "seconds", "event"}}
        for line in log_lines.of("attempt")
    ]


async def rows(sender: Sender) -> list[State]:
    """Return the states of the ledger's rows."""
    ledger = sender.delivery._session._ledger
    return [row.state async for row in ledger.rows()]


async def refusal(sending: Awaitable[Message]) -> int:
    """Return the reason of a refusal."""
    with pytest.raises(Refusal) as failure:
        await sending
    return failure.value.reason


# -- the result of an attempt


async def test_success_is_returned_counted_and_logged(make: Make, log_lines: LogStream) -> None:
    sender, call = make(), call_of()
    assert await sender.send(call) == ANSWER
    assert call.circumstances == known(sent=(True,))
    assert sender.client.attempts == [Attempt(sent=True)]
    assert sender.client.bodies == [b"req-1 {}"]
    assert sender.ended("success") == 1
    assert sender.counted("alipayhk_upstream_seconds_count") == 1
    assert sender.in_flight == 0
    assert lines(log_lines) == [
        {
            "level": "info",
            "api": "SyncLinkage",
            "request_id": "req-1",
            "attempts": 1,
            "end": "success",
            "http_status": 200,
        }
    ]


FAILURES: Final = [
    errors.Unreachable("ClientConnectorError"),
    errors.TlsInvalid("certificate"),
    errors.Timeout("time"),
    errors.ConnectionLost("reset"),
    errors.Truncated("short"),
    errors.SignatureInvalid("signature"),
    errors.Replayed("old"),
    errors.Malformed("json"),
    errors.NotEncrypted("plain"),
    errors.Unsigned("no header", http_status=502),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_failure_is_raised_unchanged_counted_and_logged_with_its_cause(
    make: Make, log_lines: LogStream, error: errors.CallError
) -> None:
    sender, end = make(fail(error, sent=error.sent)), type(error).__name__
    with pytest.raises(type(error)) as failure:
        await sender.send(impatient())
    assert failure.value is error
    assert sender.ended(end) == 1
    assert sender.in_flight == 0
    (line,) = lines(log_lines)
    assert line == {
        "level": "warning",
        "api": "SyncLinkage",
        "request_id": "req-1",
        "attempts": 1,
        "end": end,
        "cause": str(error),
        **({"http_status": 502} if isinstance(error, errors.Unsigned) else {}),
    }


RESULTS: Final = {
    "rejection": (refused("F", "USER_NOT_EXIST"), "info", {}),
    "unknown": (refused("U", "SYSTEM_ERROR"), "warning", {}),
    "rate limit": (refused("F", "REQUEST_TRAFFIC_EXCEED_LIMIT"), "warning", {}),
    "bad signature": (refused("F", "INVALID_SIGNATURE"), "warning", {"signing_key_version": "1"}),
}


@pytest.mark.parametrize(("error", "level", "more"), RESULTS.values(), ids=RESULTS.keys())
async def test_result_is_logged_with_a_warning_unless_the_request_was_rejected(
    make: Make, log_lines: LogStream, error: errors.ResultError, level: str, more: dict[str, str]
) -> None:
    with pytest.raises(errors.ResultError):
        await make(fail(error, sent=True)).send(impatient())
    (line,) = lines(log_lines)
    facts = {name: fact for name, fact in line.items() if name not in {"api", "request_id", "attempts"}}
    assert facts == {
        "level": level,
        "end": "ResultError",
        "http_status": 200,
        "tracer_id": "tracer-1",
        "result_status": error.result.status,
        "result_code": error.result.code,
        **more,
    }


@pytest.mark.parametrize(
    ("claimed", "logged"),
    [
        ("INVALID_SIGNATURE", {"unverified_result_code": "INVALID_SIGNATURE", "signing_key_version": "1"}),
        ("SYSTEM_ERROR", {"unverified_result_code": "SYSTEM_ERROR"}),
        ("USER_85291234567", {"unverified_result_code": "other"}),
        ("", {}),
    ],
)
async def test_claimed_code_of_an_unsigned_response_is_logged_if_it_is_a_code(
    make: Make, log_lines: LogStream, claimed: str, logged: dict[str, str]
) -> None:
    error = errors.Unsigned("the response has no header Signature", http_status=401, claimed_code=claimed)
    with pytest.raises(errors.Unsigned):
        await make(fail(error, sent=True)).send(impatient())
    (line,) = lines(log_lines)
    assert {name: line[name] for name in line if name.endswith(("_code", "_version"))} == logged
    assert (line["level"], line["http_status"]) == ("warning", 401)


async def test_failed_attempt_is_logged_with_its_address_and_the_head_of_its_response(
    make: Make, log_lines: LogStream
) -> None:
    headers = (
        ("Tracer-Id", "tracer-" + "x" * 200 + "語"),
        ("Signature", "algorithm=RSA256,keyVersion=7,signature=SECRET"),
    )

    async def cut(attempt: Attempt) -> VerifiedResponse:
        attempt.sent = True
        attempt.route.addresses.append("192.0.2.1:443")
        attempt.head = RawResponse(200, headers, b"")
        raise errors.Truncated("short")

    with pytest.raises(errors.Truncated):
        await make(cut).send(impatient())
    (line,) = lines(log_lines)
    assert (line["address"], line["http_status"]) == ("192.0.2.1:443", 200)
    assert (line["key_version"], line["tracer_id"]) == ("7", ("tracer-" + "x" * 200)[:128])
    assert "SECRET" not in log_lines.getvalue()


async def test_result_is_logged_by_its_code_and_never_with_its_message(
    make: Make, log_lines: LogStream
) -> None:
    sender = make(fail(refused("F", "USER_NOT_EXIST", "Chan Tai Man"), sent=True))
    with pytest.raises(errors.ResultError):
        await sender.send(impatient())
    (line,) = lines(log_lines)
    assert line["end"] == "ResultError"
    assert (line["result_status"], line["result_code"]) == ("F", "USER_NOT_EXIST")
    assert "Chan" not in log_lines.getvalue()


@pytest.mark.parametrize("code", ["2160000000000001", "USER_85291234567", "Chan Tai Man", "X" * 65, "a\nb"])
async def test_text_that_is_no_code_is_not_logged(make: Make, log_lines: LogStream, code: str) -> None:
    sender = make(fail(refused(code, code, "m"), sent=True))
    with pytest.raises(errors.ResultError):
        await sender.send(impatient())
    (line,) = lines(log_lines)
    assert (line["result_status"], line["result_code"]) == ("other", "other")


@pytest.mark.parametrize("sent", [False, True])
async def test_unhandled_exception_is_logged_with_its_stack_and_never_with_its_text(
    make: Make, log_lines: LogStream, sent: bool
) -> None:
    sender, call = make(fail(KeyError("SECRET"), sent=sent)), call_of()
    with pytest.raises(KeyError):
        await sender.send(call)
    assert call.circumstances == known(sent=(sent,))
    assert sender.ended("bug") == 1
    (line,) = lines(log_lines)
    assert (line["level"], line["error_class"]) == ("error", "KeyError")
    assert any("fakes.py" in frame for frame in line["stack"])
    assert "SECRET" not in log_lines.getvalue()


# -- the caller's deadline


async def test_deadline_before_the_first_byte_cancels_before_it_reports_not_sent(make: Make) -> None:
    gate = Gate(sent=False)
    sender, call = make(gate), call_of(left_s=0.4)
    call.margin_s = 10.0  # so that a slow machine does not fail the test
    with pytest.raises(errors.Unreachable):
        await sender.send(call)
    assert not others()
    assert not await rows(sender)
    gate.open.set()
    await turns()
    assert sender.client.attempts == [Attempt(sent=False)]
    assert call.circumstances == known(sent=(False,))
    assert sender.ended("cancelled") == 1
    assert sender.in_flight == 0


async def test_deadline_after_the_first_byte_reports_timeout_and_the_attempt_continues(
    make: Make, log_lines: LogStream
) -> None:
    gate = Gate(sent=True)
    sender, call = make(gate), call_of(left_s=0.4)
    began = time.monotonic()
    with pytest.raises(errors.Timeout):
        await sender.send(call)
    assert 0.1 < time.monotonic() - began < 5.0
    assert sender.in_flight == 1
    assert not lines(log_lines)
    gate.open.set()
    assert await sender.delivery.idle(1.0)
    assert sender.in_flight == 0
    assert sender.ended("success") == 1
    assert [line["end"] for line in lines(log_lines)] == ["success"]
    assert await rows(sender) == [State.APPLIED]


async def test_response_that_arrives_during_a_cancellation_is_returned(make: Make) -> None:
    async def stubborn(attempt: Attempt) -> VerifiedResponse:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            attempt.sent = True
        return verified()

    assert await make(stubborn).send(call_of(left_s=0.4)) == ANSWER


# -- a caller that disconnects


async def test_nothing_is_sent_after_a_cancel_at_the_start(make: Make) -> None:
    sender, call = make(), call_of()
    sending = sender.start(call)
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await turns()
    assert not any(attempt.sent for attempt in sender.client.attempts)
    assert call.circumstances == known(sent=(False,))
    assert await sender.delivery.idle(0)
    assert not await rows(sender)


@pytest.mark.parametrize(
    ("behaviour", "end", "state"),
    [
        (None, "success", State.APPLIED),
        (errors.ConnectionLost("reset"), "ConnectionLost", State.IN_DOUBT),
        (refused("F", "PROCESS_FAIL"), "ResultError", State.REJECTED),
        (KeyError("SECRET"), "bug", State.IN_DOUBT),
    ],
    ids=["success", "lost", "result", "bug"],
)
async def test_attempt_continues_after_a_cancel_once_a_byte_was_sent(
    make: Make, log_lines: LogStream, behaviour: Exception | None, end: str, state: State
) -> None:
    gate = Gate(sent=True)

    async def attempt_(attempt: Attempt) -> VerifiedResponse:
        answer = await gate(attempt)
        if behaviour is not None:
            raise behaviour
        return answer

    sender = make(attempt_)
    sending = sender.start(impatient())
    await gate.reached.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert sender.in_flight == 1
    gate.open.set()
    assert await sender.delivery.idle(1.0)
    await turns()
    assert sender.ended(end) == 1
    assert sender.in_flight == 0
    assert [line["end"] for line in lines(log_lines)] == [end]
    assert all(0.0 <= line["seconds"] < 60.0 for line in log_lines.of("attempt"))
    assert await rows(sender) == [state]


# -- limits


async def test_attempt_counts_until_it_ends_even_without_its_caller(make: Make) -> None:
    gate = Gate(sent=True)
    sender = make(gate, max_in_flight=1)
    sending = sender.start()
    await gate.reached.wait()
    sending.cancel()
    await turns()
    assert await refusal(sender.send()) == reasons.ERROR_REASON_OVERLOADED
    gate.open.set()
    assert await sender.delivery.idle(1.0)
    assert await sender.send() == ANSWER


async def test_each_caller_has_its_own_quota(make: Make) -> None:
    gate = Gate(sent=True)
    sender = make(gate)
    under_way = [sender.start(call_of(caller=caller)) for caller in (LOYALTY, LOYALTY, BILLING)]
    await turns()
    for caller in (LOYALTY, BILLING):
        reason = await refusal(sender.send(call_of(caller=caller)))
        assert reason == reasons.ERROR_REASON_CALLER_QUOTA_EXCEEDED
    under_way.append(sender.start(call_of(caller=Caller("other", frozenset()))))
    await turns()
    assert len(sender.client.attempts) == 4
    gate.open.set()
    await asyncio.gather(*under_way)
    assert await sender.send(call_of(caller=BILLING)) == ANSWER


async def test_refused_call_leaves_no_row_and_no_line(make: Make, log_lines: LogStream) -> None:
    sender, call = make(max_in_flight=0), call_of()
    assert await refusal(sender.send(call)) == reasons.ERROR_REASON_OVERLOADED
    assert call.circumstances == known()
    assert not await rows(sender)
    assert not lines(log_lines)
    assert sender.in_flight is None


# -- a thousand calls


DICE: Final = random.Random(20260301)
"""The same thousand calls in every run."""


async def mixed(attempt: Attempt) -> VerifiedResponse:
    """End with a random result, after random times before and after the first byte."""
    await turns(DICE.randrange(4))
    attempt.sent = DICE.random() < 0.8
    await turns(DICE.randrange(4))
    if not attempt.sent:
        raise errors.Unreachable("x")
    if DICE.random() < 0.5:
        raise DICE.choice([errors.ConnectionLost("x"), refused("F", "X"), KeyError("SECRET")])
    return verified()


async def a_thousand_ends(sender: Sender) -> list[tuple[Call, object]]:
    """Make a thousand calls, fifty at a time, and cancel some; return the result of each."""
    calls = [
        call_of(
            caller=DICE.choice([LOYALTY, BILLING, Caller("other", frozenset())]),
            left_s=DICE.choice([0.05, 0.2, 1.0]),
        )
        for _ in range(1000)
    ]
    ends: list[object] = []
    for at in range(0, 1000, 50):
        sending = [sender.start(call) for call in calls[at : at + 50]]
        await turns(DICE.randrange(4))
        for one in DICE.sample(sending, 15):
            one.cancel()
        ends += await asyncio.gather(*sending, return_exceptions=True)
    return list(zip(calls, ends, strict=True))


async def test_thousand_mixed_calls_leave_nothing_in_flight(make: Make, log_lines: LogStream) -> None:
    sender = make(mixed, max_in_flight=40)
    ends = await a_thousand_ends(sender)
    assert await sender.delivery.idle(2.0)
    gc.collect()
    await turns()
    kinds = {type(end).__name__ for _, end in ends}
    sent = {"SyncLinkageResponse", "ConnectionLost", "ResultError", "KeyError"}
    # On a machine that stalls, deadlines expire, and some of these results do not occur.
    assert {"SyncLinkageResponse", "Refusal"} <= kinds
    assert kinds <= sent | {"Refusal", "CancelledError", "Unreachable", "Timeout"}
    assert {call.circumstances.sent for call, end in ends if type(end).__name__ in sent} == {True}
    not_sent = Refusal | errors.NotSent
    assert {call.circumstances.sent for call, end in ends if isinstance(end, not_sent)} == {False}
    assert State.SENDING not in await rows(sender)
    assert not others()
    assert sender.in_flight == 0
    counted = ("success", "ConnectionLost", "ResultError", "bug", "Unreachable")
    assert len(lines(log_lines)) == sum(sender.ended(end) for end in counted)
    sender.client.behaviour = succeed
    for caller, quota in ((LOYALTY, 2), (BILLING, 1)):
        await asyncio.gather(*(sender.send(call_of(caller=caller)) for _ in range(quota)))
