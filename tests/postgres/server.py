"""Real PostgreSQL servers, from Debian's package postgresql."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import quote, urlencode

from tests.ports import free_port
from tests.postgres.processes import Home, Server

INSTALLED: Final = Path("/usr/lib/postgresql")
OWNER: Final = "gateway"
"""The role that owns the databases: it can log in and is no superuser."""
QUICK: Final = {
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",  # a killed server leaves no files outside its directory
    "wal_retrieve_retry_interval": "200ms",  # a standby reconnects to its primary soon
}
"""Settings that save time and memory."""
EMPTY: Final = """
    SET default_transaction_read_only = off;
    ALTER DATABASE "{name}" RESET ALL; ALTER DATABASE "{name}" CONNECTION LIMIT -1;
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    DROP OWNED BY {owner} CASCADE; DROP SCHEMA public CASCADE;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner; GRANT USAGE ON SCHEMA public TO PUBLIC;
"""
STOP: Final = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def program(name: str) -> Path:
    """Return a program of the newest version of PostgreSQL that is installed."""
    versions = [int(path.parts[-3]) for path in INSTALLED.glob("[0-9]*/bin/postgres")]
    assert versions, "PostgreSQL is missing: install Debian's package postgresql."
    return INSTALLED / str(max(versions)) / "bin" / name


def url_of(database: str, password: str, *servers: Server, **parameters: str) -> str:
    """Return the URL of a database on servers, in the order in which a client tries them."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f"postgresql://{OWNER}:{quote(password, safe='')}@{hosts}/{database}{query}"


class Postgres(Server):
    """A PostgreSQL server on a TCP port of 127.0.0.1; all its methods block.

    TCP connections need the password of OWNER. `execute` connects as a superuser through a Unix socket in
    the home, which no other user can enter.
    """

    password: str

    @classmethod
    def start(cls, **settings: str | int) -> Self:
        """Create and start a server with these settings, for example `fsync=False`, until `close`."""
        initdb = program("initdb")
        home = Home()
        try:
            server = cls(home, home.path / "primary", free_port())
            server._create(initdb, {**QUICK, **settings})
        except BaseException:
            home.close()
            raise
        return server

    def _create(self, initdb: Path, settings: Mapping[str, str | int]) -> None:
        self.password = f"{secrets.token_hex(16)}:@/?#%"  # a URL must quote it
        self.home.run(
            *(initdb, "--pgdata", self.directory, "--username=postgres", "--encoding=UTF8", "--no-locale"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", "--wal-segsize=1", "--no-sync"),
        )
        with (self.directory / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.start_again()
        self.execute(f"CREATE ROLE {OWNER} LOGIN PASSWORD '{self.password}'")

    def start_again(self) -> None:
        """Start a stopped or killed server on its port; return when it accepts connections."""
        self._process = self.home.start(
            self.directory,
            *(program("postgres"), "-D", self.directory, "-c", "listen_addresses=127.0.0.1"),
            *("-c", f"port={self.port}", "-c", f"unix_socket_directories={self.home.path}"),
        )
        self._wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        """Return whether the server's own file says that it accepts connections, as pg_ctl does."""
        file = self.directory / "postmaster.pid"
        lines = file.read_text("ascii").split("\n") if file.exists() else []
        return len(lines) > 7 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server; "immediate" leaves its data as a crash does."""
        self._stop(STOP[mode])

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Execute statements as a superuser, each in its own transaction; return the rows as lines."""
        return self.home.run(
            *(program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"),
            *("-h", self.home.path, "-p", str(self.port), "-U", "postgres", "-d", database),
            text=sql,
        ).removesuffix("\n")

    def create_database(self, name: str, template: str = "template1") -> None:
        """Create or replace a database that OWNER owns, as a copy of another one without connections.

        It copies 300 files, so `empty_database` is ten times as fast.
        """
        how = f'OWNER {OWNER} TEMPLATE "{template}" STRATEGY file_copy'
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE); CREATE DATABASE "{name}" {how}')

    def empty_database(self, name: str) -> None:
        """Put a database back into the state in which `create_database` leaves it."""
        self.execute(EMPTY.format(name=name, owner=OWNER), name)

    def url(self, database: str, *others: Server, **parameters: str) -> str:
        """Return the URL of a database on this server, or on it and others, as OWNER with its password."""
        return url_of(database, self.password, self, *others, **parameters)

    def standby(self, *, synchronous: bool = True) -> Self:
        """Start a standby that streams from this server, in the same home.

        With `synchronous` this server waits for the standby at each commit, as long as the standby exists.
        """
        port = free_port()
        name = f"standby_{port}"
        standby = type(self)(self.home, self.home.path / name, port)
        standby.password = self.password
        self.home.run(
            *(program("pg_basebackup"), "--pgdata", standby.directory, "--write-recovery-conf"),
            *("--checkpoint=fast", "--no-sync", "--create-slot", f"--slot={name}"),
            *("--host", self.home.path, "--port", str(self.port), "--username=postgres"),
            f"--dbname=application_name={name}",
        )
        standby.start_again()
        if synchronous:
            self.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'; SELECT pg_reload_conf()")
        self._wait_until(lambda: self._sync_state_of(name) == ("sync" if synchronous else "async"))
        # The checkpointer makes commits wait for the standby; it reads its settings before a checkpoint.
        self.execute("CHECKPOINT")
        return standby

    def _sync_state_of(self, standby: str) -> str:
        """Return pg_stat_replication.sync_state of a standby, or an empty text if it does not stream."""
        streaming = f"state = 'streaming' AND application_name = '{standby}'"
        return self.execute(f"SELECT sync_state FROM pg_stat_replication WHERE {streaming}")

    def promote(self) -> None:
        """Make a standby the primary; return when it accepts writes."""
        assert self.execute("SELECT pg_promote()") == "t", self.log()
