"""Run mutants one after the other, and print when and as what the chaos noticed each of them.

python -m tests.chaos.mutant_table --mutants all --rate 100 --workers 3
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import Final

from tests.chaos.chaos import Report, options_of, parser, run
from tests.chaos.mutants import MUTANTS, UNNOTICED
from tests.chaos.world import Options

NOTICED_WITHIN_S: Final = 180.0


async def noticed(options: Options) -> Report | None:
    """Run one mutant; return the report if a finding ended the run in time."""
    running = asyncio.create_task(run(options))
    done, _ = await asyncio.wait({running}, timeout=NOTICED_WITHIN_S)
    if not done:
        running.cancel()
        await asyncio.wait({running})
        return None
    report = running.result()
    return None if report.is_clean else report


def main() -> int:
    """Run from the command line; return 0 if every mutant was noticed."""
    ours = parser()
    ours.add_argument("--mutants", default="all", help="names separated by commas, or all")
    arguments = vars(ours.parse_args())
    chosen = arguments.pop("mutants")
    names = list(MUTANTS) if chosen == "all" else chosen.split(",")
    if unknown := set(names) - set(MUTANTS):
        ours.error(f"--mutants: {', '.join(sorted(unknown))}: must be of {', '.join(MUTANTS)}")
    options, unnoticed = options_of(ours, arguments), 0
    for name in names:
        report = asyncio.run(noticed(replace(options, mutant=name)))
        unnoticed += report is None
        result = f"NOT NOTICED within {NOTICED_WITHIN_S:.0f} s" if report is None else report.noticed()
        print(f"{name:12} {result}  ({MUTANTS[name].what})", flush=True)  # noqa: T201
    for what, why in UNNOTICED.items():
        print(f"{'-':12} {what}: {why}")  # noqa: T201
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
