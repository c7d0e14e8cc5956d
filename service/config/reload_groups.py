"""The settings that are replaced while the gateway runs, in groups that are replaced as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from clients.alipayhk.wire.crypto import CryptoError, sign, verify

from .certificate_files import certificates_in
from .declaration import values_of
from .files import KeyFile
from .settings import Settings

CERTIFICATE: Final = "server certificate"
OWN_KEYS: Final = (
    "signing_key_file",
    "signing_key_files",
    "signing_key_version",
    "bind_account_signing_key_file",
    "decryption_key_files",
)
SWITCHES: Final = ("tls_cert_file", "tls_client_ca_file")
"""With and without these, the listener is another one: to set or to remove them needs a restart."""
_PROBE: Final = b"self-test"


class Group(NamedTuple):
    """Settings that change together."""

    settings: tuple[str, ...]
    facts: Callable[[Settings], dict[str, Any]]
    """Returns what the log says of new values; nothing secret."""


def signature_faults(settings: Settings) -> Iterator[str]:
    """Yield each setting of which a key of our own makes signatures that do not verify."""
    for name, value in values_of(settings):
        files = value.values() if isinstance(value, Mapping) else [value]
        own = [each.key for each in files if isinstance(each, KeyFile)] if name in OWN_KEYS else []
        for key in own:
            try:
                verify(key.public_key(), sign(key, _PROBE), _PROBE)
            except (CryptoError, ValueError):
                yield f"{name.upper()} contains a key that makes no valid signature"


def _certificate(settings: Settings) -> dict[str, Any]:
    chain = certificates_in(settings.tls_cert_file.data) if settings.tls_cert_file else []
    return {
        "serial": ",".join(f"{each.serial_number:x}" for each in chain[:1]),
        "expires": ",".join(f"{each.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}" for each in chain[:1]),
    }


def _own_keys(settings: Settings) -> dict[str, Any]:
    return {"signing_key_version": settings.signing_key_version} | _keys(settings.signing_keys)


def _their_keys(settings: Settings) -> dict[str, Any]:
    return _keys(settings.public_key_files)


def _keys(keys: Mapping[str, KeyFile[Any]]) -> dict[str, Any]:
    return {"version": ",".join(keys), "sha256": ",".join(file.sha256 for file in keys.values())}


def _callers(settings: Settings) -> dict[str, Any]:
    by_name = settings.callers_file.by_name if settings.callers_file else {}
    return {"count": len({caller.name for caller in by_name.values()})}


def _result_codes(settings: Settings) -> dict[str, Any]:
    more = settings.result_codes_file.more if settings.result_codes_file else {}
    return {"count": sum(map(len, more.values()))}


def _log_level(settings: Settings) -> dict[str, Any]:
    return {"log_level": settings.log_level}


GROUPS: Final[Mapping[str, Group]] = {
    CERTIFICATE: Group(("tls_cert_file", "tls_key_file", "tls_client_ca_file"), _certificate),
    "own keys": Group(OWN_KEYS, _own_keys),
    "AlipayHK's keys": Group(("public_key_files", "encryption_key_version"), _their_keys),
    "callers": Group(("callers_file",), _callers),
    "result codes": Group(("result_codes_file",), _result_codes),
    "log level": Group(("log_level",), _log_level),
}
