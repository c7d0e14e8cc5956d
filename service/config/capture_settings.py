"""The settings of captures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from clients.alipayhk.wire.keys import load_public_key

from . import values
from .declaration import setting
from .files import KeyFile


def _directory(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise ValueError("must be a directory that exists")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError("must be a directory that the gateway may write to")
    return path


def _recipient(text: str) -> KeyFile[RSAPublicKey]:
    path = Path(text)
    return KeyFile(path, load_public_key(path))


# fmt: off
@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """Where exchanges are captured, and for whom."""

    dir: Path | None = setting(_directory, None,
        "Directory for captures of exchanges with AlipayHK; they contain personal data, sealed.")
    recipient_file: KeyFile[RSAPublicKey] | None = setting(_recipient, None,
        "The public key of the person who may open captures: PEM or bare base64 DER.")
    files_max: int = setting(values.integer(1, 10_000), "100",
        "Maximum number of captures; a further one replaces the oldest.")
# fmt: on
