"""Targets: key files, certificates, and the TOML files that settings name."""

from __future__ import annotations

import base64
import io
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clients.alipayhk.api import API_NAMES, Api
from clients.alipayhk.wire import crypto
from clients.alipayhk.wire.keys import BITS_MAX, BITS_MIN, KeyFileError, parse_key, public_der
from service.config import values
from service.config.callers_file import callers_file
from service.config.certificate_files import chain_fault
from service.config.declaration import declared
from service.config.result_codes_file import ALLOWED, result_codes_file
from service.config.risks import risks_of
from service.config.settings import Settings, SettingsError, read_settings
from service.credentials.callers import Caller, Name
from service.credentials.certificates import names_of
from service.outcomes.result_codes import CONFIGURATION_CODES, RATE_LIMITED
from tests.certificates import private_pem, public_pem
from tests.fuzz.properties import is_constant, result_of
from tests.vectors import make

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
QUOTED_MIN: Final = 8
"""Values of this many characters are looked for in error texts: shorter ones can be there by chance."""
_NOT_TOML: Final = re.compile(
    r"(is not TOML|names a key or a table twice)( \(at line \d+, column \d+\)| \(at end of document\))?"
    r"|is nested too deeply"
)
_TAGS: Final = {"DNS": 0x82, "URI": 0x86}


