"""Responses without a fault, as the client reads them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from clients.alipayhk.wire.crypto import EncryptionProfile
from clients.alipayhk.wire.endpoint import Encryption
from clients.alipayhk.wire.errors import ResultError
from sandbox.server import running
from tests.sandbox.callers import CLIENT_ID, FUNCTION, KeyRing, Merchant, bind_body, merchant_of, sync_body


async def test_a_linkage_is_synchronized(merchant: Merchant) -> None:
    answer = await merchant.call("SyncLinkage", sync_body())
    assert answer.body == {
        "result": {"resultCode": "SUCCESS", "resultStatus": "S", "resultMessage": "success"}
    }
    assert len(answer.tracer_id) == 32
    assert answer.response_time is not None
    assert abs(answer.response_time - datetime.now(UTC)) < timedelta(seconds=5)
    assert await merchant.effects("SyncLinkage") == 1
    assert (await merchant.latest())["verdict"] == "the signature matches; the linkage is bound"


async def test_an_account_is_bound(merchant: Merchant) -> None:
    answer = await merchant.call("BindAccount", bind_body(), "m-1")
    assert answer.body["result"] == {
        "resultStatus": "S",
        "resultCode": "0000",
        "resultCodeId": "0000",
        "resultMessage": "SUCCESS",
    }
    assert answer.body["needBind"] == "true"
    assert isinstance(answer.body["accountInfo"], dict)
    assert await merchant.effects("BindAccount", "m-1") == 1


async def test_envelope_response_repeats_the_head(merchant: Merchant) -> None:
    reply = await merchant.send(merchant.seal("BindAccount", bind_body(), "m-1"))
    head = reply.json()["response"]["head"]
    assert (head["clientId"], head["function"], head["reqMsgId"]) == (CLIENT_ID, FUNCTION, "m-1")
    assert head["respTime"]
    assert reply.header("Tracer-Id") is None


async def test_response_has_the_documented_headers(merchant: Merchant) -> None:
    reply = await merchant.send(merchant.seal("SyncLinkage", sync_body()))
    for name in ("Client-Id", "Content-Type", "Response-Time", "Signature", "Tracer-Id"):
        assert reply.header(name)
    assert reply.header("Encrypt") is None
    assert reply.header("Content-Type") == "application/json; charset=UTF-8"


async def test_a_business_failure_is_signed(merchant: Merchant) -> None:
    with pytest.raises(ResultError) as raised:
        await merchant.call("SyncLinkage", sync_body(operateType="UNBIND"))
    assert raised.value.result.code == "PROCESS_FAIL"


@pytest.mark.parametrize("aes_mode", ["ECB", "CBC"])
@pytest.mark.parametrize("aes_bits", [128, 256])
@pytest.mark.parametrize("rsa_padding", ["PKCS1V15", "OAEP_SHA256"])
async def test_encrypted_request_gets_an_encrypted_response_with_each_profile(
    ring: KeyRing, aes_mode: str, aes_bits: int, rsa_padding: str
) -> None:
    options = ring.options(
        aes_mode=aes_mode,
        aes_bits=str(aes_bits),
        rsa_padding=rsa_padding,
        encryption_content_type="text/plain; charset=UTF-8",
    )
    profile = EncryptionProfile(aes_mode, aes_bits, rsa_padding)  # type: ignore[arg-type]
    async with running(options) as url, merchant_of(url, ring) as merchant:
        caller = merchant.encrypting(Encryption(profile), strictly=True)
        assert (await caller.call("SyncLinkage", sync_body())).result.status == "S"
        entry = await merchant.latest()
        assert '"requestId":"req-1"' in entry["decrypted_body"]
        assert "req-1" not in entry["body"]
        assert entry["content_to_sign"].endswith(entry["body"])
        assert ["Content-Type", "text/plain; charset=UTF-8"] in entry["answer_headers"]


async def test_keys_of_all_versions_verify_and_the_configured_one_wraps(ring: KeyRing) -> None:
    files = f"1={ring.merchant_file},2={ring.merchant_file}"
    options = ring.options(merchant_public_key_files=files, encryption_key_version="2", key_version="3")
    async with running(options) as url, merchant_of(url, ring) as merchant:
        keys = replace(
            merchant.endpoints["SyncLinkage"].keys,
            verifying={"3": ring.wallet.public_key()},
            decrypting={"2": ring.merchant},
        )
        caller = merchant.but(keys=keys).encrypting(Encryption(key_version="3"))
        assert (await caller.call("SyncLinkage", sync_body())).result.status == "S"
        assert (await caller.call("BindAccount", bind_body())).result.status == "S"
