"""Each mistake is found, in both protocols and both directions; no sound message is called wrong."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from clients.alipayhk.diagnosis.causes import FIXES, Cause
from clients.alipayhk.diagnosis.claims import Message
from clients.alipayhk.diagnosis.diagnose import Diagnosis, Verdict
from tests.alipayhk.diagnosis.mistakes import MISTAKES, Mistake
from tests.alipayhk.diagnosis.signers import BODIES, KINDS, Signing, receiver, rewritten, signing

ROOT: Final = Path(__file__).resolve().parents[3]
OTHER_TESTS: Final = {
    Cause.WRONG_KEY,
    Cause.OWN_KEY,
    Cause.OTHER_KEY_VERSION,
    Cause.SIGNED_BEFORE_ENCRYPTION,
    Cause.TRUNCATED,
}
"""Causes that need more than one changed step: test_keys.py has them."""
EXAMPLES: Final = [
    pytest.param(mistake, *kind, id=f"{mistake.name}, {' '.join(kind)}")
    for mistake in MISTAKES
    for kind in mistake.kinds
]
COMBINATIONS: Final = 60
FOUND_MIN: Final = 55


def signed(signing_: Signing, key: RSAPrivateKey) -> tuple[Message, Diagnosis]:
    message = signing_.message(key)
    return message, receiver({"1": key.public_key()}).diagnosis(signing_.protocol, message)


@pytest.mark.parametrize(("mistake", "protocol", "kind"), EXAMPLES)
def test_mistake_of_a_signer_is_named(
    mistake: Mistake, protocol: str, kind: str, theirs: RSAPrivateKey
) -> None:
    _, diagnosis = signed(mistake.change(signing(protocol, kind)), theirs)
    assert diagnosis.causes == (mistake.cause,)
    assert diagnosis.verdict is Verdict.INVALID
    assert diagnosis.key_version == "1"
    assert diagnosis.explanation.startswith("The signature ")
    assert diagnosis.fix == FIXES[mistake.cause]
    assert diagnosis.signed_content is not None


def test_every_cause_has_two_examples() -> None:
    counts = {cause: sum(each.cause is cause for each in MISTAKES for _ in each.kinds) for cause in Cause}
    assert {cause for cause, count in counts.items() if count < 2} == OTHER_TESTS


def test_every_cause_has_a_paragraph_for_operators() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    assert [cause for cause in Cause if f"**`{cause}`**" not in page] == []


def sound_signings() -> list[Signing]:
    """Return 60 correct messages, among them unusual ones."""
    strange = (
        '{"a":{}}',
        '{ "a" : [ 1 , 2.50 ] }',
        '{"a":"\\u4e2d\\/"}\n',
        '{\r\n  "a": "中"\r\n}',
        '{"a":1e5,"b":-0.0,"c":null,"d":"+ /?&=%"}',
        '{"z":1,"a":{"y":2,"b":[{}]}}',
        "{}",
        '{"a":"\\u000a\\t\\"\\\\"}',
        '{"b":[[],{},[{}]],"a":"中"}',
        '{"a":"\\ud83d\\ude00😀"}',
    )
    bodies = [(kind, body) for kind in KINDS for body in (BODIES[kind], *strange)]
    spaced = [
        (kind, rewritten(BODIES[kind].encode(), indent=indent).decode())
        for kind in KINDS
        for indent in range(1, 6)
    ]
    # The value in an envelope has no white space around it.
    return [
        replace(signing(*kind), body=body.strip().encode(), sign=quickly) for kind, body in bodies + spaced
    ]


def quickly(key: RSAPrivateKey, content: bytes) -> bytes:
    return key.sign(content, padding.PKCS1v15(), hashes.SHA256())


def test_sound_messages_are_valid(theirs: RSAPrivateKey) -> None:
    sound = sound_signings()
    assert len(sound) >= 60
    for each in sound:
        _, diagnosis = signed(each, theirs)
        assert (diagnosis.verdict, diagnosis.causes, diagnosis.fix) == (Verdict.VALID, (), ""), each
        assert diagnosis.signed_content == diagnosis.content_to_sign


def combinations(key: RSAPrivateKey) -> list[tuple[Mistake, Mistake, Signing]]:
    """Return 60 random pairs of mistakes of which each one changes the message that the other one makes."""
    pairs = [pair for pair in itertools.permutations(MISTAKES, 2) if pair[0].cause is not pair[1].cause]
    chance, found = random.Random(16), list[tuple[Mistake, Mistake, Signing]]()
    while len(found) < COMBINATIONS:
        (first, second), kind = chance.choice(pairs), chance.choice(KINDS)
        if kind not in first.kinds or kind not in second.kinds:
            continue
        start = signing(*kind, sign=quickly)
        alone = [mistake.change(start) for mistake in (first, second)]
        both = second.change(alone[0])
        replaced = {
            name
            for name in ("join", "path", "client_id", "time", "sign", "text", "whole")
            if all(getattr(each, name) != getattr(start, name) for each in alone)
        }
        try:
            message = both.message(key)
        except ValueError:  # the second mistake writes JSON anew, and the first one has made it unreadable
            continue
        if not replaced and message not in [each.message(key) for each in alone]:
            found.append((first, second, both))
    return found


def test_two_mistakes_are_found_and_no_other_is_named(theirs: RSAPrivateKey) -> None:
    found = 0
    for first, second, both in combinations(theirs):
        _, diagnosis = signed(both, theirs)
        named = f"{first.name} and {second.name}: {diagnosis.explanation}"
        if diagnosis.verdict is Verdict.UNDECIDED:
            assert diagnosis.causes == (), named
        else:
            # One of the two can be without effect on the signed content, as in a part of an envelope.
            assert diagnosis.verdict is Verdict.INVALID, named
            assert set() < set(diagnosis.causes) <= {first.cause, second.cause}, named
            found += len(diagnosis.causes) == 2
    assert found >= FOUND_MIN
