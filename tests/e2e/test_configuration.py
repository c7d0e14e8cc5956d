"""Invalid settings: one run names all of them, prints no value, and starts nothing."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.certificates import private_pem
from tests.e2e.gateway import Settings, run, running
from tests.e2e.material import Material
from tests.ports import free_port

MARK = "marked-4711"


def unused_ports() -> Settings:
    """Return the settings of listeners at free ports: `config check` warns about a port in use."""
    return {"LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": f"127.0.0.1:{free_port()}"}


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
    ended = await run("serve", settings={**settings, **bad})
    assert (ended.status, ended.out) == (78, "")
    named = [line.split()[1] for line in ended.err.splitlines()[1:]]
    assert sorted(named) == sorted(bad)
    assert "Traceback" not in ended.err
    assert MARK not in ended.err


# -- config check


async def checked(settings: Settings) -> dict[str, str]:
    """Run `config check` on valid settings; return the effective settings."""
    ended = await run("config", "check", "--json", settings={**unused_ports(), **settings})
    assert (ended.status, ended.err) == (0, "")
    shown: dict[str, str] = json.loads(ended.out)["settings"]
    return shown


async def test_check_warns_of_a_database_that_cannot_be_reached(settings: Settings, tmp_path: Path) -> None:
    (key := tmp_path / "ledger.key").write_bytes(base64.b64encode(bytes(32)))
    url = f"postgresql://gateway:{MARK}@127.0.0.1:{free_port()}/ledger?password={MARK}&sslpassword={MARK}"
    shared = {"LEDGER_URL": url, "LEDGER_KEY_FILE": str(key)}
    ended = await run("config", "check", settings={**unused_ports(), **settings, **shared})
    assert ended.status == 0
    assert "cannot be reached: ConnectionRefusedError; serve would exit with status 69\n" in ended.err
    assert "LEDGER_URL = postgresql://gateway@127.0.0.1:" in ended.out
    assert MARK not in ended.out + ended.err


async def test_check_shows_the_effective_settings_without_secrets(
    settings: Settings, material: Material
) -> None:
    proxy = {"UPSTREAM_PROXY": f"http://user:{MARK}@127.0.0.1:1"}
    ended = await run("config", "check", settings={**unused_ports(), **settings, **proxy})
    assert (ended.status, ended.err) == (0, "")
    assert "BASE_URL = http://127.0.0.1:" in ended.out
    assert MARK not in ended.out
    assert private_pem(material.ours.key).decode().splitlines()[1] not in ended.out
    shown = await checked({**settings, **proxy})
    assert shown["SIGNING_KEY_FILE"] == str(material.ours.private_file)
    assert MARK not in json.dumps(shown)


async def test_check_does_not_listen(settings: Settings, material: Material) -> None:
    server = material.callers_ca.issue("checked", "127.0.0.1")
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
    ended = await run("config", "check", settings={**unused_ports(), **settings, **tls})
    assert (ended.status, ended.err) == (0, f"alipayhk-gateway: warning: {record['cause']}\n")
    (tmp_path / "ledger.db").mkdir()
    bad = {"LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db", "LOG_LEVEL": MARK}
    ended = await run("config", "check", "--json", settings={**settings, **bad})
    faults = json.loads(ended.out)["faults"]
    assert [fault.split()[0] for fault in faults] == ["LOG_LEVEL", "the"]
