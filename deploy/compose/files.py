"""Create the keys, certificates and passwords of deploy/compose.yaml, unless they are there."""

from __future__ import annotations

import base64
import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

GATEWAY_USER: Final = 65532
DAYS: Final = 365
CERTIFICATES: Final = {
    "sandbox": ("sandbox", "localhost"),
    "gateway": ("gateway", "localhost"),
    "caller": ("caller.internal",),
}
READABLE_BY_ALL: Final = {"db-password", "caller.key"}
"""PostgreSQL's user reads the first one, and the user of this machine the other one."""
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def private_pem(key: PrivateKey) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def named(name: str) -> x509.Name:
    """Return a subject or an issuer."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificates() -> dict[str, bytes]:
    """Return a CA, and the certificates and keys that it issues."""
    ca_key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)

    def issued(subject: str, key: ec.EllipticCurvePrivateKey, *names: str) -> bytes:
        builder = (
            x509.CertificateBuilder(named("compose CA"), named(subject), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=DAYS))
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False
            )
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)

    files = {"ca.crt": issued("compose CA", ca_key)}
    for subject, names in CERTIFICATES.items():
        key = ec.generate_private_key(ec.SECP256R1())
        files |= {f"{subject}.crt": issued(subject, key, *names), f"{subject}.key": private_pem(key)}
    return files


def files() -> dict[str, bytes]:
    """Return the contents of all files by name."""
    contents = certificates()
    for side in ("signing", "alipayhk"):
        key = rsa.generate_private_key(65537, 2048)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        contents |= {f"{side}.key.pem": private_pem(key), f"{side}.pub.pem": public}
    password = secrets.token_urlsafe(24)
    contents["db-password"] = password.encode()
    contents["pgpass"] = f"*:*:*:gateway:{password}\n".encode()
    contents["ledger.key"] = base64.b64encode(secrets.token_bytes(32))
    return contents


def main(directory: Path) -> None:
    """Write the files; the last one shows that all are there."""
    if (directory / "ledger.key").exists():
        return
    for name, content in files().items():
        public = name.endswith((".crt", ".pub.pem")) or name in READABLE_BY_ALL
        (file := directory / name).write_bytes(content)
        file.chmod(0o644 if public else 0o600)
        if os.geteuid() == 0:
            os.chown(file, GATEWAY_USER, GATEWAY_USER)
    if os.geteuid() == 0:
        # The gateway writes next to the ledger's key which ledgers the key has.
        os.chown(directory, GATEWAY_USER, GATEWAY_USER)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
