"""Connecting to PostgreSQL: the sentence for each fault, which never contains the password."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.ledger import LedgerUnavailable
from service.ledger.opening import fault_of, server_of
from service.ledger.postgres import opening
from service.ledger.vault import make_key_file
from tests.certificates import Authority
from tests.ledger.levels import a_claim, granted
from tests.ledger.on_server import PATIENT_S, OnServer, eventually, every_operation, without_secrets
from tests.ports import free_port
from tests.postgres.pgbouncer import PgBouncer
from tests.postgres.processes import user
from tests.postgres.server import Postgres

Change = Callable[[str], str]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "FAULT_TIMEOUT_S", PATIENT_S)


def with_options(options: str) -> Change:
    return lambda url: f"{url}?{options}"


def at_port(port: object) -> Change:
    return lambda url: re.sub(r":\d+/", f":{port}/", url)


# -- faults that an operator must correct


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda url: url.replace("%3A", "", 1), "the server refuses this user or password"),
        (lambda url: url.replace("gateway", "stranger"), "the server refuses this user or password"),
        (lambda url: f"{url}x", "the server has no such database"),
        (with_options("sslmode=require"), "LEDGER_URL requires TLS, and the server has no TLS"),
        *(
            (change, "LEDGER_URL has a host, a port or an option that is wrong")
            for change in (
                with_options("sslmode=always"),
                with_options("target_session_attrs=master"),
                with_options("colour=blue"),
                with_options("work_mem=much"),
                with_options("shared_buffers=1MB"),
                at_port(99_999),
                lambda url: url.replace("127.0.0.1", "h..x"),
            )
        ),
    ],
)
def test_connection_that_cannot_work_is_a_fault(on_server: OnServer, change: Change, cause: str) -> None:
    url = change(on_server.url)
    assert on_server.refusal(url) == f"the ledger {server_of(url)} cannot be used: {cause}"


def test_user_who_may_not_connect_is_a_fault(on_server: OnServer) -> None:
    name = f"group_{on_server.database}"
    on_server.sql(f"CREATE ROLE {name} NOLOGIN PASSWORD '{on_server.server.password}'")
    cause = "cannot be used: the server refuses this user, or this way to connect"
    assert cause in on_server.refusal(on_server.url.replace("gateway", name))
    on_server.sql(f"DROP ROLE {name}")


def test_file_that_cannot_be_read_is_a_fault(on_server: OnServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def denied(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("service.ledger.postgres.connection.connect", denied)
    cause = "this user may not read a file that LEDGER_URL names, or the files in ~/.postgresql"
    assert on_server.refusal() == f"the ledger {on_server.where} cannot be used: {cause}"


# -- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ca")


@pytest.fixture(scope="module")
def with_tls(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnServer]:
    """Return a database of a server with TLS."""
    issued = authority.issue("server", "127.0.0.1")
    with Postgres.start(fsync=False) as server:
        for file, name in ((issued.chain_file, "server.crt"), (issued.key_file, "server.key")):
            path = Path(shutil.copy(file, server.directory / name))
            path.chmod(0o600)
            if owner := user():
                os.chown(path, owner.pw_uid, owner.pw_gid)
        server.execute("ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf()")
        server.create_database("ledger")
        key = tmp_path_factory.mktemp("key") / "ledger.key"
        make_key_file(key, random_bytes=os.urandom)
        yield OnServer(server, "ledger", key)


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
async def test_ledger_over_tls(with_tls: OnServer, authority: Authority, mode: str) -> None:
    url = f"{with_tls.url}?sslmode={mode}&sslrootcert={authority.file}"
    ledger = with_tls.open(url)
    await granted(ledger, a_claim(mode, linkage=None))
    is_encrypted = (
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'gateway'"
    )
    assert with_tls.sql(is_encrypted) == "t"
    await ledger.close()


def test_certificate_that_is_not_trusted_is_a_fault(with_tls: OnServer, tmp_path: Path) -> None:
    url = f"{with_tls.url}?sslmode=verify-full&sslrootcert={Authority(tmp_path, 'other').file}"
    refused = with_tls.refusal(url)
    assert (
        refused == f"the ledger {with_tls.where} cannot be used: its TLS failed: CERTIFICATE_VERIFY_FAILED"
    )


def test_certificate_of_another_host_is_a_fault(with_tls: OnServer, authority: Authority) -> None:
    url = f"{with_tls.url}?sslmode=verify-full&sslrootcert={authority.file}".replace(
        "127.0.0.1", "localhost"
    )
    assert "its TLS failed: CERTIFICATE_VERIFY_FAILED" in with_tls.refusal(url)


# -- servers that are unavailable, and may come back


def unavailable(on_server: OnServer, url: str) -> str:
    with without_secrets(on_server.server), pytest.raises(LedgerUnavailable) as failed:
        on_server.open(url)
    with pytest.raises(LedgerUnavailable) as checked:
        fault_of(url, on_server.key)
    assert str(checked.value) == str(failed.value)
    return str(failed.value)


def test_server_that_is_gone_is_unavailable(on_server: OnServer) -> None:
    port = free_port()
    where = f"postgresql://127.0.0.1:{port}/{on_server.database}"
    said = unavailable(on_server, at_port(port)(on_server.url))
    assert said == f"the ledger {where} cannot be reached: ConnectionRefusedError"


def test_server_without_free_connections_is_unavailable(on_server: OnServer) -> None:
    on_server.sql(f"ALTER DATABASE {on_server.database} CONNECTION LIMIT 0")
    assert "cannot be reached: TooManyConnectionsError (53300)" in unavailable(on_server, on_server.url)


def test_server_that_may_only_be_read_is_unavailable(on_server: OnServer) -> None:
    on_server.sql(f"ALTER DATABASE {on_server.database} SET default_transaction_read_only = on")
    assert "cannot be reached: TargetServerAttributeNotMatched" in unavailable(on_server, on_server.url)


# -- several hosts, and PgBouncer


async def test_failure_that_a_server_reports_is_preferred(on_server: OnServer) -> None:
    answering = f"127.0.0.1:{on_server.server.port}"
    url = on_server.url.replace(answering, f"127.0.0.1:{free_port()},{answering},127.0.0.1:{free_port()}")
    assert "the server refuses this user or password" in on_server.refusal(url.replace("%3A", "", 1))


async def test_of_two_primaries_one_is_used(on_server: OnServer) -> None:
    """The connection to the other one is closed."""
    answering = f"127.0.0.1:{on_server.server.port}"
    ledger = on_server.open(on_server.url.replace(answering, f"{answering},{answering}"))
    await granted(ledger, a_claim())
    await eventually(on_server.connections, lambda count: count == 2)  # one listens
    await ledger.close()


async def test_every_operation_behind_pgbouncer(on_server: OnServer) -> None:
    bouncer = PgBouncer.start(on_server.server, default_pool_size=1)
    ledger = on_server.open(f"{bouncer.url(on_server.database)}?sslmode=prefer&prepared_statements=false")
    await every_operation(ledger)
    await ledger.close()
    bouncer.stop()


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://u:p@h/d", "postgresql://h/d"),
        ("postgresql://u:p%40@h1:1,h2/d?sslmode=require&password=p", "postgresql://h1:1,h2/d"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgresql:///d?host=/run", "postgresql:///d"),
    ],
)
def test_ledger_is_named_without_user_password_and_options(url: str, where: str) -> None:
    assert server_of(url) == where
