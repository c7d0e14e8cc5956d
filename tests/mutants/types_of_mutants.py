"""Run mypy on mutated code, and print the errors of mutants; the arguments are `mypy` and a package.

A mutant is a copy of its function with one change, in the same module or class. Errors of mypy that are not
due to the change are left out: those in every copy, also the one without a change, and outside the copies.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

UNCHANGED = "orig"
"""mutmut's name of the copy without a change."""


@cache
def spans(file: str) -> dict[str, tuple[int, int]]:
    """Return the first and the last line of each copy in a file."""
    index = Path(f"{file}.spans")
    found: dict[str, tuple[int, int]] = (
        json.loads(index.read_text("utf-8"))["spans"] if index.exists() else {}
    )
    return found


def copy_at(file: str, line: int) -> tuple[str, str]:
    """Return the function and the name of the copy that a line belongs to, or empty texts."""
    names = (name for name, (first, last) in spans(file).items() if first <= line <= last)
    function, _, copy = next(names, "").partition("__mutmut_")
    return function, copy


def main() -> None:
    _, _, package = sys.argv
    command = [sys.executable, "-m", "mypy", "--output=json", f"--package={package}"]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    errors: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    places = [(error["file"], *copy_at(error["file"], error["line"])) for error in errors]
    everywhere = {
        (file, function, error["message"])
        for error, (file, function, copy) in zip(errors, places, strict=True)
        if copy == UNCHANGED
    }
    for error, (file, function, copy) in zip(errors, places, strict=True):
        if copy and (file, function, error["message"]) not in everywhere:
            sys.stdout.write(f"{json.dumps(error)}\n")


if __name__ == "__main__":
    main()
