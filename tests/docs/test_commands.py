"""Every command of every page works as the page says, in the order of the page."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.expected import NOT_RUN, ROWS, Row, not_run
from tests.docs.pages import PAGES, Block, all_blocks, blocks
from tests.docs.reader import CALLERS_PAGES, DEMO_PAGES, Reader, copy_of_the_repository
from tests.peers.processes import ROOT, run
from tests.peers.tools import peer

COMMANDS = all_blocks("sh")


def is_run(block: Block) -> bool:
    return not all(not_run(command) for command in block.commands)


def rows_of(block: Block) -> list[Row]:
    return [row for row in ROWS if row.page == block.page and row.words in block.text]


def saved_as(block: Block) -> str | None:
    """Return the name of the file that the reader must write; None if the page does not ask for one."""
    return {"docs/sandbox.md": "gateway.toml"}.get(block.page) if block.kind == "toml" else None


RUN_PAGES = [
    pytest.param(page, marks=[pytest.mark.callers] if page in CALLERS_PAGES else [])
    for page in sorted({block.page for block in COMMANDS if is_run(block)})
]


@pytest.mark.parametrize("page", RUN_PAGES)
def test_the_commands_of_a_page_work(page: str, tmp_path: Path) -> None:
    peer("grpcurl")
    (directory := tmp_path / "alipayhk-gateway").mkdir()
    copy_of_the_repository(directory)
    with ExitStack() as stack:
        reader, printed = Reader(directory, stack), ""
        if page in CALLERS_PAGES:
            assert run("make", "stubs").status == 0
            shutil.copytree(ROOT / "build" / "stubs", directory / "build" / "stubs")
        if page in DEMO_PAGES:
            assert reader.start_the_demo().count(" as expected\n") == 4
        for block in blocks(page):
            if (name := saved_as(block)) is not None:
                reader.save(name, block.text)
            elif block.kind == "sh" and is_run(block):
                (row,) = rows_of(block)
                printed = reader.paste(block, row)
            elif block.kind == "json":
                assert json.loads(printed) == json.loads(block.text), f"{block} differs from the output"


def test_blocks_and_rows_match_one_to_one() -> None:
    found = {str(block): rows_of(block) for block in COMMANDS}
    wrong = [at for block in COMMANDS if len(found[at := str(block)]) != is_run(block)]
    assert wrong == [], "Each block needs one row in tests/docs/expected.py, or an entry of NOT_RUN there."
    used = [row for rows in found.values() for row in rows]
    assert [row for row in ROWS if used.count(row) != 1] == []


def test_every_entry_of_not_run_is_needed() -> None:
    unrun = {
        " ".join(words.split()[:2]) for block in COMMANDS for words in block.commands if not_run(words)
    }
    assert unrun == NOT_RUN.keys()


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_known_kind_and_commands_are_sh(page: str) -> None:
    kinds = {str(block): block.kind for block in blocks(page)}
    known = {"sh", "text", "toml", "json", "yaml", "xml", "mermaid", "python", "go", "typescript", "java"}
    unknown = {at: kind for at, kind in kinds.items() if kind not in known}
    assert unknown == {}
    # The tests above run only blocks of the kind "sh".
    programs = ("$ ", "make ", "curl ", "grpcurl ", "alipayhk-gateway ", ".venv/bin/", "docker ", "git ")
    hidden = [
        f"{block}: {line}"
        for block in blocks(page)
        if block.kind != "sh"
        for line in block.text.splitlines()
        if line.startswith(programs)
    ]
    assert hidden == []


def test_every_fence_is_found() -> None:
    fences = {page: (ROOT / page).read_text("utf-8").count("```") for page in PAGES}
    assert fences == {page: 2 * len(list(blocks(page))) for page in PAGES}
