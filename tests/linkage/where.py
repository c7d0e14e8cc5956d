"""The addresses of the gateway and the sandbox for a caller's tests, from a harness or started here."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alipayhk_linkage import Tls
from tests.e2e.material import Material
from tests.peers.gateways import Gateway, gateway, identities, sandbox, tls

KINDS: Final = ("plaintext", "mtls")
PREFIX: Final = "LINKAGE_"


@dataclass(frozen=True, slots=True)
class Where:
    """The addresses and certificates, as environment variables that the tests of all languages read."""

    environment: dict[str, str]

    @property
    def target(self) -> str:
        """The host:port of the gateway."""
        return self.environment["LINKAGE_TARGET"]

    @property
    def console(self) -> str:
        """The sandbox's URL."""
        return self.environment["LINKAGE_CONSOLE"]

    @property
    def run(self) -> str:
        """A prefix that makes the request ids of this run unique."""
        return self.environment["LINKAGE_RUN"]

    @property
    def tls(self) -> Tls | None:
        """The TLS settings for the gateway; None for plaintext."""
        names = ("LINKAGE_CA_FILE", "LINKAGE_CERT_FILE", "LINKAGE_KEY_FILE")
        if names[0] not in self.environment:
            return None
        return Tls.from_files(*(self.environment[name] for name in names))

    @property
    def flags(self) -> list[str]:
        """The connection flags of `alipayhk-client`."""
        flags = ["--target", self.target]
        for flag, name in (("--ca-file", "CA"), ("--cert-file", "CERT"), ("--key-file", "KEY")):
            if file := self.environment.get(f"LINKAGE_{name}_FILE"):
                flags += [flag, file]
        return flags


def given() -> Where | None:
    """Read the environment; return None if no harness has set it."""
    names = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    return Where(names) if "LINKAGE_TARGET" in names else None


@contextmanager
def serving(kind: str, material: Material, console: str, **more: str) -> Iterator[tuple[Where, Gateway]]:
    """Run a gateway with plaintext or mTLS and a ledger in a file, connected to a sandbox."""
    who = identities(material)
    settings = {
        "LEDGER_URL": f"sqlite:///{material.directory}/{kind}.db",
        "BIND_ACCOUNT_WITHOUT_LEDGER": "false",
        "UPSTREAM_TIMEOUT_S": "1",
        **(tls(who, TLS_CLIENT_CA_FILE=who.ca) if kind == "mtls" else {}),
        **more,
    }
    files = {
        "LINKAGE_CA_FILE": who.ca,
        "LINKAGE_CERT_FILE": str(who.loyalty.chain_file),
        "LINKAGE_KEY_FILE": str(who.loyalty.key_file),
    }
    with gateway(material, console, **settings) as serves:
        environment = {
            "LINKAGE_TARGET": serves.address,
            "LINKAGE_CONSOLE": console,
            "LINKAGE_RUN": f"t-{secrets.token_hex(4)}",
            **(files if kind == "mtls" else {}),
        }
        yield Where(environment), serves


@contextmanager
def a_sandbox(directory: Path) -> Iterator[tuple[Material, str]]:
    """Run a sandbox; return its keys and its URL."""
    material = Material(directory)
    with sandbox(material) as console:
        yield material, console
