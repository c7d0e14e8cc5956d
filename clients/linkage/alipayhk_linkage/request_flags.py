"""Build a request from the command line: one flag for each field, derived from the protobuf descriptor."""

from __future__ import annotations

import argparse
import time
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from .connection import UsageError

Request = TypeVar("Request", bound=Message)

# Each implementation of protobuf (upb, Python) has its own descriptor classes.
Field = Any
Enum = Any

FORM: Final = "template_form"
MOMENT: Final = "RFC 3339, such as 2026-03-01T08:00:00Z, or now; to repeat a call, give its original time"


def add_request_flags(parser: argparse.ArgumentParser, request: type[Message]) -> None:
    """Add the flags of a request's fields."""
    group = parser.add_argument_group(
        "request", "if none of these flags is given, the request is read as JSON from standard input"
    )
    for field in request.DESCRIPTOR.fields:
        if field.name == FORM:
            group.add_argument(
                "--form-code", metavar="TEXT", help="the code of a template form, instead of --account-id"
            )
            group.add_argument(
                "--form-value",
                metavar="CODE=TEXT",
                action="append",
                help="one field of the form (repeatable)",
            )
        else:
            group.add_argument(flag(field), metavar=_metavar(field), help=_help(field))


def request_of(args: argparse.Namespace, request: type[Request]) -> Request | None:
    """Return the request of the flags, None if no flag is given; raise one UsageError with every fault."""
    names = [field.name for field in request.DESCRIPTOR.fields if field.name != FORM]
    if all(getattr(args, name, None) is None for name in (*names, "form_code", "form_value")):
        return None
    message, faults = request(), []
    for field in request.DESCRIPTOR.fields:
        text = getattr(args, field.name, None)
        if text is not None:
            try:
                _set(message, field, text)
            except ValueError as error:
                faults.append(f"{flag(field)}: {error}")
    if any(getattr(args, name, None) is not None for name in ("form_code", "form_value")):
        faults += _set_form(message, args)
    if faults:
        raise UsageError("\n".join(faults))
    return message


def request_from_json(data: bytes, request: type[Request]) -> Request:
    """Parse a request in protobuf's JSON, which is UTF-8 in any locale; raise UsageError if invalid."""
    try:
        if not data.lstrip().startswith(b"{"):
            raise json_format.ParseError("not a JSON object")  # protobuf accepts [] as an empty message
        return json_format.Parse(data.decode("utf-8"), request())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise UsageError(f"standard input is not a {request.DESCRIPTOR.name} in JSON: {error}") from None


def flag(field: Field) -> str:
    """Return the name of a field's flag."""
    name: str = field.name
    return "--" + name.replace("_", "-")


def _set(message: Message, field: Field, text: str) -> None:
    if field.enum_type is not None:
        setattr(message, field.name, _number(field.enum_type, text))
    elif field.message_type is not None:
        moment: Any = getattr(message, field.name)
        if text == "now":
            moment.FromMilliseconds(time.time_ns() // 1_000_000)
        else:
            try:
                moment.FromJsonString(text)
            except ValueError:
                raise ValueError(MOMENT) from None
    else:
        setattr(message, field.name, text)


def _set_form(message: Any, args: argparse.Namespace) -> list[str]:
    faults = []
    if args.account_id is not None:
        faults.append("--account-id and --form-code: give only one of them")
    form = message.template_form
    try:
        form.form_code = args.form_code or ""
    except ValueError as error:
        faults.append(f"--form-code: {error}")
    for pair in args.form_value or ():
        try:
            _add_value(form.form_values, pair)
        except ValueError as error:
            faults.append(f"--form-value: {error}")
    return faults


def _add_value(values: Any, pair: str) -> None:
    code, equals, value = pair.partition("=")
    if not equals:
        raise ValueError("not CODE=TEXT")
    if code in values:
        raise ValueError(f"{code!r} is given twice")
    values[code] = value


def _number(enum: Enum, text: str) -> int:
    """Return the number of an enum value, given by its full name or by its short name, such as BIND."""
    short = _short_names(enum)
    full: dict[str, int] = {value.name: value.number for value in enum.values}
    if text in full:
        return full[text]
    try:
        return short[text.upper()]
    except KeyError:
        raise ValueError(f"must be one of {', '.join(short)}") from None


def _short_names(enum: Enum) -> dict[str, int]:
    """Return the number of each short name, without UNSPECIFIED, which is never sent."""
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix): value.number for value in enum.values[1:]}


def _metavar(field: Field) -> str:
    if field.enum_type is not None:
        return "|".join(_short_names(field.enum_type))
    return "TIME" if field.message_type is not None else "TEXT"


def _help(field: Field) -> str:
    return MOMENT if field.message_type is not None else ""
