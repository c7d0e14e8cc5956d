"""Errors in the combination of settings that are valid one by one, and defaults that follow from others."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from clients.alipayhk.wire.crypto import rejects_implicitly

from ..ledger.levels import Level, level_of
from .certificate_files import chain_fault
from .files import PemFile
from .values import Address, is_loopback

_READABLE: Final = "it could read the requests"
_LOCALHOST: Final = {"127.0.0.1", "::1", "localhost"}
_EVERY_IPV4: Final = "0.0.0.0"  # noqa: S104
_SHARED_LEDGER_AGE_S: Final = 300.0


def connection_age_s(values: Mapping[str, Any]) -> float:
    """Return MAX_CONNECTION_AGE_S, or its default if it is not set."""
    given: float | None = values["max_connection_age_s"]
    return default_connection_age_s(level_of(values["ledger_url"])) if given is None else given


def default_connection_age_s(level: Level) -> float:
    """Return the default of MAX_CONNECTION_AGE_S with a ledger of this level; 0 is no limit.

    A caller that reconnects can reach another host, so there is a limit only if every host knows what the
    others sent. With `off` no host knows anything.
    """
    return _SHARED_LEDGER_AGE_S if level.shared_by_hosts and level.outlives_process else 0.0


def faults_between(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield every contradiction between settings; `values` contains only valid ones."""
    certificate: PemFile | None = values.get("tls_cert_file")
    key: PemFile | None = values.get("tls_key_file")
    listen, has_no_tls = values.get("listen"), values.get("tls_cert_file", "") is None
    if (certificate is None) != (key is None) and {"tls_cert_file", "tls_key_file"} <= values.keys():
        yield "TLS_CERT_FILE and TLS_KEY_FILE must be set together"
    elif certificate is not None and key is not None and (fault := _pair_fault(certificate.data, key.data)):
        yield fault
    if values.get("tls_client_ca_file") is not None and has_no_tls:
        yield "TLS_CLIENT_CA_FILE needs TLS_CERT_FILE and TLS_KEY_FILE"
    if values.get("callers_file") is not None and values.get("tls_client_ca_file", "") is None:
        yield "CALLERS_FILE needs TLS_CLIENT_CA_FILE: callers are identified by their certificates"
    plaintext_beyond = listen is not None and not listen.is_loopback and has_no_tls
    if plaintext_beyond and values.get("allow_plaintext") is False:
        yield "LISTEN beyond loopback needs TLS_CERT_FILE and TLS_KEY_FILE, or ALLOW_PLAINTEXT=true"
    yield from _port_faults(values)
    yield from _proxy_faults(values)
    yield from _ledger_faults(values)
    yield from _signing_key_faults(values)
    yield from _encryption_faults(values)
    captures = ("capture_dir", "capture_recipient_file")
    if set(captures) <= values.keys() and (values[captures[0]] is None) != (values[captures[1]] is None):
        yield "CAPTURE_DIR and CAPTURE_RECIPIENT_FILE must be set together"


def _proxy_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Name each base URL whose requests a proxy on another host would get in plaintext."""
    proxy = values.get("upstream_proxy")
    if proxy is None or is_loopback(urlsplit(proxy).hostname or ""):
        return
    for name in ("BASE_URL", "BIND_ACCOUNT_BASE_URL"):
        if (values.get(name.lower()) or "").startswith("http://"):
            yield f"{name} must begin with https:// because UPSTREAM_PROXY is on another host: {_READABLE}"


def _port_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ports that two listeners, or several workers, cannot share."""
    earlier: list[tuple[str, Address]] = []
    for name in ("LISTEN", "ADMIN_LISTEN", "HEALTH_LISTEN"):
        address: Address | None = values.get(name.lower())
        if address is None:
            continue
        if address.port == 0:
            if values.get("workers", 1) > 1:
                yield f"{name} needs a fixed port, not 0, if WORKERS is more than 1"
            continue
        if other := next((other for other, taken in earlier if _overlap(address, taken)), None):
            yield f"{name} needs another port than {other}"
        earlier.append((name, address))


