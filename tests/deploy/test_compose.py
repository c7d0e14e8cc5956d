"""deploy/compose.yaml is valid, and its gateway and sandbox work with the files that it creates."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.peers.gateways import SERVICE, address_of
from tests.peers.processes import GATEWAY, ROOT, Running, environment, run, running
from tests.peers.requests import sync_linkage
from tests.peers.tools import peer
from tests.ports import free_port
from tests.postgres.fixtures import StartPostgres
from tests.postgres.server import OWNER

DIRECTORY: Final = ROOT / "deploy"
FILE: Final = DIRECTORY / "compose.yaml"
CREATED: Final = ROOT / "build/compose"


def services() -> dict[str, Any]:
    done = run(peer("compose-go"), FILE, cwd=DIRECTORY)
    assert done.status == 0, done.output
    read: dict[str, Any] = yaml.safe_load(done.out)["services"]
    return read


def test_compose_accepts_the_file_and_every_mounted_file_exists() -> None:
    found = services()
    assert found.keys() == {"files", "gateway", "sandbox", "postgres", "prometheus", "grafana"}
    mounts = [mount for service in found.values() for mount in service.get("volumes", [])]
    sources = {Path(mount["source"]) for mount in mounts if mount["type"] == "bind"}
    assert [path for path in sources - {CREATED} if not path.exists()] == []
    ports = [port for service in found.values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


@contextmanager
def started(words: list[str], places: Mapping[str, str], ready: str, **environ: str) -> Iterator[Running]:
    """Run a command of the file, with this machine's paths and ports."""
    for old, new in places.items():
        words = [word.replace(old, new) for word in words]
    with running(GATEWAY, *words, env=environment({}) | environ) as process:
        process.wait_for_output(ready)
        yield process


def test_gateway_sandbox_and_database_work_with_the_created_files(
    tmp_path: Path, start_postgres: StartPostgres
) -> None:
    (files := tmp_path / "files").mkdir()
    assert run(sys.executable, DIRECTORY / "compose/files.py", files).status == 0
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    assert run(sys.executable, DIRECTORY / "compose/files.py", files).status == 0
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before

    port, text = free_port(), (DIRECTORY / "compose/gateway.toml").read_text("utf-8")
    places = {
        "/files": str(files),
        "0.0.0.0:8089": f"127.0.0.1:{port}",
        "sandbox:8089": f"localhost:{port}",
    }
    database = start_postgres(fsync=False)
    database.create_database("ledger")
    database.execute(f"ALTER ROLE {OWNER} PASSWORD '{(files / 'db-password').read_text('ascii')}'")
    places |= {"@postgres/": f"@127.0.0.1:{database.port}/"}
    places |= {"0.0.0.0:50051": "127.0.0.1:0", "0.0.0.0:9464": f"127.0.0.1:{free_port()}"}
    for old, new in places.items():
        text = text.replace(old, new)
    (configuration := tmp_path / "gateway.toml").write_text(text, "utf-8")
    found = services()
    of_gateway = {**places, "/compose/gateway.toml": str(configuration)}
    passwords = found["gateway"]["environment"]["PGPASSFILE"].replace("/files", str(files))
    with (
        started(found["sandbox"]["command"], places, "listening on https://"),
        started(
            found["gateway"]["command"], of_gateway, '"gateway started"', PGPASSFILE=passwords
        ) as gateway,
    ):
        done = run(
            *(peer("grpcurl"), "-cacert", files / "ca.crt", "-cert", files / "caller.crt"),
            *("-key", files / "caller.key", "-d", json.dumps(sync_linkage())),
            *(address_of(gateway).replace("127.0.0.1", "localhost"), f"{SERVICE}/SyncLinkage"),
        )
    assert done.status == 0, done.output
    assert json.loads(done.out)["result"]["status"] == "S"
    assert database.execute("SELECT state FROM alipayhk_request", "ledger").strip() == "applied"


def test_gateway_and_database_have_the_same_password_and_database(tmp_path: Path) -> None:
    assert run(sys.executable, DIRECTORY / "compose/files.py", tmp_path).status == 0
    found = services()
    database = found["postgres"]["environment"]
    assert (tmp_path / "pgpass").read_text() == (
        f"*:*:*:{database['POSTGRES_USER']}:{(tmp_path / 'db-password').read_text()}\n"
    )
    assert (tmp_path / "pgpass").stat().st_mode & 0o077 == 0, "the driver ignores other files"
    assert found["gateway"]["environment"]["PGPASSFILE"] == "/files/pgpass"
    settings = (DIRECTORY / "compose/gateway.toml").read_text("utf-8")
    url = f"postgresql://{database['POSTGRES_USER']}@postgres/{database['POSTGRES_DB']}"
    assert f'ledger_url = "{url}"' in settings
