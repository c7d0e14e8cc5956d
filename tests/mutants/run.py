"""Change one place of the code after another, and report each change that no test detects (`make mutants`).

mutmut makes the changes ("mutants") and runs, for each one, the tests that call the changed function. It
works in `build/mutants/PACKAGE`, where the result of each mutant stays: a second run continues after an
interruption, and tests only what was not detected before, or has changed since.

Each package is tested in a process of its own, because mutmut reads its configuration once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build" / "mutants"
LINKS: Final = ("clients", "docs", "gen", "protos", "pyproject.toml", "sandbox", "service", "tests")

OUTCOMES: Final = (
    "around",
    "call_and_upstream",
    "details",
    "late_status",
    "outcome_table",
)
PACKAGES: Final = {
    "service/delivery": (
        "tests/delivery",
        *(f"tests/service/test_{name}.py" for name in ("clock_skew", "delivery", "ledger_monitor")),
    ),
    "service/outcomes": (
        *(f"tests/service/test_{name}.py" for name in (*OUTCOMES, "tables_in_files")),
        "tests/delivery",
    ),
    "service/ledger": (
        "tests/ledger",
        "tests/delivery",
        *(f"tests/service/test_{name}.py" for name in ("gateway", "parsing", "settings")),
    ),
    "clients/alipayhk": (
        "tests/alipayhk",
        # The sandbox explains what is wrong with a request, by clients/alipayhk/diagnosis.
        *(f"tests/sandbox/test_{name}.py" for name in ("answers", "faults", "mistakes", "refusals")),
    ),
}
"""Each package with the tests that must detect its mutants."""

NOT_USED: Final = (
    # They start a process with the code that is not changed.
    "--deselect=tests/ledger/test_commands.py::test_closed_output_pipe_stops_the_command_without_an_error_text",
    # They are slow, and faster variants of them are used.
    "--deselect=tests/delivery/test_pace.py::test_retries_do_not_amplify_an_outage_of_a_minute[50",
    "--deselect=tests/delivery/test_pace.py::test_partial_outage_keeps_the_breaker_closed",
)

# A mutant that mypy rejects is detected. The word "mypy" is how mutmut recognizes the format of the errors.
CONFIGURATION: Final = """\
[mutmut]
source_paths =
    service
    sandbox
    clients/__init__.py
    clients/alipayhk
only_mutate =
    {package}/*
also_copy =
    docs
    gen
    protos
do_not_mutate_patterns =
    \\blog\\.(debug|info|warning|error)\\(
pytest_add_cli_args =
    -p
    no:cacheprovider
    -p
    tests.mutants.order
pytest_add_cli_args_test_selection =
    {tests}
type_check_command =
    {python}
    -m
    tests.mutants.types_of_mutants
    mypy
    {module}
process_isolation = forkserver
timeout_constant = 20.0
timeout_multiplier = 3.0
track_dependencies = false
use_git_change_detection = false
"""


def prepared(package: str, *, fresh: bool) -> Path:
    """Return the directory for a package's tests, with links to the code and mutmut's configuration."""
    directory = BUILD / package.replace("/", ".")
    if fresh:
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    for name in LINKS:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(ROOT / name)
    tests = (*PACKAGES[package], *NOT_USED)
    configuration = CONFIGURATION.format(
        package=package, module=package.replace("/", "."), python=sys.executable, tests="\n    ".join(tests)
    )
    (directory / "setup.cfg").write_text(configuration)
    return directory


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--only", default="", help="packages, directories or modules, such as service/delivery/flight.py"
    )
    parser.add_argument("--sample", default="0", help="test this many random mutants of each package")
    parser.add_argument("--seed", default="0", help="the seed of the sample")
    parser.add_argument("--jobs", default="1", help="how many mutants to test at the same time")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    options = parser.parse_args()
    only = [path.rstrip("/") for path in options.only.split()] or [""]
    chosen = [
        name for name in PACKAGES if any(path.startswith(name) or name.startswith(path) for path in only)
    ]
    if not chosen:
        parser.error(f"--only must be in {', '.join(PACKAGES)}")
    codes = []
    for package in chosen:
        numbers = (options.sample, options.seed, options.jobs)
        command = [sys.executable, "-m", "tests.mutants.package", " ".join(only), *numbers]
        directory = prepared(package, fresh=options.fresh)
        environment = os.environ | {"HYPOTHESIS_PROFILE": "mutants"}
        codes.append(subprocess.run(command, cwd=directory, env=environment, check=False).returncode)
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
