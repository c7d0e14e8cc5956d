"""One AlipayHK API as it was agreed at onboarding: where it is, how it is spoken, with which keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from .crypto import EncryptionProfile
from .keys import Keys
from .messages import JSON_CONTENT_TYPE


@dataclass(frozen=True, slots=True)
class Encryption:
    """How the bodies of an endpoint are encrypted."""

    profile: EncryptionProfile = field(default_factory=EncryptionProfile)
    key_version: str = "1"
    """Which of the other side's keys wraps the AES key of what we send."""
    content_type: str = JSON_CONTENT_TYPE
    """The Content-Type of an encrypted body."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One API: what `client.Client.call` needs beside the request itself."""

    api: str
    """Its name in logs and metrics, which is that of the RPC."""
    protocol: str
    """A row of `protocols.PROTOCOLS`."""
    base_url: str
    path: str
    """Path and query, sent and signed byte for byte."""
    client_id: str
    keys: Keys
    idempotent: bool
    """Whether AlipayHK promises that sending the same request again does no harm."""
    encryption: Encryption = field(default_factory=Encryption)
    encrypt_requests: bool = False
    encrypted_answers_only: bool = False
    function: str = ""
    """The envelope's function; header-signed endpoints have none."""
    version: str = ""
    """The envelope's version; header-signed endpoints have none."""
    response_time_window_s: float = 300.0
