"""One AlipayHK API as agreed at onboarding: its address, its wire protocol and the keys of both sides."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol

from .crypto import EncryptionProfile
from .keys import Keys
from .messages import (
    JSON_CONTENT_TYPE,
    PlainRequest,
    PlainResponse,
    RawRequest,
    RawResponse,
    SealedRequest,
    SealedResponse,
    VerifiedRequest,
    VerifiedResponse,
)


@dataclass(frozen=True, slots=True)
class Encryption:
    """How a protocol encrypts bodies."""

    profile: EncryptionProfile = field(default_factory=EncryptionProfile)
    key_version: str = "1"
    """Version of the other side's public key that wraps the AES key of each message we send."""
    content_type: str = JSON_CONTENT_TYPE
    """The Content-Type of an encrypted body."""
    random_bytes: Callable[[int], bytes] = field(default=os.urandom, compare=False, repr=False)
    """Source of AES keys and IVs."""


class WireProtocol(Protocol):
    """A wire protocol with its own settings: it turns business content into bytes, and bytes into content.

    A client uses `seal_request` and `unseal_response`. AlipayHK's side, which the sandbox plays, uses
    `unseal_request` and `seal_response`. Each side has its own `Endpoint`. A protocol does no I/O and reads
    no clock.
    """

    name: ClassVar[str]
    """As exchanges and captures write it."""

    @property
    def encryption(self) -> Encryption | None:
        """How bodies are encrypted; None if the protocol has no encryption."""

    @property
    def required_head(self) -> Mapping[str, str]:
        """Members of a request's head that always have the same value, with that value."""

    def seal_request(self, endpoint: Endpoint, request: PlainRequest) -> SealedRequest:
        """Encrypt the request if the protocol is set to do so, and sign it."""

    def unseal_response(
        self, endpoint: Endpoint, request: PlainRequest, raw: RawResponse, *, now: datetime
    ) -> VerifiedResponse:
        """Verify the received bytes, decrypt and read them; raise an error of `errors` otherwise.

        `request` is what was sealed, and `now` is when the response was received.
        """

    def unseal_request(self, endpoint: Endpoint, raw: RawRequest) -> VerifiedRequest:
        """Verify, decrypt and read a request; raise SignatureInvalid or Malformed otherwise."""

    def seal_response(
        self, endpoint: Endpoint, request: VerifiedRequest, response: PlainResponse
    ) -> SealedResponse:
        """Encrypt the response if the request was encrypted, and sign it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One API: everything that `client.Client.call` needs except the request."""

    api: str
    """The name of the RPC that calls this API, used in logs and metrics."""
    protocol: WireProtocol
    base_url: str
    path: str
    """Path and query, sent and signed byte for byte."""
    client_id: str
    keys: Keys
    idempotent: bool
    """Whether AlipayHK promises that sending the same request again has no further effect."""
    response_time_window_s: float = 300.0
    """Maximum clock skew allowed for a response's timestamp, in seconds."""
