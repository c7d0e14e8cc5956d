"""Every setting, from the environment (`ALIPAYHK_<NAME>`) or else from a TOML file (`<name>`).

One SettingsError reports all errors: unknown names, missing settings, invalid values, and files
with the wrong content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, cast

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from clients.alipayhk.wire.crypto import AesMode, RsaPadding
from clients.alipayhk.wire.messages import JSON_CONTENT_TYPE

from ..credentials.callers import Callers
from ..ledger.lease import UPSTREAM_TIMEOUT_MAX_S
from ..ledger.levels import LEVELS, forms
from ..ledger.opening import check_url, url_in_place
from ..ledger.sqlite.opening import url_of
from ..ledger.vault import key_file
from ..outcomes.result_codes import ResultCodes
from . import values
from .callers_file import callers_file
from .capture_settings import CaptureSettings
from .cross_checks import faults_between
from .declaration import REQUIRED, built, declared, group, setting
from .environment import process_environment, settings_texts
from .files import KeyFile, PemFile, SecretFile
from .reading import parsed, read_values
from .result_codes_file import result_codes_file
from .settings_file import texts_of_file
from .values import Address

LEDGER_URL_DEFAULT: Final = url_of("alipayhk-ledger.db")
_LOST_IN_A_CRASH: Final = forms(tuple(level for level in LEVELS if not level.outlives_process), "and")


class SettingsError(Exception):
    """The settings are invalid; `faults` has one line for each error. Control characters are escaped."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = list(map(printable, faults))
        super().__init__("; ".join(self.faults))


def _ledger_key_file(text: str) -> SecretFile:
    path = key_file(text)
    return SecretFile(path, sha256(path.read_bytes()).hexdigest())