def _overlap(one: Address, other: Address) -> bool:
    """Return whether two listeners would use the same port of the same address of this machine."""
    hosts = [_LOCALHOST if each.host == "localhost" else {each.host} for each in (one, other)]
    if one.port != other.port:
        return False
    if "::" in hosts[0] | hosts[1] or not hosts[0].isdisjoint(hosts[1]):
        return True
    return any(_EVERY_IPV4 in each for each in hosts) and all(
        any(":" not in host for host in each) for each in hosts
    )


def _ledger_faults(values: Mapping[str, Any]) -> Iterator[str]:
    if "ledger_url" not in values:
        return
    level = level_of(values["ledger_url"])
    named = f"LEDGER_URL {level.scheme}"
    if not level.outlives_process and values.get("bind_account_without_ledger") is False:
        yield f"{named} needs BIND_ACCOUNT_WITHOUT_LEDGER=true: BindAccount would be sent twice"
    if level.needs_key_file and values.get("ledger_key_file", "") is None:
        yield f"{named} needs LEDGER_KEY_FILE: all its gateways need the same key"
    if not level.shared_by_workers and values.get("workers", 1) > 1:
        yield f"{named} needs WORKERS=1: each worker would have a ledger of its own"


def _signing_key_faults(values: Mapping[str, Any]) -> Iterator[str]:
    if not {"signing_key_file", "signing_key_files"} <= values.keys():
        return
    one, several = values["signing_key_file"], values["signing_key_files"]
    if one is None and several is None:
        yield "SIGNING_KEY_FILE is required, or SIGNING_KEY_FILES"
    elif one is not None and several is not None:
        yield "SIGNING_KEY_FILES cannot be set together with SIGNING_KEY_FILE: remove one of them"
    elif several is not None and values.get("signing_key_version") not in {None, *several}:
        yield "SIGNING_KEY_VERSION is not a version in SIGNING_KEY_FILES"


def _encryption_faults(values: Mapping[str, Any]) -> Iterator[str]:
    keys, version = values.get("public_key_files"), values.get("encryption_key_version")
    if values.get("encrypt") and keys is not None and version is not None and version not in keys:
        yield "ENCRYPTION_KEY_VERSION is not a version in PUBLIC_KEY_FILES"
    ours = [values.get("signing_key_file"), *(values.get("signing_key_files") or {}).values()]
    wraps_with_pkcs1 = values.get("encryption_rsa_padding") == "PKCS1V15"
    if wraps_with_pkcs1 and not all(rejects_implicitly(file.key) for file in ours if file is not None):
        yield "ENCRYPTION_RSA_PADDING PKCS1V15 needs a cryptography package with OpenSSL 3.2 or later"


def _pair_fault(certificate: bytes, key: bytes) -> str | None:
    try:
        with _file(certificate) as chain, _file(key) as private:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, private, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "TLS_KEY_FILE is not the key of TLS_CERT_FILE"
        if fault := chain_fault(certificate, is_loaded=False):
            return f"TLS_CERT_FILE {fault}"
        return "TLS_CERT_FILE and TLS_KEY_FILE must contain a PEM certificate and its PEM key"
    except ValueError:
        return "TLS_KEY_FILE is encrypted with a passphrase, which is not supported"
    fault = chain_fault(certificate, is_loaded=True)
    return f"TLS_CERT_FILE {fault}" if fault else None


@contextmanager
def _file(data: bytes) -> Iterator[str]:
    """Return the path of a file in memory: `ssl` loads a certificate from files only."""
    with os.fdopen(os.memfd_create("pem"), "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _no_password() -> str:
    """Keep OpenSSL from asking the terminal for a passphrase."""
    raise ValueError
