"""The demo calls its gateway directly, not through a proxy, and stops the processes that it started."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import grpc
import pytest

from service.commands.demo import demo
from service.commands.demo.calls import EXAMPLES
from service.server.linkage_service import RPCS
from tests.peers.processes import environment, run
from tests.ports import free_port

CALL = """
import sys
from dataclasses import replace
from service.commands.demo import demo
from service.commands.demo.calls import EXAMPLES

sys.exit(0 if demo._make(replace(EXAMPLES[0], address=sys.argv[1])) else 1)
"""


@pytest.mark.parametrize("name", ["http_proxy", "grpc_proxy"])
def test_a_call_does_not_go_through_the_environments_proxy(name: str) -> None:
    (rpc,) = (rpc for rpc in RPCS.values() if rpc.name == EXAMPLES[0].method)
    row: Any = grpc.unary_unary_rpc_method_handler(
        lambda _, __: rpc.response(), response_serializer=rpc.response.SerializeToString
    )
    service, _, method = rpc.path[1:].partition("/")
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: row}),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    # In a separate process, because gRPC reads these variables when it creates its first channel.
    environ = {key: value for key, value in environment().items() if key.lower() != "no_proxy"}
    environ |= {name: f"http://127.0.0.1:{free_port()}"}
    ended = run(sys.executable, "-c", CALL, address, env=environ)
    server.stop(None).wait()
    assert ended.status == 0, ended.output
    assert "as expected" in ended.out


IGNORES_SIGTERM = """
import signal, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""
Child = subprocess.Popen[bytes]


@contextmanager
def child_that_ignores_sigterm(directory: Path, children: list[Child]) -> Iterator[None]:
    """Run a child that ignores SIGTERM, and stop it as the demo does."""
    (directory / "sitecustomize.py").write_text(IGNORES_SIGTERM)
    log = directory / "log"
    with demo._child(log, ["serve"], {**environment(), "PYTHONPATH": str(directory)}) as process:
        children.append(process)
        while "ready" not in log.read_text():
            assert process.poll() is None
            time.sleep(0.01)
        yield


def test_a_child_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "STOP_S", 0.1)
    children: list[Child] = []
    with child_that_ignores_sigterm(tmp_path, children):
        pass
    assert children[0].returncode == -signal.SIGKILL


def test_a_second_ctrl_c_kills_the_child(tmp_path: Path) -> None:
    children: list[Child] = []
    with pytest.raises(KeyboardInterrupt), child_that_ignores_sigterm(tmp_path, children):
        Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert children[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_children(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    children: list[Child] = []

    def start(directory: Path, stack: ExitStack) -> None:
        children.append(stack.enter_context(demo._child(tmp_path / "log", ["--help"], environment())))
        os.kill(os.getpid(), number)

    monkeypatch.setattr(demo, "_start_all", start)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        assert demo.run(argparse.Namespace(once=False)) == demo.INTERRUPTED
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert children[0].returncode is not None
