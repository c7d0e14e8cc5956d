"""Key files in every accepted format, and the error text for each fault."""

from __future__ import annotations

import base64
import os
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from clients.alipayhk.wire import keys
from clients.alipayhk.wire.keys import KeyFileError
from tests.certificates import of_unknown_version

Write = Callable[[RSAPrivateKey], bytes]


def private(encoding: Encoding, form: PrivateFormat) -> Write:
    """Return a writer of private keys."""
    return lambda key: key.private_bytes(encoding, form, NoEncryption())


def public(encoding: Encoding, form: PublicFormat) -> Write:
    """Return a writer of public keys."""
    return lambda key: key.public_key().public_bytes(encoding, form)


def certificate(encoding: Encoding) -> Write:
    """Return a self-signed certificate."""

    def write(key: RSAPrivateKey) -> bytes:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "AlipayHK")])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
            .public_bytes(encoding)
        )

    return write


def one_line(write: Write) -> Write:
    """Return base64 DER on one line."""
    return lambda key: base64.b64encode(write(key))


def wrapped(write: Write, *, width: int = 64, end: str = "\n") -> Write:
    """Return base64 DER in lines of `width`."""
    return lambda key: (
        end.join(textwrap.wrap(base64.b64encode(write(key)).decode(), width)) + end
    ).encode()


def crlf(write: Write) -> Write:
    """Return the file with CR LF line ends."""
    return lambda key: write(key).replace(b"\n", b"\r\n")


def labelled(write: Write, label: bytes, other: bytes) -> Write:
    """Return PEM with another label than its content has."""
    return lambda key: write(key).replace(b" " + label + b"-", b" " + other + b"-")


