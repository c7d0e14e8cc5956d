"""A real PgBouncer in front of a PostgreSQL server, from Debian's package pgbouncer."""

from __future__ import annotations

import shutil
import signal
import socket
from typing import Final, Self

from tests.ports import free_port
from tests.postgres.processes import Server
from tests.postgres.server import OWNER, Postgres, url_of

PATH: Final = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


def program() -> str:
    """Return the path of PgBouncer."""
    path = shutil.which("pgbouncer", path=PATH)
    assert path, "PgBouncer is missing: install Debian's package pgbouncer."
    return path


class PgBouncer(Server):
    """A PgBouncer on a TCP port of 127.0.0.1, in the home of its server."""

    postgres: Postgres

    @classmethod
    def start(cls, postgres: Postgres, pool_mode: str = "transaction", **settings: str | int) -> Self:
        """Start a PgBouncer with these settings; closing the server stops it too."""
        port = free_port()
        bouncer = cls(postgres.home, postgres.home.path / f"pgbouncer_{port}", port)
        bouncer.postgres = postgres
        bouncer.directory.mkdir()
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": "users.txt",
            "pool_mode": pool_mode,
            **settings,
        }
        lines = ["[databases]", f"* = host=127.0.0.1 port={postgres.port}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in options.items()]
        (bouncer.directory / "pgbouncer.ini").write_text("\n".join(lines), "utf-8")
        (bouncer.directory / "users.txt").write_text(f'"{OWNER}" "{postgres.password}"\n', "utf-8")
        bouncer.start_again()
        return bouncer

    def start_again(self) -> None:
        """Start a stopped or killed PgBouncer on its port; return when it accepts connections."""
        self._process = self.home.start(self.directory, program(), "pgbouncer.ini")
        self._wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """Stop PgBouncer; it closes its connections immediately."""
        self._stop(signal.SIGTERM)

    def url(self, database: str) -> str:
        """Return the URL of a database of the server through PgBouncer."""
        return url_of(database, self.postgres.password, self)
