"""What a caller passes on of the request that it answers itself: trace context and x-request-id."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

Metadata = tuple[tuple[str, str | bytes], ...]

PASSED_ON: Final[Mapping[str, re.Pattern[str]]] = {
    # https://www.w3.org/TR/trace-context/: what is malformed is ignored, never mended.
    "traceparent": re.compile(
        r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
    ),
    "tracestate": re.compile(r"[ -~]{1,512}"),
    "x-request-id": re.compile(r"[!-~]{1,128}"),
}

_HELD: ContextVar[Metadata] = ContextVar("alipayhk_linkage_passed_on", default=())


@contextmanager
def passing_on(headers: Mapping[str, str]) -> Iterator[None]:
    """Pass `traceparent`, `tracestate` and `x-request-id` on with every call made inside.

    `headers` are those of the request that is being answered, by whatever case its framework keeps
    names in; what is absent or malformed is left out.
    """
    found = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    kept = [(n, found[n].strip()) for n in PASSED_ON if n in found]
    token = _HELD.set(tuple((name, value) for name, value in kept if PASSED_ON[name].fullmatch(value)))
    try:
        yield
    finally:
        _HELD.reset(token)


def metadata_of_call(metadata: Metadata) -> Metadata:
    """Return a call's own metadata, and what is passed on beside it; the call's own wins."""
    own = {name for name, _ in metadata}
    return metadata + tuple((name, value) for name, value in _HELD.get() if name not in own)
