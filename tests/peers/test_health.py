"""grpc-health-probe and `alipayhk-gateway health` have the same exit statuses."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.material import Material
from tests.peers.gateways import SERVICE, Gateway, Identities, gateway
from tests.peers.processes import GATEWAY, environment, run
from tests.ports import free_port

SERVING, BAD_ARGUMENTS, NO_CONNECTION, RPC_FAILED, NOT_SERVING = range(5)
PROBE_FLAGS = {
    "ca": "-tls-ca-cert",
    "cert": "-tls-client-cert",
    "key": "-tls-client-key",
    "name": "-tls-server-name",
}
OUR_FLAGS = {
    "ca": "--tls-ca-file",
    "cert": "--tls-cert-file",
    "key": "--tls-key-file",
    "name": "--tls-server-name",
}


@dataclass(frozen=True)
class Question:
    """The arguments of one health check."""

    address: str
    service: str = ""
    tls: tuple[tuple[str, str], ...] = ()
    timeout_s: int = 5


Ask = Callable[[Question], int]


@pytest.fixture(params=["grpc-health-probe", "alipayhk-gateway health"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Return each of the two programs, as a function from a question to an exit status."""

    def by_probe(question: Question) -> int:
        tls = ("-tls", *(word for flag, file in question.tls for word in (PROBE_FLAGS[flag], file)))
        return run(
            *(
                request.getfixturevalue("health_probe"),
                "-connect-timeout",
                f"{question.timeout_s}s",
                "-rpc-timeout",
                "5s",
            ),
            *("-addr", question.address, "-service", question.service),
            *(tls if question.tls else ()),
        ).status

    def by_us(question: Question) -> int:
        tls = (word for flag, file in question.tls for word in (OUR_FLAGS[flag], file))
        return run(
            *(GATEWAY, "health", "--timeout", str(question.timeout_s)),
            *("--addr", question.address, "--service", question.service, *tls),
        ).status

    return by_probe if request.param == "grpc-health-probe" else by_us


def certificate(who: Identities) -> tuple[tuple[str, str], ...]:
    return (("cert", str(who.loyalty.chain_file)), ("key", str(who.loyalty.key_file)))


@pytest.mark.parametrize("service", ["", SERVICE, "liveness"])
def test_serving(ask: Ask, plain: Gateway, service: str) -> None:
    assert ask(Question(plain.address, service)) == SERVING


def test_unknown_service(ask: Ask, plain: Gateway) -> None:
    assert ask(Question(plain.address, "no.such.Service")) == RPC_FAILED


def test_no_connection(ask: Ask) -> None:
    assert ask(Question(f"127.0.0.1:{free_port()}", timeout_s=1)) == NO_CONNECTION


def test_a_draining_gateway_is_live_and_not_serving(ask: Ask, material: Material, alipayhk: str) -> None:
    with gateway(material, alipayhk, DRAIN_DELAY_S="60") as draining:
        draining.running.send(signal.SIGTERM)
        draining.running.wait_for_output('"event": "shutdown started"')
        assert ask(Question(draining.address)) == NOT_SERVING
        assert ask(Question(draining.address, SERVICE)) == NOT_SERVING
        assert ask(Question(draining.address, "liveness")) == SERVING
        draining.running.send(signal.SIGKILL)


def test_over_tls(ask: Ask, over_tls: Gateway, who: Identities) -> None:
    assert ask(Question(over_tls.address, tls=(("ca", who.ca),))) == SERVING
    named = (("ca", who.ca), ("name", "gateway.internal"))
    assert ask(Question(over_tls.address, tls=named)) == SERVING


def test_over_tls_with_a_client_certificate(ask: Ask, over_mtls: Gateway, who: Identities) -> None:
    tls = (("ca", who.ca), *certificate(who))
    assert ask(Question(over_mtls.address, tls=tls)) == SERVING
    assert ask(Question(over_mtls.address, "no.such.Service", tls)) == RPC_FAILED


@pytest.mark.parametrize("flaw", ["plaintext", "foreign CA", "no certificate", "another name"])
def test_a_failed_handshake_is_no_connection(
    ask: Ask, over_mtls: Gateway, who: Identities, flaw: str
) -> None:
    tls = {
        "plaintext": (),
        "foreign CA": (("ca", who.foreign_ca), *certificate(who)),
        "no certificate": (("ca", who.ca),),
        "another name": (("ca", who.ca), ("name", "elsewhere.internal"), *certificate(who)),
    }[flaw]
    assert ask(Question(over_mtls.address, tls=tls, timeout_s=1)) == NO_CONNECTION


def test_health_listen_needs_no_certificate_and_serves_health_only(
    ask: Ask, over_mtls: Gateway, grpcurl: Path
) -> None:
    address = over_mtls.settings["HEALTH_LISTEN"]
    assert ask(Question(address)) == SERVING
    assert ask(Question(address, SERVICE)) == SERVING
    done = run(grpcurl, "-plaintext", address, f"{SERVICE}/SyncLinkage")
    assert done.status != 0


@pytest.mark.parametrize(
    ("probe", "ours"),
    [
        (["-addr", "127.0.0.1:50051", "-nonsense"], ["--nonsense"]),
        (
            ["-addr", "127.0.0.1:50051", "-tls-ca-cert", "/no/such/file", "-tls"],
            ["--tls-ca-file", "/no/such/file"],
        ),
        (
            ["-addr", "127.0.0.1:50051", "-tls", "-tls-client-cert", "/no/such/file"],
            ["--tls-cert-file", "/no/such/file"],
        ),
    ],
    ids=["unknown flag", "no such file", "half a certificate"],
)
def test_bad_arguments(health_probe: Path, probe: list[str], ours: list[str]) -> None:
    assert run(GATEWAY, "health", *ours).status == BAD_ARGUMENTS
    assert run(health_probe, *probe).status == BAD_ARGUMENTS


def test_health_takes_the_address_from_the_settings(over_mtls: Gateway, plain: Gateway) -> None:
    at_health_listen = environment({"HEALTH_LISTEN": over_mtls.settings["HEALTH_LISTEN"]})
    assert run(GATEWAY, "health", env=at_health_listen).status == SERVING
    assert run(GATEWAY, "health", env=environment({"LISTEN": plain.address})).status == SERVING
