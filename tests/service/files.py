"""The files that settings name, as the tests know them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey


@dataclass(frozen=True)
class KeyRing:
    """Both sides' keys, and files of them."""

    ours: RSAPrivateKey = field(repr=False)
    theirs: RSAPrivateKey = field(repr=False)
    other: RSAPrivateKey = field(repr=False)
    private: Path
    other_private: Path
    encrypted: Path
    public: Path
    other_public: Path
    public_base64: Path


@dataclass(frozen=True)
class TlsFiles:
    """A certificate of this machine, and what goes with it."""

    ca: Path
    certificate: Path
    key: Path
    other_key: Path
    encrypted_key: Path
