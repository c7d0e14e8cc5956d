"""Requests that are rejected before they reach the wallet, and the exact reasons."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from clients.alipayhk.wire import crypto
from clients.alipayhk.wire.crypto import EncryptionProfile
from clients.alipayhk.wire.endpoint import Encryption
from clients.alipayhk.wire.errors import ResultError, Unsigned
from clients.alipayhk.wire.messages import header_values
from clients.alipayhk.wire.protocols import header_signed, header_text
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from sandbox.apis import APIS
from tests.sandbox.callers import (
    CLIENT_ID,
    FUNCTION,
    PATHS,
    KeyRing,
    Merchant,
    bind_body,
    body_of,
    sync_body,
)
from tests.sandbox.tampering import (
    BIND,
    SYNC,
    refused,
    result_of,
    sealed_content,
    signature_line,
    signed,
    with_header,
)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda line: line + "=", "not base64"),
        (lambda line: "nonsense", "the header Signature is not key=value pairs"),
        (lambda line: line.replace("RSA256", "ECC224"), "an algorithm other than RSA256"),
        (lambda line: line.partition("signature=")[0] + "signature=%21", "not base64"),
        (lambda line: line.partition("signature=")[0] + "signature=QUJD", "length of the key's modulus"),
        (lambda line: line.partition(",signature=")[0], "length of the key's modulus"),
    ],
)
async def test_fault_of_a_bad_signature_header_is_named(merchant: Merchant, edit: Any, says: str) -> None:
    sealed = merchant.seal(SYNC, sync_body())
    sealed = with_header(sealed, "Signature", edit(signature_line(sealed)))
    message = await refused(merchant, SYNC, sealed, "INVALID_SIGNATURE")
    assert says in message


@pytest.mark.parametrize("name", ["Client-Id", "Request-Time", "Signature"])
@pytest.mark.parametrize(("count", "says"), [(0, "absent"), (2, "repeated")])
async def test_absent_or_repeated_header_is_named(
    merchant: Merchant, name: str, count: int, says: str
) -> None:
    sealed = merchant.seal(SYNC, sync_body())
    sealed = with_header(sealed, name, *(header_values(sealed.headers, name) * count))
    message = await refused(merchant, SYNC, sealed, "INVALID_SIGNATURE")
    assert message.startswith(f"the header {name} is {says}")
    if not count and name != "Signature":
        assert f"<{name}>" in (await merchant.latest())["content_to_sign"]


async def test_unknown_key_version_is_key_not_found_and_the_known_ones_are_named(
    merchant: Merchant,
) -> None:
    sealed = merchant.seal(SYNC, sync_body())
    line = signature_line(sealed).replace("keyVersion=1", "keyVersion=7")
    message = await refused(merchant, SYNC, with_header(sealed, "Signature", line), "KEY_NOT_FOUND")
    assert message.endswith("an unknown keyVersion; known keyVersions: 1")


@pytest.mark.parametrize("api", APIS)
async def test_changed_body_does_not_match_and_the_expected_content_is_logged(
    merchant: Merchant, api: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sandbox")
    sealed = merchant.seal(api, body_of(api))
    sealed = replace(sealed, body=sealed.body.replace(b"2160000000000001", b"2160000000000002"))
    message = await refused(merchant, api, sealed, "INVALID_SIGNATURE")
    assert message == "the signature does not match the content"
    expected = (await merchant.latest())["content_to_sign"]
    assert expected.startswith(f"POST {PATHS[SYNC]}\n{CLIENT_ID}." if api == SYNC else '{"head":{')
    assert "2160000000000002" in expected
    assert "".join(f"\n  | {line}" for line in expected.split("\n")) in caplog.text


@pytest.mark.parametrize("api", APIS)
async def test_a_client_cannot_forge_lines_of_the_log(
    merchant: Merchant, api: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sandbox")
    forged = "#9 SyncLinkage req-9: the signature matches"
    text = f"x\n{forged}\x1b[2J\u202e\u2028"
    sealed = merchant.seal(api, body_of(api, text, accountId=text), text)
    raw = sealed.body.replace(b"2160000000000001", f"\n{forged}\x9b\r".encode())
    await merchant.send(replace(sealed, body=raw))
    await merchant.send(sealed)
    await merchant.http("GET", f"/{forged}%0a\x1b".replace(" ", "%20"))
    lines = [record.getMessage() for record in caplog.records if record.name == "sandbox"]
    assert len(lines) == 3
    starts = [line for text in lines for line in text.splitlines()]
    assert [
        line for line in starts if not line.startswith(("#1 ", "#2 ", "#3 ", "  | ", "the signature "))
    ] == []
    assert all(line.isprintable() for line in starts)


@pytest.mark.parametrize("api", APIS)
async def test_client_reads_the_rejection_of_a_signature_as_an_unverified_code(
    merchant: Merchant, api: str
) -> None:
    strangers = replace(merchant.endpoints[api].keys, signing=rsa.generate_private_key(65537, 2048))
    with pytest.raises(Unsigned) as raised:
        await merchant.but(keys=strangers).call(api, body_of(api))
    assert raised.value.claimed_code == "INVALID_SIGNATURE"


@pytest.mark.parametrize("api", APIS)
async def test_other_client_id_gets_a_signed_rejection_if_its_signature_verifies(
    merchant: Merchant, api: str
) -> None:
    with pytest.raises(ResultError) as raised:
        await merchant.but(client_id="SOMEBODY").call(api, body_of(api))
    assert raised.value.result.code == "INVALID_CLIENT"
    assert (await merchant.latest())["verified"] is True


@pytest.mark.parametrize("api", APIS)
async def test_other_client_id_gets_an_unsigned_rejection_if_its_signature_does_not_verify(
    merchant: Merchant, api: str
) -> None:
    sealed = merchant.but(client_id="SOMEBODY").seal(api, body_of(api))
    sealed = replace(sealed, body=sealed.body.replace(b"member", b"MEMBER").replace(b"TELECOM", b"TELEKOM"))
    message = await refused(merchant, api, sealed, "INVALID_CLIENT")
    assert message == f"the client id is not {CLIENT_ID}, and the signature does not match the content"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body cannot be split into members"),
        (b"[]", "the body cannot be split into members"),
        (b"{}", "the envelope has no member request"),
        (b'{"request":{}}', "the envelope has no member signature"),
        (b'{"signature":"QUJD"}', "the envelope has no member request"),
        (
            b'{"request":{},"request":{},"signature":"QUJD"}',
            "two members of the envelope have the same name",
        ),
        (b'{"request":{},"signature":"!"}', "the signature is not base64"),
        (b'{"request":{},"signature":7}', "the signature is not base64"),
        (b'{"request":{},"signature":tru}', "the signature is not base64"),
        (b'{"request":[],"signature":"QUJD"}', "length of the key's modulus"),
        (b'{"request":{"head":[]},"signature":"QUJD"}', "length of the key's modulus"),
    ],
)
async def test_reason_for_an_unverifiable_envelope_is_named(
    merchant: Merchant, body: bytes, says: str
) -> None:
    sealed = replace(merchant.seal(BIND, bind_body()), body=body)
    assert says in await refused(merchant, BIND, sealed, "INVALID_SIGNATURE")


@pytest.mark.parametrize("changes", [{"function": "alipay.intl.other"}, {"version": "9.0.0"}])
async def test_other_function_or_version_is_invalid_api(
    merchant: Merchant, changes: dict[str, str]
) -> None:
    # The client refuses such a response, so check its bytes.
    protocol = replace(EnvelopeSigned(FUNCTION, "1.0.0"), **changes)
    reply = await merchant.send(merchant.but(protocol=protocol).seal(BIND, bind_body()))
    assert reply.json()["signature"]
    assert result_of(BIND, reply)["resultCode"] == "INVALID_API"
    (name,) = changes
    assert result_of(BIND, reply)["resultMessage"].startswith(f"the {name} in the head is not ")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("api", APIS)
async def test_only_post_is_served(merchant: Merchant, api: str, method: str) -> None:
    reply = await merchant.send(merchant.seal(api, body_of(api)), method=method)
    assert result_of(api, reply)["resultCode"] == "METHOD_NOT_SUPPORTED"
    assert method in result_of(api, reply)["resultMessage"]
    assert reply.status == 200
    assert reply.header("Signature") is None


@pytest.mark.parametrize(
    "media_type", ["application/xml", "application/octet-stream", "multipart/form-data"]
)
@pytest.mark.parametrize("api", APIS)
async def test_other_media_types_are_not_acceptable(merchant: Merchant, api: str, media_type: str) -> None:
    sealed = with_header(merchant.seal(api, body_of(api)), "Content-Type", media_type)
    reply = await merchant.send(sealed)
    assert result_of(api, reply)["resultCode"] == "MEDIA_TYPE_NOT_ACCEPTABLE"
    assert (await merchant.latest())["verified"] is True


@pytest.mark.parametrize("media_type", ["application/json", "text/plain; charset=UTF-8", "TEXT/JSON"])
async def test_json_and_text_are_acceptable(merchant: Merchant, media_type: str) -> None:
    sealed = with_header(merchant.seal(SYNC, sync_body()), "Content-Type", media_type)
    assert result_of(SYNC, await merchant.send(sealed))["resultStatus"] == "S"


async def test_path_without_an_api_is_not_found_and_the_served_paths_are_named(merchant: Merchant) -> None:
    reply = await merchant.http("POST", "/sandbox/binding/sync?x=1", data=b"{}")
    assert reply.status == 404
    assert all(path in reply.body.decode() for path in PATHS.values())
    assert (await merchant.latest())["api"] == ""


@pytest.mark.parametrize("api", APIS)
async def test_a_body_of_256_kib_is_read_and_one_byte_more_is_too_large(
    merchant: Merchant, api: str
) -> None:
    sealed = merchant.seal(api, body_of(api))
    most = replace(sealed, body=b" " * 256 * 1024)
    assert result_of(api, await merchant.send(most))["resultCode"] == "INVALID_SIGNATURE"
    assert (await merchant.send(replace(sealed, body=most.body + b" "))).status == 413
    entry = await merchant.latest()
    assert entry["verdict"] == "the body is larger than 256 KiB"
    assert entry["body"].endswith(f"({256 * 1024 + 1} bytes in all)")


@pytest.mark.parametrize("api", APIS)
async def test_violations_get_a_signed_response_that_names_every_member(
    merchant: Merchant, api: str
) -> None:
    body = body_of(api, userId="2" * 65, nickname="Tai Man")
    with pytest.raises(ResultError) as raised:
        await merchant.call(api, body)
    result = raised.value.result
    assert (result.status, result.code) == ("F", "PARAM_ILLEGAL")
    assert result.message == "userId: longer than 64 characters; nickname: not a member"


async def test_a_request_time_without_offset_is_an_illegal_parameter(
    merchant: Merchant, ring: KeyRing
) -> None:
    sealed = merchant.seal(SYNC, sync_body())
    time = "2024-05-22T06:42:21"
    content = header_signed.content_to_sign(sealed.path, CLIENT_ID, time, sealed.body)
    line = header_text.signature_header("1", crypto.sign(ring.merchant, content))
    reply = await merchant.send(with_header(with_header(sealed, "Request-Time", time), "Signature", line))
    assert result_of(SYNC, reply)["resultMessage"] == (
        "Request-Time: must be an ISO-8601 time with an offset"
    )


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", "the body, as received, cannot be read: not a JSON object"),
        (b'{"a":1,"a":2}', "the body, as received, cannot be read: two members have the same name"),
    ],
)
async def test_reason_for_an_unreadable_signed_body_is_named(
    merchant: Merchant, ring: KeyRing, body: bytes, says: str
) -> None:
    reply = await merchant.send(signed(merchant, ring, body))
    assert result_of(SYNC, reply)["resultMessage"] == says
    assert reply.header("Signature")


HUGE = {"1e999": b"1e999", "-1e999": b"-1e999", "5000 digits": b"1" * 5000}


@pytest.mark.parametrize("huge", HUGE.values(), ids=HUGE)
async def test_signed_number_that_is_too_large_is_named_as_the_reason(
    merchant: Merchant, ring: KeyRing, huge: bytes
) -> None:
    says = "the body, as received, cannot be read: a number is too large"
    bodies = [signed(merchant, ring, b'{"requestId":' + huge + b"}")]
    envelopes = (b'{"head":{"reqMsgId":HUGE},"body":{}}', b'{"head":{"function":"f"},"body":{"a":[HUGE]}}')
    for content in envelopes:
        body = sealed_content(ring, content.replace(b"HUGE", huge))
        bodies.append(replace(merchant.seal(BIND, bind_body()), body=body))
    for api, sealed in zip((SYNC, BIND, BIND), bodies, strict=True):
        reply = await merchant.send(sealed)
        assert (reply.status, result_of(api, reply)["resultCode"]) == (200, "PARAM_ILLEGAL")
        assert result_of(api, reply)["resultMessage"] == says
        assert (await merchant.latest())["verified"] is True
    assert (await merchant.console("wallet"))["requests"] == {}


@pytest.mark.parametrize("huge", HUGE.values(), ids=HUGE)
async def test_too_large_number_with_a_bad_signature_is_invalid_signature(
    merchant: Merchant, huge: bytes
) -> None:
    body = b'{"request":{"head":{"reqMsgId":' + huge + b'},"body":{}},"signature":"QUJD"}'
    await refused(merchant, BIND, replace(merchant.seal(BIND, bind_body()), body=body), "INVALID_SIGNATURE")


async def test_signed_envelope_without_a_body_is_named_as_the_reason(
    merchant: Merchant, ring: KeyRing
) -> None:
    content = json.dumps({"head": {"clientId": CLIENT_ID, "reqMsgId": "m"}}).encode()
    body = sealed_content(ring, content)
    reply = await merchant.send(replace(merchant.seal(BIND, bind_body()), body=body))
    assert result_of(BIND, reply)["resultMessage"] == "the envelope has no head or body"
    assert reply.json()["response"]["head"]["reqMsgId"] == "m"


async def test_signed_rejection_of_an_encrypted_request_is_encrypted(merchant: Merchant) -> None:
    caller = merchant.encrypting(strictly=True)
    with pytest.raises(ResultError) as raised:
        await caller.call(SYNC, sync_body(bizTime="soon"))
    assert raised.value.result.message == "bizTime: must be a number of milliseconds"


async def test_undecryptable_body_is_named_as_the_reason(merchant: Merchant) -> None:
    other = Encryption(profile=EncryptionProfile(aes_mode="CBC"))
    reply = await merchant.send(merchant.encrypting(other).seal(SYNC, sync_body()))
    entry = await merchant.latest()
    assert entry["verdict"].startswith("PARAM_ILLEGAL: the body")
    assert reply.header("Encrypt")


async def test_body_that_does_not_decrypt_to_json_is_named_as_the_reason(
    merchant: Merchant, ring: KeyRing
) -> None:
    keys = merchant.endpoints[SYNC].keys
    line, text = header_signed.encrypt_body(Encryption(), keys, b"not JSON")
    await merchant.send(signed(merchant, ring, text, ("Encrypt", line)))
    entry = await merchant.latest()
    assert entry["verdict"] == ("PARAM_ILLEGAL: the body, decrypted, cannot be read: not JSON in UTF-8")
    assert entry["decrypted_body"] == "not JSON"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("algorithm=RSA_AES,keyVersion=1,symmetricKey=QUJD",), "the body cannot be decrypted"),
        (("a=b", "a=b"), "there is more than one header Encrypt"),
    ],
)
async def test_bad_encrypt_header_is_named_as_the_reason(
    merchant: Merchant, ring: KeyRing, lines: tuple[str, ...], says: str
) -> None:
    await merchant.send(signed(merchant, ring, b"QUJD", *(("Encrypt", line) for line in lines)))
    assert says in (await merchant.latest())["verdict"]


async def test_received_bytes_are_verified_without_decompression(merchant: Merchant) -> None:
    sealed = merchant.seal(SYNC, sync_body())
    headers = (*sealed.headers, ("Content-Encoding", "gzip"))
    reply = await merchant.send(sealed, headers=list(headers))
    assert result_of(SYNC, reply)["resultStatus"] == "S"
