"""Keys and certificates, each made once: RSA pairs for signatures, and small CAs for TLS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from tests.certificates import Authority, private_pem, public_pem


@dataclass(frozen=True)
class Pair:
    """An RSA key, and the files with its private and its public half."""

    key: RSAPrivateKey
    private_file: Path
    public_file: Path


def rsa_pair(directory: Path, name: str) -> Pair:
    """Make an RSA pair and write its files."""
    key = rsa.generate_private_key(65537, 2048)
    private_file, public_file = directory / f"{name}.key.pem", directory / f"{name}.pub.pem"
    private_file.touch(0o600)
    private_file.write_bytes(private_pem(key))
    public_file.write_bytes(public_pem(key.public_key()))
    return Pair(key, private_file, public_file)


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
