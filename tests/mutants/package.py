"""Test the mutants of one package, in the directory that `run.py` has prepared."""

from __future__ import annotations

import io
import random
import re
import shutil
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final, NamedTuple

from mutmut import __main__ as mutmut
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, walk_mutatable_files

EXPLAINED: Final = Path(__file__).resolve().parent / "explained.toml"
SKIPPED: Final = 34
"""mutmut's exit code of a mutant that is not tested."""
DETECTED: Final = {"killed", "caught by type check", "timeout"}
FAULT: Final = 255
"""The exit code if pytest itself failed, such as for a test with a new name. To mutmut it is a timeout."""
SENTENCE: Final = re.compile(r'(\w+=)?"[^" ]+ [^"]*"(, )?')


class Change(NamedTuple):
    """What a mutant changes: the lines before and after, without indentation."""

    file: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}\n    - {self.before}\n    + {self.after}"

    @property
    def is_of_a_sentence(self) -> bool:
        """Whether only a text for people differs or is missing. Tests do not repeat such texts."""
        without = {
            self.before[: found.start()] + replacement + self.before[found.end() :]
            for found in SENTENCE.finditer(self.before)
            for replacement in ("", f"{found[1] or ''}None{found[2] or ''}")
        }
        return self.after in without or SENTENCE.sub("", self.before) == SENTENCE.sub("", self.after)


def status_of(code: int | None) -> str:
    return "pytest failed" if code == FAULT else status_by_exit_code[code]


def change_of(file: str, mutant: str) -> Change:
    lines = get_diff_for_mutant(mutant, path=file).splitlines()[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line[0] == mark) for mark in "-+")
    return Change(file, before, after)


def explained() -> dict[Change, str]:
    """Return each mutant of `explained.toml` that no test needs to detect, with the reason."""
    groups = tomllib.loads(EXPLAINED.read_text("utf-8"))["group"]
    return {
        Change(group["file"], before, after): group["why"]
        for group in groups
        for before, after in group["changes"]
    }


def data() -> Iterator[SourceFileMutationData]:
    """Yield the mutants of each file with their results."""
    for path in walk_mutatable_files():
        found = SourceFileMutationData(path=path)
        found.load()
        yield found


def generate() -> None:
    """Write the mutants, and copy the tests, of which none may remain from an earlier run."""
    Path("mutants").mkdir(exist_ok=True)
    shutil.rmtree("mutants/tests", ignore_errors=True)
    # Which tests call which function may have changed with the tests.
    Path("mutants/mutmut-stats.json").unlink(missing_ok=True)
    with redirect_stdout(io.StringIO()):
        copy_src_dir()
        copy_also_copy_files()
        mutmut.create_mutants(1)


def choose(only: str, sample: int, seed: str) -> dict[str, Change]:
    """Return the mutants to test, and let mutmut skip the others; `only`: the starts of paths.

    A mutant that was detected earlier keeps its result.
    """
    candidates = {
        name: change_of(str(file.path), name)
        for file in data()
        for name in file.exit_code_by_key
        if str(file.path).startswith(tuple(only.split() or [""]))
    }
    chosen = sorted(name for name, change in candidates.items() if not change.is_of_a_sentence)
    if sample:
        chosen = random.Random(seed).sample(chosen, min(sample, len(chosen)))
    for file in data():
        for name, code in file.exit_code_by_key.items():
            if status_of(code) not in DETECTED:
                file.exit_code_by_key[name] = None if name in chosen else SKIPPED
        file.save()
    return {name: candidates[name] for name in chosen}


def report(chosen: dict[str, Change]) -> int:
    """Print the results of each module and the survivors; return the exit code."""
    reasons, survivors = explained(), list[tuple[str, str]]()
    print(
        f"\n{'':40}{'mutants':>9}{'killed':>9}{'by mypy':>9}{'timeout':>9}{'survived':>9}{'explained':>10}"
    )
    total = Counter[str]()
    for file in data():
        counts = Counter[str]()
        for name, code in file.exit_code_by_key.items():
            if name in chosen:
                status = status_of(code)
                status = (
                    status if status in DETECTED else "explained" if chosen[name] in reasons else "survived"
                )
                counts[status] += 1
                if status == "survived":
                    survivors.append((status_of(code), str(chosen[name])))
        if counts:
            print(row(str(file.path), counts))
        total += counts
    print(row("total", total))
    for status, change in survivors:
        print(f"\n{status}: {change}")
    return 1 if survivors else 0


def row(name: str, counts: Counter[str]) -> str:
    columns = ("killed", "caught by type check", "timeout", "survived", "explained")
    return f"{name:40}{counts.total():>9}" + "".join(f"{counts[column]:>9}" for column in columns)


def main() -> None:
    _, only, sample, seed, jobs = sys.argv
    generate()
    chosen = choose(only, int(sample), seed)
    try:
        mutmut._run((), int(jobs))
    except SystemExit:
        print(f"A test fails without a mutant. Run the tests in {Path('mutants').resolve()} to see which.")
        raise
    sys.exit(report(chosen))


if __name__ == "__main__":
    main()
