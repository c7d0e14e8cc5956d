"""Rules for the fields of a request. A violation never contains a value.

Lengths are in code points, as at AlipayHK. Control characters are refused in every text: identifiers do not
contain them, and they make two texts look the same that are not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
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
Rule = Callable[[Any], Iterable[Violation]]
"""Returns the violations of a request. A tuple costs less than a generator, and most requests are valid."""


def violations(rules: Iterable[Rule], request: Message) -> tuple[Violation, ...]:
    """Return all violations, in the order of the rules."""
    found: list[Violation] = []
    for rule in rules:
        if more := rule(request):
            found += more
    return tuple(found)


def is_request_id(text: str, length_max: int) -> bool:
    """Return whether a text is 1 to `length_max` printable ASCII characters without space."""
    return len(text) <= length_max and bool(_REQUEST_ID.fullmatch(text))


def request_id(length_max: int) -> Rule:
    """Require a valid `request_id`."""
    violated = (
        Violation("request_id", f"must be 1 to {length_max} printable ASCII characters without space"),
    )

    def rule(request: Any) -> Iterable[Violation]:
        return () if is_request_id(request.request_id, length_max) else violated

    return rule


def required(name: str) -> Rule:
    """Require a non-empty text."""
    violated = (Violation(name, "is required"),)

    def rule(request: Any) -> Iterable[Violation]:
        return () if getattr(request, name) else violated

    return rule


def text(name: str, length_max: int | None = None, *, optional: bool = False) -> Rule:
    """Require a text, limit its length, and refuse control characters."""
    absent = () if optional else (Violation(name, "is required"),)
    too_long = (Violation(name, f"has more than {length_max} characters"),)
    control = (Violation(name, "has control characters"),)

    def rule(request: Any) -> Iterable[Violation]:
        value: str = getattr(request, name)
        if not value:
            return absent
        fits = length_max is None or len(value) <= length_max
        if fits and value.isprintable():
            return ()
        return (() if fits else too_long) + (control if has_control(value) else ())

    return rule


def any_of(*names: str) -> Rule:
    """Require at least one of several non-empty texts."""
    violated = (Violation(names[0], f"is required unless {' or '.join(names[1:])} is given"),)

    def rule(request: Any) -> Iterable[Violation]:
        return () if any(getattr(request, name) for name in names) else violated

    return rule


def choice(name: str, wire_names: Mapping[Any, str]) -> Rule:
    """Require a value of an enum that has a name on the wire."""
    absent = (Violation(name, "is required"),)
    unknown = (Violation(name, "is not a value of this enum"),)

    def rule(request: Any) -> Iterable[Violation]:
        value: int = getattr(request, name)
        if value in wire_names:
            return ()
        return unknown if value else absent

    return rule


def required_moment(name: str) -> Rule:
    """Require a Timestamp from 1970 to 9999."""
    absent, is_moment = (Violation(name, "is required"),), moment(name)

    def rule(request: Any) -> Iterable[Violation]:
        return is_moment(request) if request.HasField(name) else absent

    return rule


def moment(name: str) -> Rule:
    """Limit an optional Timestamp to the years 1970 to 9999."""
    violated = (Violation(name, "is not a time from 1970 to 9999"),)

    def rule(request: Any) -> Iterable[Violation]:
        value: Timestamp = getattr(request, name)
        return () if 0 <= value.seconds <= SECONDS_MAX and 0 <= value.nanos <= NANOS_MAX else violated

    return rule


def json_object(name: str, bytes_max: int) -> Rule:
    """Require an optional text to be one JSON object of at most `bytes_max` bytes in UTF-8."""

    def rule(request: Any) -> Iterable[Violation]:
        data = getattr(request, name).encode()
        if not data:
            return ()
        if len(data) > bytes_max:
            return (Violation(name, f"has more than {bytes_max} bytes"),)
        try:
            read_object(data)
        except JsonError as error:
            return (Violation(name, f"must be a JSON object: {error}"),)
        return ()

    return rule


def when(condition: Callable[[Any], bool], *rules: Rule) -> Rule:
    """Apply rules to requests that meet a condition."""

    def rule(request: Any) -> Iterable[Violation]:
        return violations(rules, request) if condition(request) else ()

    return rule


def has_control(value: str) -> bool:
    """Return whether a text contains a control character (Unicode category Cc)."""
    return not value.isprintable() and any(unicodedata.category(char) == "Cc" for char in value)