class _File:
    """A file in memory with a path."""

    def __init__(self, data: bytes = b"") -> None:
        self._descriptor = os.memfd_create("fuzz")
        self.path = Path(f"/proc/self/fd/{self._descriptor}")
        self.write(data)

    def write(self, data: bytes) -> str:
        """Replace the content; return the path."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
        return str(self.path)


@cache
def _file() -> _File:
    return _File()


# -- keys and certificates


def key_seeds() -> Iterator[bytes]:
    """Yield the documentation key in every accepted format, and keys that are refused."""
    key, curve = make.KEY, ec.derive_private_key(7, ec.SECP256R1())
    private = [
        key.private_bytes(encoding, form, NoEncryption())
        for encoding in (Encoding.PEM, Encoding.DER)
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
    ]
    public = [
        key.public_key().public_bytes(encoding, form)
        for encoding in (Encoding.PEM, Encoding.DER)
        for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1)
    ]
    certificate = x509.load_der_x509_certificate(next(certificate_seeds()))
    yield from (*private, *public, certificate.public_bytes(Encoding.PEM))
    yield from (base64.b64encode(der) for der in (private[2], public[2], public[3]))
    yield base64.encodebytes(public[2]).replace(b"\n", b"\r\n")
    yield private[0] + certificate.public_bytes(Encoding.PEM)
    yield b"\xef\xbb\xbf# a comment\n" + public[0]
    yield public[0].replace(b"PUBLIC KEY", b"RSA PRIVATE KEY")
    yield private_pem(curve)
    yield curve.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    yield b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + public[0]


def key_file(data: bytes) -> None:
    """A key that was read works, and is the same in each of its formats; else it is a KeyFileError."""
    key = result_of(KeyFileError, parse_key, data)
    if key is None:
        return
    assert BITS_MIN <= key.key_size <= BITS_MAX
    if isinstance(key, RSAPrivateKey):
        crypto.verify(key.public_key(), crypto.sign(key, b"content"), b"content")
        return
    der = public_der(key)
    for spelling in (der, base64.b64encode(der), public_pem(key)):
        public = parse_key(spelling)
        assert not isinstance(public, RSAPrivateKey)
        assert public.public_numbers() == key.public_numbers()


def _certificate(*names: x509.GeneralName, subject: str = "a", extensions: tuple[Any, ...] = ()) -> bytes:
    """Return a certificate as DER; it is the same each time."""
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = x509.CertificateBuilder(named, named, make.KEY.public_key(), 1)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=9))
    for extension in (x509.SubjectAlternativeName(names), *extensions) if names else extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(make.KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def certificate_seeds() -> Iterator[bytes]:
    """Yield certificates with names of each kind."""
    dns, uri = x509.DNSName("loyalty.internal"), x509.UniformResourceIdentifier("spiffe://corp/loyalty")
    address = x509.IPAddress(ipaddress.ip_address("10.0.0.1"))
    other = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a")
    yield _certificate(dns, uri)
    yield _certificate(dns, x509.RFC822Name("a@corp.example"), address, other)
    yield _certificate(x509.DNSName("*.corp"), x509.DNSName("b@corp"), x509.DNSName("x" * 300))
    yield _certificate(dns).replace(b"loyalty.internal", b"loyalty\0internal")
    yield _certificate(uri, x509.DirectoryName(x509.Name([])), x509.RegisteredID(NameOID.COMMON_NAME))
    yield _certificate(x509.DNSName(""), x509.UniformResourceIdentifier(""))
    yield _certificate(
        dns,
        extensions=(
            x509.BasicConstraints(ca=True, path_length=0),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
            x509.TLSFeature([x509.TLSFeatureType.status_request]),
        ),
    )
    yield _certificate()


def certificate_names(data: bytes) -> None:
    """Every name is in the certificate with exactly these bytes, and what is shown of it is one line."""
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE-----\n"
    found = names_of(pem)
    for kind, text in found.names:
        value = text.encode("utf-8", "surrogatepass")
        length = len(value)
        size = length.to_bytes((length.bit_length() + 7) // 8 or 1)
        header = bytes([_TAGS[kind]]) + (b"" if length < 128 else bytes([128 + len(size)])) + size
        assert header + value in data, f"no {kind} name of the certificate has these bytes"
        assert "@" not in text
    assert str(found).isascii()
    assert str(found).isprintable()
    assert not found.are_clean or all(re.fullmatch(r"[ -~]*", name.text) for name in found.names)


def pem_seeds() -> Iterator[bytes]:
    """Yield PEM files with one certificate, a chain, a key and a damaged certificate."""
    pems = [
        x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in [*certificate_seeds()][:7]
    ]
    yield from pems
    yield pems[0] + pems[6]
    yield pems[0] + private_pem(make.KEY)
    yield private_pem(make.KEY) + pems[6]
    yield pems[0][:-20]
    yield b"\xef\xbb\xbf" + pems[0]
    yield make.KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))


def certificate_file(data: bytes) -> None:
    """A certificate file is accepted, or refused with a sentence; its risks can be listed."""
    path = Path(_file().write(data))
    file = result_of(ValueError, values.pem_file, str(path))
    faults = [chain_fault(data, is_loaded=is_loaded) for is_loaded in (False, True)]
    assert all(fault is None or fault.isprintable() for fault in faults)
    if (trusted := result_of(ValueError, values.ca_file, str(path))) is not None:
        certificate = file if faults == [None, None] else None
        settings = replace(
            _settings(), tls_cert_file=certificate, tls_client_ca_file=file, upstream_ca_file=trusted
        )
        assert all(risk.isprintable() for risk in risks_of(settings, NOW))


# -- TOML


def callers_seeds() -> Iterator[bytes]:
    """Yield valid lists of callers, and lists with each kind of fault."""
    yield b'[callers.a]\nsan = ["spiffe://corp/a", "a.corp"]\nmethods = ["SyncLinkage"]\nmax_in_flight = 5'
    yield b'[callers.a]\nsan = ["a"]\nmethods = ["SyncLinkage", "BindAccount"]\n[callers.b]\nsan = ["A"]'
    yield b'[callers]\na = {san = ["a@b.corp", "10.0.0.1", "::1", ""], methods = [], more = 1}\n'
    yield b"\xef\xbb\xbf[callers.a]\r\nsan = 1\r\nmax_in_flight = 0\r\n"
    yield b'callers = [1, 2.5, true, 1979-05-27T07:32:00Z, """\nx""", {a = [[]]}]\nother = 0x1f'
    yield b'[callers."\\u0000"]\nsan = ["[::1]", "b c"]\n'


def callers(data: bytes) -> None:
    """A list of callers is read exactly; otherwise one error names each wrong table, and no value."""
    error = _error_of(callers_file, data)
    tables = _toml(data)
    if tables is None:
        assert isinstance(error, str)
        assert _NOT_TOML.fullmatch(error)
        return
    inner = tables.get("callers")
    if not isinstance(error, str):
        wanted = {
            _key(san): Caller(name, frozenset(table["methods"]), table.get("max_in_flight"))
            for name, table in tables["callers"].items()
            for san in table["san"]
        }
        assert error.by_name == wanted
        assert all(map(_is_caller, tables["callers"].values()))
        return
    if set(tables) != {"callers"} or not isinstance(inner, dict) or not inner:
        assert is_constant(error)
        return
    wrong = [name for name, table in inner.items() if not _is_caller(table)]
    assert all(f"[callers.{name}] " in error for name in wrong)
    named = {*inner, *(member for table in inner.values() if isinstance(table, dict) for member in table)}
    _check_unquoted(error, [text for text in _strings(inner) if "@" in text], named)


def result_codes_seeds() -> Iterator[bytes]:
    """Yield valid tables of result codes, and tables with each kind of fault."""
    yield b'[SyncLinkage]\nA-1 = "NOT_FOUND"\n"1.x" = "ALREADY_EXISTS"\n[BindAccount]\nA-1 = "OUT_OF_RANGE"'
    yield b'[Other]\nA = 1\n[SyncLinkage]\n"a b" = "NOT_FOUND"\nINVALID_CLIENT = ""\nB = "OK"\nC = [1]'
    yield b"SyncLinkage = 1\n[BindAccount]\nREQUEST_TRAFFIC_EXCEED_LIMIT = {}\n"


def result_codes(data: bytes) -> None:
    """Tables of result codes are read exactly; otherwise one error has a sentence for each wrong row."""
    error = _error_of(result_codes_file, data)
    tables = _toml(data)
    if tables is None:
        assert isinstance(error, str)
        assert _NOT_TOML.fullmatch(error)
        return
    faults = 0
    for api, rows in tables.items():
        is_table = api in API_NAMES and isinstance(rows, dict)
        faults += not is_table
        for code, name in rows.items() if is_table else ():
            fixed = code in CONFIGURATION_CODES or code == RATE_LIMITED
            allowed = isinstance(name, str) and name in ALLOWED
            faults += not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", code) or fixed or not allowed
    if isinstance(error, str):
        assert error.count("; ") == faults - 1
        assert error.isprintable()
    else:
        assert faults == 0


def settings_seeds() -> Iterator[bytes]:
    """Yield valid settings, and settings with each kind of fault."""
    yield b'log_level = "debug"\nworkers = 4\ndrain_delay_s = 0.5\nreflection = false\nencrypt = true\n'
    yield b'bogus = 1\nWorkers = 2\nlisten = "nowhere"\nworkers = 1e9\nledger_url = "redis://x"'
    yield b'client_id = "a b"\nbase_url = "https://u:p@host"'
    yield b'[public_key_files]\n1 = "/nowhere/key.pem"\n2 = "/tmp"\n[decryption_key_files]\n"x y" = "a"\n'
    yield b'upstream_proxy = "http://user:secret-word@proxy:3128"\n'
    yield b'callers_file = "/nowhere"\nresult_codes_file = "/"\ntls_cert_file = "/etc/hostname"'
    yield b"upstream_timeout_s = 1979-05-27\nattempts_max = [1]\nworkers = {a = 1}\nledger_key_file = '\"q'"
    yield b"worker = {a = 1}\nalipayhk_workers = 1"
    yield b'sync_linkage_path = "/a?b"\nbind_account_path = "//"\nledger_url = "memory:"\nlisten = "[::]:1"'
    yield b"workers = 1" + b"0" * 5000
    yield "".join(f"{name} = 1\n" for name, _ in declared(Settings)).encode()


def settings(data: bytes) -> None:
    """One error has a line for each fault of a settings file, and quotes no value.

    A file with all settings that are required would have to name a private key, which is slow to read.
    """
    path = Path(_file().write(data))
    try:
        read_settings({}, path)
    except SettingsError as error:
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None
        faults = error.faults
    assert all(fault and fault.isprintable() for fault in faults)
    tables = _toml(data)
    if tables is None:
        assert any(_NOT_TOML.search(fault) for fault in faults)
        return
    known = dict(declared(Settings))
    given = {written.lower(): value for written, value in tables.items() if value not in ("", {})}
    for name, value in given.items():
        if name not in known:
            unknown = f"{name.upper()} is not a setting ({name} in {path})"
            assert not name.isprintable() or any(fault.startswith(unknown) for fault in faults)
        elif isinstance(value, str) and _is_refused(known[name].metadata["parse"], value):
            assert any(fault.startswith(f"{name.upper()} ") for fault in faults)
    _check_unquoted("\n".join(faults), _strings(tables), set(tables))


def _is_refused(parse: Any, text: str) -> bool:
    """Return whether a setting's parser refuses a text."""
    try:
        parse(text)
    except ValueError:
        return True
    return False


