"""The files that settings name: pipes, and files that break the gateway or will."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from service.commands.cli import main
from service.config.risks import risks_of
from service.config.settings import Settings, SettingsError, read_settings
from service.credentials.server_certificate import ServerCertificate
from service.server.tls import handshake_fault, start_faults
from tests.certificates import of_unknown_version
from tests.ports import free_port
from tests.service.files import KeyRing, TlsFiles

PIPE: Final = "cannot be read: it is a pipe, a socket or a device, and must be a regular file"
FILES: Final = (
    "SIGNING_KEY_FILE",
    "BIND_ACCOUNT_SIGNING_KEY_FILE",
    "LEDGER_KEY_FILE",
    "UPSTREAM_CA_FILE",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "TLS_CLIENT_CA_FILE",
    "CALLERS_FILE",
    "RESULT_CODES_FILE",
)
VERSIONED: Final = ("PUBLIC_KEY_FILES", "DECRYPTION_KEY_FILES")


def test_a_pipe_is_refused_for_every_file_without_waiting(tmp_path: Path, environ: dict[str, str]) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    named = {f"ALIPAYHK_{name}": str(pipe) for name in FILES}
    versioned = {f"ALIPAYHK_{name}": f"1={pipe}" for name in VERSIONED}
    with pytest.raises(SettingsError) as failure:
        read_settings({**environ, **named, **versioned}, pipe)
    assert sorted(failure.value.faults) == sorted(
        [
            f"--config {pipe} {PIPE}",
            *(f"{name} {PIPE} (ALIPAYHK_{name})" for name in FILES),
            *(f"{name} version 1 {PIPE} (ALIPAYHK_{name})" for name in VERSIONED),
        ]
    )


# -- certificates

NOW: Final = datetime.now(UTC)
ISSUER_KEY: Final = ec.generate_private_key(ec.SECP256R1())
BOM: Final = b"\xef\xbb\xbf"
USE: Final = "use RSA with at least 2048 bits, or ECDSA with P-256 or P-384"
CUT: Final = "is incomplete or was cut off: a BEGIN line has no END line with the same label"
UNUSABLE: Final = (
    "TLS_CERT_FILE and TLS_KEY_FILE cannot be used by gRPC, so that no caller could connect: use a PEM "
    "certificate with an RSA key of at least 2048 bits, or with an ECDSA key on P-256 or P-384"
)
ADD_ISSUER: Final = "the one that issued the first: add it after the first"
WITH_BOM: Final = "has a byte order mark before a PEM block: save it as UTF-8 without one"


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    key: Any, *extensions: x509.ExtensionType, subject: str = "gateway", issuer: str = "issuer"
) -> bytes:
    """Return a certificate for the key, valid for 60 days, in PEM."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=60))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(ISSUER_KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def other_version(pem: bytes) -> bytes:
    """Return a certificate in PEM with a version that does not exist."""
    der = of_unknown_version(ssl.PEM_cert_to_DER_cert(pem.decode()))
    return ssl.DER_cert_to_PEM_cert(der).encode()


SAN: Final = x509.SubjectAlternativeName([x509.DNSName("localhost")])
CA: Final = x509.BasicConstraints(ca=True, path_length=None)
ISSUER: Final = certificate(ISSUER_KEY, CA, subject="issuer", issuer="root")
OTHER: Final = certificate(ISSUER_KEY, CA, subject="other", issuer="root")
SIGNS_NOTHING: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
FOR_CLIENTS: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
ISSUER_URL: Final = x509.AuthorityInformationAccess(
    [
        x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca/issuer")
        )
    ]
)


