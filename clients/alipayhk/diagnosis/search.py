"""Search the content that a signature covers: each mistake alone, then each pair of mistakes.

The search is bounded by the number of digests and by the bytes that are hashed. Mistakes alone come first,
so a large message is searched for them completely, and for few pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .drafts import Draft, Hypothesis
from .signature import Clause

DIGESTS_MAX: Final = 30_000
BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """The signed content, and the mistakes that lead to it."""

    draft: Draft
    clauses: tuple[Clause, ...] = ()


def search(
    start: Draft, hypotheses: Sequence[Hypothesis], is_signed: Callable[[bytes], bool]
) -> Found | None:
    """Return the first content that the signature covers; None if none of those tried is."""
    digests = size = 0
    for found in _candidates(start, hypotheses):
        content = found.draft.content()
        digests, size = digests + 1, size + len(content)
        if digests > DIGESTS_MAX or size > BYTES_MAX:
            return None
        if is_signed(content):
            return found
    return None


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
