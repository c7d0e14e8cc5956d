"""Run the gateway's command line in a process that sends its id to AlipayHK, as a mutant if one is named.

    python -P gateway_process.py SHIM MUTANT [-P -m service] serve ...

The harness writes an executable SHIM that runs this file. The supervisor also starts workers with it,
because this file assigns it to `sys.executable`. MUTANT is a name in `mutants.MUTANTS`, or empty. Nothing
here reads the environment, and the service does not depend on it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from clients.alipayhk.connections import Target
from service.commands.cli import main as run

PROCESS_HEADER: Final = "X-Chaos-Process"
"""Header of a request to AlipayHK with the id of the sending process; the signature does not cover it."""


def name_process() -> None:
    """Send this process's id with every request to AlipayHK."""
    initialize = Target.__init__

    def named(
        target: Target, base_url: str, path: str, headers: Mapping[str, str], proxy: str | None
    ) -> None:
        initialize(target, base_url, path, {**headers, PROCESS_HEADER: str(os.getpid())}, proxy)

    setattr(Target, "__init__", named)  # noqa: B010  (mypy forbids the assignment)


def main() -> int:
    """Apply the mutant to this process, and run the command line; return its exit status."""
    shim, mutant, *arguments = sys.argv[1:]
    while arguments and arguments[0] in {"-P", "-m", "service"}:
        del arguments[0]
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    sys.executable = shim
    name_process()
    if mutant:
        from tests.chaos.mutants import MUTANTS  # noqa: PLC0415  (found on the path just added)

        MUTANTS[mutant].make()
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
