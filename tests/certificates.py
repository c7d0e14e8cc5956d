"""Keys as PEM, and a certificate authority whose certificates pass OpenSSL's strict checks."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = RSAPrivateKey | ec.EllipticCurvePrivateKey
Days = tuple[float, float]
VALID: Days = (-1.0, 30.0)
"""The first and the last day of a valid certificate, counted from now."""


def curve_key() -> ec.EllipticCurvePrivateKey:
    """Make a private key that takes little time."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """Return a private key as PEM (PKCS #8)."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def public_pem(key: RSAPublicKey) -> bytes:
    """Return a public key as PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def of_unknown_version(der: bytes) -> bytes:
    """Return a certificate with version 35; its signature is no longer valid."""
    version, other = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x22"
    assert version in der
    return der.replace(version, other, 1)


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, in files and in bytes."""

    chain_file: Path
    key_file: Path

    @property
    def chain(self) -> bytes:
        """The certificate, PEM."""
        return self.chain_file.read_bytes()

    @property
    def key(self) -> bytes:
        """Its private key, PEM."""
        return self.key_file.read_bytes()


class Authority:
    """A certificate authority."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name, self._key = directory, name, curve_key()
        self.file = directory / f"{name}.ca.pem"
        certificate = (
            self._builder(name, self._key, VALID)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        name: str,
        *sans: str | x509.GeneralName,
        days: Days = VALID,
        without: type[x509.ExtensionType] | None = None,
    ) -> Certificate:
        """Issue a certificate, perhaps without an extension; the form of a SAN gives its type."""
        key = curve_key()
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        names = x509.SubjectAlternativeName([_general_name(san) for san in sans])
        builder = (
            self._builder(name, key, days)
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if without is not None:
            builder._extensions = [one for one in builder._extensions if not isinstance(one.value, without)]
        certificate = builder.sign(self._key, hashes.SHA256())
        chain_file, key_file = (
            self._directory / f"{self._name}.{name}.{kind}.pem" for kind in ("crt", "key")
        )
        chain_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_file.touch(0o600)
        key_file.write_bytes(private_pem(key))
        return Certificate(chain_file, key_file)

    def client_context(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority only."""
        return ssl.create_default_context(cafile=str(self.file))

    def server_context(
        self, *, host: str = "127.0.0.1", common_name: str = "server", **faults: Any
    ) -> ssl.SSLContext:
        """Return the context of a server with a new certificate for this host; `faults` go to `issue`."""
        issued = self.issue(common_name, host, **faults)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.chain_file, issued.key_file)
        return context

    def _builder(self, name: str, key: ec.EllipticCurvePrivateKey, days: Days) -> x509.CertificateBuilder:
        now, public, issuer = datetime.now(UTC), key.public_key(), self._key.public_key()
        return (
            x509.CertificateBuilder(_named(self._name), _named(name), public, x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        )


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(san: str | x509.GeneralName) -> x509.GeneralName:
    if isinstance(san, x509.GeneralName):
        return san
    if "://" in san:
        return x509.UniformResourceIdentifier(san)
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)
