"""What `alipayhk-client` reports without a connection, and for responses that no gateway would send."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import grpc
import pytest

from alipayhk_linkage import (
    BindAccountRequest,
    BindAccountResponse,
    BlockingLinkageClient,
    LinkageClient,
    LinkageError,
    Tls,
)
from alipayhk_linkage.connection import Connection
from alipayhk_linkage.reachability import causes
from tests.linkage.command import client
from tests.linkage.fake_gateway import Handler, serving
from tests.ports import free_port

CALL: Final = ("bind-account", "--type", "x")


@contextmanager
def hanging_up(data: bytes = b"") -> Iterator[int]:
    """Accept connections, send data and close them; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(data)

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("arguments", [(), ("--no-retry",)], ids=str)
def test_without_a_connection_nothing_was_sent(arguments: tuple[str, ...]) -> None:
    with socket.socket() as silent:  # bound and not listening, so that no other program listens there
        silent.bind(("127.0.0.1", 0))
        result = client(*CALL, *arguments, "--target", f"127.0.0.1:{silent.getsockname()[1]}")
    assert (result.returncode, result.stderr) == (69, "")
    assert "Connection refused\n  outcome: not_sent\n  retry: same_request_id\n" in result.stdout
    assert "This call sent nothing to AlipayHK." in result.stdout
    assert "may have taken effect" not in result.stdout


def test_json_without_a_connection_has_the_outcome_not_sent() -> None:
    with hanging_up(b"HTTP/1.0 400 Bad Request\r\n\r\n") as port:
        result = client(*CALL, "--json", "--target", f"127.0.0.1:{port}")
    printed = json.loads(result.stdout)
    assert result.returncode == 69
    assert (printed["outcome"], printed["code"], printed["reason"]) == ("not_sent", "UNAVAILABLE", "")


def test_a_listener_that_never_answers_is_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = client(*CALL, "--timeout", "1", "--target", f"127.0.0.1:{silent.getsockname()[1]}")
    assert result.returncode == 69
    assert "no connection within 2 s" in result.stdout


def test_a_call_that_was_made_stays_unknown() -> None:
    def fail(_: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, "a proxy failed")

    with serving(grpc.unary_unary_rpc_method_handler(fail)) as target:
        result = client(*CALL, "--no-retry", "--target", target)
    assert result.returncode == 12
    assert result.stdout.startswith("UNAVAILABLE: a proxy failed\n  outcome: unknown\n")


def test_a_gateway_that_starts_soon_is_waited_for() -> None:
    port = free_port()
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port(f"127.0.0.1:{port}")
    with BlockingLinkageClient(f"127.0.0.1:{port}") as caller:
        threading.Timer(0.5, server.start).start()
        assert caller.connect(timeout_s=20, patience_s=20)
    server.stop(None)


def test_every_address_of_a_name_has_its_own_cause() -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "localhost"
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        ]

    with hanging_up(b"HTTP/1.0 400 Bad Request\r\n\r\n") as port:
        plaintext = causes(Connection(f"localhost:{port}", None), resolve)
        encrypted = causes(Connection(f"dns:///localhost:{port}", Tls()), resolve)
    assert [line.split(": ")[0] for line in plaintext] == [f"127.0.0.1:{port}", f"[::1]:{port}"]
    assert f"ipv4:127.0.0.1:{port}: " in plaintext[0]
    assert "refused" not in plaintext[0]
    assert "WRONG_VERSION_NUMBER" in encrypted[0]
    assert "ipv6:" in plaintext[1]


def test_a_name_that_cannot_be_resolved_is_named() -> None:
    (line,) = causes(Connection("nowhere.invalid:1", None))
    assert line.startswith("nowhere.invalid cannot be resolved: ")


async def test_an_ok_status_without_a_message_is_an_error() -> None:
    nothing: Handler = grpc.unary_stream_rpc_method_handler(lambda *_: iter(()))
    with serving(nothing) as target:
        with BlockingLinkageClient(target) as blocking, pytest.raises(LinkageError) as raised:
            blocking.bind_account(BindAccountRequest())
        async with LinkageClient(target) as caller:
            with pytest.raises(LinkageError) as raised_in_asyncio:
                await caller.bind_account(BindAccountRequest())
        result = client(*CALL, "--target", target)
        load = client(
            "load",
            "--closed",
            "-c",
            "1",
            "--duration",
            "200ms",
            "--mix",
            "sync=0,bind=100",
            "--target",
            target,
        )
    assert "INTERNAL" in load.stdout
    expected = "INTERNAL: The status is OK, but there is no response message. (outcome: unknown, "
    assert str(raised.value) == str(raised_in_asyncio.value)
    assert str(raised.value).startswith(expected)
    assert (result.returncode, result.stderr) == (12, "")


def test_control_characters_of_alipayhk_are_escaped() -> None:
    hostile, printed = (
        "\x1b[2J\r\n  outcome: OK\u202e\u2028\x9b香 港",
        (r"\x1b[2J\r\n  outcome: OK\u202e\u2028\x9b香 港"),
    )
    response = BindAccountResponse()
    response.result.status = "S"
    response.result.message = hostile
    answer: Handler = grpc.unary_unary_rpc_method_handler(lambda *_: response.SerializeToString())
    with serving(answer) as target:
        result = client(*CALL, "--target", target)
        as_json = client(*CALL, "--json", "--target", target)
    assert f"  result.message: {printed}\n" in result.stdout
    assert json.loads(as_json.stdout)["response"]["result"]["message"] == hostile
    assert as_json.stdout.isascii()
