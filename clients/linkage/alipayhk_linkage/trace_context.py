"""Forward the trace context and the x-request-id of the request that the caller is serving."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

Pair = tuple[str, str | bytes]
Metadata = Iterable[Pair]
"""Pairs of a lower-case name and printable ASCII, or any bytes if the name ends with -bin."""

NAME: Final = re.compile(r"[0-9a-z_.-]+")
VALUE: Final = re.compile(r"[ -~]*")

FORWARDED: Final[Mapping[str, re.Pattern[str]]] = {
    # https://www.w3.org/TR/trace-context/: a malformed header is ignored, never corrected.
    "traceparent": re.compile(
        # Version 00 has no further fields after the flags; later versions can have some.
        r"(?!ff|00.{53}-)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?"
    ),
    "tracestate": re.compile(r"[ -~]{1,512}"),
    "x-request-id": re.compile(r"[!-~]{1,128}"),
}

_CURRENT: ContextVar[tuple[Pair, ...]] = ContextVar("alipayhk_linkage_trace_context", default=())


@contextmanager
def trace_context(headers: Mapping[str, str]) -> Iterator[None]:
    """Forward `traceparent`, `tracestate` and `x-request-id` with every call inside the block.

    `headers` are the headers of the request that the caller is serving; the case of their names does not
    matter. Absent and malformed headers are ignored.
    """
    found = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    kept = [(n, found[n].strip()) for n in FORWARDED if n in found]
    token = _CURRENT.set(tuple((name, value) for name, value in kept if FORWARDED[name].fullmatch(value)))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def metadata_of_call(metadata: Metadata) -> tuple[Pair, ...]:
    """Return the call's own metadata and the forwarded headers. The call's own metadata has priority.

    Raise ValueError for metadata that gRPC cannot send. gRPC itself raises different errors for it in
    asyncio and in threads.
    """
    own = tuple(metadata)
    if not all(_can_be_sent(name, value) for name, value in own):
        raise ValueError(
            "metadata names must be lower case; values must be printable ASCII, or bytes for -bin names"
        )
    names = {name for name, _ in own}
    return own + tuple((name, value) for name, value in _CURRENT.get() if name not in names)


def _can_be_sent(name: str, value: str | bytes) -> bool:
    if NAME.fullmatch(name) is None:
        return False
    if name.endswith("-bin"):
        return isinstance(value, bytes)
    return VALUE.fullmatch(value.decode("latin-1") if isinstance(value, bytes) else value) is not None
