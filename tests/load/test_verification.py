"""Tests of --verify, which compares the reported outcomes with the sandbox's wallet."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from alipayhk_linkage.load.recording import ReportedOutcome, Variant
from alipayhk_linkage.load.verification import Verification, verify

RUN = "r"


@contextmanager
def wallet(requests: Any) -> Iterator[str]:
    """Serve a wallet over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"requests": requests}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def reported(rpc: str, number: int, outcome: str, variant: Variant = Variant.PLAIN) -> ReportedOutcome:
    return ReportedOutcome(
        rpc, f"load-{RUN}-0-{number}", variant, "OK" if outcome == "applied" else "?", outcome
    )


def verified(rpc: str, calls: list[ReportedOutcome], effects: int | None, repeats: int = 0) -> Verification:
    received = {} if effects is None else {f"load-{RUN}-0-1": {"effects": effects, "repeats": repeats}}
    with wallet({rpc: received}) as url:
        return verify(url, RUN, calls)


SYNC, BIND = "SyncLinkage", "BindAccount"


@pytest.mark.parametrize(
    ("rpc", "outcomes", "effects", "repeats", "well"),
    [
        (SYNC, ["applied"], 1, 0, True),
        (SYNC, ["applied"], 1, 3, True),
        (SYNC, ["applied"], 0, 0, False),
        (SYNC, ["applied"], None, 0, False),
        (SYNC, ["applied"], 2, 0, False),
        (SYNC, ["unknown"], 2, 0, False),
        (SYNC, ["unknown"], 1, 0, True),
        (SYNC, ["unknown"], None, 0, True),
        (SYNC, ["rejected"], 1, 0, False),
        (SYNC, ["rejected"], 0, 0, True),
        (SYNC, ["not_sent"], None, 0, True),
        (SYNC, ["not_sent"], 0, 0, False),
        (SYNC, ["not_sent", "applied"], 1, 0, True),
        (SYNC, ["not_sent", "unknown"], 1, 0, True),
        (SYNC, ["applied", "rejected"], 1, 0, False),
        (BIND, ["applied", "applied"], 1, 0, True),
        (BIND, ["applied"], 1, 1, False),
        (BIND, ["unknown"], 1, 1, False),
    ],
)
def test_outcomes_and_effects(
    rpc: str, outcomes: list[str], effects: int | None, repeats: int, well: bool
) -> None:
    found = verified(rpc, [reported(rpc, 1, outcome) for outcome in outcomes], effects, repeats)
    assert found.passed is well, found
    assert bool(found.shown) is not well


def test_an_out_of_order_request_may_have_no_effect() -> None:
    older = reported(SYNC, 1, "applied", Variant.OUT_OF_ORDER)
    assert verified(SYNC, [older], 0).passed
    assert not verified(SYNC, [older], 2).passed


def test_a_request_without_a_reported_outcome_is_found() -> None:
    found = verified(SYNC, [], 1)
    assert not found.passed
    assert "no outcome was reported" in found.shown[0]


def test_twenty_discrepancies_are_shown_and_all_are_counted() -> None:
    with wallet({}) as url:
        found = verify(url, RUN, [reported(SYNC, number, "applied") for number in range(50)])
    assert (found.discrepancies, len(found.shown), found.requests) == (50, 20, 50)


def test_verification_is_incomplete_if_the_sandbox_forgets_requests() -> None:
    full = {f"other-{number}": {"effects": 1, "repeats": 0} for number in range(100_000)}
    with wallet({SYNC: full}) as url:
        found = verify(url, RUN, [reported(SYNC, 1, "applied")])
    assert not found.passed
    assert "forgets" in found.incomplete


@pytest.mark.parametrize("content", [[], {"SyncLinkage": 5}, {"SyncLinkage": {"load-r-0-1": {}}}])
def test_verification_is_incomplete_if_the_wallet_is_malformed(content: Any) -> None:
    with wallet(content) as url:
        found = verify(url, RUN, [reported(SYNC, 1, "applied")])
    assert not found.passed
    assert "cannot be read" in found.incomplete


def test_verification_is_incomplete_if_the_sandbox_is_down() -> None:
    with wallet({}) as url:
        pass
    assert "cannot be read" in verify(url, RUN, []).incomplete


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"SSH-2.0-x\r\n"])
def test_verification_is_incomplete_if_the_server_does_not_speak_http(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.recv(1_000)
                connection.sendall(answer)

        (thread := threading.Thread(target=serve)).start()
        found = verify(f"http://127.0.0.1:{listening.getsockname()[1]}", RUN, [])
        thread.join()
    assert "cannot be read" in found.incomplete
    assert "cannot be read" in verify("http://127.0.0.1:abc", RUN, []).incomplete
