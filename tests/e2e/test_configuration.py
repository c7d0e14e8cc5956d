"""Invalid settings: one run names all of them, prints no value, and starts nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.e2e.gateway import Settings, run, running
from tests.e2e.material import Authority, Material, pem, rsa_pair

MARK = "marked-4711"
REQUIRED = (
    "BASE_URL",
    "CLIENT_ID",
    "SIGNING_KEY_FILE",
    "PUBLIC_KEY_FILES",
    "SYNC_LINKAGE_PATH",
    "BIND_ACCOUNT_PATH",
)


async def refusal(settings: Settings, *flags: str | Path) -> list[str]:
    """Start a gateway with invalid settings; return the lines of its error message."""
    ended = await run("serve", *flags, settings=settings)
    assert ended.status == 78, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert MARK not in ended.err
    return ended.err.splitlines()


def named(lines: list[str], name: str) -> bool:
    """Whether a line names a setting."""
    return any(name in line.replace("ALIPAYHK_", "").split() for line in lines)


async def test_every_kind_of_fault_is_named_in_one_run(settings: Settings, material: Material) -> None:
    bad = {
        "BASE_URL": f"ftp://{MARK}.example",
        "CLIENT_ID": f"{MARK} with space",
        "SIGNING_KEY_FILE": f"/no/such/{MARK}",
        "PUBLIC_KEY_FILES": f"1={material.directory}/no-{MARK}",
        "SYNC_LINKAGE_PATH": MARK,
        "LISTEN": MARK,
        "ENCRYPT": MARK,
        "UPSTREAM_TIMEOUT_S": MARK,
        "MAX_IN_FLIGHT": "0",
        "LOG_LEVEL": MARK,
        "UPSTREAM_PROXY": MARK,
        "ENCRYPTION_AES_MODE": "GCM-SIV",
        "SIGNNING_KEY_FILE": MARK,
    }
    lines = await refusal({**settings, **bad})
    assert [name for name in bad if not named(lines, name)] == []


def small_key(material: Material) -> dict[str, str]:
    """Return settings with a signing key that is too small."""
    return {"SIGNING_KEY_FILE": str(rsa_pair(material.directory, "small", bits=1024).private_file)}


def small_public_key(material: Material) -> dict[str, str]:
    """Return settings with a public key of AlipayHK that is too small."""
    return {"PUBLIC_KEY_FILES": f"1={rsa_pair(material.directory, 'small', bits=1024).public_file}"}


def swapped_keys(material: Material) -> dict[str, str]:
    """Return settings with a public key as private key, and a private key as public key."""
    return {
        "SIGNING_KEY_FILE": str(material.ours.public_file),
        "PUBLIC_KEY_FILES": f"1={material.ours.private_file}",
    }


def garbage_key(material: Material) -> dict[str, str]:
    """Return settings with a file that contains no key."""
    file = material.directory / "garbage.pem"
    file.write_text(MARK)
    return {"SIGNING_KEY_FILE": str(file)}


def mismatching_tls(material: Material) -> dict[str, str]:
    """Return settings with a certificate and the key of another certificate."""
    one, other = (material.callers_ca.issue(name, "127.0.0.1") for name in ("one", "other"))
    return {"TLS_KEY_FILE": str(other.key_file), "TLS_CERT_FILE": str(one.chain_file)}


def half_tls(material: Material) -> dict[str, str]:
    """Return settings with a certificate and no key."""
    return {"TLS_CERT_FILE": str(material.callers_ca.issue("half", "127.0.0.1").chain_file)}


def garbage_tls(material: Material) -> dict[str, str]:
    """Return settings with files that contain neither a certificate nor a key."""
    file = material.directory / "garbage.tls"
    file.write_text(MARK)
    return {"TLS_CERT_FILE": str(file), "TLS_KEY_FILE": str(file)}


def callers_without_ca(material: Material) -> dict[str, str]:
    """Return settings with an allow-list but no client CA, so that no caller can be authenticated."""
    file = material.directory / "some-callers.toml"
    file.write_text('[callers.a]\nsan = ["a"]\nmethods = ["SyncLinkage"]\n')
    return {"CALLERS_FILE": str(file)}


def ca_without_tls(material: Material) -> dict[str, str]:
    """Return settings with a client CA but no TLS."""
    return {"TLS_CLIENT_CA_FILE": str(material.callers_ca.file)}


def broken_callers(material: Material) -> dict[str, str]:
    """Return settings with an invalid allow-list."""
    file = material.directory / "broken-callers.toml"
    file.write_text('[callers.a]\nsan = []\nmethods = ["Nothing"]\nmax_in_flight = 0\nx = 1\n')
    return {"CALLERS_FILE": str(file)}


def broken_codes(material: Material) -> dict[str, str]:
    """Return settings with a table that gives a final rejection the status of a failure to retry."""
    file = material.directory / "broken-codes.toml"
    file.write_text('[SyncLinkage]\nX = "UNAVAILABLE"\nINVALID_SIGNATURE = "NOT_FOUND"\n')
    return {"RESULT_CODES_FILE": str(file)}


def garbage_ledger_key(material: Material) -> dict[str, str]:
    """Return settings with a ledger key file that contains no key."""
    file = material.directory / "ledger.key"
    file.write_text(MARK)
    return {"LEDGER_KEY_FILE": str(file)}


def fixed(**more: str) -> Callable[[Material], dict[str, str]]:
    """Return a function that returns these settings; they need no files."""
    return lambda _: more


Faults = tuple[tuple[Callable[[Material], dict[str, str]], tuple[str, ...]], ...]
FAULTS: Mapping[str, Faults] = {
    "small key, mismatching TLS, and more": (
        (small_key, ("SIGNING_KEY_FILE",)),
        (mismatching_tls, ("TLS_KEY_FILE", "TLS_CERT_FILE")),
        (broken_callers, ("CALLERS_FILE",)),
        (fixed(PUBLIC_KEY_FILES="1=a,1=b"), ("PUBLIC_KEY_FILES",)),
        (fixed(CLIENT_ID="a\r\nX: y"), ("CLIENT_ID",)),
        (fixed(UPSTREAM_TIMEOUT="4"), ("UPSTREAM_TIMEOUT",)),
    ),
    "small public key, half of TLS, and more": (
        (small_public_key, ("PUBLIC_KEY_FILES",)),
        (garbage_key, ("SIGNING_KEY_FILE",)),
        (half_tls, ("TLS_CERT_FILE", "TLS_KEY_FILE")),
        (broken_codes, ("RESULT_CODES_FILE",)),
        (fixed(SYNC_LINKAGE_PATH="a"), ("SYNC_LINKAGE_PATH",)),
        (fixed(DEFAULT_DEADLINE_S="nan", DEADLINE_MAX_S="inf"), ("DEFAULT_DEADLINE_S", "DEADLINE_MAX_S")),
        (fixed(LEDGER_URL="mysql://marked-4711/x"), ("LEDGER_URL",)),
    ),
    "swapped keys, garbage TLS, and more": (
        (swapped_keys, ("SIGNING_KEY_FILE", "PUBLIC_KEY_FILES")),
        (garbage_tls, ("TLS_CERT_FILE", "TLS_KEY_FILE")),
        (fixed(BIND_ACCOUNT_PATH="/a\nX: y"), ("BIND_ACCOUNT_PATH",)),
        (fixed(DRAIN_DELAY_S="-1", WORKERS="0"), ("DRAIN_DELAY_S", "WORKERS")),
        (garbage_ledger_key, ("LEDGER_KEY_FILE",)),
        (fixed(LEDGER_URL=f"sqlite:////no/such/{MARK}/ledger.db"), ("LEDGER_URL",)),
    ),
    "beyond loopback, callers without a client CA, an unknown key version": (
        (fixed(LISTEN="0.0.0.0:0"), ("LISTEN",)),
        (callers_without_ca, ("CALLERS_FILE",)),
        (fixed(ENCRYPT="true", ENCRYPTION_KEY_VERSION="9"), ("ENCRYPTION_KEY_VERSION", "PUBLIC_KEY_FILES")),
    ),
    "beyond loopback over IPv6, client CA without TLS": (
        (fixed(LISTEN="[::]:0"), ("LISTEN",)),
        (ca_without_tls, ("TLS_CLIENT_CA_FILE",)),
    ),
}


@pytest.mark.parametrize("faults", FAULTS)
async def test_only_faulty_settings_are_named(settings: Settings, material: Material, faults: str) -> None:
    bad: dict[str, str] = {}
    names: set[str] = set()
    for make, named_so in FAULTS[faults]:
        bad |= make(material)
        names |= set(named_so)
    lines = await refusal({**settings, **bad})
    assert [name for name in names if not any(name in line for line in lines)] == []
    assert [name for name in {*settings, *REQUIRED} - names if named(lines, name)] == []


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"LEDGER_URL": "off", "BIND_ACCOUNT_WITHOUT_LEDGER": ""}, "BIND_ACCOUNT_WITHOUT_LEDGER=true"),
        ({"LEDGER_URL": f"postgresql://u:{MARK}@db/x"}, "PostgreSQL"),
    ],
    ids=["off", "PostgreSQL"],
)
async def test_unusable_ledger_url_is_refused_with_a_reason(
    settings: Settings, more: dict[str, str], word: str
) -> None:
    lines = await refusal({**settings, **more})
    assert [word in line for line in lines if named([line], "LEDGER_URL")] == [True]


async def test_usable_ledger_url_is_accepted(settings: Settings, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    assert (await checked({**settings, "LEDGER_URL": url}))["LEDGER_URL"] == url
    assert not os.listdir(tmp_path), "a check creates no file"  # noqa: PTH208


# -- the file


def toml(path: Path, settings: Settings) -> Path:
    """Write settings to a TOML file; return its path."""
    lines = [f"{name.lower()} = {json.dumps(value)}" for name, value in settings.items()]
    path.write_text("\n".join(lines))
    return path


async def checked(settings: Settings, *flags: str | Path) -> dict[str, str]:
    """Run `config check` on valid settings; return the effective settings."""
    ended = await run("config", "check", "--json", *flags, settings=settings)
    assert (ended.status, ended.err) == (0, "")
    shown: dict[str, str] = json.loads(ended.out)["settings"]
    return shown


async def test_file_can_use_toml_types(settings: Settings, material: Material, tmp_path: Path) -> None:
    rest = {name: value for name, value in settings.items() if name != "PUBLIC_KEY_FILES"}
    file = toml(tmp_path / "gateway.toml", rest)
    file.write_text(
        f"{file.read_text()}\nencrypt = true\nmax_in_flight = 7\nupstream_timeout_s = 1.5\n"
        f'[public_key_files]\n1 = "{material.theirs.public_file}"\n'
    )
    shown = await checked({}, "--config", file)
    assert (shown["ENCRYPT"], shown["MAX_IN_FLIGHT"], shown["UPSTREAM_TIMEOUT_S"]) == ("true", "7", "1.5")


# -- config check


async def test_check_shows_the_effective_settings_without_secrets(
    settings: Settings, material: Material
) -> None:
    proxy = {"UPSTREAM_PROXY": f"http://user:{MARK}@127.0.0.1:1"}
    ended = await run("config", "check", settings={**settings, **proxy})
    assert (ended.status, ended.err) == (0, "")
    assert "BASE_URL = http://127.0.0.1:" in ended.out
    assert MARK not in ended.out
    assert pem(material.ours.key).decode().splitlines()[1] not in ended.out
    shown = await checked({**settings, **proxy})
    assert shown["SIGNING_KEY_FILE"] == str(material.ours.private_file)
    assert MARK not in json.dumps(shown)


async def test_check_names_every_fault() -> None:
    ended = await run("config", "check", settings={"LOG_LEVEL": MARK})
    assert ended.status == 78
    assert [name for name in (*REQUIRED, "LOG_LEVEL") if name not in ended.err] == []
    assert MARK not in ended.err
    as_json = await run("config", "check", "--json", settings={"LOG_LEVEL": MARK})
    assert as_json.status == 78
    faults = json.loads(as_json.out)["faults"]
    assert len(faults) == len(REQUIRED) + 1


async def test_check_does_not_listen(settings: Settings, material: Material) -> None:
    authority: Authority = material.callers_ca
    server = authority.issue("checked", "127.0.0.1")
    tls = {
        "TLS_CERT_FILE": str(server.chain_file),
        "TLS_KEY_FILE": str(server.key_file),
        "LISTEN": "0.0.0.0:1",
    }
    assert (await checked({**settings, **tls}))["LISTEN"] == "0.0.0.0:1"


async def test_an_expired_certificate_and_an_unusable_ledger_are_reported_as_serve_treats_them(
    settings: Settings, material: Material, tmp_path: Path
) -> None:
    server = material.callers_ca.issue("expired", "127.0.0.1", days=(-2, -1))
    tls = {"TLS_CERT_FILE": str(server.chain_file), "TLS_KEY_FILE": str(server.key_file)}
    async with running({**settings, **tls}) as gateway:
        record = await gateway.logged(lambda line: line["event"] == "configuration risk")
        assert f"TLS_CERT_FILE ({server.chain_file}): the certificate expired at " in record["cause"]
    ended = await run("config", "check", settings={**settings, **tls})
    assert (ended.status, ended.err) == (0, f"alipayhk-gateway: warning: {record['cause']}\n")
    (tmp_path / "ledger.db").mkdir()
    bad = {"LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db", "LOG_LEVEL": MARK}
    ended = await run("config", "check", "--json", settings={**settings, **bad})
    faults = json.loads(ended.out)["faults"]
    assert [fault.split()[0] for fault in faults] == ["LOG_LEVEL", "the"]
