"""What the demo prints works."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.docs.pages import blocks
from tests.docs.reader import Reader
from tests.peers.processes import ROOT, run


def test_the_command_that_the_demo_prints_diagnoses_a_wrong_signature(tmp_path: Path) -> None:
    call = next(block.text for block in blocks("README.md") if "sync-linkage" in block.text)
    with ExitStack() as stack:
        reader = Reader(tmp_path, stack)
        said = reader.start_the_demo()
        command = said.partition("This says why:\n")[2].partition("\n\nWhat reached")[0]
        wrong = reader.moved(call.replace('"2160000000000001"', '"2160000000000001+BAD_SIGNATURE"'))
        called = run("bash", "-c", wrong, cwd=ROOT)
        assert "RESPONSE_SIGNATURE_INVALID" in called.output
        diagnosed = run("bash", "-c", command, cwd=ROOT)
    assert (diagnosed.status, diagnosed.out.split(":")[0]) == (1, "invalid (wrong_key)"), diagnosed.output
