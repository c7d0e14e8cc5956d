"""Other texts for the path of a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote, unquote, urlsplit

_PREFIXES: Final = ("/api", "/gateway", "/openapi", "/ams", "/v1", "/prod", "/alipay", "/proxy")
"""Prefixes under which proxies often serve an API, and which they remove."""
_HOSTS: Final = ("open.alipay.hk", "open-id-pre.alipay.com")
"""AlipayHK's hosts: https://docs.alipay.hk/alipayhkdocs/hk/performance_notification/api-base"""
_ORIGINAL_PATHS: Final = (
    *("x-original-uri", "x-original-url", "x-forwarded-uri", "x-envoy-original-path", "x-rewrite-url"),
)
"""Headers in which a proxy that rewrites the path keeps the original one."""
_SEGMENTS_MAX: Final = 16


def other_paths(path: str, headers: Mapping[str, str], hosts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield a noun phrase and a path for each other path that a signer may have taken.

    `headers` are those of the message, by name in lower case; `hosts` are other hosts of the API.
    """
    bare, mark, query = path.partition("?")
    for phrase, other in _of_path(bare):
        yield phrase, other + mark + query
    if mark:
        yield "the path without its query", bare
        yield "the path with its query decoded", f"{bare}?{unquote(query)}"
        yield "the path with its query encoded", f"{bare}?{_quoted(query, '=&')}"
        yield "the path with its query sorted", f"{bare}?{'&'.join(sorted(query.split('&')))}"
        for phrase, other in _of_path(bare):
            yield f"{phrase}, without its query", other
    for name in _ORIGINAL_PATHS:
        if original := headers.get(name):
            yield "the path before a proxy rewrote it", original
    if prefix := headers.get("x-forwarded-prefix"):
        yield "the path with the prefix that a proxy removed", prefix.rstrip("/") + path
    for prefix in _PREFIXES:
        yield "the path with a prefix that the message lacks", prefix + path
    given = (headers.get("host"), headers.get(":authority"), *hosts, *_HOSTS)
    for host in dict.fromkeys(filter(None, given)):
        for start in ("", "https://", "http://", "//"):
            yield "the URL with its host instead of the path", f"{start}{host}{path}"
            yield "the URL with its host, without its query", f"{start}{host}{bare}"


def _of_path(bare: str) -> Iterator[tuple[str, str]]:
    yield "the path with another slash at its end", bare[:-1] if bare.endswith("/") else f"{bare}/"
    yield "the path without its first slash", bare.removeprefix("/")
    yield "the path with two slashes at its start", f"/{bare}"
    yield "the path decoded", unquote(bare)
    yield "the path encoded", _quoted(bare, "/")
    yield "the path encoded again", _quoted(bare, "/%").replace("%", "%25")
    yield "an empty path", ""
    yield "the path of the host alone", "/"
    segments = bare.split("/")[1:]
    for start in range(1, min(len(segments), _SEGMENTS_MAX)):
        yield "the path without its first segments", "/" + "/".join(segments[start:])
    for end in range(1, min(len(segments), _SEGMENTS_MAX)):
        yield "the path without its last segments", "/" + "/".join(segments[:-end])
    if "//" in bare:
        yield "the path without double slashes", "/" + "/".join(filter(None, segments))


def _quoted(text: str, safe: str) -> str:
    return quote(text, safe=safe, errors="surrogateescape")


def host_of(url: str) -> str:
    """Return host and port of a URL as it has them; empty if it has none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""
