"""The exit status says what happened to a call, whatever becomes of the standard streams."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from typing import Final

import pytest

from tests.linkage.command import CLIENT, binding, client
from tests.linkage.where import Where

NOWHERE: Final = ("bind-account", "--type", "x", "--no-retry", "--target", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("end", "said"),
    [(">/dev/full", "No space left on device"), ("| true", "Broken pipe"), (">&-", "")],
)
def test_nobody_takes_what_is_said(end: str, said: str) -> None:
    # The shell says the client's own status, and not that of what stands behind the pipe.
    script = f'({CLIENT} "$@"; echo "status $?" >&2) {end}'
    ended = subprocess.run(
        ("bash", "-c", script, "-", *NOWHERE), capture_output=True, text=True, check=False, timeout=60
    )
    assert "status 12" in ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_names_are_written_where_the_locale_has_none_of_their_letters(where: Where) -> None:
    reported = client(*binding(where, "ascii"), PYTHONIOENCODING="ascii")
    assert (reported.returncode, reported.stderr) == (0, "")
    assert "merchant_name: \\u" in reported.stdout
    reported = client(*binding(where, "ascii"), "--json", PYTHONIOENCODING="ascii")
    assert json.loads(reported.stdout)["response"]["account"]["name"].startswith("示")


def test_what_is_for_standard_error_is_not_said_elsewhere() -> None:
    words = ("bash", "-c", f"{CLIENT} bind-account --target nowhere 2>&-")
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (64, "")


def test_standard_input_is_closed() -> None:
    words = ("bash", "-c", f"{CLIENT} bind-account <&-")
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 64
    assert "as JSON on standard input" in ended.stderr


@pytest.mark.parametrize(
    ("encoding", "data", "reported"),
    [("ascii", "會".encode(), 'no field named "\\u6703"'), ("utf-8", b"\xff", "can't decode byte 0xff")],
)
def test_standard_input_is_utf_8_whatever_the_locale(encoding: str, data: bytes, reported: str) -> None:
    ended = subprocess.run(
        (CLIENT, "bind-account"),
        input=b'{"' + data + b'": 1}',
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 64
    assert reported in ended.stderr.decode()


def test_ctrl_c_leaves_a_doubt_and_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words = (CLIENT, *NOWHERE, "--target", f"127.0.0.1:{silent.getsockname()[1]}")
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with silent.accept()[0]:
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == (
        "Interrupted. It may or may not have taken effect. "
        "Send the very same request again, with the same id.\n"
    )
