"""Properties for every input: only documented errors are raised, and sealed messages unseal."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from typing import Any, Final, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clients.alipayhk.wire import crypto, errors
from clients.alipayhk.wire.crypto import AesMode, CryptoError, EncryptionProfile, RsaPadding
from clients.alipayhk.wire.keys import KeyFileError, newest_first, parse_key, public_der
from clients.alipayhk.wire.messages import RawResponse
from clients.alipayhk.wire.protocols.header_text import header_pairs
from clients.alipayhk.wire.strict_json import JsonError, member_bytes, read_object, write_json
from tests.alipayhk.sides import (
    OK_BODY,
    SENT_AT,
    Sides,
    answer,
    encrypted_answer,
    modest,
)

TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS: Final = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS: Final = st.dictionaries(TEXT, VALUES, max_size=4)
JSON_LIKE: Final = st.lists(
    st.sampled_from([b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b" ", b"\n", b"a", b"1", b"-", b"e"])
    | st.sampled_from(
        [b"\\u0061", b"\\ud800", b"true", b"null", b"NaN", b'"a"', b'"a":', b"\xff", b"\xc3\xa9"]
    )
    | st.binary(max_size=3),
    max_size=24,
).map(b"".join)


@st.composite
def spelled(draw: st.DrawFn, value: object) -> str:
    """Return JSON with arbitrary white space and escapes."""
    space = st.text(" \t\r\n", max_size=2)

    def gap() -> str:
        return draw(space)

    def text(string: str) -> str:
        if draw(st.booleans()):
            return json.dumps(string, ensure_ascii=draw(st.booleans()))
        units = string.encode("utf-16-be")
        return (
            '"' + "".join(f"\\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2)) + '"'
        )

    def write(inner: Any) -> str:
        if isinstance(inner, str):
            return text(inner)
        if isinstance(inner, list):
            return "[" + ",".join(gap() + write(item) + gap() for item in inner) + (gap() or "") + "]"
        if isinstance(inner, dict):
            members = (
                gap() + text(name) + gap() + ":" + gap() + write(item) + gap()
                for name, item in inner.items()
            )
            return "{" + ",".join(members) + "}"
        return json.dumps(inner)

    return gap() + write(value) + gap()


DOCUMENTS: Final = OBJECTS.flatmap(lambda value: st.tuples(st.just(value), spelled(value)))


@modest(80)
@given(DOCUMENTS)
def test_read_object_agrees_with_json_on_every_valid_document(document: tuple[dict[str, Any], str]) -> None:
    value, text = document
    assert json.loads(text) == value
    assert read_object(text.encode()) == value


@modest(80)
@given(OBJECTS)
def test_written_json_is_read_back(value: dict[str, Any]) -> None:
    assert read_object(write_json(value)) == value


@modest(80)
@given(DOCUMENTS)
def test_bytes_of_a_member_are_its_value(document: tuple[dict[str, Any], str]) -> None:
    value, text = document
    members = member_bytes(text.encode())
    assert [name for name, _ in members] == [*value]
    for name, cut in members:
        assert json.loads(cut) == value[name]
        assert cut == cut.strip()
        assert cut in text.encode()


@modest(80)
@given(DOCUMENTS, st.data())
def test_document_cut_short_is_never_read(
    document: tuple[dict[str, Any], str], data: st.DataObject
) -> None:
    text = document[1].encode().rstrip()
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    for read in (read_object, member_bytes):
        with pytest.raises(JsonError):
            read(cut)


@modest(250)
@given(st.binary(max_size=64) | JSON_LIKE | JSON_LIKE.map(lambda inner: b"{" + inner + b"}"))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"\\')
@example(b'{"a":1e999}')
def test_arbitrary_bytes_are_an_object_or_a_json_error(data: bytes) -> None:
    with contextlib.suppress(JsonError):
        value = read_object(data)
        # Every object that was read can be written: it has no NaN, infinity or surrogate.
        assert read_object(write_json(value)) == value
    with contextlib.suppress(JsonError):
        members = member_bytes(data)
        assert all(cut in data and cut for _, cut in members)


@modest(300)
@given(JSON_LIKE.map(lambda inner: b"{" + inner + b"}"))
def test_read_object_and_member_bytes_find_the_same_members(data: bytes) -> None:
    with contextlib.suppress(JsonError):
        value = read_object(data)
        names = [name.encode("utf-8", "surrogatepass") for name, _ in member_bytes(data)]
        if b"\\u" not in data:
            assert names == [name.encode() for name in value]


PAIR_KEYS: Final = st.text("abcdefghijkXYZ-_", min_size=1, max_size=8)
PAIR_VALUES: Final = st.text(
    st.characters(codec="ascii", exclude_characters=",", categories=["L", "N", "P", "S"])
)


@modest(200)
@given(
    st.dictionaries(PAIR_KEYS, PAIR_VALUES, min_size=1, max_size=4), st.sampled_from(["", " ", "\t", "  "])
)
def test_header_pairs_are_read_back(pairs: dict[str, str], space: str) -> None:
    lowered = {key.lower(): value for key, value in pairs.items()}
    line = ",".join(f"{space}{key}={value}{space}" for key, value in pairs.items())
    if len(lowered) == len(pairs):
        assert header_pairs(line) == lowered
    else:
        with pytest.raises(ValueError, match="key=value"):
            header_pairs(line)


@modest(300)
@given(st.text() | st.text("=,ab \t", max_size=12))
def test_arbitrary_text_is_header_pairs_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        pairs = header_pairs(text)
        assert pairs
        assert all(key == key.lower() and "=" not in key and "," not in key for key in pairs)


@modest(300)
@given(st.text() | st.text("ABab09+/=%2Ff", max_size=12) | st.binary().map(crypto.url_base64_text))
def test_arbitrary_text_is_canonical_base64_or_a_crypto_error(text: str) -> None:
    with contextlib.suppress(CryptoError):
        data = crypto.url_base64_bytes(text)
        assert crypto.url_base64_bytes(crypto.url_base64_text(data)) == data
        assert crypto.base64_bytes(crypto.base64_text(data)) == data


PROFILES: Final = st.builds(
    EncryptionProfile,
    st.sampled_from(get_args(AesMode)),
    st.sampled_from([128, 256]),
    st.sampled_from(get_args(RsaPadding)),
)


@modest(100)
@given(PROFILES, st.binary(max_size=100))
def test_encrypted_text_decrypts(profile: EncryptionProfile, plaintext: bytes) -> None:
    key = os.urandom(profile.key_bytes)
    ciphertext = crypto.encrypt(profile, key, os.urandom(16), plaintext)
    assert crypto.decrypt(profile, key, ciphertext) == plaintext


@modest(150)
@given(PROFILES, st.binary(max_size=100))
def test_arbitrary_ciphertext_decrypts_or_is_a_crypto_error(
    profile: EncryptionProfile, data: bytes
) -> None:
    with contextlib.suppress(CryptoError):
        assert len(crypto.decrypt(profile, b"k" * profile.key_bytes, data)) < len(data)


@modest(60)
@given(OBJECTS, OBJECTS, st.none() | PROFILES, st.text("abcXYZ019-_.", min_size=1, max_size=64))
def test_each_side_unseals_what_the_other_sealed(
    sides: Sides,
    asked: dict[str, Any],
    answered: dict[str, Any],
    profile: EncryptionProfile | None,
    request_id: str,
) -> None:
    sides = sides.with_profile(profile) if profile and sides.us.protocol.encryption else sides
    sealed = sides.seal(write_json(asked), request_id=request_id, time=SENT_AT)
    request = sides.receive(sealed.path, sealed.headers, sealed.body)
    assert request.body == asked
    answered = {**answered, "result": {"resultStatus": "S"}}
    opened = sides.open(sides.reply(request, answered), request_id=request_id)
    assert (opened.body, opened.result.status) == (answered, "S")


LATIN: Final = st.text(st.characters(max_codepoint=255), max_size=40)
HEADER_LINES: Final = st.lists(
    st.tuples(
        st.sampled_from(
            ["Signature", "signature", "Client-Id", "Response-Time", "Encrypt", "Tracer-Id", "Retry-After"]
        ),
        LATIN
        | st.sampled_from(
            ["4Q5Y8W0WSG45P907917", "2024-05-22T06:42:22+05:30", "algorithm=RSA256,keyVersion=1,signature="]
        )
        | LATIN.map(lambda text: f"algorithm=RSA256,keyVersion=1,signature={text}")
        | st.binary(min_size=256, max_size=256).map(
            lambda data: f"signature={crypto.url_base64_text(data)}"
        ),
    ),
    max_size=6,
).map(tuple)
ENVELOPES: Final = st.tuples(JSON_LIKE, JSON_LIKE).map(
    lambda parts: b'{"response":' + parts[0] + b',"signature":' + parts[1] + b"}"
)


@modest(250)
@given(st.integers(100, 599), HEADER_LINES, st.binary(max_size=64) | JSON_LIKE | ENVELOPES, st.booleans())
def test_arbitrary_response_raises_call_errors_only(
    sides: Sides, status: int, headers: tuple[tuple[str, str], ...], body: bytes, end_announced: bool
) -> None:
    raw = RawResponse(status, headers, body, end_announced)
    with pytest.raises(errors.CallError) as caught:
        sides.open(raw)
    assert caught.value.sent
    assert not isinstance(caught.value, errors.ResultError)


@modest(120)
@given(JSON_LIKE | st.binary(max_size=64) | DOCUMENTS.map(lambda document: document[1].encode()))
def test_arbitrary_text_with_a_valid_signature_raises_call_errors_only(sides: Sides, body: bytes) -> None:
    with contextlib.suppress(errors.CallError):
        assert sides.open(answer(sides, body)).result.status is not None
    with contextlib.suppress(errors.CallError):
        sides.open(answer(sides, b'{"result":{"resultStatus":"S"},' + body + b"}"))


@modest(200)
@given(st.data())
def test_every_change_of_signed_content_is_refused(sides: Sides, data: st.DataObject) -> None:
    raw = answer(sides)
    # The signature of an envelope may have another spelling; the signed content may not change.
    start = raw.body.index(OK_BODY)
    at = start + data.draw(st.integers(0, len(OK_BODY) - 1))
    new = data.draw(st.binary(max_size=3).filter(lambda new: new != raw.body[at : at + 1]))
    changed = raw.body[:at] + new + raw.body[at + 1 :]
    with pytest.raises(errors.AnswerError) as caught:
        sides.open(RawResponse(200, raw.headers, changed))
    assert isinstance(caught.value, errors.SignatureInvalid | errors.Unsigned | errors.Malformed)


@modest(100)
@given(st.data())
def test_every_change_of_an_encrypt_header_is_malformed(header_sides: Sides, data: st.DataObject) -> None:
    raw = encrypted_answer(header_sides)
    value = dict(raw.headers)["Encrypt"]
    at = data.draw(st.integers(0, 10_000)) % len(value)
    changed = value[:at] + data.draw(LATIN) + value[at + 1 :]
    headers = tuple((name, changed if name == "Encrypt" else text) for name, text in raw.headers)
    with contextlib.suppress(errors.Malformed):
        assert header_sides.open(RawResponse(200, headers, raw.body)).result.status == "S"


@modest(200)
@given(st.binary(max_size=200) | st.binary(max_size=100).map(base64.b64encode) | LATIN.map(str.encode))
@example(b"-----BEGIN CERTIFICATE-----")
@example(b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----")
@example(b"MA==")
def test_arbitrary_bytes_are_not_a_key(data: bytes) -> None:
    with pytest.raises(KeyFileError):
        parse_key(data)


@modest(100)
@given(
    st.sampled_from(["PRIVATE KEY", "RSA PRIVATE KEY", "PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE", "X"]),
    st.binary(max_size=200),
)
def test_arbitrary_bytes_in_pem_are_not_a_key(label: str, data: bytes) -> None:
    pem = f"-----BEGIN {label}-----\n{base64.b64encode(data).decode()}\n-----END {label}-----\n"
    with pytest.raises(KeyFileError):
        parse_key(pem.encode())


@modest(150)
@given(st.data())
def test_a_broken_key_is_a_key_or_a_key_file_error(sides: Sides, data: st.DataObject) -> None:
    der = bytearray(base64.b64decode(_der_of(sides)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(der) - 1))
        der[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(KeyFileError):
        assert parse_key(base64.b64encode(bytes(der))).key_size >= 2048


def _der_of(sides: Sides) -> bytes:
    """Return a public key in the format that AlipayHK gives out."""
    return base64.b64encode(public_der(sides.us.keys.verifying["1"]))


@modest(100)
@given(st.dictionaries(st.text(max_size=6), st.integers()))
def test_sorting_versions_keeps_all(versions: dict[str, int]) -> None:
    ordered = newest_first(versions)
    assert ordered == versions
    numbers = [int(version) for version in ordered if version.isascii() and version.isdigit()]
    assert numbers == sorted(numbers, reverse=True)
    assert [*ordered][: len(numbers)] == [v for v in ordered if v.isascii() and v.isdigit()]
