"""The sandbox recognises which wrong content was signed, and names it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from clients.alipayhk.wire import crypto
from clients.alipayhk.wire.messages import header_values
from clients.alipayhk.wire.protocols import header_signed, header_text
from clients.alipayhk.wire.strict_json import write_json
from sandbox.server import running
from tests.sandbox.callers import (
    CLIENT_ID,
    KeyRing,
    Merchant,
    bind_body,
    merchant_of,
    sync_body,
    write_public,
)
from tests.sandbox.tampering import BIND, SYNC, refused, result_of, signature_line, with_header


async def test_wrong_signed_content_of_a_header_signed_request_is_recognised(
    merchant: Merchant, ring: KeyRing
) -> None:
    sealed = merchant.seal(SYNC, sync_body())
    time = header_values(sealed.headers, "Request-Time")[0]
    content = header_signed.content_to_sign(sealed.path, CLIENT_ID, time, sealed.body)
    for instead, says in (
        (sealed.body, "(envelope_part). The signature covers the body alone."),
        (content + b"\n", "(trailing_newline). The signature covers a line break (LF) after the content."),
        (content.replace(b"\n", b"\r\n"), "(line_endings). The signature covers CR LF after the path."),
    ):
        line = header_text.signature_header("1", crypto.sign(ring.merchant, instead))
        message = await refused(merchant, SYNC, with_header(sealed, "Signature", line), "INVALID_SIGNATURE")
        assert message == f"the signature does not match the content {says}"
        entry = await merchant.latest()
        assert entry["signed_content"] == instead.decode()
        assert len(entry["causes"]) == 1


async def test_signing_before_encrypting_is_recognised(merchant: Merchant, ring: KeyRing) -> None:
    body = sync_body()
    sealed = merchant.encrypting().seal(SYNC, body)
    plain = write_json(body)
    time = header_values(sealed.headers, "Request-Time")[0]
    content = header_signed.content_to_sign(sealed.path, CLIENT_ID, time, plain)
    line = header_text.signature_header("1", crypto.sign(ring.merchant, content))
    message = await refused(merchant, SYNC, with_header(sealed, "Signature", line), "INVALID_SIGNATURE")
    assert message.endswith("(signed_before_encryption). The signature covers the body before encryption.")


async def test_signing_the_path_without_its_query_is_recognised(ring: KeyRing) -> None:
    path = "/gateway?api=sync"
    async with (
        running(ring.options(sync_linkage_path=path)) as url,
        merchant_of(url, ring) as merchant,
    ):
        caller = merchant.but(path=path)
        assert (await caller.call(SYNC, sync_body())).result.status == "S"
        sealed = replace(merchant.but(path="/gateway").seal(SYNC, sync_body()), path=path)
        reply = await merchant.send(sealed)
        assert result_of(SYNC, reply)["resultMessage"].endswith(
            "The signature covers the path without its query."
        )


async def test_key_of_another_version_is_recognised(ring: KeyRing, tmp_path: Path) -> None:
    other = write_public(tmp_path / "other.pem", rsa.generate_private_key(65537, 2048).public_key())
    files = f"2={other},1={ring.merchant_file}"
    async with (
        running(ring.options(merchant_public_key_files=files)) as url,
        merchant_of(url, ring) as merchant,
    ):
        sealed = merchant.seal(SYNC, sync_body())
        line = signature_line(sealed).replace("keyVersion=1", "keyVersion=2")
        reply = await merchant.send(with_header(sealed, "Signature", line))
        assert result_of(SYNC, reply)["resultMessage"].endswith(
            "is made with the key of version 1, not with the key that the message names."
        )


async def test_wrong_signed_content_of_an_envelope_is_recognised(merchant: Merchant, ring: KeyRing) -> None:
    sealed = merchant.seal(BIND, bind_body(merchantAccountId="商戶"))
    request = json.loads(sealed.body)["request"]
    content = write_json(request)
    spaced = json.dumps(request)
    for sent, instead, says in (
        (content, b'{"request":' + content + b"}", "covers the outer object"),
        (content, write_json(request["body"]), "covers the body without the head"),
        (spaced.encode(), content, "covers compact JSON"),
        (content, spaced.encode(), "covers JSON with spaces"),
        (
            content,
            json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(),
            "covers members in alphabetical order",
        ),
    ):
        signature = crypto.base64_text(crypto.sign(ring.merchant, instead)).encode()
        body = b'{"request":' + sent + b',"signature":"' + signature + b'"}'
        message = await refused(merchant, BIND, replace(sealed, body=body), "INVALID_SIGNATURE")
        assert says in message
