"""`alipayhk-gateway health` has the exit statuses of grpc_health_probe, against a health service here."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from service.commands.cli import main
from tests.peers.processes import GATEWAY, environment, run
from tests.ports import free_port
from tests.service.files import TlsFiles

Captured = pytest.CaptureFixture[str]
STATUS: Final = health_pb2.HealthCheckResponse


@pytest.fixture(scope="module")
def addresses(tls: TlsFiles) -> Iterator[dict[str, str]]:
    """Serve health in plaintext, over TLS and over mutual TLS; return the addresses."""
    servicer: Any = health.HealthServicer()
    for service, status in (
        ("", STATUS.SERVING),
        ("draining", STATUS.NOT_SERVING),
        ("odd", STATUS.UNKNOWN),
    ):
        servicer.set(service, status)
    pair = [(tls.key.read_bytes(), tls.certificate.read_bytes())]
    secured = grpc.ssl_server_credentials(pair)
    mutual = grpc.ssl_server_credentials(pair, tls.ca.read_bytes(), require_client_auth=True)
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    ports = {
        "plain": server.add_insecure_port("127.0.0.1:0"),
        "tls": server.add_secure_port("127.0.0.1:0", secured),
        "mutual": server.add_secure_port("127.0.0.1:0", mutual),
    }
    server.start()
    yield {kind: f"127.0.0.1:{port}" for kind, port in ports.items()}
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("service", "status", "name"),
    [("", 0, "SERVING"), ("draining", 4, "NOT_SERVING"), ("odd", 4, "UNKNOWN")],
)
def test_the_health_status_sets_the_exit_status(
    addresses: dict[str, str], service: str, status: int, name: str, capsys: Captured
) -> None:
    arguments = ["health", "--addr", addresses["plain"], "--service", service]
    assert main(arguments) == status
    assert capsys.readouterr().out == f"status: {name}\n"
    assert main([*arguments, "--json"]) == status
    assert json.loads(capsys.readouterr().out) == {"status": name}


def test_an_unknown_service_is_a_failed_rpc(addresses: dict[str, str], capsys: Captured) -> None:
    assert main(["health", "--addr", addresses["plain"], "--service", "nonsense"]) == 3
    assert capsys.readouterr().err == "alipayhk-gateway: the health check failed: NOT_FOUND\n"


def test_a_closed_port_is_no_connection(capsys: Captured) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        assert main(["health", "--addr", address, "--timeout", "0.2"]) == 2
    assert capsys.readouterr().err == (
        f"alipayhk-gateway: no connection to {address} within 0.2 s: Connection refused\n"
    )


def test_the_default_address_is_that_of_the_gateway(
    addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIPAYHK_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("ALIPAYHK_HEALTH_LISTEN", addresses["plain"].replace("127.0.0.1", "0.0.0.0"))
    assert main(["health"]) == 0


def test_the_address_of_the_settings_file_is_used_unless_the_environment_has_one(
    addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    file, arguments = tmp_path / "gateway.toml", ["health", "--config", str(tmp_path / "gateway.toml")]
    for text, environ, status in (
        (f'listen = "{addresses["plain"]}"', {}, 0),
        (f'listen = "127.0.0.1:1"\nhealth_listen = "{addresses["plain"]}"', {}, 0),
        ('health_listen = "127.0.0.1:1"', {"ALIPAYHK_HEALTH_LISTEN": addresses["plain"]}, 0),
        ('listen = "127.0.0.1:1\\n"', {}, 1),
        ("listen", {}, 1),
    ):
        file.write_text(text)
        with monkeypatch.context() as during:
            for name, value in environ.items():
                during.setenv(name, value)
            assert main(arguments) == status, text
    assert main([*arguments, "--addr", addresses["plain"]]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "alipayhk-gateway: the address must be host:port",
        f"alipayhk-gateway: --config {file} is not TOML (at end of document)",
    ]


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_the_environments_proxy_is_not_used(addresses: dict[str, str], tls: TlsFiles, name: str) -> None:
    # In a separate process, because gRPC reads these variables when it creates its first channel.
    environ = {key: value for key, value in environment().items() if key.lower() != "no_proxy"}
    environ |= {name: f"http://127.0.0.1:{free_port()}"}
    for kind, flags in (("plain", ()), ("tls", ("--tls-ca-file", tls.ca))):
        done = run(GATEWAY, "health", "--addr", addresses[kind], *flags, env=environ)
        assert (done.status, done.output) == (0, "status: SERVING\n")


def test_a_ca_file_turns_tls_on(addresses: dict[str, str], tls: TlsFiles) -> None:
    with_ca = ["--tls-ca-file", str(tls.ca)]
    with_pair = ["--tls-cert-file", str(tls.certificate), "--tls-key-file", str(tls.key)]
    assert main(["health", "--addr", addresses["tls"], *with_ca]) == 0
    assert main(["health", "--addr", addresses["tls"], *with_ca, "--tls-server-name", "localhost"]) == 0
    assert main(["health", "--addr", addresses["mutual"], *with_ca, *with_pair]) == 0


def test_a_failed_connection_is_explained(
    addresses: dict[str, str], tls: TlsFiles, capsys: Captured, tmp_path: Path
) -> None:
    with_ca = ("--tls-ca-file", str(tls.ca))
    cut_off = tmp_path / "cut-off.pem"
    cut_off.write_bytes(tls.ca.read_bytes()[:-30])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        not_grpc = f"127.0.0.1:{silent.getsockname()[1]}"
        for address, flags, cause in (
            (addresses["tls"], (), "the port uses TLS: give --tls-ca-file"),
            (addresses["mutual"], (), "the port uses TLS: give --tls-ca-file"),
            (addresses["tls"], (*with_ca, "--tls-server-name", "elsewhere.example"), "for another host"),
            (addresses["plain"], with_ca, "bytes that are not TLS"),
            (addresses["mutual"], with_ca, "the gateway requires a client certificate"),
            (addresses["tls"], ("--tls-ca-file", str(tls.key)), "--tls-ca-file contains no valid PEM"),
            (
                addresses["tls"],
                ("--tls-ca-file", str(cut_off)),
                "--tls-ca-file is incomplete or was cut off",
            ),
            (not_grpc, (), "not of ADMIN_LISTEN"),
            ("localhost", (), "the address must be host:port"),
            ("127.0.0.1:99999", (), "the address must have a port from 1 to 65535"),
            ("127.0.0.1:0", (), "the address must have a port from 1 to 65535"),
            ("127.0.0.1:" + "9" * 5000, (), "the address must have a port from 1 to 65535"),
        ):
            assert main(["health", "--addr", address, *flags, "--timeout", "0.3"]) == 2
            (reported,) = capsys.readouterr().err.splitlines()
            assert reported.startswith(f"alipayhk-gateway: no connection to {address} within 0.3 s: ")
            assert cause in reported


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        *(
            ("--timeout", text)
            for text in ("0", "-1", "-0.5", "nan", "inf", "-inf", "1e300", "86400.1", "")
        ),
        *(("--addr", text) for text in ("", " ", "127.0.0.1:1\n", "\udcff:1")),
    ],
)
def test_an_invalid_argument_is_named(flag: str, text: str, capsys: Captured) -> None:
    assert main(["health", f"{flag}={text}"]) == 1
    *_, reported = capsys.readouterr().err.splitlines()
    subject = "the address " if flag == "--addr" else ""
    assert reported.startswith(f"alipayhk-gateway health: argument {flag}: {subject}must be ")


@pytest.mark.parametrize("text", ["86400", "5.", "1e1"])
def test_any_timeout_within_the_limits_is_accepted(addresses: dict[str, str], text: str) -> None:
    assert main(["health", "--addr", addresses["plain"], "--timeout", text]) == 0


def test_conflicting_or_unreadable_tls_arguments_are_bad(
    tls: TlsFiles, tmp_path: Path, capsys: Captured
) -> None:
    together = "give --tls-cert-file and --tls-key-file together, and with --tls-ca-file"
    absent, ca = str(tmp_path / "absent"), str(tls.ca)
    os.mkfifo(pipe := tmp_path / "pipe")
    not_regular = f"{pipe}: it is a pipe, a socket or a device, and must be a regular file"
    for arguments, reported in (
        (["--tls-cert-file", str(tls.certificate)], together),
        (["--tls-key-file", str(tls.key)], together),
        (["--tls-cert-file", str(tls.certificate), "--tls-key-file", str(tls.key)], together),
        (["--tls-ca-file", absent], f"{absent}: No such file or directory"),
        (["--tls-ca-file", str(tmp_path)], f"{tmp_path}: Is a directory"),
        (["--tls-ca-file", str(pipe)], not_regular),
        (
            ["--tls-ca-file", ca, "--tls-cert-file", str(pipe), "--tls-key-file", str(tls.key)],
            not_regular,
        ),
        (
            ["--tls-ca-file", ca, "--tls-cert-file", str(tls.certificate), "--tls-key-file", str(pipe)],
            not_regular,
        ),
    ):
        assert main(["health", *arguments]) == 1
        assert capsys.readouterr().err == f"alipayhk-gateway: {reported}\n"
