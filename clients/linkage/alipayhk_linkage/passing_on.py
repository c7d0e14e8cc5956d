"""What a caller passes on of the request that it answers itself: trace context and x-request-id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

Pair = tuple[str, str | bytes]
Metadata = Iterable[Pair]
"""Names in lower case, each with printable ASCII; with any bytes where the name ends with -bin."""

NAME: Final = re.compile(r"[0-9a-z_.-]+")
VALUE: Final = re.compile(r"[ -~]*")

PASSED_ON: Final[Mapping[str, re.Pattern[str]]] = {
    # https://www.w3.org/TR/trace-context/: what is malformed is ignored, never mended.
    "traceparent": re.compile(
        # Version 00 ends after the flags; a later one may go on.
        r"(?!ff|00.{53}-)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?"
    ),
    "tracestate": re.compile(r"[ -~]{1,512}"),
    "x-request-id": re.compile(r"[!-~]{1,128}"),
}

_HELD: ContextVar[tuple[Pair, ...]] = ContextVar("alipayhk_linkage_passed_on", default=())


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


def metadata_of_call(metadata: Metadata) -> tuple[Pair, ...]:
    """Return a call's own metadata, and what is passed on beside it; the call's own wins.

    Raise ValueError for what gRPC would refuse to send, which it says in a different way on each face.
    """
    own = tuple(metadata)
    if not all(_can_be_sent(name, value) for name, value in own):
        raise ValueError("metadata is names in lower case with printable ASCII, or with bytes for -bin")
    names = {name for name, _ in own}
    return own + tuple((name, value) for name, value in _HELD.get() if name not in names)


def _can_be_sent(name: str, value: str | bytes) -> bool:
    if NAME.fullmatch(name) is None:
        return False
    if name.endswith("-bin"):
        return isinstance(value, bytes)
    return VALUE.fullmatch(value.decode("latin-1") if isinstance(value, bytes) else value) is not None
