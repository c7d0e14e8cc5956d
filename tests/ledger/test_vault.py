"""The vault: keyed hashes, replies that only their own row can unseal, and the key file."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from service.ledger import Key, LedgerFault
from service.ledger.vault import KEY_BYTES, Unsealable, Vault, make_key_file, read_key_file

ROW = Key("client-1", "SyncLinkage", "id-1")


def a_vault(key: bytes = bytes(KEY_BYTES)) -> Vault:
    return Vault(key, random_bytes=os.urandom)


# -- hashes


def test_hashes_are_keyed_and_stable() -> None:
    one, same, other = a_vault(), a_vault(), a_vault(b"k" * KEY_BYTES)
    assert one.fingerprint(b"content") == same.fingerprint(b"content") != other.fingerprint(b"content")
    assert one.linkage(("a", "b")) == same.linkage(("a", "b")) != other.linkage(("a", "b"))
    assert (one.key_id, one.key_check) == (same.key_id, same.key_check)
    assert one.key_id != other.key_id
    assert one.key_check != other.key_check


def test_hashes_do_not_change_between_versions() -> None:
    """If a hash changed, every known id would look reused."""
    vault = a_vault()
    assert vault.fingerprint(b"content").hex() == (
        "6992a8d57a1c6d2478dc5c3405c5b3a15793e3c700301e6efdf645acdf88b0f4"
    )
    assert vault.linkage(("UID", "1")).hex() == (
        "2de96a6192c56bc679be4d3b6a3689a0bb0cc46db660b0b4b407d900e71b8c2c"
    )
    assert vault.key_id == "a6069549"
    assert vault.key_check.hex() == "d2cab749a8b65ca858148c24461e240a"


def test_same_text_hashes_differently_for_each_purpose() -> None:
    vault = a_vault()
    assert vault.fingerprint(b"\0\0\0\1a") != vault.linkage(("a",))


@pytest.mark.parametrize(
    "others", [("ab", ""), ("", "ab"), ("ab",), ("a", "b", ""), ("a\0", "b"), ("b", "a")]
)
def test_linkage_names_are_encoded_unambiguously(others: tuple[str, ...]) -> None:
    assert a_vault().linkage(("a", "b")) != a_vault().linkage(others)


# -- sealing


@pytest.mark.parametrize("plaintext", [b"", b"reply", os.urandom(70_000)], ids=len)
def test_sealed_reply_is_unsealed_in_its_row(plaintext: bytes) -> None:
    sealed = a_vault().seal(plaintext, ROW)
    assert plaintext not in sealed or not plaintext
    assert a_vault().unseal(sealed, ROW) == plaintext


def test_reply_that_an_earlier_version_sealed_is_unsealed() -> None:
    sealed = bytes.fromhex("000102030405060708090a0b49cd2118ff6b89c824d3dc2cda0938ade227f1f6a3")
    assert a_vault().unseal(sealed, ROW) == b"reply"


def test_each_reply_has_a_random_nonce() -> None:
    drawn: list[int] = []

    def random_bytes(count: int) -> bytes:
        drawn.append(count)
        return bytes([len(drawn)]) * count

    vault = Vault(bytes(KEY_BYTES), random_bytes=random_bytes)
    assert vault.seal(b"reply", ROW) != vault.seal(b"reply", ROW)
    assert drawn == [12, 12]


def failures() -> dict[str, tuple[Vault, bytes, Key]]:
    sealed = a_vault().seal(b"reply", ROW)
    bent = bytearray(sealed)
    bent[-1] ^= 1
    return {
        "another request": (a_vault(), sealed, Key("client-1", "SyncLinkage", "id-2")),
        "another API": (a_vault(), sealed, Key("client-1", "BindAccount", "id-1")),
        "another client id": (a_vault(), sealed, Key("client-2", "SyncLinkage", "id-1")),
        "parts moved": (a_vault(), sealed, Key("client-1S", "yncLinkage", "id-1")),
        "another key": (a_vault(b"k" * KEY_BYTES), sealed, ROW),
        "one bit": (a_vault(), bytes(bent), ROW),
        "cut": (a_vault(), sealed[:-1], ROW),
        "cut in the nonce": (a_vault(), sealed[:5], ROW),
        "empty": (a_vault(), b"", ROW),
    }


@pytest.mark.parametrize("why", failures())
def test_all_failures_raise_the_same_error(why: str) -> None:
    vault, sealed, row = failures()[why]
    with pytest.raises(Unsealable, match=r"^the stored reply cannot be unsealed$") as caught:
        vault.unseal(sealed, row)
    assert caught.value.__suppress_context__


# -- the file


def test_key_file_has_one_line_and_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "ledger.key"
    make_key_file(path, random_bytes=os.urandom)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text("ascii")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert read_key_file(path) == base64.b64decode(text)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.key"]


def test_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "ledger.key"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        make_key_file(path, random_bytes=os.urandom)
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.key"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not base64 at all!",
        base64.b64encode(bytes(31)),
        base64.b64encode(bytes(33)),
        bytes(32),
        base64.b64encode(bytes(4000)),
        base64.b64encode(bytes(32)).replace(b"A", b"A\n", 1),
        base64.b64encode(bytes(32)) + b"!",
        "ключ".encode(),
    ],
)
def test_file_without_a_key_is_named_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.key"
    path.write_bytes(content)
    with pytest.raises(LedgerFault, match="must hold 32 bytes as one line of base64") as caught:
        read_key_file(path)
    assert str(path) in str(caught.value)


def test_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerFault, match=r"absent\.key cannot be read: No such file"):
        read_key_file(tmp_path / "absent.key")
