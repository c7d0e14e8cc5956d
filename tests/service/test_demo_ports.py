"""The demo waits for a port that a connection holds, and says so where somebody listens."""

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


def address_of(one: socket.socket) -> str:
    host, port = one.getsockname()
    return f"{host}:{port}"


def test_a_free_port_is_taken_at_once(capsys: pytest.CaptureFixture[str], listener: socket.socket) -> None:
    address = address_of(listener)
    listener.close()
    began = time.monotonic()
    wait_until_free(address)
    assert time.monotonic() - began < 30
    assert capsys.readouterr().out == ""


def test_somebody_who_listens_is_named(listener: socket.socket) -> None:
    assert is_listening(address_of(listener))
    with pytest.raises(PortTakenError, match=f"another program listens on {address_of(listener)}"):
        wait_until_free(address_of(listener))


def test_a_connection_is_waited_for(capsys: pytest.CaptureFixture[str], listener: socket.socket) -> None:
    connection = socket.create_connection(listener.getsockname())
    address = address_of(connection)
    accepted, _ = listener.accept()

    def end() -> None:
        # Who closes first keeps its port for a minute: here the other side does.
        accepted.close()
        connection.close()

    threading.Timer(0.5, end).start()
    wait_until_free(address)
    assert connection.fileno() == -1
    assert capsys.readouterr().out == f"A connection of another program still uses {address}: waiting ...\n"


def test_a_connection_that_stays_is_named(listener: socket.socket) -> None:
    with closing(socket.create_connection(listener.getsockname())) as connection:
        address = address_of(connection)
        with pytest.raises(PortTakenError, match=f"a connection of another program uses {address}"):
            wait_until_free(address, timeout_s=0.3)


def test_a_connection_that_ended_still_holds_its_port(listener: socket.socket) -> None:
    """What the waiting is for; should it no longer be so, the waiting can go."""
    connection = socket.create_connection(listener.getsockname())
    address = address_of(connection)
    accepted, _ = listener.accept()
    connection.close()
    accepted.close()
    with pytest.raises(PortTakenError, match="a connection of another program"):
        wait_until_free(address, timeout_s=0.3)