BOM: Final = b"\xef\xbb\xbf"
PARAMETERS: Final = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
PKCS1: Final = private(Encoding.PEM, PrivateFormat.TraditionalOpenSSL)
PKCS8: Final = private(Encoding.PEM, PrivateFormat.PKCS8)
PKCS8_DER: Final = private(Encoding.DER, PrivateFormat.PKCS8)
PKCS1_DER: Final = private(Encoding.DER, PrivateFormat.TraditionalOpenSSL)
SPKI: Final = public(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SPKI_DER: Final = public(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PUBLIC_PKCS1: Final = public(Encoding.PEM, PublicFormat.PKCS1)
PUBLIC_PKCS1_DER: Final = public(Encoding.DER, PublicFormat.PKCS1)

PRIVATE: Final[dict[str, Write]] = {
    "PKCS#1 PEM": PKCS1,
    "PKCS#1 PEM, CRLF": crlf(PKCS1),
    "PKCS#8 PEM": PKCS8,
    "PKCS#8 PEM, CRLF": crlf(PKCS8),
    "PKCS#8 PEM, BOM": lambda key: BOM + PKCS8(key),
    "PKCS#8 under the label of PKCS#1": labelled(PKCS8, b"PRIVATE KEY", b"RSA PRIVATE KEY"),
    "PKCS#1 under the label of PKCS#8": labelled(PKCS1, b"RSA PRIVATE KEY", b"PRIVATE KEY"),
    "with its certificate": lambda key: certificate(Encoding.PEM)(key) + PKCS8(key),
    "with its public key": lambda key: PKCS8(key) + SPKI(key),
    "twice": lambda key: PKCS8(key) + PKCS1(key),
    "after parameters": lambda key: PARAMETERS + PKCS8(key),
    "PKCS#8 DER": PKCS8_DER,
    "PKCS#1 DER": PKCS1_DER,
    "PKCS#8 base64, BOM": lambda key: BOM + one_line(PKCS8_DER)(key),
    "PKCS#8 PEM, text before it": lambda key: b"Key of the merchant\n\n" + PKCS8(key),
    "PKCS#8 base64, one line": one_line(PKCS8_DER),
    "PKCS#8 base64, wrapped": wrapped(PKCS8_DER),
    "PKCS#8 base64, wrapped, CRLF": wrapped(PKCS8_DER, width=76, end="\r\n"),
    "PKCS#8 base64, space around it": lambda key: b" \r\n\t" + one_line(PKCS8_DER)(key) + b"\n\n",
    "PKCS#1 base64, one line": one_line(PKCS1_DER),
    "PKCS#1 base64, wrapped": wrapped(PKCS1_DER),
}
PUBLIC: Final[dict[str, Write]] = {
    "SubjectPublicKeyInfo PEM": SPKI,
    "SubjectPublicKeyInfo PEM, CRLF": crlf(SPKI),
    "PKCS#1 PEM": PUBLIC_PKCS1,
    "SubjectPublicKeyInfo PEM, BOM": lambda key: BOM + SPKI(key),
    "SubjectPublicKeyInfo under the label of PKCS#1": labelled(SPKI, b"PUBLIC KEY", b"RSA PUBLIC KEY"),
    "PKCS#1 under the label of SubjectPublicKeyInfo": labelled(
        PUBLIC_PKCS1, b"RSA PUBLIC KEY", b"PUBLIC KEY"
    ),
    "public key under the label of a private key": labelled(SPKI, b"PUBLIC KEY", b"PRIVATE KEY"),
    "with its certificate": lambda key: SPKI(key) + certificate(Encoding.PEM)(key),
    "SubjectPublicKeyInfo DER": SPKI_DER,
    "certificate DER": certificate(Encoding.DER),
    "SubjectPublicKeyInfo base64, BOM": lambda key: BOM + one_line(SPKI_DER)(key),
    "certificate PEM": certificate(Encoding.PEM),
    "certificate PEM, CRLF": crlf(certificate(Encoding.PEM)),
    "SubjectPublicKeyInfo base64, one line": one_line(SPKI_DER),
    "SubjectPublicKeyInfo base64, wrapped": wrapped(SPKI_DER),
    "SubjectPublicKeyInfo base64, wrapped, CRLF": wrapped(SPKI_DER, end="\r\n"),
    "PKCS#1 base64, one line": one_line(PUBLIC_PKCS1_DER),
    "certificate base64, one line": one_line(certificate(Encoding.DER)),
    "certificate base64, wrapped": wrapped(certificate(Encoding.DER)),
}


@pytest.mark.parametrize("write", PRIVATE.values(), ids=PRIVATE.keys())
def test_private_key_is_read_in_this_format(write: Write, theirs: RSAPrivateKey, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(write(theirs))
    assert keys.load_private_key(file).private_numbers() == theirs.private_numbers()
    with pytest.raises(KeyFileError, match=r"^contains a private key, but a public key is needed$"):
        keys.load_public_key(file)


@pytest.mark.parametrize("write", PUBLIC.values(), ids=PUBLIC.keys())
def test_public_key_is_read_in_this_format(write: Write, theirs: RSAPrivateKey, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(write(theirs))
    assert keys.load_public_key(file).public_numbers() == theirs.public_key().public_numbers()
    with pytest.raises(KeyFileError, match=r"^contains a public key, but a private key is needed$"):
        keys.load_private_key(file)


def encrypted(form: PrivateFormat, encoding: Encoding = Encoding.PEM) -> Write:
    """Return a writer of private keys with a passphrase."""
    return lambda key: key.private_bytes(encoding, form, BestAvailableEncryption(b"passphrase"))


def public_of_bits(bits: int) -> bytes:
    """Return a public key of exactly this many bits, with a random modulus."""
    numbers = rsa.RSAPublicNumbers(65537, (1 << bits) - 1)
    return numbers.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def elliptic_private(_: RSAPrivateKey) -> bytes:
    """Return a private key that is not RSA."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def elliptic_public(_: RSAPrivateKey) -> bytes:
    """Return a public key that is not RSA, as base64 DER."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def edwards_public(_: RSAPrivateKey) -> bytes:
    """Return a public key that is not RSA."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


NOT_PEM: Final = "is PEM, but not a key that can be read"
CUT: Final = "is incomplete or was cut off: a BEGIN line has no END line with the same label"
NOT_DER: Final = "is base64, but not a DER key that can be read"
NEITHER: Final = "is neither PEM nor base64 DER"
NOT_RSA: Final = "contains a key that is not an RSA key"
SEVERAL: Final = "contains several keys; put each key in a file of its own"
PASSPHRASE: Final = "is encrypted with a passphrase, which is not supported"

REFUSED: Final[dict[str, tuple[Write, str]]] = {
    "empty": (lambda _: b"", "is empty"),
    "blank": (lambda _: b" \r\n\t\n", "is empty"),
    "garbage": (lambda _: b"not a key", NEITHER),
    "binary": (lambda _: bytes(range(256)), NEITHER),
    "DER cut short": (lambda key: PKCS8_DER(key)[:400], NEITHER),
    "two private keys": (lambda key: PKCS8(key) + PKCS8(rsa.generate_private_key(65537, 2048)), SEVERAL),
    "a private key and the certificate of another": (
        lambda key: certificate(Encoding.PEM)(rsa.generate_private_key(65537, 2048)) + PKCS8(key),
        SEVERAL,
    ),
    "two public keys": (lambda key: SPKI(key) + public_of_bits(2048), SEVERAL),
    "an RSA key and an elliptic key": (lambda key: PKCS8(key) + elliptic_private(key), SEVERAL),
    "a key and the start of another": (lambda key: PKCS8(key) + PKCS8(key)[:200], CUT),
    "encrypted PKCS#8 under the label of PKCS#8": (
        labelled(encrypted(PrivateFormat.PKCS8), b"ENCRYPTED PRIVATE KEY", b"PRIVATE KEY"),
        PASSPHRASE,
    ),
    "base64 of something else": (lambda _: base64.b64encode(b"not a key"), NOT_DER),
    "base64 cut short": (lambda key: one_line(PKCS8_DER)(key)[:400], NOT_DER),
    "base64 of a key and more": (lambda key: base64.b64encode(SPKI_DER(key) + b"x"), NOT_DER),
    "base64 of an encrypted key": (one_line(encrypted(PrivateFormat.PKCS8, Encoding.DER)), PASSPHRASE),
    "base64 of a PEM file": (one_line(PKCS8), NOT_DER),
    "base64url": (lambda _: b"-_-_" * 100, NEITHER),
    "UTF-16": (lambda key: PKCS8(key).decode().encode("utf-16"), NEITHER),
    "PEM without an end": (lambda key: PKCS8(key)[:-30], CUT),
    "PEM cut in its BEGIN line": (lambda key: PKCS8(key)[:15], CUT),
    "PEM cut in its END line": (lambda key: PKCS8(key)[:-8], CUT),
    "PEM cut off, then a whole one": (lambda key: PKCS8(key)[:200] + b"\n" + PKCS8(key), CUT),
    "PEM with the end of another": (
        lambda key: PKCS8(key).replace(b"END PRIVATE", b"END RSA PRIVATE"),
        CUT,
    ),
    "PEM that holds nothing": (
        lambda _: b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        NOT_PEM,
    ),
    "PEM that holds garbage": (
        lambda _: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        NOT_PEM,
    ),
    "a certificate that is none": (
        lambda _: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        NOT_PEM,
    ),
    "a certificate of an unknown version": (
        lambda key: of_unknown_version(certificate(Encoding.DER)(key)),
        NEITHER,
    ),
    "a certificate of an unknown version, base64": (
        lambda key: base64.b64encode(of_unknown_version(certificate(Encoding.DER)(key))),
        NOT_DER,
    ),
    "a certificate request": (
        lambda _: b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        NOT_PEM,
    ),
    "encrypted PKCS#8": (encrypted(PrivateFormat.PKCS8), PASSPHRASE),
    "encrypted PKCS#1": (encrypted(PrivateFormat.TraditionalOpenSSL), PASSPHRASE),
    "elliptic, private": (elliptic_private, NOT_RSA),
    "elliptic, public": (elliptic_public, NOT_RSA),
    "Edwards": (edwards_public, NOT_RSA),
    "1024 bits": (
        lambda _: PKCS8(rsa.generate_private_key(65537, 1024)),
        "contains a key of 1024 bits; 2048 to 8192 are allowed",
    ),
    "2047 bits": (lambda _: public_of_bits(2047), "contains a key of 2047 bits; 2048 to 8192 are allowed"),
    "8193 bits": (lambda _: public_of_bits(8193), "contains a key of 8193 bits; 2048 to 8192 are allowed"),
    "64 KiB and one byte": (lambda _: b"A" * 65_537, "is larger than 65536 bytes"),
    "a key, and more than 64 KiB after it": (
        lambda key: PKCS8(key) + b"\n" * 65_536,
        "is larger than 65536 bytes",
    ),
}


@pytest.mark.parametrize(("write", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_key_is_refused_with_its_error_text(
    write: Write, sentence: str, theirs: RSAPrivateKey, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_bytes(write(theirs))
    for load in (keys.load_private_key, keys.load_public_key, keys.read_key):
        with pytest.raises(KeyFileError) as caught:
            load(file)
        assert str(caught.value) == sentence


@pytest.mark.parametrize("bits", [2048, 8192])
def test_smallest_and_largest_key_sizes_are_allowed(bits: int) -> None:
    assert keys.parse_key(public_of_bits(bits)).key_size == bits


def test_a_file_of_exactly_64_kib_is_read(theirs: RSAPrivateKey) -> None:
    data = SPKI(theirs)
    assert keys.parse_key(data + b"\n" * (keys.FILE_BYTES_MAX - len(data)))


def nothing_there(directory: Path) -> Path:
    """Return the path of a file that does not exist."""
    return directory / "absent"


def below_a_file(directory: Path) -> Path:
    """Return a path with a file as its directory."""
    (directory / "file").write_bytes(b"")
    return directory / "file" / "key"


def circular(directory: Path) -> Path:
    """Return a symbolic link to itself."""
    (directory / "link").symlink_to(directory / "link")
    return directory / "link"


def pipe(directory: Path) -> Path:
    """Return a named pipe that no process writes to."""
    os.mkfifo(directory / "pipe")
    return directory / "pipe"


def unnameable(directory: Path) -> Path:
    """Return a path that cannot exist."""
    return directory / "a\0b"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (nothing_there, "No such file or directory"),
        (Path, "Is a directory"),
        (below_a_file, "Not a directory"),
        (circular, "Too many levels of symbolic links"),
        (pipe, "it is a pipe, a socket or a device, and must be a regular file"),
        (lambda _: Path("/dev/zero"), "it is a pipe, a socket or a device, and must be a regular file"),
    ],
)
def test_unreadable_file_error_names_the_reason_and_not_the_path(
    place: Callable[[Path], Path], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(KeyFileError) as caught:
        keys.load_private_key(place(tmp_path))
    assert str(caught.value) == f"cannot be read: {reason}"


def test_impossible_path_is_a_key_file_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError):
        keys.load_private_key(unnameable(tmp_path))


@pytest.mark.parametrize(
    ("versions", "ordered"),
    [
        (["1", "2", "10"], ["10", "2", "1"]),
        (["10", "9", "beta", "alpha"], ["10", "9", "beta", "alpha"]),
        (["2024-05", "3"], ["3", "2024-05"]),
        (["²", "1"], ["1", "²"]),
        (["0", "00", "1"], ["1", "00", "0"]),
        ([], []),
    ],
    ids=str,
)
def test_versions_are_sorted_newest_first(
    versions: list[str], ordered: list[str], theirs: RSAPrivateKey
) -> None:
    for given in (versions, versions[::-1]):
        assert list(keys.newest_first(dict.fromkeys(given, theirs))) == ordered


def test_each_version_keeps_its_key(theirs: RSAPrivateKey, stranger: RSAPrivateKey) -> None:
    assert keys.newest_first({"1": theirs, "2": stranger}) == {"2": stranger, "1": theirs}


def test_different_keys_have_different_fingerprints(theirs: RSAPrivateKey, stranger: RSAPrivateKey) -> None:
    prints = {keys.fingerprint(key.public_key()) for key in (theirs, theirs, stranger)}
    assert len(prints) == 2
    assert all(len(text) == 64 and int(text, 16) for text in prints)
