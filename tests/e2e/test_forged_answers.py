"""Answers that anybody in between may have touched: no bit of them passes for AlipayHK's."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import pytest

from tests.e2e import caller
from tests.e2e.caller import Reported, alarm
from tests.e2e.conftest import Way
from tests.e2e.samples import BIND, apart
from tests.e2e.upstream import Answer, Request, answers
from tests.e2e.wallet import compact, head_of, now

STRIDE = 7
REPLAYED = alarm("RESPONSE_REPLAYED")


def flipped(data: bytes, at: int, bit: int) -> bytes:
    """Flip one bit."""
    changed = bytearray(data)
    changed[at] ^= 1 << bit
    return bytes(changed)


def flips_of_text(text: str, start: int = 0) -> Iterator[str]:
    """Flip one bit of every seventh character; those that percent-decode to the same text are none."""
    for at in range(start, len(text), STRIDE):
        for bit in (0, 1, 2):
            other = flipped(text.encode(), at, bit).decode()
            if unquote(other) != unquote(text):
                yield other


def flips(answer: Answer) -> Iterator[Answer]:
    """Flip one bit of body, time, client id or signature."""
    for at in range(0, len(answer.body), STRIDE):
        body = flipped(answer.body, at, at // STRIDE % 7)
        if unquote_to_bytes(body) != unquote_to_bytes(answer.body):  # an envelope holds its signature
            yield answer.but(body=body)
    for name in ("Response-Time", "Client-Id", "Signature"):
        if any(name == line[0] for line in answer.headers):
            value = answer.header(name)
            start = value.find("signature=") + len("signature=") if name == "Signature" else 0
            yield from (answer.setting(name, other) for other in flips_of_text(value, start))


async def test_no_flipped_bit_passes(either: Way) -> None:
    """Each forged answer is to a call of its own; the calls go on side by side."""
    numbers = itertools.count()

    def answer(request: Request) -> Answer:
        forged = list(flips(either.wallet.right(request)))
        return forged[next(numbers) % len(forged)]

    await either.accepted()
    count = len(list(flips(either.wallet.right(either.upstream.requests[0]))))
    assert count > 100
    either.upstream.reset(answers(answer))
    gate = asyncio.Semaphore(8)

    async def one() -> Any:
        async with gate:
            return await caller.call(either.gateway.channel, either.api, apart(either.api))

    reported = await asyncio.gather(*(one() for _ in range(count)))
    reasons = {answer.info.reason if isinstance(answer, Reported) else "OK" for answer in reported}
    assert reasons <= {"RESPONSE_SIGNATURE_INVALID", "RESPONSE_UNSIGNED"}
    assert "RESPONSE_SIGNATURE_INVALID" in reasons
    assert {answer.metadata["outcome"] for answer in reported if isinstance(answer, Reported)} == {
        "unknown"
    }
    assert {answer.metadata["attempts"] for answer in reported if isinstance(answer, Reported)} == {"1"}
    assert len(either.upstream.requests) == count


BENT_SIGNATURES: dict[str, Callable[[str], tuple[str, ...]]] = {
    "empty header": lambda _: ("",),
    "empty signature": lambda _: ("algorithm=RSA256,keyVersion=1,signature=",),
    "no signature": lambda _: ("algorithm=RSA256,keyVersion=1",),
    "not base64": lambda _: ("algorithm=RSA256,keyVersion=1,signature=%%%",),
    "too short": lambda line: (line.partition("signature=")[0] + "signature=AAAA",),
    "two headers, the same": lambda line: (line, line),
    "two headers, one right": lambda line: (line, line.replace("=1,", "=2,")),
    "two headers, the right one last": lambda line: ("algorithm=RSA256,keyVersion=1,signature=AAAA", line),
    "two signatures in one": lambda line: (f"{line},{line}",),
    "unknown key version": lambda line: (line.replace("keyVersion=1", "keyVersion=2"),),
    "empty key version": lambda line: (line.replace("keyVersion=1", "keyVersion="),),
    "other algorithm": lambda line: (line.replace("RSA256", "ECC224"),),
    "algorithm none": lambda line: (line.replace("RSA256", "none"),),
    "no pairs": lambda _: ("hello",),
}


@pytest.mark.parametrize("bend", BENT_SIGNATURES)
async def test_bent_signature_header_is_refused(sync: Way, bend: str) -> None:
    def answer(request: Request) -> Answer:
        right = sync.wallet.right(request)
        return right.setting("Signature", *BENT_SIGNATURES[bend](right.header("Signature")))

    await sync.refused(answers(answer), alarm("RESPONSE_SIGNATURE_INVALID"))


@pytest.mark.parametrize(
    "bend",
    [
        lambda line: line.replace(",", ", "),
        lambda line: line.replace("algorithm=RSA256", "ALGORITHM=rsa256"),
        lambda line: line.replace("keyVersion=1,", ""),
        lambda line: line.replace("algorithm=RSA256,", ""),
        lambda line: (
            line.partition("signature=")[0] + "signature=" + unquote(line.partition("signature=")[2])
        ),
        lambda line: line.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d"),
    ],
    ids=["spaces", "cases", "no version", "no algorithm", "not encoded", "small hex"],
)
async def test_signature_header_may_be_written_otherwise(sync: Way, bend: Callable[[str], str]) -> None:
    def answer(request: Request) -> Answer:
        right = sync.wallet.right(request)
        return right.setting("Signature", bend(right.header("Signature")))

    await sync.accepted(answers(answer))


@pytest.mark.parametrize("name", ["Response-Time", "Client-Id"])
@pytest.mark.parametrize("count", [0, 2])
async def test_signature_without_one_time_and_one_client_id_beside_it_is_refused(
    sync: Way, name: str, count: int
) -> None:
    def answer(request: Request) -> Answer:
        right = sync.wallet.right(request)
        return right.setting(name, *[right.header(name)] * count)

    await sync.refused(answers(answer), alarm("RESPONSE_SIGNATURE_INVALID"))


BENT_ENVELOPES: dict[str, Callable[[bytes], bytes]] = {
    "empty signature": lambda body: body.partition(b',"signature":"')[0] + b',"signature":""}',
    "a number": lambda body: body.partition(b',"signature":"')[0] + b',"signature":1}',
    "null": lambda body: body.partition(b',"signature":"')[0] + b',"signature":null}',
    "not base64": lambda body: body.partition(b',"signature":"')[0] + b',"signature":"%%%"}',
    "no response": lambda body: b'{"signature"' + body.partition(b',"signature"')[2],
    "a space": lambda body: body.replace(b'"body":', b'"body": '),
    "other order": lambda body: body.replace(b'"resultStatus":"S",', b"", 1),
}


@pytest.mark.parametrize("bend", BENT_ENVELOPES)
async def test_bent_envelope_is_refused(bind: Way, bend: str) -> None:
    def answer(request: Request) -> Answer:
        right = bind.wallet.right(request)
        return right.but(body=BENT_ENVELOPES[bend](right.body))

    await bind.refused(answers(answer), alarm("RESPONSE_SIGNATURE_INVALID"))


@pytest.mark.parametrize("again", [b'"signature"', b'"response"'])
async def test_envelope_with_two_members_of_one_name_is_malformed(bind: Way, again: bytes) -> None:
    def answer(request: Request) -> Answer:
        right = bind.wallet.right(request)
        return right.but(body=right.body[:-1] + b"," + again + b":{}}")

    await bind.refused(answers(answer), alarm("RESPONSE_MALFORMED"))


async def test_signature_of_a_stranger_is_refused(either: Way, request: pytest.FixtureRequest) -> None:
    stranger = either.wallet.but(key=request.getfixturevalue("material").stranger.key)
    await either.refused(answers(stranger.signed), alarm("RESPONSE_SIGNATURE_INVALID"))


async def test_answer_over_another_path_is_refused(sync: Way) -> None:
    def answer(request: Request) -> Answer:
        other = Request(request.raw.replace(b"%7E", b"~"), request.body)
        assert other.target != request.target
        return sync.wallet.signed(other)

    await sync.refused(answers(answer), alarm("RESPONSE_SIGNATURE_INVALID"))


def shifted(**offset: float) -> str:
    """Tell a time that is not now."""
    return (datetime.now(UTC) + timedelta(**offset)).isoformat(timespec="seconds")


@pytest.mark.parametrize(
    "time",
    [
        shifted(seconds=-400),
        shifted(hours=-1),
        shifted(hours=1),
        shifted(days=400),
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
    ],
    ids=["old", "an hour old", "early", "next year", "the first", "the last"],
)
async def test_signed_success_of_another_time_is_replayed(way: Way, time: str) -> None:
    await way.refused(answers(lambda request: way.wallet.signed(request, time=time)), REPLAYED)


@pytest.mark.parametrize("when", ["a while ago", "now, in India"])
async def test_signed_success_within_the_window_is_ok(way: Way, when: str) -> None:
    india = (datetime.now(UTC) + timedelta(hours=5.5)).strftime("%Y-%m-%dT%H:%M:%S+05:30")
    text = india if "India" in when else shifted(seconds=-200)
    await way.accepted(answers(lambda request: way.wallet.signed(request, time=text)))


@pytest.mark.parametrize("time", ["2024-05-22T06:42:21", "yesterday", "1716331341"])
async def test_signed_time_that_is_no_time_with_an_offset_is_malformed(way: Way, time: str) -> None:
    await way.refused(
        answers(lambda request: way.wallet.signed(request, time=time)), alarm("RESPONSE_MALFORMED")
    )


async def test_signed_answer_to_another_client_is_replayed(way: Way) -> None:
    await way.refused(
        answers(lambda request: way.wallet.signed(request, client_id="SOMEBODY-ELSE")), REPLAYED
    )


@pytest.mark.parametrize(
    "head",
    [
        {"reqMsgId": "another-id"},
        {"reqMsgId": None},
        {"reqMsgId": 1},
        {"function": "alipay.intl.merchant.account.unbind"},
        {"function": None},
    ],
    ids=str,
)
async def test_envelope_that_is_not_to_this_request_is_replayed(bind: Way, head: dict[str, Any]) -> None:
    await bind.refused(answers(lambda request: bind.wallet.signed(request, **head)), REPLAYED)


@pytest.mark.parametrize(
    "head", [{"respTime": None}, {"clientId": None}, {"reserve": None, "version": None}], ids=str
)
async def test_envelope_may_lack_what_does_not_bind_it_to_its_request(
    bind: Way, head: dict[str, Any]
) -> None:
    await bind.accepted(answers(lambda request: bind.wallet.signed(request, **head)))


async def test_request_sent_back_as_an_answer_is_no_answer(bind: Way) -> None:
    await bind.refused(
        answers(lambda request: Answer(200, (), request.body)), alarm("RESPONSE_SIGNATURE_INVALID")
    )


async def test_two_honest_answers_of_one_second_with_the_same_bytes_are_both_ok(sync: Way) -> None:
    time = now()
    lines: set[str] = set()

    def answer(request: Request) -> Answer:
        signed = sync.wallet.signed(request, time=time)
        lines.add(signed.header("Signature"))
        return signed

    sync.upstream.script = answers(answer)
    for _ in range(2):
        sync.upstream.requests.clear()
        await sync.accepted()
    assert len(lines) == 1


async def test_plain_signature_in_an_envelope_is_ok(bind: Way) -> None:
    def answer(request: Request) -> Answer:
        right = bind.wallet.right(request)
        content, mark, signature = right.body.rpartition(b',"signature":"')
        return right.but(body=content + mark + unquote(signature.decode()).encode())

    await bind.accepted(answers(answer))


async def test_envelope_may_be_spaced_and_hold_more_members(bind: Way) -> None:
    def answer(request: Request) -> Answer:
        content = (
            b'{ "head" : ' + compact(head_of(request)) + b' ,\n "body" : ' + compact(BIND.success) + b" }"
        )
        body = bind.wallet.enveloped(content).body
        return Answer(200, (), b' {"more" : [1, {"signature": "x"}] , ' + body[1:-1] + b' , "last": "}" } ')

    await bind.accepted(answers(answer))
