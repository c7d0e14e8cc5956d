"""Wrong keys, unreadable signatures and cut messages are told apart from wrong content."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import replace
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from clients.alipayhk.diagnosis.causes import Cause
from clients.alipayhk.diagnosis.claims import Message
from clients.alipayhk.diagnosis.diagnose import Diagnosis, Verdict
from clients.alipayhk.wire import crypto
from clients.alipayhk.wire.messages import RawRequest, RawResponse
from clients.alipayhk.wire.protocols import header_signed
from tests.alipayhk.diagnosis.mistakes import PSS
from tests.alipayhk.diagnosis.signers import KINDS, Signing, digest_signed, receiver, signing
from tests.alipayhk.sides import Sides

SECONDS_MAX: Final = 60

each_kind = pytest.mark.parametrize(("protocol", "kind"), KINDS)


def verdict(diagnosis: Diagnosis) -> tuple[Verdict, tuple[Cause, ...], str | None]:
    return diagnosis.verdict, diagnosis.causes, diagnosis.key_version


@each_kind
def test_signature_of_an_unknown_key_is_wrong_key(
    protocol: str, kind: str, theirs: RSAPrivateKey, stranger: RSAPrivateKey
) -> None:
    keys = {"1": stranger.public_key()}
    diagnosis = receiver(keys).diagnosis(protocol, signing(protocol, kind).message(theirs))
    assert verdict(diagnosis) == (Verdict.INVALID, (Cause.WRONG_KEY,), None)
    assert "or the signature was damaged" in diagnosis.explanation
    assert diagnosis.signed_digest is None


@each_kind
def test_damaged_signature_is_wrong_key(protocol: str, kind: str, theirs: RSAPrivateKey) -> None:
    damaged = signing(protocol, kind, text=lambda s: base64.b64encode(b"\1" + s[1:]).decode())
    diagnosis = receiver({"1": theirs.public_key()}).diagnosis(protocol, damaged.message(theirs))
    assert diagnosis.causes == (Cause.WRONG_KEY,)


@each_kind
def test_our_own_key_as_the_signers_is_own_key(
    protocol: str, kind: str, ours: RSAPrivateKey, theirs: RSAPrivateKey
) -> None:
    own = ours.public_key()
    diagnosis = receiver({"1": own}, own).diagnosis(protocol, signing(protocol, kind).message(theirs))
    assert verdict(diagnosis) == (Verdict.INVALID, (Cause.OWN_KEY,), None)


def test_signature_of_our_own_key_is_explained(ours: RSAPrivateKey, theirs: RSAPrivateKey) -> None:
    keys = {"1": theirs.public_key()}
    message = signing("header_signed", "response").message(ours)
    diagnosis = receiver(keys, ours.public_key()).diagnosis("header_signed", message)
    assert diagnosis.causes == (Cause.WRONG_KEY,)
    assert diagnosis.explanation == "The signature is made with our own key, and the given keys are others."


@pytest.mark.parametrize("kind", ["request", "response"])
@pytest.mark.parametrize("named", ["2", "7"])
def test_key_of_another_version_is_named(
    kind: str, named: str, theirs: RSAPrivateKey, stranger: RSAPrivateKey
) -> None:
    keys = {"2": stranger.public_key(), "1": theirs.public_key()}
    start = signing("header_signed", kind, key_version=named)
    diagnosis = receiver(keys).diagnosis("header_signed", start.message(theirs))
    assert verdict(diagnosis) == (Verdict.INVALID, (Cause.OTHER_KEY_VERSION,), "1")
    also = replace(start, content=lambda content: content + b"\n")
    diagnosis = receiver(keys).diagnosis("header_signed", also.message(theirs))
    assert diagnosis.causes == (Cause.OTHER_KEY_VERSION, Cause.TRAILING_NEWLINE)


@pytest.mark.parametrize("kind", ["request", "response"])
def test_any_known_key_verifies_an_envelope(
    kind: str, theirs: RSAPrivateKey, stranger: RSAPrivateKey
) -> None:
    keys = {"2": stranger.public_key(), "1": theirs.public_key()}
    message = signing("envelope_signed", kind).message(theirs)
    diagnosis = receiver(keys).diagnosis("envelope_signed", message)
    assert verdict(diagnosis) == (Verdict.VALID, (), "1")


@each_kind
def test_unknown_content_is_undecided_and_the_digest_is_reported(
    protocol: str, kind: str, theirs: RSAPrivateKey
) -> None:
    other = signing(protocol, kind, content=lambda _: b"other content")
    diagnosis = receiver({"1": theirs.public_key()}).diagnosis(protocol, other.message(theirs))
    assert verdict(diagnosis) == (Verdict.UNDECIDED, (), "1")
    assert diagnosis.signed_content is None
    assert diagnosis.signed_digest is not None
    assert diagnosis.explanation.endswith("nor a mistake that was tried has the signed digest.")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("-sha1",), "SHA-1"),
        ((*PSS, "-sigopt", "rsa_pss_saltlen:0"), "the padding PSS"),
        ((*PSS, "-sigopt", "rsa_pss_saltlen:max"), "the padding PSS"),
    ],
)
def test_unknown_content_under_another_scheme_names_no_cause(
    arguments: tuple[str, ...], name: str, theirs: RSAPrivateKey
) -> None:
    start = signing("header_signed", "request", sign=digest_signed(*arguments))
    message = replace(start, content=lambda _: b"other").message(theirs)
    diagnosis = receiver({"1": theirs.public_key()}).diagnosis("header_signed", message)
    assert verdict(diagnosis) == (Verdict.UNDECIDED, (), "1")
    assert diagnosis.explanation.startswith(f"The signature is made with {name}.")


@each_kind
def test_pss_signature_of_an_unknown_key_is_wrong_key(
    protocol: str, kind: str, theirs: RSAPrivateKey, stranger: RSAPrivateKey
) -> None:
    message = signing(protocol, kind, sign=digest_signed(*PSS)).message(theirs)
    diagnosis = receiver({"1": stranger.public_key()}).diagnosis(protocol, message)
    assert verdict(diagnosis) == (Verdict.INVALID, (Cause.WRONG_KEY,), None)


def test_hash_function_without_a_cause_is_undecided(theirs: RSAPrivateKey) -> None:
    message = signing("header_signed", "request", sign=digest_signed("-sha512")).message(theirs)
    diagnosis = receiver({"1": theirs.public_key()}).diagnosis("header_signed", message)
    assert diagnosis.verdict is Verdict.UNDECIDED
    assert "SHA-512" in diagnosis.explanation


@each_kind
def test_cut_message_is_truncated(protocol: str, kind: str, theirs: RSAPrivateKey) -> None:
    known = receiver({"1": theirs.public_key()})
    cut = signing(protocol, kind, whole=lambda body: body[: len(body) // 2])
    assert known.diagnosis(protocol, cut.message(theirs)).causes == (Cause.TRUNCATED,)


def test_content_length_beyond_the_body_is_truncated(theirs: RSAPrivateKey) -> None:
    start = signing("header_signed", "response", headers=(("Content-Length", "20"),))
    message = replace(start, sent=lambda _: b'{"x":1}').message(theirs)
    diagnosis = receiver({"1": theirs.public_key()}).diagnosis("header_signed", message)
    assert diagnosis.causes == (Cause.TRUNCATED,)
    assert diagnosis.explanation == "The message is cut off: it has 7 bytes, and its Content-Length is 20."


def encrypted(sides: Sides, kind: str, *, signs_plaintext: bool) -> Message:
    """Return an encrypted message, signed over its ciphertext or over the plaintext."""
    keys = sides.wallet.keys
    plain = b'{"requestId":"r","userId":"2160000000000001"}'
    value, body = header_signed.encrypt_body(sides.encryption, keys, plain)
    how = Signing("header_signed", kind, plain if signs_plaintext else body, headers=(("Encrypt", value),))
    return replace(how, sent=lambda _: body).message(keys.signing)


@pytest.mark.parametrize("kind", ["request", "response"])
def test_signing_before_encrypting_is_named(kind: str, header_sides: Sides) -> None:
    us = header_sides.us.keys
    known = receiver(us.verifying)
    known = replace(
        known,
        decrypt=lambda header, body: header_signed.decrypt_body(header_sides.encryption, us, header, body),
    )
    sound = known.diagnosis("header_signed", encrypted(header_sides, kind, signs_plaintext=False))
    assert sound.verdict is Verdict.VALID
    wrong = known.diagnosis("header_signed", encrypted(header_sides, kind, signs_plaintext=True))
    assert wrong.causes == (Cause.SIGNED_BEFORE_ENCRYPTION,)


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ((), b"{}", "0 headers Client-Id"),
        ((("Client-Id", "a"), ("Client-Id", "b")), b"{}", "2 headers Client-Id"),
        ((("Client-Id", "a"), ("Request-Time", "")), b"{}", "an empty header Request-Time"),
    ],
)
def test_header_that_is_missing_is_named(
    headers: tuple[tuple[str, str], ...], body: bytes, says: str, theirs: RSAPrivateKey
) -> None:
    message = Message("/", RawRequest("/", headers, body))
    diagnosis = receiver({"1": theirs.public_key()}).diagnosis("header_signed", message)
    assert verdict(diagnosis) == (Verdict.UNDECIDED, (), None)
    assert says in diagnosis.explanation


@pytest.mark.parametrize(
    "text", ["", "!", "algorithm=RSA256,keyVersion=1,signature=!!", "=,=", "%" * 99, "é"]
)
@pytest.mark.parametrize("body", [b"", b"[", b"\xff\xfe", b'{"request":1,"signature":[]}', b"{" * 99])
def test_hostile_message_gets_a_diagnosis(text: str, body: bytes, theirs: RSAPrivateKey) -> None:
    headers = (("Client-Id", "\udcff"), ("Response-Time", "9999-99"), ("Signature", text))
    for protocol in ("header_signed", "envelope_signed"):
        for raw in (RawRequest("/\udcff", headers, body), RawResponse(200, headers, body)):
            diagnosis = receiver({"1": theirs.public_key()}).diagnosis(protocol, Message("/%", raw))
            assert diagnosis.verdict is not Verdict.VALID


def test_search_in_a_mebibyte_is_bounded_and_tries_each_mistake(theirs: RSAPrivateKey) -> None:
    body = json.dumps({"a": [{"name": "member/" * 1_000, "n": 1.5}] * 150}, ensure_ascii=False).encode()
    assert len(body) > 1024 * 1024
    start = Signing("header_signed", "response", body)
    started = time.process_time()
    other = replace(start, content=lambda _: b"other").message(theirs)
    diagnosis = receiver({"1": theirs.public_key()}).diagnosis("header_signed", other)
    assert diagnosis.verdict is Verdict.UNDECIDED
    assert diagnosis.explanation.endswith("too large to try every combination of two mistakes.")
    assert time.process_time() - started < SECONDS_MAX
    hashed = replace(start, content=lambda content: hashlib.md5(content).digest()).message(theirs)
    diagnosis = receiver({"1": theirs.public_key()}).diagnosis("header_signed", hashed)
    assert diagnosis.causes == (Cause.DOUBLE_HASH,)


def test_valid_means_that_the_protocol_accepts_it(sides: Sides) -> None:
    protocol = sides.us.protocol.name
    sealed = sides.seal(b'{"requestId":"r"}')
    raw = RawRequest(sealed.path, sealed.headers, sealed.body)
    known = receiver(sides.wallet.keys.verifying)
    diagnosis = known.diagnosis(protocol, Message(sealed.path, raw))
    assert diagnosis.verdict is Verdict.VALID
    assert crypto.sign(sides.us.keys.signing, diagnosis.content_to_sign)
    assert sides.receive(sealed.path, sealed.headers, sealed.body)
