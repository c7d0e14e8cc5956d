"""The keys and certificates in use, in one holder that can be given others while the gateway runs.

Each attempt at AlipayHK and each TLS handshake reads the holder when it starts, and keeps what it has read.
So a replacement takes effect for the next attempt and for the next connection. Attempts in flight and open
connections finish with the old keys and the old certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clients.alipayhk.wire.keys import Keys


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The certificate that the gateway shows its callers, and the CA of theirs; each as PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    """None if callers need no certificate."""

    @classmethod
    def read(cls, chain: Path, key: Path, client_ca: Path | None) -> ServerCertificate:
        """Read the files; raise OSError."""
        return cls(chain.read_bytes(), key.read_bytes(), client_ca.read_bytes() if client_ca else None)


@dataclass(frozen=True, slots=True)
class Credentials:
    """All keys and certificates of one moment."""

    keys: Mapping[str, Keys]
    """For each API of AlipayHK, by its name."""
    certificate: ServerCertificate | None = None
    """None if the listener has no TLS."""


class Keyring:
    """Holds the credentials in use.

    Reading and replacing are single assignments, so any thread can do them; gRPC reads the certificate in
    a thread of its own.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._current = credentials

    @property
    def current(self) -> Credentials:
        """The credentials in use."""
        return self._current

    def keys_of(self, api: str) -> Keys:
        """Return the keys in use for an API."""
        return self._current.keys[api]

    def replace(self, credentials: Credentials) -> None:
        """Use other credentials from now on; raise ValueError if only a restart could use them."""
        if credentials.keys.keys() != self._current.keys.keys():
            raise ValueError("the new keys are not for the same APIs of AlipayHK")
        if _modes(credentials.certificate) != _modes(self._current.certificate):
            raise ValueError("TLS and client certificates cannot be turned on or off without a restart")
        self._current = credentials


def _modes(certificate: ServerCertificate | None) -> tuple[bool, bool]:
    """Return whether the listener has TLS, and whether callers need a certificate."""
    return certificate is not None, certificate is not None and certificate.client_ca is not None
