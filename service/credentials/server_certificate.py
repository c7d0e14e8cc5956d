"""The certificate of the gRPC listener."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The certificate that the gateway shows its callers, and the CA of theirs; each as PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    """None if callers need no certificate."""
