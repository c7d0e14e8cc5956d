"""Run the operations of one transaction, with one statement for all claims and one for all outcomes.

Each operation's caller still waits for it, so their order is free. Outcomes come first: claims that arrived
together with them find their linkages free. Claims come last: what an operation without a caller undoes,
such as a grant whose caller left, is undone for a claim that arrived later.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from .. import Claim, Granted
from ..rules import NO_OTHERS, answer_to
from .rows import SIZES, ToClaim, ToRecord
from .tables import Tables

Work = Callable[[Tables], Any] | ToClaim | ToRecord


def run_all(on: Tables, works: Sequence[Work]) -> list[Any]:
    """Return the results of operations, in their order."""
    outcomes: dict[int, ToRecord] = {}
    claims: dict[int, ToClaim] = {}
    results: list[Any] = [None] * len(works)
    for number, work in enumerate(works):
        if isinstance(work, ToRecord):
            outcomes[number] = work
        elif isinstance(work, ToClaim):
            claims[number] = work
    _record(on, outcomes, results)
    for number, work in enumerate(works):
        if not isinstance(work, (ToRecord, ToClaim)):
            results[number] = work(on)
    _claim(on, claims, results)
    return results


def _record(on: Tables, outcomes: dict[int, ToRecord], results: list[Any]) -> None:
    first = {one.key: number for number, one in reversed(outcomes.items())}
    for numbers in _parts(sorted(first.values())):
        if on.record_all([outcomes[number] for number in numbers]):
            for number in numbers:
                results[number] = True
    for number, one in outcomes.items():
        if results[number] is None:
            results[number] = on.record(one.key, one.token, one.ending, one.now_ms)


def _claim(on: Tables, claims: dict[int, ToClaim], results: list[Any]) -> None:
    taken: set[Hashable] = set()
    usual: list[int] = []
    for number, one in claims.items():
        names = _names(one.claim)
        alone = answer_to(one.claim, None, NO_OTHERS, one.now_ms, token=0)
        if taken.isdisjoint(names) and isinstance(alone, Granted):
            usual.append(number)
        taken.update(names)
    for numbers in _parts(usual):
        granted = on.insert([claims[number] for number in numbers])
        for number, answer in zip(numbers, granted, strict=True):
            results[number] = answer
    for number, one in claims.items():
        if results[number] is None:
            results[number] = on.claim(one.claim, one.now_ms)


def _names(claim: Claim) -> tuple[Hashable, ...]:
    """Return what only one claim of a statement may have."""
    return (claim.key,) if claim.linkage is None else (claim.key, claim.linkage)


def _parts(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), SIZES[-1]):
        yield numbers[start : start + SIZES[-1]]
