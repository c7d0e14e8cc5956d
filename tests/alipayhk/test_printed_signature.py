"""The signature that AlipayHK's documentation prints: which content and algorithm reproduce it.

https://docs.alipay.hk/alipayhkdocs/hk/a_points_display/pre_sign_string_v1
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from clients.alipayhk.wire import crypto
from clients.alipayhk.wire.crypto import CryptoError
from clients.alipayhk.wire.protocols import envelope_signed
from clients.alipayhk.wire.strict_json import member_bytes

FILE: Final = Path(__file__).resolve().parents[1] / "vectors" / "shared" / "envelope_documented.json"
PRINTED: Final[dict[str, str]] = json.loads(FILE.read_text("utf-8"))
CONTENT: Final = PRINTED["content_to_sign"].encode()


def sorted_keys(content: Any) -> bytes:
    """Return compact JSON with sorted members."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


def spaced(content: Any) -> bytes:
    """Return JSON as `json.dumps` writes it by default."""
    return json.dumps(content).encode()


def outer(content: Any) -> bytes:
    """Return the outer object."""
    return b'{"request":' + CONTENT + b"}"


def test_we_reproduce_the_printed_signature(documentation_key: RSAPrivateKey) -> None:
    signature = crypto.base64_text(crypto.sign(documentation_key, CONTENT))
    assert signature == PRINTED["signature_base64"]
    assert signature.startswith(PRINTED["signature_printed_prefix"])
    assert len(PRINTED["signature_printed_prefix"]) == 124


def test_we_verify_the_printed_signature(documentation_key: RSAPrivateKey) -> None:
    signature = crypto.base64_bytes(PRINTED["signature_base64"])
    assert crypto.verify(documentation_key.public_key(), signature, CONTENT) == CONTENT


def test_sealed_envelope_has_the_printed_signature(documentation_key: RSAPrivateKey) -> None:
    signature = crypto.sign(documentation_key, CONTENT)
    members = dict(member_bytes(envelope_signed.sealed_envelope("request", CONTENT, signature)))
    assert members["request"] == CONTENT
    assert unquote(json.loads(members["signature"])) == PRINTED["signature_base64"]


@pytest.mark.parametrize("other_text", [sorted_keys, spaced, outer])
def test_other_texts_of_the_same_request_do_not_reproduce_it(
    other_text: Callable[[Any], bytes], documentation_key: RSAPrivateKey
) -> None:
    content = other_text(json.loads(CONTENT))
    assert content != CONTENT
    assert crypto.base64_text(crypto.sign(documentation_key, content)) != PRINTED["signature_base64"]
    with pytest.raises(CryptoError):
        crypto.verify(
            documentation_key.public_key(), crypto.base64_bytes(PRINTED["signature_base64"]), content
        )


def test_sha1_does_not_reproduce_it(documentation_key: RSAPrivateKey) -> None:
    signature = documentation_key.sign(CONTENT, padding.PKCS1v15(), hashes.SHA1())
    assert crypto.base64_text(signature) != PRINTED["signature_base64"]
    with pytest.raises(CryptoError):
        crypto.verify(documentation_key.public_key(), signature, CONTENT)


def test_pss_does_not_verify(documentation_key: RSAPrivateKey) -> None:
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    signature = documentation_key.sign(CONTENT, pss, hashes.SHA256())
    with pytest.raises(CryptoError):
        crypto.verify(documentation_key.public_key(), signature, CONTENT)
