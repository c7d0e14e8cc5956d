"""Every golden vector in both directions, and that the generator still writes the same vectors."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from clients.alipayhk.wire import crypto
from clients.alipayhk.wire.crypto import EncryptionProfile
from clients.alipayhk.wire.endpoint import Encryption, Endpoint
from clients.alipayhk.wire.messages import (
    PlainRequest,
    PlainResponse,
    RawRequest,
    RawResponse,
    VerifiedRequest,
)
from clients.alipayhk.wire.protocols import header_signed, header_text
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from tests.alipayhk.sides import ENVELOPE_SIGNED, HEADER_SIGNED, both_sides
from tests.vectors import make

VECTORS: Final = Path(__file__).resolve().parents[1] / "vectors"
Case = dict[str, Any]


def cases(protocol: str, kind: str, *, encrypted: bool | None = None) -> list[Any]:
    """Return the cases of one kind, with their file names as ids."""
    found = []
    for file in sorted((VECTORS / protocol).glob(f"{kind}_*.json")):
        case = json.loads(file.read_text("utf-8"))
        if encrypted is None or encrypted == ("profile" in case):
            found.append(pytest.param(case, id=file.stem))
    assert found, f"no vectors of {protocol} {kind}"
    return found


@pytest.fixture
def endpoint(documentation_key: RSAPrivateKey) -> Endpoint:
    """Return a header-signed endpoint with the documentation key on both sides."""
    return both_sides(HEADER_SIGNED, documentation_key, documentation_key).us


@pytest.fixture
def enveloped(documentation_key: RSAPrivateKey) -> Endpoint:
    """Return an envelope-signed endpoint with the documentation key on both sides."""
    return both_sides(ENVELOPE_SIGNED, documentation_key, documentation_key).us


def of_case(endpoint: Endpoint, case: Case) -> Endpoint:
    """Return `endpoint` with the settings of the case."""
    return replace(
        endpoint,
        path=case["path"],
        client_id=case["client_id"],
        protocol=HeaderSigned(
            Encryption(EncryptionProfile(**case.get("profile", {})), random_bytes=fixed_bytes(case)),
            encrypt_requests="profile" in case,
        ),
    )


def fixed_bytes(case: Case) -> Any:
    """Return a random source that returns the case's AES key first, and then its IV."""
    values = iter([bytes.fromhex(case[name]) for name in ("aes_key_hex", "iv_hex") if name in case])

    def random_bytes(count: int) -> bytes:
        value = next(values)
        assert len(value) == count
        return value

    return random_bytes


def headers_of(case: Case) -> tuple[tuple[str, str], ...]:
    """Return the case's header lines."""
    return tuple((name, value) for name, value in case["headers"])


