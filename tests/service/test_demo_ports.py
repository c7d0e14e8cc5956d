"""The demo waits for a port that a connection holds, and fails if another program listens on it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from service.commands.demo.ports import PortTakenError, is_listening, wait_until_free


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()
    return f"{host}:{port}"


def test_a_free_port_needs_no_wait(capsys: pytest.CaptureFixture[str], listener: socket.socket) -> None:
    address = address_of(listener)
    listener.close()
    started = time.monotonic()
    wait_until_free(address)
    assert time.monotonic() - started < 30
    assert capsys.readouterr().out == ""


def test_a_listener_on_the_port_is_an_error(listener: socket.socket) -> None:
    assert is_listening(address_of(listener))
    with pytest.raises(PortTakenError, match=f"another program listens on {address_of(listener)}"):
        wait_until_free(address_of(listener))


def test_the_demo_waits_for_a_connection_to_end(
    capsys: pytest.CaptureFixture[str], listener: socket.socket
) -> None:
    connection = socket.create_connection(listener.getsockname())
    address = address_of(connection)
    accepted, _ = listener.accept()

    def end() -> None:
        # The side that closes first keeps its port for a minute (TIME_WAIT): here the other side.
        accepted.close()
        connection.close()

    threading.Timer(0.5, end).start()
    wait_until_free(address)
    assert connection.fileno() == -1
    assert capsys.readouterr().out == f"A connection of another program still uses {address}: waiting ...\n"


def test_a_connection_that_does_not_end_is_an_error(listener: socket.socket) -> None:
    with closing(socket.create_connection(listener.getsockname())) as connection:
        address = address_of(connection)
        with pytest.raises(PortTakenError, match=f"a connection of another program uses {address}"):
            wait_until_free(address, timeout_s=0.3)


def test_a_closed_connection_still_holds_its_port(listener: socket.socket) -> None:
    """The reason to wait. If this test fails because the port is free, the wait can be removed."""
    connection = socket.create_connection(listener.getsockname())
    address = address_of(connection)
    accepted, _ = listener.accept()
    connection.close()
    accepted.close()
    with pytest.raises(PortTakenError, match="a connection of another program"):
        wait_until_free(address, timeout_s=0.3)
