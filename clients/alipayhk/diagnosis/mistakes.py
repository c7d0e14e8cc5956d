"""Find out what a wrong signature covers, and describe each protocol to the sandbox and to diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ..wire import crypto
from ..wire.crypto import CryptoError
from ..wire.endpoint import Endpoint
from ..wire.messages import RawRequest, SealedResponse, VerifiedRequest
from .claims import Claim

Guess = tuple[str, bytes]
"""A common mistake as a sentence, and the content that the signer signs when making it."""
Edit = Callable[[str], str]
"""Takes the text of a signature, percent-encoded base64, and returns another text."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One protocol, as diagnosis and the sandbox use it: everything except sealing and unsealing."""

    claim: Callable[[Endpoint, RawRequest], Claim]
    """Read a request before its signature is verified."""
    guesses: Callable[[RawRequest, Claim], Iterator[Guess]]
    """Yield the mistakes to look for, in order."""
    with_signatures: Callable[[SealedResponse, tuple[Edit, ...]], SealedResponse]
    """Replace a response's signature by one signature for each edit, in order."""
    to_another_request: Callable[[VerifiedRequest], VerifiedRequest]
    """Change what a response repeats of its request, so that it does not belong to the request."""
    has_encryption: bool
    names_key: bool
    """Whether a message names the algorithm and the key version of its signature."""


def mistake(endpoint: Endpoint, claim: Claim, guesses: Iterable[Guess]) -> str:
    """Return a sentence about what the signature covers, or nothing if no guess is right."""
    try:
        signature = crypto.url_base64_bytes(claim.signature)
    except CryptoError:
        return ""
    keys = endpoint.keys.verifying
    named = claim.key_version or next(iter(keys))
    for version, key in keys.items():
        if version != named and _is_signature(key, signature, claim.content):
            return f"it is made with the key of keyVersion {version}"
    for sentence, content in guesses:
        if any(_is_signature(key, signature, content) for key in keys.values()):
            return sentence
    return ""


def _is_signature(key: RSAPublicKey, signature: bytes, content: bytes) -> bool:
    try:
        crypto.verify(key, signature, content)
    except CryptoError:
        return False
    return True
