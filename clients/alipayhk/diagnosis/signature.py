"""Find the key that made a signature, and what the signature says.

The public key of the signer turns an RSA signature with PKCS#1 v1.5 padding back into the padded digest of
the signed content: https://www.rfc-editor.org/rfc/rfc8017#section-8.2.2. Another key turns it into bytes
without padding. So a wrong key and wrong content can be told apart, and a content is known to be the
signed one if its digest is the recovered one. The key opens the padding PSS too, but that contains only the
hash of a salt and the digest: each content is verified against it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Final
from urllib.parse import unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ..wire import crypto, lenient
from ..wire.crypto import CryptoError
from .causes import Cause

_DIGEST_INFOS: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "md5": bytes.fromhex("3020300c06082a864886f70d020505000410"),
    "sha224": bytes.fromhex("302d300d06096086480165030402040500041c"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
"""The bytes before the digest: https://www.rfc-editor.org/rfc/rfc8017#section-9.2"""
_SEARCHED: Final = ("sha256", "sha1", "md5")
_CAUSES: Final = {"sha1": (Cause.SHA1, "is made with SHA-1"), "md5": (Cause.MD5, "is made with MD5")}
_PSS_TRAILER: Final = 0xBC
_UNQUOTES_MAX: Final = 3
_BREAKS: Final = re.compile(r"[\r\n\t]+ *")

Clause = tuple[Cause, str]
"""A cause, and what it says of the signature, as in "The signature …"."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A signature, read in one way."""

    data: bytes
    clauses: tuple[Clause, ...] = ()
    """Empty if the receiver reads it this way."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A signature that a known key made."""

    version: str
    clauses: tuple[Clause, ...]
    is_signed: Callable[[bytes], bool] = field(repr=False)
    """Whether the signature covers a content."""
    digest: bytes | None = None
    """The signed digest; None if the padding does not give it."""
    algorithm: str = ""
    """The hash function's name, such as sha256; empty if it is not known."""


def decodings(text: str, *, leniently: bool) -> Iterator[Decoded]:
    """Yield the ways to read a signature's text as base64, the receiver's own first."""
    found: set[bytes] = set()
    try:
        data = crypto.url_base64_bytes(lenient.base64_text(text) if leniently else text)
    except CryptoError:
        pass
    else:
        found.add(data)
        yield Decoded(data)
    for plus in ("+", ""):
        try:
            data, faults = _tolerant(text, plus)
        except (binascii.Error, ValueError):
            continue
        if data and data not in found:
            found.add(data)
            yield Decoded(data, ((Cause.SIGNATURE_ENCODING, f"is {' and '.join(faults) or 'not base64'}"),))


def _tolerant(text: str, plus: str) -> tuple[bytes, list[str]]:
    faults, times = list[str](), 0
    while "%" in text and times < _UNQUOTES_MAX:
        text, times = unquote(text), times + 1
    if times > 1:
        faults.append("percent-encoded twice")
    broken = _BREAKS.sub("", text.strip())
    if broken != text:
        faults.append("written on several lines")
    if " " in broken:
        faults.append("written with spaces" + (" instead of +" if plus else ""))
    if "-" in broken or "_" in broken:
        faults.append("base64url instead of base64")
    letters = broken.replace(" ", plus).replace("-", "+").replace("_", "/").rstrip("=")
    padded = letters + "=" * (-len(letters) % 4)
    if not faults and len(padded) != len(broken):
        faults.append("written without its padding =")
    return base64.b64decode(padded, validate=True), faults


def recovered(ways: list[Decoded], keys: Mapping[str, RSAPublicKey]) -> Recovered | None:
    """Return the first way and key that give a padded digest; None if there is none."""
    for way in ways:
        for version, key in keys.items():
            info = _digest_info(key, way.data)
            if info is not None:
                return _recovered(version, way, info)
    return None


def _recovered(version: str, way: Decoded, info: bytes) -> Recovered:
    for name, prefix in _DIGEST_INFOS.items():
        digest = info.removeprefix(prefix)
        if digest != info:
            clauses = way.clauses + ((_CAUSES[name],) if name in _CAUSES else ())
            is_signed = _compares(name, digest) if name in _SEARCHED else _never
            return Recovered(version, clauses, is_signed, digest, name)
    return Recovered(version, way.clauses, _never)


def _never(_: bytes) -> bool:
    return False


def _compares(name: str, digest: bytes) -> Callable[[bytes], bool]:
    return lambda content: _hash(name, content) == digest


def pss_signatures(ways: list[Decoded], keys: Mapping[str, RSAPublicKey]) -> Iterator[Recovered]:
    """Yield a signature for each way, key and pair of hash functions that give the padding PSS."""
    for way, (version, key) in product(ways, keys.items()):
        for name, mask in product(("sha256", "sha1"), repeat=2):
            opened = _opened_pss(key, way.data, name, mask)
            if opened is not None:
                pss: Clause = (Cause.PSS, "is made with the padding PSS")
                clauses = (*way.clauses, pss, *((_CAUSES[name],) if name in _CAUSES else ()))
                yield Recovered(version, clauses, _compares_salted(name, *opened), algorithm="pss")


def _compares_salted(name: str, salt: bytes, salted_hash: bytes) -> Callable[[bytes], bool]:
    return lambda content: _hash(name, bytes(8) + _hash(name, content) + salt) == salted_hash


def _opened_pss(key: RSAPublicKey, signature: bytes, name: str, mask: str) -> tuple[bytes, bytes] | None:
    """Return the salt, and the hash of salt and content; None if the padding is not PSS.

    The steps before the content is needed: https://www.rfc-editor.org/rfc/rfc8017#section-9.1.2
    """
    numbers, bits = key.public_numbers(), key.key_size - 1
    opened = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n)
    if opened % 256 != _PSS_TRAILER or opened.bit_length() > bits:
        return None
    data = opened.to_bytes((bits + 7) // 8, "big")
    hash_at = len(data) - len(_hash(name, b"")) - 1
    salted_hash = data[hash_at:-1]
    blocks = (_hash(mask, salted_hash + at.to_bytes(4, "big")) for at in range(hash_at // 16 + 1))
    masking = b"".join(blocks)[:hash_at]
    block = int.from_bytes(data[:hash_at], "big") ^ int.from_bytes(masking, "big")
    salted = (block % (1 << bits - 8 * (len(data) - hash_at))).to_bytes(hash_at, "big").lstrip(b"\0")
    return (salted[1:], salted_hash) if salted[:1] == b"\1" else None


def _hash(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data, usedforsecurity=False).digest()


def _digest_info(key: RSAPublicKey, signature: bytes) -> bytes | None:
    try:
        return key.recover_data_from_signature(signature, padding.PKCS1v15(), None)
    except (InvalidSignature, ValueError):
        return None
