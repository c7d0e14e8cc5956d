"""Encrypted bodies: every profile in both directions, and the same error for every fault."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from clients.alipayhk.wire import crypto, errors
from clients.alipayhk.wire.crypto import AesMode, CryptoError, EncryptionProfile, RsaPadding
from clients.alipayhk.wire.messages import RawResponse, VerifiedRequest
from clients.alipayhk.wire.protocols import header_signed, header_text
from tests.alipayhk.sides import (
    OK_BODY,
    PATH,
    Sides,
    encrypted_answer,
    header_answer,
    quoted,
    with_header,
)

PROFILES: Final = [
    pytest.param(EncryptionProfile(mode, bits, padding), id=f"{mode}-{bits}-{padding}")
    for mode in get_args(AesMode)
    for bits in (128, 256)
    for padding in get_args(RsaPadding)
]


@pytest.fixture(params=PROFILES)
def sides(request: pytest.FixtureRequest, header_sides: Sides) -> Sides:
    """Return both sides of a header-signed API with encryption, for each profile in turn."""
    return header_sides.with_profile(request.param)


@pytest.fixture
def default_sides(header_sides: Sides) -> Sides:
    """Return both sides with the default profile."""
    return header_sides.with_profile(EncryptionProfile())


def test_encrypted_request_gets_an_encrypted_response(sides: Sides) -> None:
    body = b'{"userId":"2160000000000001"}'
    sealed = sides.seal(body)
    assert b"2160" not in sealed.body
    request = sides.receive(sealed.path, sealed.headers, sealed.body)
    answer = sides.reply(request, {"result": {"resultStatus": "S"}})
    assert (request.encrypted, request.body) == (True, {"userId": "2160000000000001"})
    assert b"result" not in answer.body
    assert sides.open(answer).result.status == "S"


def test_unencrypted_request_gets_an_unencrypted_response(default_sides: Sides) -> None:
    request = VerifiedRequest(client_id=default_sides.us.client_id, body={})
    answer = default_sides.reply(request, {"result": {"resultStatus": "S"}})
    assert "Encrypt" not in dict(answer.headers)
    assert default_sides.open(answer).result.status == "S"


def test_every_message_has_a_new_key(default_sides: Sides) -> None:
    first, second = encrypted_answer(default_sides), encrypted_answer(default_sides)
    assert first.body != second.body


def test_unencrypted_response_is_refused_when_encryption_is_required(default_sides: Sides) -> None:
    strict = default_sides.speaking(encrypted_answers_only=True)
    assert strict.open(encrypted_answer(strict)).result.status == "S"
    with pytest.raises(errors.NotEncrypted):
        strict.open(header_answer(strict))


def test_unencrypted_forgery_is_signature_invalid_even_when_encryption_is_required(
    default_sides: Sides,
) -> None:
    strict = default_sides.speaking(encrypted_answers_only=True)
    with pytest.raises(errors.SignatureInvalid):
        strict.open(replace(header_answer(strict), body=b"{}"))


def test_a_signature_over_the_decrypted_body_is_refused(sides: Sides) -> None:
    value, text = header_signed.encrypt_body(sides.encryption, sides.wallet.keys, OK_BODY)
    over_plaintext = header_answer(sides, OK_BODY, extra=(("Encrypt", value),))
    with pytest.raises(errors.SignatureInvalid):
        sides.open(replace(over_plaintext, body=text))


def sealed_with(
    sides: Sides, *, body: bytes | None = None, wrapped: bytes | None = None, plaintext: bytes = OK_BODY
) -> RawResponse:
    """Return an encrypted response with one layer replaced; the signature is always valid."""
    profile = sides.encryption.profile
    aes_key, iv = os.urandom(profile.key_bytes), os.urandom(crypto.AES_BLOCK_BYTES)
    if body is None:
        body = crypto.base64_text(crypto.encrypt(profile, aes_key, iv, plaintext)).encode()
    if wrapped is None:
        wrapped = crypto.wrap_key(profile, sides.wallet.keys.verifying["1"], aes_key)
    line = header_text.encrypt_header("1", wrapped)
    return header_answer(sides, body, extra=(("Encrypt", line),))


def wrapped_bytes(sides: Sides, plaintext: bytes) -> bytes:
    """Wrap any bytes as an AES key is wrapped."""
    return crypto.wrap_key(sides.encryption.profile, sides.wallet.keys.verifying["1"], plaintext)


def wrong_padding(sides: Sides) -> RawResponse:
    """Encrypt one block without padding: its last byte is zero."""
    profile = sides.encryption.profile
    aes_key, iv = os.urandom(profile.key_bytes), bytes(crypto.AES_BLOCK_BYTES)
    whole = crypto.encrypt(profile, aes_key, iv, bytes(16))
    cut = whole[: -crypto.AES_BLOCK_BYTES]
    return sealed_with(sides, body=crypto.base64_text(cut).encode(), wrapped=wrapped_bytes(sides, aes_key))


def encrypt_line(template: str) -> Callable[[Sides], RawResponse]:
    """Return an encrypted response with another header Encrypt, which no signature covers."""

    def build(sides: Sides) -> RawResponse:
        value, text = header_signed.encrypt_body(sides.encryption, sides.wallet.keys, OK_BODY)
        key = header_text.header_pairs(value)["symmetrickey"]
        return header_answer(sides, text, extra=(("Encrypt", template.format(key=key)),))

    return build


def two_encrypt_lines(sides: Sides) -> RawResponse:
    """Return a response with the header Encrypt twice."""
    raw = encrypted_answer(sides)
    value = dict(raw.headers)["Encrypt"]
    return with_header(raw, "Encrypt", value, value)


def spaced_body(sides: Sides, space: bytes) -> RawResponse:
    """Return an encrypted response whose base64 has `space` after every 76 characters and at the end."""
    value, text = header_signed.encrypt_body(sides.encryption, sides.wallet.keys, OK_BODY)
    lines = [text[at : at + 76] for at in range(0, len(text), 76)]
    return header_answer(sides, space.join([*lines, b""]), extra=(("Encrypt", value),))


BROKEN: Final[dict[str, Callable[[Sides], RawResponse]]] = {
    "wrap: random bytes": lambda sides: sealed_with(sides, wrapped=b"\1" * 256),
    "wrap: too short": lambda sides: sealed_with(sides, wrapped=b"\1" * 255),
    "wrap: too long": lambda sides: sealed_with(sides, wrapped=b"\1" * 257),
    "wrap: above the modulus": lambda sides: sealed_with(sides, wrapped=b"\xff" * 256),
    "wrap: empty": lambda sides: sealed_with(sides, wrapped=b""),
    "wrap: the placeholder of the documentation": encrypt_line(
        "algorithm=RSA_AES,keyVersion=1,symmetricKey=bqS8HSabcdefghijklmnopqr"
    ),
    "wrap: an empty key": lambda sides: sealed_with(sides, wrapped=wrapped_bytes(sides, b"")),
    "wrap: a key of another length": lambda sides: sealed_with(
        sides, wrapped=wrapped_bytes(sides, b"k" * 24)
    ),
    "wrap: another key": lambda sides: sealed_with(
        sides, wrapped=wrapped_bytes(sides, os.urandom(sides.encryption.profile.key_bytes))
    ),
    "header: empty": encrypt_line(""),
    "header: no pairs": encrypt_line("RSA_AES"),
    "header: no key": encrypt_line("algorithm=RSA_AES,keyVersion=1"),
    "header: key twice": encrypt_line("symmetricKey={key},symmetricKey={key}"),
    "header: another algorithm": encrypt_line("algorithm=RSA_DES,keyVersion=1,symmetricKey={key}"),
    "header: an unknown version": encrypt_line("algorithm=RSA_AES,keyVersion=2,symmetricKey={key}"),
    "header: not base64": encrypt_line("algorithm=RSA_AES,keyVersion=1,symmetricKey=***"),
    "header: twice": two_encrypt_lines,
    "padding": wrong_padding,
    "body: empty": lambda sides: sealed_with(sides, body=b""),
    "body: not base64": lambda sides: sealed_with(sides, body=b"?" * 64),
    "body: plain JSON": lambda sides: sealed_with(sides, body=OK_BODY),
    "body: base64 with a space": lambda sides: spaced_body(sides, b" "),
    "body: base64 with a tab": lambda sides: spaced_body(sides, b"\t"),
    "body: percent-encoded": lambda sides: sealed_with(sides, body=quoted("+" * 64).encode()),
    "body: not ASCII": lambda sides: sealed_with(sides, body=b"\xff" * 64),
    "body: not whole blocks": lambda sides: sealed_with(sides, body=b"A" * 60),
    "body: shorter than an IV": lambda sides: sealed_with(sides, body=b"AAAA"),
    "body: exactly an IV": lambda sides: sealed_with(sides, body=b"A" * 22 + b"=="),
    "JSON: none": lambda sides: sealed_with(sides, plaintext=b""),
    "JSON: cut short": lambda sides: sealed_with(sides, plaintext=OK_BODY[:-1]),
    "JSON: two members of one name": lambda sides: sealed_with(sides, plaintext=b'{"result":1,"result":2}'),
    "JSON: not UTF-8": lambda sides: sealed_with(sides, plaintext=b'{"\xff":1}'),
    "JSON: too deep": lambda sides: sealed_with(sides, plaintext=b'{"a":' + b"[" * 100),
    "JSON: not an object": lambda sides: sealed_with(sides, plaintext=b"[]"),
}


@pytest.mark.parametrize("build", BROKEN.values(), ids=BROKEN.keys())
def test_every_broken_encrypted_response_gives_the_same_error(
    build: Callable[[Sides], RawResponse], sides: Sides
) -> None:
    with pytest.raises(errors.CallError) as caught:
        sides.open(build(sides))
    assert (type(caught.value), caught.value.args) == (
        errors.Malformed,
        ("the body cannot be decrypted or read",),
    )
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("agreed", "used"), [(256, 128), (128, 256), (256, 192)])
def test_aes_key_of_another_length_than_agreed_is_refused(
    header_sides: Sides, agreed: int, used: int
) -> None:
    ours = header_sides.with_profile(EncryptionProfile(aes_bits=agreed))
    theirs = header_sides.with_profile(EncryptionProfile(aes_bits=used))
    raw = encrypted_answer(theirs)
    assert theirs.open(raw).result.status == "S"
    with pytest.raises(errors.Malformed):
        ours.open(raw)


ACCEPTED_ENCRYPT_LINES: Final = {
    "spaces": "algorithm=RSA_AES, keyVersion=1, symmetricKey={key}",
    "another case": "ALGORITHM=rsa_aes,keyversion=1,SYMMETRICKEY={key}",
    "no algorithm, no version": "symmetricKey={key}",
    "spaces around =": "algorithm =RSA_AES,keyVersion= 1,symmetricKey= {key}",
    "a comma at the end": "algorithm=RSA_AES,keyVersion=1,symmetricKey={key},",
    "the algorithm of auto_earn": "algorithm=RSA,keyVersion=1,symmetricKey={key}",
    "line breaks": "algorithm=RSA_AES,keyVersion=1,symmetricKey=%0a{key}%0D%0A",
}


@pytest.mark.parametrize("template", ACCEPTED_ENCRYPT_LINES.values(), ids=ACCEPTED_ENCRYPT_LINES.keys())
def test_other_spellings_of_the_encrypt_header_are_accepted(template: str, default_sides: Sides) -> None:
    assert default_sides.open(encrypt_line(template)(default_sides)).result.status == "S"


@pytest.mark.parametrize("line_break", [b"\n", b"\r\n"], ids=repr)
def test_encrypted_body_with_line_breaks_is_read(line_break: bytes, sides: Sides) -> None:
    assert sides.open(spaced_body(sides, line_break)).result.status == "S"


def test_byte_order_mark_before_encrypted_json_is_skipped(sides: Sides) -> None:
    assert sides.open(encrypted_answer(sides, b"\xef\xbb\xbf" + OK_BODY)).result.status == "S"


def test_variants_are_not_read_in_requests(default_sides: Sides) -> None:
    sealed = default_sides.seal(OK_BODY)
    headers = dict(sealed.headers)
    for line in (headers["Encrypt"].replace("RSA_AES", "RSA"), headers["Encrypt"] + "%0A"):
        with pytest.raises(errors.Malformed):
            default_sides.receive(sealed.path, tuple((headers | {"Encrypt": line}).items()), sealed.body)


def test_own_key_with_the_named_version_decrypts(
    default_sides: Sides, ours: RSAPrivateKey, stranger: RSAPrivateKey
) -> None:
    raw = encrypted_answer(default_sides)
    keys = replace(default_sides.us.keys, decrypting={"2": stranger, "1": ours})
    assert Sides(replace(default_sides.us, keys=keys), default_sides.wallet).open(raw).result.status == "S"


def test_encrypted_response_without_any_key_is_malformed_and_does_not_crash(default_sides: Sides) -> None:
    keys = replace(default_sides.us.keys, decrypting={})
    keyless = Sides(replace(default_sides.us, keys=keys), default_sides.wallet)
    for template in ("keyVersion=1,symmetricKey={key}", "symmetricKey={key}"):
        with pytest.raises(errors.Malformed):
            keyless.open(encrypt_line(template)(default_sides))


def test_wrong_padding_decrypts_to_random_bytes_with_this_library(
    ours: RSAPrivateKey, theirs: RSAPrivateKey
) -> None:
    assert crypto.rejects_implicitly(ours)
    assert crypto.rejects_implicitly(theirs)


class RaisingKey:
    """A private key of a library without implicit rejection."""

    key_size = 2048

    def decrypt(self, ciphertext: bytes, padding: object) -> bytes:
        """Raise ValueError, as OpenSSL before 3.2 does."""
        assert len(ciphertext) == self.key_size // 8
        raise ValueError("Decryption failed")


def test_library_without_implicit_rejection_is_detected() -> None:
    assert not crypto.rejects_implicitly(RaisingKey())  # type: ignore[arg-type]


def test_library_without_implicit_rejection_gives_the_same_error() -> None:
    with pytest.raises(CryptoError, match=r"^the body cannot be decrypted$"):
        crypto.unwrap_key(EncryptionProfile(), RaisingKey(), bytes(256))  # type: ignore[arg-type]


def test_configured_path_is_sent(default_sides: Sides) -> None:
    sealed = default_sides.seal(OK_BODY)
    assert sealed.path == PATH