def p256() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def with_tls(tmp_path: Path, environ: dict[str, str]) -> Callable[..., dict[str, str]]:
    """Return a function that writes TLS files and returns the settings that name them."""

    def write(key: Any, chain: bytes, ca: bytes | None = None, before_key: bytes = b"") -> dict[str, str]:
        files = {"TLS_CERT_FILE": tmp_path / "chain.pem", "TLS_KEY_FILE": tmp_path / "key.pem"}
        files["TLS_KEY_FILE"].touch(0o600)
        files["TLS_KEY_FILE"].write_bytes(
            before_key + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        files["TLS_CERT_FILE"].write_bytes(chain)
        if ca is not None:
            files["TLS_CLIENT_CA_FILE"] = tmp_path / "ca.pem"
            files["TLS_CLIENT_CA_FILE"].write_bytes(ca)
        ledger = {"ALIPAYHK_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db"}
        return environ | ledger | {f"ALIPAYHK_{name}": str(path) for name, path in files.items()}

    return write


def unacceptable() -> dict[str, tuple[tuple[Any, ...], str]]:
    """Return TLS files with which serve would run although no caller could connect, and their fault."""
    key, small, edwards = (
        p256(),
        rsa.generate_private_key(65537, 1024),
        ed25519.Ed25519PrivateKey.generate(),
    )
    odd, good = ec.generate_private_key(ec.SECP224R1()), certificate(key, SAN)
    return {
        "Ed25519": (
            (edwards, certificate(edwards, SAN)),
            f"TLS_CERT_FILE has an Ed25519 key, which gRPC's callers do not accept: {USE}",
        ),
        "RSA of 1024 bits": (
            (small, certificate(small, SAN)),
            f"TLS_CERT_FILE has an RSA key of 1024 bits, which is too small: {USE}",
        ),
        "an old curve": (
            (odd, certificate(odd, SAN)),
            f"TLS_CERT_FILE has a key on the curve secp224r1, which callers do not accept: {USE}",
        ),
        "no signatures": (
            (key, certificate(key, SAN, SIGNS_NOTHING)),
            "TLS_CERT_FILE is incomplete: its key usage lacks digitalSignature, which TLS needs",
        ),
        "for clients": (
            (key, certificate(key, SAN, FOR_CLIENTS)),
            "TLS_CERT_FILE is not for a server: its extended key usage lacks serverAuth",
        ),
        "without the intermediate": (
            (key, good + OTHER),
            f"TLS_CERT_FILE is incomplete: it has several certificates, but not {ADD_ISSUER}",
        ),
        "cut off": ((key, good + ISSUER[:200]), f"TLS_CERT_FILE {CUT}"),
        "cut off in its last line": ((key, good + ISSUER[:-10]), f"TLS_CERT_FILE {CUT}"),
        "cut off client CA": ((key, good, ISSUER[:200]), f"TLS_CLIENT_CA_FILE {CUT}"),
        "cut off after the first client CA": (
            (key, good, OTHER + ISSUER[:-10]),
            f"TLS_CLIENT_CA_FILE {CUT}",
        ),
        "damaged": (
            (key, good + ISSUER.replace(b"MII", b"AAA")),
            "TLS_CERT_FILE contains a damaged certificate",
        ),
        "of an unknown version": ((key, other_version(good)), UNUSABLE),
        "BOM before the certificate": ((key, BOM + good), f"TLS_CERT_FILE {WITH_BOM}"),
        "BOM before the second certificate": ((key, good + BOM + ISSUER), f"TLS_CERT_FILE {WITH_BOM}"),
        "BOM before the key": ((key, good, None, BOM), f"TLS_KEY_FILE {WITH_BOM}"),
        "BOM before the client CA": ((key, good, BOM + ISSUER), f"TLS_CLIENT_CA_FILE {WITH_BOM}"),
        "a certificate that gRPC cannot read": ((key, good.replace(b" CERT", b" TRUSTED CERT")), UNUSABLE),
    }


UNACCEPTABLE: Final = unacceptable()


@pytest.mark.parametrize("command", [["serve"], ["config", "check"]], ids=" ".join)
@pytest.mark.parametrize(("files", "fault"), UNACCEPTABLE.values(), ids=UNACCEPTABLE.keys())
def test_tls_files_that_keep_callers_out_are_refused_before_serving(
    files: tuple[Any, ...],
    fault: str,
    command: list[str],
    with_tls: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for setting, text in with_tls(*files).items():
        monkeypatch.setenv(setting, text)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # A gateway that starts in spite of the fault stops at once.
        monkeypatch.setenv("ALIPAYHK_ADMIN_LISTEN", f"127.0.0.1:{taken.getsockname()[1]}")
        assert main(command) == 78
    assert capsys.readouterr().err.splitlines()[1:] == [f"  - {fault}"]


@pytest.mark.parametrize(
    ("key", "more"),
    [
        (p256(), b""),
        (ec.generate_private_key(ec.SECP384R1()), ISSUER),
        (rsa.generate_private_key(65537, 2048), ISSUER + OTHER),
        (p256(), other_version(ISSUER)),
    ],
    ids=["P-256", "P-384 with the issuer", "RSA with more certificates", "an issuer of an unknown version"],
)
def test_usual_tls_files_have_neither_fault_nor_risk(
    key: Any, more: bytes, with_tls: Callable[..., dict[str, str]]
) -> None:
    settings = read_settings(with_tls(key, certificate(key, SAN) + more, ISSUER))
    assert risks_of(settings, NOW) == []
    assert start_faults(settings) == []


def test_a_handshake_with_ourselves_finds_what_the_settings_do_not(
    with_tls: Callable[..., dict[str, str]], tls: TlsFiles
) -> None:
    key, chain = tls.key.read_bytes(), tls.certificate.read_bytes()
    assert handshake_fault(ServerCertificate(chain, tls.other_key.read_bytes(), None)) == UNUSABLE
    only_on_connect = ec.generate_private_key(ec.SECP224R1())
    private = only_on_connect.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert handshake_fault(ServerCertificate(certificate(only_on_connect, SAN), private, None)) == UNUSABLE
    fault = "TLS_CLIENT_CA_FILE cannot be used by gRPC: it must contain PEM certificates only"
    assert handshake_fault(ServerCertificate(chain, key, b"no certificate")) == fault
    assert handshake_fault(ServerCertificate(chain, key, chain)) is None


# -- risks


def with_odd_name() -> bytes:
    """Return a CA's certificate; the type of the text in its issuer's name does not exist."""
    return ISSUER_DER.replace(b"\x0c\x04root", b"\x0d\x04root")


def with_odd_time() -> bytes:
    """Return a CA's certificate that expires in the year 0."""
    builder = x509.CertificateBuilder(name("a"), name("a"), ISSUER_KEY.public_key(), 1)
    builder = builder.not_valid_before(NOW).not_valid_after(datetime(2050, 1, 1, tzinfo=UTC))
    der = builder.sign(ISSUER_KEY, hashes.SHA256()).public_bytes(Encoding.DER)
    return der.replace(b"20500101000000Z", b"00000101000000Z")


ISSUER_DER: Final = ssl.PEM_cert_to_DER_cert(ISSUER.decode())


@pytest.mark.parametrize("der", [with_odd_name(), with_odd_time()], ids=["name", "time"])
def test_a_ca_with_a_name_or_a_time_that_cannot_be_read_is_allowed(
    der: bytes, with_tls: Callable[..., dict[str, str]]
) -> None:
    ca = ssl.DER_cert_to_PEM_cert(der).encode()
    key = p256()
    settings = read_settings(with_tls(key, certificate(key, SAN) + ca, ca))
    assert risks_of(settings, NOW) == []


def in_days(days: float) -> datetime:
    return NOW + timedelta(days=days)


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (in_days(-2), "is not valid before {begins}: replace it, or correct the clock"),
        (in_days(45), None),
        (in_days(47), "expires at {ends}: replace it before"),
        (in_days(61), "expired at {ends}: replace it, or correct the clock"),
    ],
    ids=["not yet valid", "valid", "about to expire", "expired"],
)
def test_certificates_outside_their_time_are_a_risk_and_not_a_fault(
    now: datetime, sentence: str | None, with_tls: Callable[..., dict[str, str]]
) -> None:
    key = p256()
    environ = with_tls(key, certificate(key, SAN), ISSUER + OTHER)
    ca = environ["ALIPAYHK_TLS_CLIENT_CA_FILE"]
    settings = read_settings({**environ, "ALIPAYHK_UPSTREAM_CA_FILE": ca})
    names = [
        f"TLS_CERT_FILE ({environ['ALIPAYHK_TLS_CERT_FILE']}): the certificate",
        f"TLS_CLIENT_CA_FILE ({ca}): certificate 1",
        f"TLS_CLIENT_CA_FILE ({ca}): certificate 2",
        f"UPSTREAM_CA_FILE ({ca}): the certificate",
    ]
    times = {"begins": f"{in_days(-1):%Y-%m-%dT%H:%M:%SZ}", "ends": f"{in_days(60):%Y-%m-%dT%H:%M:%SZ}"}
    expected = [] if sentence is None else [f"{name} {sentence.format(**times)}" for name in names]
    assert risks_of(settings, now) == expected


