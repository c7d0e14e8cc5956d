"""One protocol, as diagnosis and the sandbox use it: everything except sealing and unsealing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ..wire.messages import SealedResponse, VerifiedRequest
from .claims import Claim, Decrypt, Message
from .drafts import Hypothesis

Edit = Callable[[str], str]
"""Takes the text of a signature, percent-encoded base64, and returns another text."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the receiver of a message knows."""

    verifying: Mapping[str, RSAPublicKey] = field(repr=False)
    """The signer's public keys by version, newest first."""
    own: RSAPublicKey | None = field(default=None, repr=False)
    """The receiver's own public key."""
    client_ids: tuple[str, ...] = ()
    """Client ids that a signer may confuse with the message's."""
    hosts: tuple[str, ...] = ()
    """Host and port of the API."""


@dataclass(frozen=True, slots=True)
class ProtocolRow:
    """One protocol."""

    claim: Callable[[Message, Decrypt], Claim]
    """Read a message before its signature is verified."""
    hypotheses: Callable[[Claim, Known], tuple[Hypothesis, ...]]
    """Return the mistakes that signers make, in the order in which they are applied to a draft."""
    with_signatures: Callable[[SealedResponse, tuple[Edit, ...]], SealedResponse]
    """Replace a response's signature by one signature for each edit, in order."""
    to_another_request: Callable[[VerifiedRequest], VerifiedRequest]
    """Change what a response repeats of its request, so that it does not belong to the request."""
    has_encryption: bool
    names_key: bool
    """Whether a message names the algorithm and the key version of its signature."""