@cache
def _settings() -> Settings:
    """Return valid settings."""
    signing, public = _File(private_pem(make.KEY)), _File(public_pem(make.KEY.public_key()))
    return read_settings(
        {
            "ALIPAYHK_BASE_URL": "https://open.alipay.hk",
            "ALIPAYHK_CLIENT_ID": make.CLIENT_ID,
            "ALIPAYHK_SIGNING_KEY_FILE": str(signing.path),
            "ALIPAYHK_PUBLIC_KEY_FILES": f"1={public.path}",
            **{f"ALIPAYHK_{api.name}_PATH": f"/{api}" for api in Api},
        }
    )


def _error_of(read: Any, data: bytes) -> Any:
    """Return what `read` returns for a file with this content, or the text of its ValueError."""
    try:
        return read(_file().write(data))
    except ValueError as error:
        assert type(error) is ValueError
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None
        return str(error)


def _toml(data: bytes) -> dict[str, Any] | None:
    """Read TOML as the gateway does, without its code: with any line ends, after a byte order mark."""
    try:
        return tomllib.loads(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read())
    except (ValueError, RecursionError):
        return None


def _is_caller(table: object) -> bool:
    if not isinstance(table, dict) or not {"san", "methods"} <= set(table) <= {
        "san",
        "methods",
        "max_in_flight",
    }:
        return False
    sans, methods, quota = table["san"], table["methods"], table.get("max_in_flight", 1)
    return (
        isinstance(sans, list)
        and bool(sans)
        and all(isinstance(san, str) and re.fullmatch(r"[!-?A-~]+", san) for san in sans)
        and isinstance(methods, list)
        and bool(methods)
        and all(method in API_NAMES for method in methods)
        and type(quota) is int
        and quota > 0
    )


def _key(san: str) -> Name:
    return Name("URI", san) if "://" in san else Name("DNS", san.lower())


def _strings(value: object) -> list[str]:
    """Return all strings in parsed TOML, without the names of members."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _strings(item)]


def _check_unquoted(error: str, texts: list[str], names: set[str]) -> None:
    """Fail if an error contains one of the texts, unless it is part of a name or of the program."""
    for text in texts:
        if len(text) >= QUOTED_MIN and text in error and not is_constant(text):
            assert any(text in name for name in names), f"the error quotes a value: {error}"