# fmt: off
@dataclass(frozen=True, slots=True, kw_only=True)
class SyncLinkageSettings:
    """Settings of SyncLinkage alone."""

    path: str = setting(values.url_path, REQUIRED,
        "The path of BINDING_SYNC, sent and signed byte for byte.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BindAccountSettings:
    """Settings of BindAccount alone."""

    path: str = setting(values.url_path, REQUIRED,
        "The path of account.bind, sent and signed byte for byte.")
    base_url: str | None = setting(values.base_url, None,
        "BASE_URL for BindAccount, if it differs.")
    client_id: str | None = setting(values.visible(64), None,
        "CLIENT_ID for BindAccount, if it differs.")
    signing_key_file: KeyFile[RSAPrivateKey] | None = setting(values.private_key_file, None,
        "SIGNING_KEY_FILE for BindAccount, if it differs.")
    function: str = setting(values.visible(128), "alipay.intl.merchant.account.bind",
        "The function in BindAccount's envelope.")
    version: str = setting(values.visible(8), "1.0.0",
        "The version in BindAccount's envelope.")
    idempotent: bool = setting(values.boolean, "false",
        "Whether AlipayHK promises that BindAccount is idempotent for the same reqMsgId.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. docs/settings.md repeats defaults and meanings; a test compares them."""

    listen: Address = setting(values.address, "127.0.0.1:50051",
        "Address of the gRPC server; beyond loopback it needs TLS or ALLOW_PLAINTEXT.")
    admin_listen: Address = setting(values.address, "127.0.0.1:9464",
        "Address of /metrics, /livez and /readyz, over plain HTTP.")
    health_listen: Address | None = setting(values.address, None,
        "Address for gRPC health only, in plaintext, for probes without a certificate.")
    base_url: str = setting(values.base_url, REQUIRED,
        "AlipayHK's host, https://host[:port] without a path.")
    upstream_ca_file: PemFile | None = setting(values.ca_file, None,
        "PEM certificates to trust for AlipayHK instead of the system's.")
    upstream_proxy: str | None = setting(values.proxy_url, None,
        "The egress proxy; the proxy variables of the environment are ignored.")
    client_id: str = setting(values.visible(64), REQUIRED,
        "The client id that AlipayHK assigned.")
    signing_key_file: KeyFile[RSAPrivateKey] | None = setting(values.private_key_file, None,
        "Our private key: PEM or bare base64 DER, at least 2048 bits; required without SIGNING_KEY_FILES.")
    signing_key_files: Mapping[str, KeyFile[RSAPrivateKey]] | None = setting(values.private_key_files, None,
        "Our private keys by version, 1=path,2=path; SIGNING_KEY_VERSION names the one that signs.")
    signing_key_version: str = setting(values.key_version, "1",
        "AlipayHK's version number for the public half of our signing key.")
    public_key_files: Mapping[str, KeyFile[RSAPublicKey]] = setting(values.public_key_files, REQUIRED,
        "AlipayHK's public keys by version, 1=path,2=path; an envelope names none: newest first.")
    decryption_key_files: Mapping[str, KeyFile[RSAPrivateKey]] | None = setting(
        values.private_key_files, None,
        "Our private keys by version for encrypted responses; the signing keys when absent.")
    sync_linkage: SyncLinkageSettings = group(SyncLinkageSettings)
    bind_account: BindAccountSettings = group(BindAccountSettings)
    encrypt: bool = setting(values.boolean, "false",
        "Whether SyncLinkage bodies are encrypted.")
    encryption_key_version: str = setting(values.key_version, "1",
        "The key of PUBLIC_KEY_FILES that wraps the AES keys of requests.")
    encryption_aes_mode: AesMode = setting(values.choice("ECB", "CBC"), "ECB",
        "The AES mode, ECB or CBC; CBC puts its IV before the ciphertext.")
    encryption_aes_bits: int = setting(values.bits, "256",
        "The AES key size, 128 or 256.")
    encryption_rsa_padding: RsaPadding = setting(values.choice("PKCS1V15", "OAEP_SHA256"), "PKCS1V15",
        "The padding that wraps AES keys, PKCS1V15 or OAEP_SHA256.")
    encryption_content_type: str = setting(values.header_text, JSON_CONTENT_TYPE,
        "The Content-Type of an encrypted body.")
    require_encrypted_response: bool = setting(values.boolean, "false",
        "Whether a plaintext response to SyncLinkage is refused.")
    upstream_timeout_s: float = setting(values.seconds(0.1, UPSTREAM_TIMEOUT_MAX_S), "4",
        "Time limit of one attempt, from connecting to the last byte of the response.")
    upstream_connections: str = setting(values.choice("reuse", "fresh"), "reuse",
        "Whether requests to AlipayHK share connections (reuse) or each gets a new one (fresh).")
    default_deadline_s: float = setting(values.seconds(0.1, 600), "10",
        "The deadline of a call that sets none; at most DEADLINE_MAX_S.")
    deadline_max_s: float = setting(values.seconds(0.1, 600), "60",
        "The longest deadline; longer ones are cut to it.")
    attempts_max: int = setting(values.integer(1, 1_000), "5",
        "Maximum number of attempts per call, including the first.")
    response_time_window_s: float = setting(values.seconds(0, 86_400), "300",
        "Maximum clock skew allowed for a response's timestamp.")
    biz_time_ahead_s: float = setting(values.seconds(0, 86_400), "300",
        "Maximum time that biz_time may be ahead of the gateway's clock.")
    ledger_url: str = setting(url_in_place, LEDGER_URL_DEFAULT,
        f"Where requests are recorded: {forms(LEVELS)}.")
    ledger_key_file: SecretFile | None = setting(_ledger_key_file, None,
        "The key that hashes and seals the ledger; made next to a new SQLite file, needed for PostgreSQL.")
    ledger_retention_h: int = setting(values.integer(1, 87_600), "720",
        "Minimum time that final outcomes are kept; outcomes in doubt are kept forever.")
    ledger_pool_max: int = setting(values.integer(1, 1_000), "4",
        "Maximum number of connections to PostgreSQL, per worker; one more listens for notifications.")
    ledger_timeout_s: float = setting(values.seconds(0.1, 60), "1",
        "Time limit of one operation of PostgreSQL, the wait for a connection included.")
    bind_account_without_ledger: bool = setting(values.boolean, "false",
        f"Whether BindAccount is served with {_LOST_IN_A_CRASH}, which lose requests in a crash.")
    sync_linkage_without_ledger: bool = setting(values.boolean, "false",
        "Whether SyncLinkage is sent, without its checks, while the ledger is unavailable.")
    workers: int = setting(values.integer(1, 256), "1",
        "Number of processes that share the port.")
    max_in_flight: int = setting(values.integer(1, 100_000), "512",
        "Maximum number of requests in progress, per worker; those that wait for another one count, too.")
    max_connection_age_s: float = setting(values.seconds(0, 86_400), None,
        "Maximum age of a caller's connection, 0 for no limit; 300 if hosts share the ledger, else 0.")
    tls_cert_file: PemFile | None = setting(values.pem_file, None,
        "Our certificate chain, PEM; with TLS_KEY_FILE it turns TLS on.")
    tls_key_file: PemFile | None = setting(values.pem_file, None,
        "The private key of TLS_CERT_FILE, PEM.")
    tls_client_ca_file: PemFile | None = setting(values.client_ca_file, None,
        "The CA of callers' certificates, PEM; with it every caller needs one.")
    allow_plaintext: bool = setting(values.boolean, "false",
        "Whether LISTEN is allowed beyond loopback without TLS.")
    callers_file: Callers | None = setting(callers_file, None,
        "Callers and their methods, TOML; without it every client certificate can call every method.")
    result_codes_file: ResultCodes | None = setting(result_codes_file, None,
        "More result codes and their gRPC codes, per RPC, TOML.")
    reflection: bool = setting(values.boolean, "true",
        "Whether gRPC reflection is served.")
    log_level: str = setting(values.choice("debug", "info", "warning", "error"), "info",
        "The lowest level that is logged: debug, info, warning or error.")
    log_format: str = setting(values.choice("auto", "json", "console"), "auto",
        "The format of the log: json, console (text) or auto (console on a terminal, else json).")
    capture: CaptureSettings = group(CaptureSettings)
    drain_delay_s: float = setting(values.seconds(0, 300), "2",
        "How long calls are still accepted after SIGTERM, until load balancers react.")
    stop_grace_s: float = setting(values.seconds(0, 600), "20",
        "Time limit after that for calls in flight; at least UPSTREAM_TIMEOUT_S.")
    reload_every_s: float = setting(values.seconds(0, 86_400), "10",
        "How often the files of keys, certificates, callers and codes are looked at; 0: only on SIGHUP.")
    # fmt: on

    @property
    def signing_keys(self) -> Mapping[str, KeyFile[RSAPrivateKey]]:
        """Our keys by version, the one of SIGNING_KEY_VERSION among them."""
        one = self.signing_key_file
        return {self.signing_key_version: one} if one else self.signing_key_files or {}


def read_settings(environ: Mapping[str, str], config_file: Path | None = None) -> Settings:
    """Read and check every setting; raise SettingsError with every error."""
    faults: list[str] = []
    of_file = texts_of_file(config_file, faults)
    values, invalid = read_values(
        dict(declared(Settings)), of_file, settings_texts(environ), config_file, file_is_read=not faults
    )
    faults += [*(fault for _, fault in invalid), *faults_between(values)]
    if faults:
        raise SettingsError(faults)
    return built(Settings, values)


def read_from_environment(config_file: Path | None = None) -> Settings:
    """Read the settings of this process."""
    return read_settings(process_environment(), config_file)


def read_ledger_settings(config_file: Path | None = None) -> tuple[str, Path | None]:
    """Read the ledger's URL and key file of this process; the other settings are not checked."""
    faults: list[str] = []
    texts = texts_of_file(config_file, faults) | settings_texts(process_environment())
    url, key = texts.get("ledger_url", LEDGER_URL_DEFAULT), texts.get("ledger_key_file")
    values: dict[str, object] = {"LEDGER_KEY_FILE": None}
    for name, parse, text in (("LEDGER_URL", check_url, url), ("LEDGER_KEY_FILE", key_file, key)):
        try:
            if text is not None:
                values[name] = parsed(parse, text)
        except ValueError as error:
            faults.append(f"{name} {error}")
    if faults:
        raise SettingsError(faults)
    return cast("str", values["LEDGER_URL"]), cast("Path | None", values["LEDGER_KEY_FILE"])


def printable(text: str) -> str:
    """Return a text with its line breaks and control characters escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
