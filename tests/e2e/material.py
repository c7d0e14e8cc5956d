"""Keys and certificates, each made once: RSA pairs for signatures, and small CAs for TLS."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def pem(key: RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM (PKCS #8)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@dataclass(frozen=True)
class Pair:
    """An RSA key, and the files with its private and its public half."""

    key: RSAPrivateKey
    private_file: Path
    public_file: Path


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


def rsa_pair(directory: Path, name: str, bits: int = 2048) -> Pair:
    """Make an RSA pair and write its files."""
    key = rsa.generate_private_key(65537, bits)
    private_file, public_file = directory / f"{name}.key.pem", directory / f"{name}.pub.pem"
    private_file.touch(0o600)
    private_file.write_bytes(pem(key))
    public_file.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return Pair(key, private_file, public_file)


class Authority:
    """A CA for tests."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}.ca.pem"
        certificate = (
            self._builder(self._subject, self._key, days=(-1, 30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *sans: str | x509.GeneralName, days: tuple[float, float] = (-1.0, 30.0)
    ) -> Certificate:
        """Issue a certificate, valid in a range of days from now; the form of a name gives its type."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            self._builder(subject, key, days=days)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(san) for san in sans]), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        issued = Certificate(
            self._directory / f"{self._name}.{name}.crt.pem",
            self._directory / f"{self._name}.{name}.key.pem",
        )
        issued.chain_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        issued.key_file.touch(0o600)
        issued.key_file.write_bytes(pem(key))
        return issued

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: tuple[float, float]
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
        )


def _general_name(san: str | x509.GeneralName) -> x509.GeneralName:
    if isinstance(san, x509.GeneralName):
        return san
    if "://" in san:
        return x509.UniformResourceIdentifier(san)
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)


class Material:
    """Keys and CAs of both sides; each is made on its first use."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @cached_property
    def ours(self) -> Pair:
        """The gateway's key."""
        return rsa_pair(self.directory, "ours")

    @cached_property
    def ours_for_bills(self) -> Pair:
        """The gateway's key for BindAccount, if that API is a separate product with its own key."""
        return rsa_pair(self.directory, "ours-for-bills")

    @cached_property
    def theirs(self) -> Pair:
        """AlipayHK's key."""
        return rsa_pair(self.directory, "theirs")

    @cached_property
    def theirs_next(self) -> Pair:
        """AlipayHK's next key."""
        return rsa_pair(self.directory, "theirs-next")

    @cached_property
    def unknown_key(self) -> Pair:
        """A key that neither side has configured."""
        return rsa_pair(self.directory, "unknown")

    @cached_property
    def upstream_ca(self) -> Authority:
        """The CA of AlipayHK's certificates."""
        return Authority(self.directory, "upstream")

    @cached_property
    def callers_ca(self) -> Authority:
        """The CA of the certificates of callers and of the gateway."""
        return Authority(self.directory, "callers")

    @cached_property
    def foreign_ca(self) -> Authority:
        """A CA that neither side trusts."""
        return Authority(self.directory, "foreign")
