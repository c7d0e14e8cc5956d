"""The `openssl` command reads what this code writes, and this code reads what `openssl` writes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from clients.alipayhk.wire import crypto, keys
from clients.alipayhk.wire.crypto import AesMode, EncryptionProfile, RsaPadding
from tests.certificates import private_pem

OPENSSL: Final = shutil.which("openssl") or "openssl"
"""Without the command these tests fail and are not skipped: they are the only independent check."""
CONTENT: Final = 'POST /%7Eu?a=%2f\nC.2024-05-22T06:42:21+05:30.{"name":"陳大文"}'.encode()
PLAINTEXTS: Final = {"empty": b"", "a block": b"x" * 16, "one less": b"y" * 15, "chinese": CONTENT}


def openssl(*arguments: str | Path, given: bytes = b"") -> bytes:
    """Run the command; return its output."""
    return subprocess.run([OPENSSL, *arguments], input=given, capture_output=True, check=True).stdout


@pytest.fixture
def private_file(theirs: RSAPrivateKey, tmp_path: Path) -> Path:
    """Write a private key to a file for the command."""
    file = tmp_path / "private.pem"
    file.write_bytes(private_pem(theirs))
    return file


@pytest.fixture
def public_file(private_file: Path, tmp_path: Path) -> Path:
    """Make the command write the public key."""
    file = tmp_path / "public.pem"
    openssl("pkey", "-in", private_file, "-pubout", "-out", file)
    return file


def test_openssl_verifies_our_signature(theirs: RSAPrivateKey, public_file: Path, tmp_path: Path) -> None:
    signature_file = tmp_path / "signature"
    signature_file.write_bytes(crypto.sign(theirs, CONTENT))
    verify = ("dgst", "-sha256", "-verify", public_file, "-signature", signature_file)
    assert openssl(*verify, given=CONTENT) == b"Verified OK\n"
    with pytest.raises(subprocess.CalledProcessError):
        openssl(*verify, given=CONTENT + b"\n")


def test_we_verify_the_signature_of_openssl(private_file: Path, public_file: Path) -> None:
    signature = openssl("dgst", "-sha256", "-sign", private_file, given=CONTENT)
    assert crypto.verify(keys.load_public_key(public_file), signature, CONTENT) == CONTENT


def test_we_sign_what_openssl_signs_bit_for_bit(theirs: RSAPrivateKey, private_file: Path) -> None:
    assert openssl("dgst", "-sha256", "-sign", private_file, given=CONTENT) == crypto.sign(theirs, CONTENT)


@pytest.mark.parametrize("plaintext", PLAINTEXTS.values(), ids=PLAINTEXTS.keys())
@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("mode", ["ECB", "CBC"])
def test_openssl_and_this_code_decrypt_each_others_bodies(
    mode: AesMode, bits: int, plaintext: bytes
) -> None:
    profile = EncryptionProfile(mode, bits)
    key, iv = os.urandom(bits // 8), os.urandom(16)
    command = ["enc", f"-aes-{bits}-{mode.lower()}", "-K", key.hex()]
    command += ["-iv", iv.hex()] if mode == "CBC" else []
    before = iv if mode == "CBC" else b""
    theirs = openssl(*command, given=plaintext)
    sent = crypto.encrypt(profile, key, iv, plaintext)
    assert sent == before + theirs
    assert crypto.decrypt(profile, key, before + theirs) == plaintext
    assert openssl(*command, "-d", given=sent.removeprefix(before)) == plaintext


PADDINGS: Final[dict[RsaPadding, list[str]]] = {
    "PKCS1V15": ["-pkeyopt", "rsa_padding_mode:pkcs1"],
    "OAEP_SHA256": [
        *("-pkeyopt", "rsa_padding_mode:oaep"),
        *("-pkeyopt", "rsa_oaep_md:sha256"),
        *("-pkeyopt", "rsa_mgf1_md:sha256"),
    ],
}


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("padding", PADDINGS)
def test_openssl_and_this_code_unwrap_each_others_keys(
    padding: RsaPadding, bits: int, theirs: RSAPrivateKey, private_file: Path, public_file: Path
) -> None:
    profile = EncryptionProfile("ECB", bits, padding)
    key = os.urandom(bits // 8)
    wrap: tuple[str | Path, ...] = (
        "pkeyutl",
        "-encrypt",
        "-pubin",
        "-inkey",
        public_file,
        *PADDINGS[padding],
    )
    unwrap: tuple[str | Path, ...] = ("pkeyutl", "-decrypt", "-inkey", private_file, *PADDINGS[padding])
    wrapped = crypto.wrap_key(profile, theirs.public_key(), key)
    assert openssl(*unwrap, given=wrapped) == key
    assert crypto.unwrap_key(profile, theirs, openssl(*wrap, given=key)) == key


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("pkey",), id="pkcs8"),
        pytest.param(("rsa", "-traditional"), id="pkcs1"),
        pytest.param(("pkey", "-outform", "DER"), id="pkcs8 der, base64"),
    ],
)
def test_a_private_key_that_openssl_wrote_is_read(
    command: tuple[str, ...], theirs: RSAPrivateKey, private_file: Path, tmp_path: Path
) -> None:
    written = openssl(*command, "-in", private_file)
    file = tmp_path / "read"
    file.write_bytes(openssl("base64", given=written) if "DER" in command else written)
    assert keys.load_private_key(file).private_numbers() == theirs.private_numbers()


def test_our_fingerprint_is_the_one_that_openssl_shows(theirs: RSAPrivateKey, public_file: Path) -> None:
    der = openssl("pkey", "-pubin", "-in", public_file, "-outform", "DER")
    shown = openssl("dgst", "-sha256", "-r", given=der)
    assert keys.fingerprint(theirs.public_key()) == shown.split()[0].decode()
