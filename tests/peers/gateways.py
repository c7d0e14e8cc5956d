"""The installed gateway and the installed sandbox, as separate processes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sandbox.apis import APIS
from tests.certificates import Certificate
from tests.e2e.material import Material
from tests.peers.processes import GATEWAY, WAIT_MAX_S, Running, environment, running
from tests.ports import free_port

CLIENT_ID: Final = "SANDBOX_CLIENT_1"
SERVICE: Final = "alipayhk.linkage.v1.LinkageService"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway."""

    address: str
    running: Running
    settings: Mapping[str, str]

    def records(self) -> list[dict[str, Any]]:
        """Return every line of its log, without the lines of gRPC's library about failed handshakes."""
        lines = self.running.output().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def call_logged(self, request_id: str) -> dict[str, Any]:
        """Wait until the access log contains a call; return its line."""
        give_up = time.monotonic() + WAIT_MAX_S
        while time.monotonic() < give_up:
            for record in self.records():
                if record["event"] == "call" and record["request_id"] == request_id:
                    return record
            time.sleep(0.02)
        raise AssertionError("the call is not logged")

    def methods_called(self) -> list[str]:
        """Return the method of every call in its access log."""
        return [record["method"] for record in self.records() if record["event"] == "call"]


@contextmanager
def sandbox(material: Material) -> Iterator[str]:
    """Run the sandbox; return its URL."""
    with running(
        *(GATEWAY, "sandbox", "--listen", "127.0.0.1:0", "--client-id", CLIENT_ID),
        *("--private-key-file", material.theirs.private_file),
        *("--merchant-public-key-files", f"1={material.ours.public_file}"),
    ) as process:
        output = process.wait_for_output("listening on http://")
        found = re.search(r"listening on (http://\S+)", output)
        assert found is not None
        yield found[1]


def gateway_settings(material: Material, base_url: str) -> dict[str, str]:
    """Return the settings of a gateway in front of a sandbox."""
    return {
        "LISTEN": "127.0.0.1:0",
        "ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "BASE_URL": base_url,
        "CLIENT_ID": CLIENT_ID,
        "SIGNING_KEY_FILE": str(material.ours.private_file),
        "PUBLIC_KEY_FILES": f"1={material.theirs.public_file}",
        **{f"{api.name.name}_PATH": api.path for api in APIS.values()},
        "LEDGER_URL": "off",
        "BIND_ACCOUNT_WITHOUT_LEDGER": "true",
        "DRAIN_DELAY_S": "0",
        "LOG_LEVEL": "debug",
    }


@contextmanager
def gateway(material: Material, base_url: str, **settings: str) -> Iterator[Gateway]:
    """Run `alipayhk-gateway serve` in front of a sandbox."""
    settings = {**gateway_settings(material, base_url), **settings}
    with running(GATEWAY, "serve", env=environment(settings)) as process:
        yield Gateway(address_of(process), process, settings)


def address_of(process: Running) -> str:
    """Wait until a gateway has started; return the address on which it listens."""
    found = re.search(r'"listen": "([^"]+)"', process.wait_for_output('"event": "gateway started"'))
    assert found is not None
    return found[1]


@dataclass(frozen=True, slots=True)
class Identities:
    """The CAs and certificates of one test run."""

    ca: str
    foreign_ca: str
    gateway: Certificate
    loyalty: Certificate
    unknown: Certificate


def identities(material: Material) -> Identities:
    """Make certificates for the gateway, for an allowed caller and for an unknown caller."""
    authority = material.callers_ca
    return Identities(
        str(authority.file),
        str(material.foreign_ca.file),
        authority.issue("gateway", "gateway.internal", "127.0.0.1"),
        authority.issue("loyalty", "spiffe://corp/loyalty"),
        authority.issue("unknown", "spiffe://corp/unknown"),
    )


def tls(who: Identities, **more: str) -> dict[str, str]:
    """Return the settings that turn TLS on; they require no client certificate."""
    return {
        "TLS_CERT_FILE": str(who.gateway.chain_file),
        "TLS_KEY_FILE": str(who.gateway.key_file),
        **more,
    }