def test_certificates_that_some_callers_refuse_are_a_risk(
    with_tls: Callable[..., dict[str, str]],
) -> None:
    key = ec.generate_private_key(ec.SECP521R1())
    environ = with_tls(key, certificate(key, ISSUER_URL))
    settings = read_settings(environ)
    where = f"TLS_CERT_FILE ({environ['ALIPAYHK_TLS_CERT_FILE']})"
    assert risks_of(settings, NOW) == [
        f"{where} has no subjectAltName: most callers refuse a certificate without one",
        f"{where} has a key on P-521, which callers in Python, C++ and Ruby refuse: use P-256 or P-384",
        f"{where} contains one certificate: most callers also need the one that issued it, after it",
    ]


def test_a_client_ca_file_without_a_ca_is_a_risk(with_tls: Callable[..., dict[str, str]]) -> None:
    key = p256()
    leaf = certificate(key, SAN)
    environ = with_tls(key, leaf, leaf)
    (risk,) = risks_of(read_settings(environ), NOW)
    file = environ["ALIPAYHK_TLS_CLIENT_CA_FILE"]
    assert risk == (
        f"TLS_CLIENT_CA_FILE ({file}) contains no certificate of a CA, so callers can connect only with "
        "one that is in the file: add the CA of the callers' certificates"
    )


