"""Rules for the fields of a request. A violation never contains a value.

Lengths are in code points, as at AlipayHK. Control characters are refused in every text: identifiers do not
contain them, and they make two texts look the same that are not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from clients.alipayhk.wire.strict_json import JsonError, read_object

from ..outcomes.refusal import Violation

SECONDS_MAX: Final = 253_402_300_799
"""The last second of the year 9999."""
NANOS_MAX: Final = 999_999_999
_REQUEST_ID: Final = re.compile(r"[!-~]+")

# The fields of generated messages are attributes, which mypy does not know.
Rule = Callable[[Any], Iterator[Violation]]


def violations(rules: Iterable[Rule], request: Message) -> tuple[Violation, ...]:
    """Return all violations, in the order of the rules."""
    return tuple(violation for rule in rules for violation in rule(request))


def is_request_id(text: str, length_max: int) -> bool:
    """Return whether a text is 1 to `length_max` printable ASCII characters without space."""
    return len(text) <= length_max and bool(_REQUEST_ID.fullmatch(text))


def request_id(length_max: int) -> Rule:
    """Require a valid `request_id`."""

    def rule(request: Any) -> Iterator[Violation]:
        if not is_request_id(request.request_id, length_max):
            wanted = f"must be 1 to {length_max} printable ASCII characters without space"
            yield Violation("request_id", wanted)

    return rule


def required(name: str) -> Rule:
    """Require a non-empty text."""

    def rule(request: Any) -> Iterator[Violation]:
        if not getattr(request, name):
            yield Violation(name, "is required")

    return rule


def text(name: str, length_max: int | None = None) -> Rule:
    """Limit the length of a text, and refuse control characters."""

    def rule(request: Any) -> Iterator[Violation]:
        value: str = getattr(request, name)
        if length_max is not None and len(value) > length_max:
            yield Violation(name, f"has more than {length_max} characters")
        if has_control(value):
            yield Violation(name, "has control characters")

    return rule


def any_of(*names: str) -> Rule:
    """Require at least one of several non-empty texts."""

    def rule(request: Any) -> Iterator[Violation]:
        if not any(getattr(request, name) for name in names):
            yield Violation(names[0], f"is required unless {' or '.join(names[1:])} is given")

    return rule


def choice(name: str, wire_names: Mapping[Any, str]) -> Rule:
    """Require a value of an enum that has a name on the wire."""

    def rule(request: Any) -> Iterator[Violation]:
        value: int = getattr(request, name)
        if value == 0:
            yield Violation(name, "is required")
        elif value not in wire_names:
            yield Violation(name, "is not a value of this enum")

    return rule


def required_moment(name: str) -> Rule:
    """Require a Timestamp from 1970 to 9999."""

    def rule(request: Any) -> Iterator[Violation]:
        if not request.HasField(name):
            yield Violation(name, "is required")
        yield from moment(name)(request)

    return rule


def moment(name: str) -> Rule:
    """Limit an optional Timestamp to the years 1970 to 9999."""

    def rule(request: Any) -> Iterator[Violation]:
        value: Timestamp = getattr(request, name)
        if not (0 <= value.seconds <= SECONDS_MAX and 0 <= value.nanos <= NANOS_MAX):
            yield Violation(name, "is not a time from 1970 to 9999")

    return rule


def json_object(name: str, bytes_max: int) -> Rule:
    """Require an optional text to be one JSON object of at most `bytes_max` bytes in UTF-8."""

    def rule(request: Any) -> Iterator[Violation]:
        data = getattr(request, name).encode()
        if not data:
            return
        if len(data) > bytes_max:
            yield Violation(name, f"has more than {bytes_max} bytes")
            return
        try:
            read_object(data)
        except JsonError as error:
            yield Violation(name, f"must be a JSON object: {error}")

    return rule


def when(condition: Callable[[Any], bool], *rules: Rule) -> Rule:
    """Apply rules to requests that meet a condition."""

    def rule(request: Any) -> Iterator[Violation]:
        if condition(request):
            yield from (violation for rule in rules for violation in rule(request))

    return rule


def has_control(value: str) -> bool:
    """Return whether a text contains a control character (Unicode category Cc)."""
    return not value.isprintable() and any(unicodedata.category(char) == "Cc" for char in value)
