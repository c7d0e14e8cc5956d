"""Read the certificates in a PEM file, and find what keeps callers from accepting our own."""

from __future__ import annotations

from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..credentials.server_certificate import ServerCertificate
from .files import PemFile

BITS_MIN: Final = 2048
_MARK: Final = b"-----BEGIN CERTIFICATE-----"
Kind = TypeVar("Kind", bound=x509.ExtensionType)
_SERVER: Final = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_USE: Final = f"use RSA with at least {BITS_MIN} bits, or ECDSA with P-256 or P-384"


def certificates_in(data: bytes) -> list[x509.Certificate]:
    """Return the certificates in PEM in their order; none if one of them cannot be read."""
    try:
        certificates = x509.load_pem_x509_certificates(data)
        for each in certificates:  # these are parsed when they are read
            _ = each.issuer, each.subject, each.not_valid_before_utc, each.not_valid_after_utc
        return certificates
    except Exception:  # noqa: BLE001  (x509 raises many types, such as KeyError for an unknown type of text)
        return []


def expiry_times(certificate: ServerCertificate | None, upstream_ca: PemFile | None) -> dict[str, float]:
    """Return when the certificates of each setting expire, in seconds since 1970.

    The first one of our chain to expire counts, and the first CA of the callers. Of AlipayHK's CAs the last
    one counts: a system's bundle can contain old ones.
    """
    times: dict[str, float] = {}
    pems = (certificate.chain, certificate.client_ca) if certificate else ()
    for setting, pem in zip(("TLS_CERT_FILE", "TLS_CLIENT_CA_FILE"), pems, strict=False):
        if found := certificates_in(pem or b""):
            times[setting] = min(each.not_valid_after_utc.timestamp() for each in found)
    if upstream_ca is not None and (found := certificates_in(upstream_ca.data)):
        times["UPSTREAM_CA_FILE"] = max(each.not_valid_after_utc.timestamp() for each in found)
    return times


def chain_fault(data: bytes, *, is_loaded: bool) -> str | None:
    """Return why no caller would accept this server certificate, else None.

    `is_loaded` means that OpenSSL accepts it; it reads some certificates that `cryptography` refuses.
    Names and times are not checked: they depend on the caller and on the clock.
    """
    certificates = certificates_in(data)
    if not certificates:
        return None if is_loaded or _MARK not in data else "contains a damaged certificate"
    return _key_fault(certificates[0]) or _usage_fault(certificates[0]) or _gap(certificates)


def extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    """Return an extension of a certificate; None if it has none, or none that can be read."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except Exception:  # noqa: BLE001  (x509 raises many types, such as TypeError for an empty TLSFeature)
        return None


def curve_of(certificate: x509.Certificate) -> str | None:
    """Return the name of the curve of a certificate's key; None for another kind of key."""
    key = certificate.public_key()
    return key.curve.name if isinstance(key, EllipticCurvePublicKey) else None


def _key_fault(certificate: x509.Certificate) -> str | None:
    try:
        key = certificate.public_key()
    except Exception:  # noqa: BLE001  (an unknown algorithm or curve has several types of exceptions)
        return f"has a key of a kind that callers do not accept: {_USE}"
    if isinstance(key, RSAPublicKey):
        small = key.key_size < BITS_MIN
        return f"has an RSA key of {key.key_size} bits, which is too small: {_USE}" if small else None
    if isinstance(key, EllipticCurvePublicKey):
        known = isinstance(key.curve, SECP256R1 | SECP384R1 | SECP521R1)
        return (
            None
            if known
            else f"has a key on the curve {key.curve.name}, which callers do not accept: {_USE}"
        )
    kind = type(key).__name__.removesuffix("PublicKey").lstrip("_")
    return f"has an {kind} key, which gRPC's callers do not accept: {_USE}"


def _usage_fault(certificate: x509.Certificate) -> str | None:
    usage, purposes = extension(certificate, x509.KeyUsage), extension(certificate, x509.ExtendedKeyUsage)
    if usage is not None and not usage.digital_signature:
        return "is incomplete: its key usage lacks digitalSignature, which TLS needs"
    if purposes is not None and _SERVER.isdisjoint(purposes):
        return "is not for a server: its extended key usage lacks serverAuth"
    return None


def _gap(certificates: list[x509.Certificate]) -> str | None:
    """Return that the issuer of the first certificate is missing between it and the others."""
    first, *others = certificates
    if not others or first.issuer in {certificate.subject for certificate in certificates}:
        return None
    return (
        "is incomplete: it has several certificates, but not the one that issued the first: "
        "add it after the first"
    )
