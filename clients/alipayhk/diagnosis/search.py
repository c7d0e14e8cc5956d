"""Search the content that a signature covers: each mistake alone, then each pair of mistakes.

The search is bounded by the number of digests and by the bytes that are hashed. Mistakes alone come first,
so a message of up to 1 MiB is searched for them, and a large one for few pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .drafts import Draft, Hypothesis
from .signature import Clause

DIGESTS_MAX: Final = 30_000
BYTES_MAX: Final = 192 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """The signed content, and the mistakes that lead to it."""

    draft: Draft
    clauses: tuple[Clause, ...] = ()


@dataclass(frozen=True, slots=True)
class Searched:
    """The result of a search."""

    found: Found | None = None
    is_complete: bool = True
    """Whether the search went on until it found the content, or had tried everything."""


def search(start: Draft, hypotheses: Sequence[Hypothesis], is_signed: Callable[[bytes], bool]) -> Searched:
    """Return the first content that the signature covers, if there is one among those tried."""
    digests = size = 0
    for found in _candidates(start, hypotheses):
        content = found.draft.content()
        digests, size = digests + 1, size + len(content)
        if digests > DIGESTS_MAX or size > BYTES_MAX:
            return Searched(is_complete=False)
        if is_signed(content):
            return Searched(found)
    return Searched()


def _candidates(start: Draft, hypotheses: Sequence[Hypothesis]) -> Iterator[Found]:
    yield Found(start)
    for hypothesis in hypotheses:
        yield from _applied(Found(start), hypothesis)
    for at, first in enumerate(hypotheses):
        if first.alone:
            continue
        for once in _applied(Found(start), first):
            for second in hypotheses[at + 1 :]:
                if second.cause is not first.cause and not second.alone:
                    yield from _applied(once, second)


def _applied(found: Found, hypothesis: Hypothesis) -> Iterator[Found]:
    """Yield the drafts that a mistake changes."""
    for phrase, draft in hypothesis.variants(found.draft):
        if draft != found.draft:
            yield Found(draft, (*found.clauses, (hypothesis.cause, f"covers {phrase}")))
