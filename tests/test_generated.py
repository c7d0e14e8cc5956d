"""The oldest supported compiler generates from protos/ exactly the files that are committed under gen/."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "gen" / "python"
PYTHON = ROOT / ".venv-oldest" / "bin" / "python"
BUF = ROOT / ".venv" / "bin" / "buf"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def run(*command: Path | str) -> None:
    tool = ROOT / command[0]
    if not tool.exists():
        pytest.fail(f"{tool.relative_to(ROOT)} is missing, and this test needs it: run `make setup`.")
    done = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def assert_same(generated: Path) -> None:
    new, old = contents(generated), contents(COMMITTED)
    differing = sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))
    assert not differing, f"gen/ is out of date: run `make generate` and commit {differing}."


def test_make_generate_writes_the_committed_files(tmp_path: Path) -> None:
    run(PYTHON, "tools/generate.py", tmp_path)
    assert_same(tmp_path)


def test_buf_generate_writes_the_committed_files(tmp_path: Path) -> None:
    assert PYTHON.exists(), "The plugin in buf.gen.yaml needs .venv-oldest: run `make setup`."
    run(BUF, "generate", "--output", tmp_path)
    assert_same(tmp_path / "gen" / "python")
