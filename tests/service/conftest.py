"""Keys and certificates for the whole session, the required settings, and a log in memory."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.x509.oid import NameOID

from clients.alipayhk.wire.keys import Keys, public_der
from service.telemetry.logs import set_up_logs
from tests.service.fakes import LogStream
from tests.service.files import KeyRing, TlsFiles


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[LogStream]:
    """Write the log to memory, and restore the configuration of logging afterwards."""
    stream, root = LogStream(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    set_up_logs("debug", stream)
    root.handlers[:] = handlers
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """Return our key, AlipayHK's and another one, in files of every accepted kind."""
    directory = tmp_path_factory.mktemp("keys")
    ours, theirs, other = (rsa.generate_private_key(65537, 2048) for _ in range(3))
    return KeyRing(
        ours=ours,
        theirs=theirs,
        other=other,
        private=_pem(directory / "ours.pem", ours),
        other_private=_pem(directory / "other.pem", other),
        encrypted=_pem(directory / "locked.pem", ours, passphrase=b"passphrase"),
        public=_public(directory / "theirs.pub.pem", theirs),
        other_public=_public(directory / "other.pub.pem", other),
        public_base64=_write(
            directory / "theirs.b64", base64.b64encode(public_der(theirs.public_key())) + b"\n"
        ),
    )


@pytest.fixture(scope="session")
def keys(ring: KeyRing) -> Keys:
    """Return the keys of an endpoint."""
    return Keys(ring.ours, "1", {"1": ring.theirs.public_key()}, {"1": ring.ours})


@pytest.fixture
def environ(ring: KeyRing) -> dict[str, str]:
    """Return the required settings only."""
    return {
        "ALIPAYHK_BASE_URL": "https://open.alipay.hk",
        "ALIPAYHK_CLIENT_ID": "4Q5Y8W0WSG45P907917",
        "ALIPAYHK_SIGNING_KEY_FILE": str(ring.private),
        "ALIPAYHK_PUBLIC_KEY_FILES": f"1={ring.public}",
        "ALIPAYHK_SYNC_LINKAGE_PATH": "/sync",
        "ALIPAYHK_BIND_ACCOUNT_PATH": "/bind",
    }


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Return a CA, a certificate for 127.0.0.1 and localhost, its key, and keys that do not match it."""
    return _tls_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def other_tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Return the same from another CA."""
    return _tls_files(tmp_path_factory.mktemp("other-tls"))


def _tls_files(directory: Path) -> TlsFiles:
    ca_key, key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    ca = _certificate("test CA", ca_key, "test CA", ca_key, is_ca=True)
    leaf = _certificate("localhost", key, "test CA", ca_key, is_ca=False)
    return TlsFiles(
        ca=_write(directory / "ca.pem", ca.public_bytes(serialization.Encoding.PEM)),
        certificate=_write(directory / "leaf.pem", leaf.public_bytes(serialization.Encoding.PEM)),
        key=_pem(directory / "leaf.key", key),
        other_key=_pem(directory / "other.key", other),
        encrypted_key=_pem(directory / "locked.key", key, passphrase=b"passphrase"),
    )


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _pem(
    path: Path, key: RSAPrivateKey | ec.EllipticCurvePrivateKey, *, passphrase: bytes | None = None
) -> Path:
    encryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    form = serialization.PrivateFormat.PKCS8
    path.touch(0o600)
    return _write(path, key.private_bytes(serialization.Encoding.PEM, form, encryption))


def _public(path: Path, key: RSAPrivateKey) -> Path:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return _write(path, key.public_key().public_bytes(serialization.Encoding.PEM, form))


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.UniformResourceIdentifier("spiffe://corp/loyalty"),
        x509.IPAddress(IPv4Address("127.0.0.1")),
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
