"""The targets hold for their seeds and for a short run of the fuzzer, and they notice faults."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from clients.alipayhk import pairing, response_head
from clients.alipayhk.diagnosis import signature
from clients.alipayhk.wire import content_coding, crypto, keys, lenient, strict_json
from clients.alipayhk.wire.keys import KeyFileError
from clients.alipayhk.wire.strict_json import write_json
from sandbox import journal, opening
from service.config import reading
from service.credentials.callers import Name
from service.credentials.certificates import CertificateNames, names_of
from service.server.rpcs import sync_linkage
from tests.fuzz import files, sealed
from tests.fuzz.targets import TARGETS
from tests.sandbox.callers import sync_body

ROOT: Final = Path(__file__).resolve().parents[2]
RUNS: Final = 300
HAS_ATHERIS: Final = sys.platform == "linux" and os.uname().machine == "x86_64"


@pytest.mark.parametrize("name", TARGETS)
def test_property_holds_for_every_seed(name: str) -> None:
    seeds = list(TARGETS[name].seeds())
    assert seeds
    for seed in seeds:
        TARGETS[name].run(seed)


def fuzz(*arguments: str, code: str = "from tests.fuzz.__main__ import main; sys.exit(main())") -> Any:
    """Run the fuzzer in a process of its own, because it ends its process."""
    # With hashes that are the same each time, sets have the same order, and each run is the same.
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", f"import sys; {code}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environ, check=False, capture_output=True, text=True, timeout=300
    )


@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris has wheels for Linux on x86-64 only")
def test_short_run_finds_no_fault() -> None:
    run = fuzz("--runs", str(RUNS), "--seed", "1")
    assert run.returncode == 0, run.stdout + run.stderr
    executed = dict(re.findall(r"^(\w+) +(\d+) .* ok$", run.stdout, re.MULTILINE))
    assert executed.keys() == TARGETS.keys()
    assert all(int(runs) >= RUNS for runs in executed.values()), run.stdout


FAULTY: Final = """
from tests.fuzz import __main__ as fuzzer
from types import SimpleNamespace
def run(data):
    assert data != b"secret", "found"
sys.exit(fuzzer.main(table={"faulty": SimpleNamespace(run=run, seeds=lambda: [b"secre", b"secret"])}))
"""


@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris has wheels for Linux on x86-64 only")
def test_fault_is_reported_with_its_input_and_can_be_replayed() -> None:
    run = fuzz("--runs", "1000", "--seed", "1", code=FAULTY.strip())
    assert run.returncode == 1
    (text,) = re.findall(r"-m tests\.fuzz faulty --replay '(.+)'$", run.stdout, re.MULTILINE)
    assert base64.b64decode(text) == b"secret"
    assert "AssertionError: found" in run.stdout
    again = fuzz("faulty", "--replay", text, code=FAULTY.strip())
    assert again.returncode == 1
    assert "AssertionError: found" in again.stderr
    assert fuzz("faulty", "--replay", "AAAA", code=FAULTY.strip()).returncode == 0


def cut_at_nul(pem: bytes) -> CertificateNames:
    found = names_of(pem)
    return CertificateNames(tuple(Name(kind, text.partition("\0")[0]) for kind, text in found.names))


def quoting(label: bytes, body: bytes) -> object:
    raise KeyFileError(f"cannot read {body.decode('latin-1')}")


def unlimited(body: bytes, wbits: int, bytes_max: int) -> bytes | None:
    try:
        return zlib.decompressobj(wbits).decompress(body)
    except zlib.error:
        return None


ALTERED: Final = next(sealed.header_seeds()).replace(b"req-", b"reQ-")
UNSIGNED: Final = list(TARGETS["sandbox_http"].seeds())[6].replace(b'"req-1"', b'"req-9"')
ONE_BYTE_LESS: Final = re.compile(rb"[^ \t\n\r,:\[\]{}\"]+?")
MUTANTS: Final[list[tuple[str, object, str, Any, bytes | None]]] = [
    ("strict_json", strict_json, "_HUGE_REFUSED", json.JSONDecoder(), None),
    ("strict_json", strict_json, "DEPTH_MAX", 33, None),
    ("envelope_cutting", strict_json, "_STRING", re.compile(rb'"[^"]*"'), b'{"a":"\\"}"}'),
    ("envelope_cutting", strict_json, "_SCALAR", ONE_BYTE_LESS, b'{"a":12}'),
    ("header_values", lenient, "header_value", str.swapcase, b"algorithm=RSA256, signature=QUJD"),
    ("base64", crypto, "base64_bytes", base64.b64decode, None),
    ("header_message", crypto, "verify", lambda key, signature, content: content, ALTERED),
    ("signed_header_content", lenient, "json_bytes", lambda data: data, None),
    ("signed_envelope_content", lenient, "base64_text", lambda text: text, None),
    ("key_file", keys, "_parse_block", quoting, None),
    ("certificate_names", files, "names_of", cut_at_nul, None),
    ("settings_file", reading, "below", lambda text, fault: text, None),
    ("call", sync_linkage, "BIZ_TYPE", "BINDING", None),
    ("response_bytes", pairing, "parser_reason", lambda message, error: message, None),
    ("response_head", response_head, "_with_one_length", lambda headers: headers[1:], None),
    ("content_coding", content_coding, "_inflated", unlimited, None),
    ("doctor_message", signature, "_compares", lambda name, digest: lambda content: True, None),
    ("sandbox_http", opening, "_verified", lambda api, endpoint, raw, claim: claim.as_verified(), UNSIGNED),
    ("sandbox_exchange", journal, "printable", str, b"\0" + write_json(sync_body("a\nb"))),
]


@pytest.mark.parametrize(("name", "module", "function", "wrong", "data"), MUTANTS)
def test_targets_notice_faults_of_the_code(
    name: str,
    module: object,
    function: str,
    wrong: Any,
    data: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run: Callable[[bytes], None] = TARGETS[name].run
    inputs = [data] if data is not None else list(TARGETS[name].seeds())
    monkeypatch.setattr(module, function, wrong)
    assert not all(holds(run, each) for each in inputs)


def holds(run: Callable[[bytes], None], data: bytes) -> bool:
    try:
        run(data)
    except (AssertionError, KeyError):
        return False
    return True