def fixed_lines(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Return header lines without the wrapped key, which is random."""
    return [(name, "…" if name == "Encrypt" else value) for name, value in headers]


def seal_header(endpoint: Endpoint, case: Case) -> Any:
    """Seal the case's business content as its sender does."""
    time = datetime.fromisoformat(case["time"])
    if case["kind"] == "request":
        plain = PlainRequest("", case["plaintext"].encode(), time)
        return endpoint.protocol.seal_request(endpoint, plain)
    request = VerifiedRequest(client_id=case["client_id"], body={}, encrypted="profile" in case)
    return endpoint.protocol.seal_response(endpoint, request, PlainResponse(case["opened"], time))


@pytest.mark.parametrize("case", cases("header_signed", "re*"))
def test_content_to_sign_equals_the_vector(case: Case) -> None:
    content = header_signed.content_to_sign(
        case["path"], case["client_id"], case["time"], case["body"].encode()
    )
    assert content == case["content_to_sign"].encode()


@pytest.mark.parametrize("protocol", ["header_signed", "envelope_signed"])
def test_signature_of_every_content_equals_the_vector(
    protocol: str, documentation_key: RSAPrivateKey
) -> None:
    for parameters in cases(protocol, "re*"):
        (case,) = parameters.values
        content = case["content_to_sign"].encode()
        assert crypto.base64_text(crypto.sign(documentation_key, content)) == case["signature"]
        signature = crypto.base64_bytes(case["signature"])
        assert crypto.verify(documentation_key.public_key(), signature, content) == content


@pytest.mark.parametrize("case", cases("header_signed", "re*"))
def test_signature_header_equals_the_vector(case: Case) -> None:
    line = header_text.signature_header("1", crypto.base64_bytes(case["signature"]))
    assert line == case["signature_header"]
    pairs = header_text.header_pairs(line)
    assert crypto.base64_text(crypto.url_base64_bytes(pairs["signature"])) == case["signature"]


@pytest.mark.parametrize("case", cases("header_signed", "re*"))
def test_sealing_gives_the_vectors_message(case: Case, endpoint: Endpoint) -> None:
    sealed = seal_header(of_case(endpoint, case), case)
    made = (sealed.body.decode(), fixed_lines(sealed.headers))
    # Some spellings (a time with Z, spaces) are read, but never written.
    assert (made == (case["body"], fixed_lines(headers_of(case)))) == case["written_by_us"]


@pytest.mark.parametrize("case", cases("header_signed", "request"))
def test_request_of_a_vector_unseals(case: Case, endpoint: Endpoint) -> None:
    raw = RawRequest(case["path"], headers_of(case), case["body"].encode())
    endpoint = of_case(endpoint, case)
    opened = endpoint.protocol.unseal_request(endpoint, raw)
    assert (opened.client_id, opened.body) == (case["client_id"], case["opened"])
    assert opened.encrypted == ("profile" in case)


@pytest.mark.parametrize("case", cases("header_signed", "response"))
def test_response_of_a_vector_unseals(case: Case, endpoint: Endpoint) -> None:
    time = datetime.fromisoformat(case["time"])
    endpoint = of_case(endpoint, case)
    raw = RawResponse(200, headers_of(case), case["body"].encode())
    opened = endpoint.protocol.unseal_response(
        endpoint, PlainRequest("", b"", time), raw, now=time + timedelta(seconds=1)
    )
    assert (opened.body, opened.response_time) == (case["opened"], time)


@pytest.mark.parametrize("case", cases("header_signed", "re*", encrypted=True))
def test_every_step_of_an_encryption_equals_the_vector(
    case: Case, documentation_key: RSAPrivateKey
) -> None:
    profile = EncryptionProfile(**case["profile"])
    aes_key, iv = bytes.fromhex(case["aes_key_hex"]), bytes.fromhex(case["iv_hex"])
    ciphertext = crypto.base64_bytes(case["body"])
    wrapped = crypto.base64_bytes(case["wrapped_key"])
    assert crypto.encrypt(profile, aes_key, iv, case["plaintext"].encode()) == ciphertext
    assert crypto.decrypt(profile, aes_key, ciphertext) == case["plaintext"].encode()
    assert crypto.unwrap_key(profile, documentation_key, wrapped) == aes_key
    assert header_text.encrypt_header("1", wrapped) == case["encrypt_header"]


@pytest.mark.parametrize("case", cases("envelope_signed", "request"))
def test_envelope_request_of_a_vector_seals_and_unseals(case: Case, enveloped: Endpoint) -> None:
    time = datetime.fromisoformat(case["time"])
    request = PlainRequest(case["req_msg_id"], case["plaintext"].encode(), time)
    content = ENVELOPE_SIGNED.request_content(enveloped, request)
    sealed = ENVELOPE_SIGNED.seal_request(enveloped, request)
    opened = ENVELOPE_SIGNED.unseal_request(enveloped, RawRequest("/", (), case["body"].encode()))
    assert content == case["content_to_sign"].encode()
    assert sealed.body == case["body"].encode()
    assert sealed.headers == (("Content-Type", "application/json; charset=UTF-8"),)
    assert (opened.body, opened.client_id) == (case["opened"], case["client_id"])
    assert opened.head["reqMsgId"] == case["req_msg_id"]


@pytest.mark.parametrize("case", cases("envelope_signed", "response"))
def test_envelope_response_of_a_vector_unseals(case: Case, enveloped: Endpoint) -> None:
    time = datetime.fromisoformat(case["time"])
    opened = ENVELOPE_SIGNED.unseal_response(
        enveloped,
        PlainRequest(case["req_msg_id"], b"", time),
        RawResponse(200, (), case["body"].encode()),
        now=time + timedelta(seconds=1),
    )
    assert opened.body == case["opened"]
    assert opened.response_time == (time if case["written_by_us"] else None)


@pytest.mark.parametrize("case", cases("envelope_signed", "response"))
def test_envelope_response_of_a_vector_seals(case: Case, enveloped: Endpoint) -> None:
    head = {"function": case["function"], "reqMsgId": case["req_msg_id"]}
    request = VerifiedRequest(client_id=case["client_id"], body={}, head=head)
    response = PlainResponse(case["opened"], datetime.fromisoformat(case["time"]))
    sealed = ENVELOPE_SIGNED.seal_response(enveloped, request, response)
    assert (sealed.body == case["body"].encode()) == case["written_by_us"]


def test_shared_request_seals_and_unseals(documentation_key: RSAPrivateKey, endpoint: Endpoint) -> None:
    shared = json.loads((VECTORS / "shared" / "header_signed.json").read_text("utf-8"))
    row = shared["rest_request"]
    endpoint = replace(endpoint, path=row["path"], client_id=row["client_id"])
    request = PlainRequest("", row["body"].encode(), datetime.fromisoformat(row["request_time"]))
    sealed = HEADER_SIGNED.seal_request(endpoint, request)
    line = f"algorithm=RSA256,keyVersion=1,signature={row['signature_urlencoded']}"
    assert ("Signature", line) in sealed.headers
    opened = HEADER_SIGNED.unseal_request(endpoint, RawRequest(row["path"], sealed.headers, sealed.body))
    assert opened.body == json.loads(row["body"])


def test_shared_response_unseals(endpoint: Endpoint) -> None:
    shared = json.loads((VECTORS / "shared" / "header_signed.json").read_text("utf-8"))
    request, row = shared["rest_request"], shared["rest_response"]
    headers = (
        ("Client-Id", request["client_id"]),
        ("Response-Time", row["response_time"]),
        ("Signature", f"algorithm=RSA256,keyVersion=1,signature={row['signature_urlencoded']}"),
    )
    opened = HEADER_SIGNED.unseal_response(
        replace(endpoint, path=request["path"], client_id=request["client_id"]),
        PlainRequest("", b"", datetime.fromisoformat(request["request_time"])),
        RawResponse(200, headers, row["body"].encode()),
        now=datetime.fromisoformat(row["response_time"]),
    )
    assert (opened.result.status, opened.result.code) == ("S", "SUCCESS")


def test_shared_encrypted_request_unseals(endpoint: Endpoint) -> None:
    shared = json.loads((VECTORS / "shared" / "header_signed.json").read_text("utf-8"))
    request, row = shared["rest_request"], shared["rsa_aes_ecb_pkcs1"]
    headers = (
        ("client-id", request["client_id"]),
        ("request-time", request["request_time"]),
        ("encrypt", row["encrypt_header"]),
        (
            "signature",
            "algorithm=RSA256,keyVersion=1,signature="
            + shared["rest_request_encrypted"]["signature_urlencoded"],
        ),
    )
    raw = RawRequest(request["path"], headers, row["body_on_wire"].encode())
    opened = HEADER_SIGNED.unseal_request(replace(endpoint, path=request["path"]), raw)
    assert (opened.encrypted, opened.body) == (True, json.loads(row["plaintext"]))


def files_of(directory: Path) -> dict[str, Case]:
    """Read every generated vector under `directory`."""
    return {
        f"{file.parent.name}/{file.name}": json.loads(file.read_text("utf-8"))
        for file in sorted(directory.glob("*_signed/*.json"))
    }


def test_making_the_vectors_from_scratch_changes_only_the_wrapped_keys(tmp_path: Path) -> None:
    make.make(tmp_path)
    made, kept = files_of(tmp_path), files_of(VECTORS)
    for case in (*made.values(), *kept.values()):
        for step in make.RANDOM_STEPS if "profile" in case else ():
            del case[step]
    assert made == kept


def test_making_the_vectors_again_in_place_changes_no_byte(tmp_path: Path) -> None:
    shutil.copytree(VECTORS, tmp_path, dirs_exist_ok=True)
    make.make(tmp_path)
    for name in files_of(VECTORS):
        assert (tmp_path / name).read_bytes() == (VECTORS / name).read_bytes(), name


def test_wrapped_key_that_cannot_be_unwrapped_is_replaced() -> None:
    profile = make.Profile()
    for broken in (None, "AAAA", crypto.base64_text(bytes(255) + b"\x01")):
        wrapped = crypto.base64_bytes(make.wrapped_key(profile, broken))
        assert crypto.unwrap_key(EncryptionProfile(), make.KEY, wrapped) == make.AES_KEY


def test_no_private_key_is_committed_as_pem() -> None:
    for file in VECTORS.rglob("*"):
        assert file.is_dir() or b"-----BEGIN" not in file.read_bytes(), file.name
