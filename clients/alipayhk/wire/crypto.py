"""The cryptography of both wire protocols: pure functions over bytes.

RSASSA-PKCS1-v1_5 with SHA-256 for signatures; AES with PKCS#7 padding for bodies, and RSA for the AES
key of each message, as an `EncryptionProfile` says.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote, unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

AES_BLOCK_BYTES: Final = 16
_SHA256: Final = hashes.SHA256()
_SIGNATURE_PADDING: Final = rsa_padding.PKCS1v15()

AesMode = Literal["ECB", "CBC"]
RsaPadding = Literal["PKCS1V15", "OAEP_SHA256"]

_KEY_PADDINGS: Final[dict[RsaPadding, rsa_padding.AsymmetricPadding]] = {
    "PKCS1V15": rsa_padding.PKCS1v15(),
    "OAEP_SHA256": rsa_padding.OAEP(rsa_padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=None),
}


class CryptoError(Exception):
    """Something does not verify, decode or decrypt. The message holds none of the data."""


@dataclass(frozen=True, slots=True)
class EncryptionProfile:
    """What was agreed with AlipayHK at onboarding about encrypted bodies.

    The default is what every implementation of the family uses. ECB shows an observer which blocks
    of one message are equal; each message has a fresh key, so it shows nothing across messages.
    """

    aes_mode: AesMode = "ECB"
    aes_bits: int = 256
    rsa_padding: RsaPadding = "PKCS1V15"

    @property
    def key_bytes(self) -> int:
        """How many random bytes an AES key takes."""
        return self.aes_bits // 8


def sign(key: RSAPrivateKey, content: bytes) -> bytes:
    """Sign `content`."""
    return key.sign(content, _SIGNATURE_PADDING, _SHA256)


def verify(key: RSAPublicKey, signature: bytes, content: bytes) -> bytes:
    """Return `content` if `signature` is its signature; else raise CryptoError."""
    if len(signature) != (key.key_size + 7) // 8:
        raise CryptoError("the signature has not the length of the key's modulus")
    try:
        key.verify(signature, content, _SIGNATURE_PADDING, _SHA256)
    except InvalidSignature:
        raise CryptoError("the signature does not match the content") from None
    return content


def encrypt(profile: EncryptionProfile, key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """Encrypt one body; `iv` is used in CBC only, where it stands before the ciphertext."""
    padder = PKCS7(AES_BLOCK_BYTES * 8).padder()
    padded = padder.update(plaintext) + padder.finalize()
    encryptor = _cipher(profile, key, iv).encryptor()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    return iv + ciphertext if profile.aes_mode == "CBC" else ciphertext


def decrypt(profile: EncryptionProfile, key: bytes, ciphertext: bytes) -> bytes:
    """Decrypt one body. Every way to fail raises the same CryptoError."""
    iv_bytes = AES_BLOCK_BYTES if profile.aes_mode == "CBC" else 0
    iv, ciphertext = ciphertext[:iv_bytes], ciphertext[iv_bytes:]
    try:
        decryptor = _cipher(profile, key, iv).decryptor()
        padded = decryptor.update(ciphertext) + decryptor.finalize()
        unpadder = PKCS7(AES_BLOCK_BYTES * 8).unpadder()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        raise CryptoError("the body cannot be decrypted") from None


def wrap_key(profile: EncryptionProfile, key: RSAPublicKey, aes_key: bytes) -> bytes:
    """Encrypt the AES key of one message for the one who is to read it."""
    return key.encrypt(aes_key, _KEY_PADDINGS[profile.rsa_padding])


def unwrap_key(profile: EncryptionProfile, key: RSAPrivateKey, wrapped: bytes) -> bytes:
    """Decrypt the AES key of one message. Every way to fail raises the same CryptoError."""
    try:
        aes_key = key.decrypt(wrapped, _KEY_PADDINGS[profile.rsa_padding])
    except ValueError:
        aes_key = b""
    if len(aes_key) != profile.key_bytes:
        raise CryptoError("the body cannot be decrypted")
    return aes_key


def base64_text(data: bytes) -> str:
    """Write standard base64 with padding, on one line."""
    return base64.b64encode(data).decode("ascii")


def base64_bytes(text: str) -> bytes:
    """Read strict, canonical base64: what `base64_text` would have written, and nothing else."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CryptoError("not base64") from None
    if base64_text(data) != text:
        raise CryptoError("not base64 in its canonical form")
    return data


def url_base64_text(data: bytes) -> str:
    """Write percent-encoded base64, as signatures and wrapped keys travel."""
    return quote(base64_text(data), safe="")


def url_base64_bytes(text: str) -> bytes:
    """Read base64 that may be percent-encoded (a `+` is a plus, never a space)."""
    return base64_bytes(unquote(text) if "%" in text else text)


def rejects_implicitly(key: RSAPrivateKey) -> bool:
    """Whether a broken PKCS#1 v1.5 wrap decrypts to noise instead of failing (OpenSSL 3.2 and later).

    Without that, the time and shape of a failure tell an attacker about the plaintext. The probe is 1
    as a whole number: its padding is wrong under every key.
    """
    probe = (1).to_bytes((key.key_size + 7) // 8, "big")
    try:
        key.decrypt(probe, _KEY_PADDINGS["PKCS1V15"])
    except ValueError:
        return False
    return True


def _cipher(profile: EncryptionProfile, key: bytes, iv: bytes) -> Cipher[modes.ECB] | Cipher[modes.CBC]:
    if profile.aes_mode == "CBC":
        return Cipher(algorithms.AES(key), modes.CBC(iv))
    # ECB is the family's documented practice; the profile, not this line, is the choice.
    return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
