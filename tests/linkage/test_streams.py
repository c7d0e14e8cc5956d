"""The exit status gives the outcome of a call even if a standard stream is closed or cannot be written."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import grpc
import pytest

from tests.linkage.command import CLIENT, binding, client
from tests.linkage.fake_gateway import serving
from tests.linkage.where import Where

NOWHERE: Final = ("bind-account", "--type", "x", "--no-retry", "--target", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("redirection", "message"),
    [(">/dev/full", "No space left on device"), ("| true", "Broken pipe"), (">&-", "")],
)
def test_standard_output_cannot_be_written(redirection: str, message: str) -> None:
    # The shell prints the status of the client, not that of the last program in the pipe.
    script = f'({CLIENT} "$@"; echo "status $?" >&2) {redirection}'
    result = subprocess.run(
        ("bash", "-c", script, "-", *NOWHERE), capture_output=True, text=True, check=False, timeout=60
    )
    assert "status 69" in result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_names_are_escaped_in_a_locale_without_their_characters(where: Where) -> None:
    result = client(*binding(where, "ascii"), PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert "merchant_name: \\u" in result.stdout
    result = client(*binding(where, "ascii"), "--json", PYTHONIOENCODING="ascii")
    assert json.loads(result.stdout)["response"]["account"]["name"].startswith("示")


def test_errors_are_not_printed_on_standard_output_if_standard_error_is_closed() -> None:
    command = ("bash", "-c", f"{CLIENT} bind-account --target nowhere 2>&-")
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (64, "")


def test_standard_input_is_closed() -> None:
    command = ("bash", "-c", f"{CLIENT} bind-account <&-")
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 64
    assert "as JSON on standard input" in result.stderr


@pytest.mark.parametrize(
    ("encoding", "data", "message"),
    [("ascii", "會".encode(), 'no field named "\\u6703"'), ("utf-8", b"\xff", "can't decode byte 0xff")],
)
def test_standard_input_is_utf_8_in_any_locale(encoding: str, data: bytes, message: str) -> None:
    result = subprocess.run(
        (CLIENT, "bind-account"),
        input=b'{"' + data + b'": 1}',
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 64
    assert message in result.stderr.decode()


def interrupted(target: str, started: Callable[[], object]) -> str:
    """Interrupt a call after `started` has returned; return what the client reports."""
    command = (CLIENT, *NOWHERE, "--target", target)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    return err


SAME: Final = "Send exactly the same request again, with the same id.\n"


def test_ctrl_c_reports_an_unknown_outcome() -> None:
    called, done = threading.Event(), threading.Event()

    def hang(*_: object) -> bytes:
        called.set()
        done.wait(60)
        return b""

    with serving(grpc.unary_unary_rpc_method_handler(hang)) as target:
        err = interrupted(target, lambda: called.wait(60))
        done.set()
    assert err == f"Interrupted. The request may or may not have taken effect. {SAME}"


def test_ctrl_c_while_connecting_reports_that_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as open_until_the_end:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        err = interrupted(target, lambda: open_until_the_end.enter_context(silent.accept()[0]))
    assert err == f"Interrupted. This call sent nothing to AlipayHK. {SAME}"
