"""The cryptography of both wire protocols: pure functions over bytes.

Signatures are RSASSA-PKCS1-v1_5 with SHA-256: https://docs.alipay.hk/alipayhkdocs/hk/gcmc/sig and
https://docs.alipay.hk/alipayhkdocs/hk/a_points_display/pre_sign_string_v1. Bodies are encrypted with AES
and PKCS#7 padding, and the AES key of each message with RSA:
https://docs.alipay.hk/alipayhkdocs/hk/auto_earn/Encrypt_and_decrypt
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote

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
    """Data cannot be verified, decoded or decrypted. The message contains none of the data."""


@dataclass(frozen=True, slots=True)
class EncryptionProfile:
    """The parameters of encryption, agreed with AlipayHK at onboarding: its pages do not print them.

    The default is what the SDKs of the gateway family use. ECB shows an observer which 16-byte blocks of
    one message are equal. Each message has a new key, so nothing shows across messages.
    """

    aes_mode: AesMode = "ECB"
    aes_bits: int = 256
    rsa_padding: RsaPadding = "PKCS1V15"

    @property
    def key_bytes(self) -> int:
        """The length of an AES key in bytes."""
        return self.aes_bits // 8


def sign(key: RSAPrivateKey, content: bytes) -> bytes:
    """Return the signature of `content`."""
    return key.sign(content, _SIGNATURE_PADDING, _SHA256)


def verify(key: RSAPublicKey, signature: bytes, content: bytes) -> bytes:
    """Return `content` if `signature` is its signature; otherwise raise CryptoError."""
    if len(signature) != (key.key_size + 7) // 8:
        raise CryptoError("the signature does not have the length of the key's modulus")
    try:
        key.verify(signature, content, _SIGNATURE_PADDING, _SHA256)
    except InvalidSignature:
        raise CryptoError("the signature does not match the content") from None
    return content


def encrypt(profile: EncryptionProfile, key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """Encrypt one body; `iv` (16 bytes) is used in CBC only, where the result is IV and ciphertext."""
    padder = PKCS7(AES_BLOCK_BYTES * 8).padder()
    padded = padder.update(plaintext) + padder.finalize()
    encryptor = _cipher(profile, key, iv).encryptor()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    return iv + ciphertext if profile.aes_mode == "CBC" else ciphertext


def decrypt(profile: EncryptionProfile, key: bytes, ciphertext: bytes) -> bytes:
    """Decrypt one body. Every failure raises the same CryptoError, so that it reveals nothing."""
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
    """Encrypt the AES key of one message with the recipient's public key."""
    return key.encrypt(aes_key, _KEY_PADDINGS[profile.rsa_padding])


def unwrap_key(profile: EncryptionProfile, key: RSAPrivateKey, wrapped: bytes) -> bytes:
    """Decrypt the AES key of one message. Every failure raises the same CryptoError."""
    try:
        aes_key = key.decrypt(wrapped, _KEY_PADDINGS[profile.rsa_padding])
    except ValueError:
        aes_key = b""
    if len(aes_key) != profile.key_bytes:
        raise CryptoError("the body cannot be decrypted")
    return aes_key


def base64_text(data: bytes) -> str:
    """Encode as standard base64 with padding, on one line."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def base64_bytes(text: str) -> bytes:
    """Decode canonical base64, exactly as `base64_text` writes it; otherwise raise CryptoError."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise CryptoError("not base64") from None
    if base64_text(data) != text:
        raise CryptoError("not base64 in its canonical form")
    return data


def url_base64_text(data: bytes) -> str:
    """Encode as percent-encoded base64: the form of signatures and wrapped keys on the wire."""
    # urllib's quote does this too, with a call for each character.
    return base64_text(data).replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")


def url_base64_bytes(text: str) -> bytes:
    """Decode base64 that may be percent-encoded. A `+` is a plus, never a space."""
    # The usual escapes first: none of these characters can become part of another escape.
    text = text.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")
    return base64_bytes(unquote(text) if "%" in text else text)


def rejects_implicitly(key: RSAPrivateKey) -> bool:
    """Return whether a wrong PKCS#1 v1.5 padding decrypts to random bytes instead of an error.

    OpenSSL 3.2 and later do so ("implicit rejection"). Otherwise an attacker can learn about the plaintext
    from errors and their timing. The probe is the integer 1, whose padding is wrong under every key.
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
    # The profile chooses ECB; it is what the gateway family uses.
    return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
