"""The key and certificate files that settings name in tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey


@dataclass(frozen=True)
class KeyRing:
    """The keys of both sides, and their files."""

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
    """A certificate for this machine, its CA, its key, and keys that do not match it."""

    ca: Path
    certificate: Path
    key: Path
    other_key: Path
    encrypted_key: Path
