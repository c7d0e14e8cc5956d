"""What the gateway starts with, although it breaks calls, will break them, shows a secret or has no effect.

These are warnings and not faults, because a restart must not turn them into an outage: a wrong clock makes
valid certificates look expired, and a key that others can read still works.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.x509.oid import AuthorityInformationAccessOID

from ..ledger.opening import secrets_of
from .certificate_files import certificates_in, curve_of, extension
from .files import KeyFile, path_of
from .settings import Settings

ABOUT_TO_EXPIRE: Final = timedelta(days=14)


class Breaking(str):
    """The sentence of a risk that breaks calls already."""

    __slots__ = ()


def risks_of(settings: Settings, now: datetime) -> list[str]:
    """Return one sentence for each risk; `now` has a time zone."""
    return [
        *_certificate_risks(settings, now),
        *_readable_secrets(settings),
        *_own_keys_as_theirs(settings),
        *_time_limits_without_effect(settings),
    ]


def _certificate_risks(settings: Settings, now: datetime) -> Iterator[str]:
    if settings.tls_cert_file is not None:
        path = settings.tls_cert_file.path
        chain = certificates_in(settings.tls_cert_file.data)
        yield from _validity(f"TLS_CERT_FILE ({path})", chain, now)
        if chain:
            yield from (f"TLS_CERT_FILE ({path}) {risk}" for risk in _acceptance(chain))
    if settings.tls_client_ca_file is not None:
        path = settings.tls_client_ca_file.path
        certificates = certificates_in(settings.tls_client_ca_file.data)
        yield from _validity(f"TLS_CLIENT_CA_FILE ({path})", certificates, now)
        if certificates and not any(map(_can_issue, certificates)):
            yield (
                f"TLS_CLIENT_CA_FILE ({path}) contains no certificate of a CA, so callers can "
                "connect only with one that is in the file: add the CA of the callers' certificates"
            )
    if settings.upstream_ca_file is not None:
        path, data = settings.upstream_ca_file.path, settings.upstream_ca_file.data
        # A system's bundle can contain old certificates beside the one that counts.
        risks = [
            list(_validity(f"UPSTREAM_CA_FILE ({path})", [each], now)) for each in certificates_in(data)
        ]
        yield from risks[0] if risks and all(risks) else ()


def _validity(name: str, certificates: list[x509.Certificate], now: datetime) -> Iterator[str]:
    for number, certificate in enumerate(certificates, 1):
        which = f"{name}: certificate {number}" if len(certificates) > 1 else f"{name}: the certificate"
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now < begins:
            yield Breaking(f"{which} is not valid before {_text(begins)}: replace it, or correct the clock")
        elif now > ends:
            yield Breaking(f"{which} expired at {_text(ends)}: replace it, or correct the clock")
        elif ends - now < ABOUT_TO_EXPIRE:
            yield f"{which} expires at {_text(ends)}: replace it before"


def _can_issue(certificate: x509.Certificate) -> bool:
    """Return whether callers can have certificates that this one issued.

    A self-signed certificate can lack basic constraints: those of X.509 version 1 have no extensions.
    """
    if certificate.issuer == certificate.subject:
        return True
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _text(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _acceptance(chain: list[x509.Certificate]) -> Iterator[str]:
    """Yield what some callers refuse in our certificate."""
    first = chain[0]
    if extension(first, x509.SubjectAlternativeName) is None:
        yield "has no subjectAltName: most callers refuse a certificate without one"
    if curve_of(first) == "secp521r1":
        yield "has a key on P-521, which callers in Python, C++ and Ruby refuse: use P-256 or P-384"
    access = extension(first, x509.AuthorityInformationAccess) or ()
    has_issuer_url = any(each.access_method == AuthorityInformationAccessOID.CA_ISSUERS for each in access)
    if len(chain) == 1 and has_issuer_url and first.issuer != first.subject:
        yield "contains one certificate: most callers also need the one that issued it, after it"


def _readable_secrets(settings: Settings) -> Iterator[str]:
    """Yield the files with secrets that every user of this machine can read."""
    keys = {
        "SIGNING_KEY_FILE": settings.signing_key_file,
        **_by_version("SIGNING_KEY_FILES", settings.signing_key_files),
        "BIND_ACCOUNT_SIGNING_KEY_FILE": settings.bind_account.signing_key_file,
        **_by_version("DECRYPTION_KEY_FILES", settings.decryption_key_files),
        "TLS_KEY_FILE": settings.tls_key_file,
    }
    files = {name: file.path for name, file in keys.items() if file is not None}
    ledger = secrets_of(settings.ledger_url, path_of(settings.ledger_key_file))
    names = ("the ledger", "the ledger's key")[-len(ledger) :]  # without a file, only a key
    files |= dict(zip(names, ledger, strict=False))
    for name, path in files.items():
        if _others_can_read(path):
            yield f"{name} ({path}) can be read by every user of this machine: chmod o-rwx it"


def _by_version(
    setting: str, keys: Mapping[str, KeyFile[RSAPrivateKey]] | None
) -> dict[str, KeyFile[RSAPrivateKey]]:
    return {f"{setting} {version}": file for version, file in (keys or {}).items()}


def _others_can_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _own_keys_as_theirs(settings: Settings) -> Iterator[str]:
    own = [settings.bind_account.signing_key_file, *settings.signing_keys.values()]
    own += (settings.decryption_key_files or {}).values()
    ours = {file.sha256 for file in own if file is not None}
    for version, file in settings.public_key_files.items():
        if file.sha256 in ours:
            yield Breaking(
                f"PUBLIC_KEY_FILES version {version} ({file.path}) is our own public key: put AlipayHK's "
                "in its place, because without it no response can be verified"
            )


def _time_limits_without_effect(settings: Settings) -> Iterator[str]:
    """Yield the time limits that another setting overrides; the other one alone may have been set."""
    default_s, max_s = settings.default_deadline_s, settings.deadline_max_s
    if default_s > max_s:
        yield f"DEFAULT_DEADLINE_S ({default_s:g}) is above DEADLINE_MAX_S, which counts: {max_s:g} seconds"
    grace_s, attempt_s = settings.stop_grace_s, settings.upstream_timeout_s
    if grace_s < attempt_s:
        # An attempt that has started is never aborted.
        yield (
            f"STOP_GRACE_S ({grace_s:g}) is below UPSTREAM_TIMEOUT_S, which counts in its place: "
            f"{attempt_s:g} seconds"
        )