@pytest.fixture
def settings(environ: dict[str, str], ring: KeyRing, tmp_path: Path) -> Settings:
    """Return settings with a copy of every kind of secret, which only this user can read."""
    for file in ("signing", "bind", "one", "two"):
        (copy := tmp_path / file).touch(0o600)
        copy.write_bytes(ring.private.read_bytes())
    for file in ("ledger.db", "ledger.db.key"):
        (tmp_path / file).touch(0o600)
    named = {
        "SIGNING_KEY_FILE": f"{tmp_path}/signing",
        "BIND_ACCOUNT_SIGNING_KEY_FILE": f"{tmp_path}/bind",
        "DECRYPTION_KEY_FILES": f"1={tmp_path}/one,2={tmp_path}/two",
        "LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
    }
    return read_settings(environ | {f"ALIPAYHK_{name}": text for name, text in named.items()})


def test_secrets_that_others_can_read_are_a_risk(settings: Settings, tmp_path: Path) -> None:
    assert risks_of(settings, NOW) == []
    for path in tmp_path.iterdir():
        path.chmod(0o640)
    assert risks_of(settings, NOW) == [], "a group can be meant, such as that of a Kubernetes volume"
    for path in tmp_path.iterdir():
        path.chmod(0o604)
    rows = (
        ("SIGNING_KEY_FILE", "signing"),
        ("BIND_ACCOUNT_SIGNING_KEY_FILE", "bind"),
        ("DECRYPTION_KEY_FILES 2", "two"),
        ("DECRYPTION_KEY_FILES 1", "one"),
        ("the ledger", "ledger.db"),
        ("the ledger's key", "ledger.db.key"),
    )
    assert risks_of(settings, NOW) == [
        f"{name} ({tmp_path}/{file}) can be read by every user of this machine: chmod o-rwx it"
        for name, file in rows
    ]


def test_our_own_key_in_place_of_alipayhks_is_a_risk(
    environ: dict[str, str], ring: KeyRing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    swapped = f"1={ring.public},2={ring.other_public}"
    for setting, text in {**environ, "ALIPAYHK_PUBLIC_KEY_FILES": swapped}.items():
        monkeypatch.setenv(setting, text)
    # A default port that is in use would be another warning.
    monkeypatch.setenv("ALIPAYHK_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("ALIPAYHK_ADMIN_LISTEN", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALIPAYHK_DECRYPTION_KEY_FILES", f"1={ring.other_private}")
    warning = (
        f"PUBLIC_KEY_FILES version 2 ({ring.other_public}) is our own public key: put AlipayHK's in its "
        "place, because without it no response can be verified"
    )
    assert main(["config", "check"]) == 0
    assert capsys.readouterr().err == f"alipayhk-gateway: warning: {warning}\n"
    assert main(["config", "check", "--json"]) == 0
    shown = capsys.readouterr()
    assert (json.loads(shown.out)["warnings"], shown.err) == ([warning], "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"DEFAULT_DEADLINE_S": "5", "DEADLINE_MAX_S": "5", "STOP_GRACE_S": "4"}, []),
        (
            {"DEADLINE_MAX_S": "5.5", "STOP_GRACE_S": "0"},
            [
                "DEFAULT_DEADLINE_S (10) is above DEADLINE_MAX_S, which counts: 5.5 seconds",
                "STOP_GRACE_S (0) is below UPSTREAM_TIMEOUT_S, which counts in its place: 4 seconds",
            ],
        ),
    ],
)
def test_time_limits_that_another_setting_overrides_are_a_risk(
    changes: dict[str, str], expected: list[str], environ: dict[str, str]
) -> None:
    settings = read_settings(environ | {f"ALIPAYHK_{name}": text for name, text in changes.items()})
    assert risks_of(settings, NOW) == expected
