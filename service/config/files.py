"""Files that settings name, with what was read from them. A later change of a file changes no setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from clients.alipayhk.wire.keys import Key, fingerprint, key_der, key_of_der


@dataclass(frozen=True, slots=True)
class KeyFile(Generic[Key]):
    """A key and its file."""

    path: Path
    key: Key = field(repr=False, compare=False)
    sha256: str = field(init=False)
    """The fingerprint of its public half."""

    def __post_init__(self) -> None:
        """Make the fingerprint."""
        object.__setattr__(self, "sha256", fingerprint(self.key))

    def __reduce__(self) -> tuple[Callable[[Path, bytes], object], tuple[Path, bytes]]:
        """Pickle the key as DER."""
        return _of_der, (self.path, key_der(self.key))


def _of_der(path: Path, der: bytes) -> object:
    key: Any = key_of_der(der)
    return KeyFile(path, key)


def path_of(file: SecretFile | PemFile | None) -> Path | None:
    """Return the path of a file that need not be set."""
    return file.path if file else None


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file with a secret, and the digest of its content, which shows a later change."""

    path: Path
    sha256: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PemFile:
    """A PEM file with its contents."""

    path: Path
    data: bytes = field(repr=False)
