"""The keys that a diagnosis needs, from flags or from the settings."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from clients.alipayhk.diagnosis.claims import Decrypt
from clients.alipayhk.diagnosis.paths import host_of
from clients.alipayhk.diagnosis.protocol_row import Known
from clients.alipayhk.wire.crypto import AesMode, CryptoError, EncryptionProfile, RsaPadding
from clients.alipayhk.wire.endpoint import Encryption, Endpoint
from clients.alipayhk.wire.keys import KeyFileError, Keys, read_key
from clients.alipayhk.wire.protocols.header_signed import decrypt_body
from clients.alipayhk.wire.strict_json import JsonError, read_object

from ...config.settings import read_from_environment
from ...config.values import public_key_files
from ...upstream import endpoints_of
from .exchange import PROTOCOLS, Exchange, Unusable

_MODES: Final[tuple[AesMode, ...]] = ("ECB", "CBC")
_PADDINGS: Final[tuple[RsaPadding, ...]] = ("PKCS1V15", "OAEP_SHA256")
_PROFILES: Final = tuple(
    Encryption(EncryptionProfile(mode, bits, padding))
    for mode, bits, padding in product(_MODES, (256, 128), _PADDINGS)
)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known beside the message."""

    known: Known
    decrypt: Decrypt
    path: str | None = None
    """The path of the API in the settings."""


def knowledge_of(args: argparse.Namespace, exchange: Exchange) -> Knowledge:
    """Read the keys for a message; raise Unusable, or SettingsError of the settings."""
    endpoint = _endpoint(args.config, exchange.protocol) if args.config else None
    own = _own_key(args.own_key_file)
    private = [own] if isinstance(own, RSAPrivateKey) else []
    keys = _given_keys(args.public_key_files)
    own_public = own.public_key() if isinstance(own, RSAPrivateKey) else own
    if endpoint is None:
        return Knowledge(Known(keys, own_public), partial(_decrypted, private))
    ours = endpoint.keys.signing.public_key()
    if exchange.message == "request":
        keys = keys or {endpoint.keys.signing_version: ours}
    else:
        keys, own_public = keys or endpoint.keys.verifying, own_public or ours
        private += endpoint.keys.decrypting.values()
    known = Known(keys, own_public, (endpoint.client_id,), (host_of(endpoint.base_url),))
    return Knowledge(known, partial(_decrypted, private), endpoint.path)


def _endpoint(config_file: Path, protocol: str | None) -> Endpoint:
    """Return the API in the settings that uses a protocol."""
    endpoints = endpoints_of(read_from_environment(config_file)).values()
    by_protocol = {each.protocol.name: each for each in endpoints}
    return by_protocol[protocol or PROTOCOLS[0]]


def _given_keys(text: str | None) -> Mapping[str, RSAPublicKey]:
    if text is None:
        return {}
    try:
        return {version: file.key for version, file in public_key_files(text).items()}
    except ValueError as error:
        raise Unusable(f"--public-key-files {error}.") from None


def _own_key(file: Path | None) -> RSAPrivateKey | RSAPublicKey | None:
    if file is None:
        return None
    try:
        return read_key(file)
    except KeyFileError as error:
        raise Unusable(f"--own-key-file {error}.") from None


def _decrypted(private: list[RSAPrivateKey], encrypt_header: str, body: bytes) -> bytes | None:
    """Decrypt with the first key and profile that give a JSON object; None if there is none."""
    for key, encryption in product(private, _PROFILES):
        # The header may name any version: a message shows itself whether the key is the right one.
        keys = Keys(key, "", {}, defaultdict(lambda key=key: key))  # type: ignore[misc]
        try:
            plain = decrypt_body(encryption, keys, encrypt_header, body, leniently=True)
            read_object(plain, huge_as_infinite=True)
        except (CryptoError, JsonError):
            continue
        return plain
    return None
