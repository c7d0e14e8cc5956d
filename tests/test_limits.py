"""The gateway enforces exactly the limits that the comments of the protos state."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from service.server.linkage_service import RPCS
from service.server.rpcs import Rpc, bind_account
from service.server.validation import violations
from tests.test_protos import field_comments

BY_REQUEST = {rpc.request.DESCRIPTOR.name: rpc for rpc in RPCS.values()}
SECONDS_MAX = 253_402_300_799
CHARACTERS = re.compile(r"(?:At most ([0-9]+) characters|1 to ([0-9]+) printable ASCII)")
BYTES = re.compile(r"At most ([0-9]+) bytes")
MOMENT = re.compile(r"From 1970 to 9999")


def stated(pattern: re.Pattern[str]) -> Iterator[tuple[Rpc, str, int]]:
    """Yield each request field with a comment that states such a limit, and the limit."""
    for name, comment in field_comments():
        message, field = name.split(".")
        if message in BY_REQUEST and (limit := pattern.search(comment)):
            yield BY_REQUEST[message], field, int(next(filter(None, limit.groups()), 0))


def faults(rpc: Rpc, request: Message) -> set[str]:
    return {violation.field for violation in violations(rpc.rules, request)}


def case(rpc: Rpc, field: str, limit: int) -> object:
    return pytest.param(rpc, field, limit, id=f"{rpc.name}.{field}")


@pytest.mark.parametrize(("rpc", "field", "limit"), [case(*row) for row in stated(CHARACTERS)])
def test_a_text_has_at_most_the_stated_number_of_characters(rpc: Rpc, field: str, limit: int) -> None:
    assert field not in faults(rpc, rpc.request(**{field: "a" * limit}))
    assert field in faults(rpc, rpc.request(**{field: "a" * (limit + 1)}))


@pytest.mark.parametrize(("rpc", "field", "limit"), [case(*row) for row in stated(BYTES)])
def test_a_text_has_at_most_the_stated_number_of_bytes(rpc: Rpc, field: str, limit: int) -> None:
    fitting = '{"a":"' + "語" * ((limit - 8) // 3) + "a" * ((limit - 8) % 3) + '"}'
    assert len(fitting.encode()) == limit
    assert field not in faults(rpc, rpc.request(**{field: fitting}))
    assert field in faults(rpc, rpc.request(**{field: fitting + " "}))


@pytest.mark.parametrize(("rpc", "field", "limit"), [case(*row) for row in stated(MOMENT)])
def test_times_are_from_1970_to_9999(rpc: Rpc, field: str, limit: int) -> None:
    for seconds in (0, SECONDS_MAX):
        assert field not in faults(rpc, rpc.request(**{field: {"seconds": seconds}}))
    for seconds in (-1, SECONDS_MAX + 1):
        assert field in faults(rpc, rpc.request(**{field: {"seconds": seconds}}))


def test_a_form_has_at_most_the_stated_number_of_values() -> None:
    comment = dict(field_comments())["TemplateForm.form_values"]
    (limit,) = map(int, re.findall(r"At most ([0-9]+) values", comment))
    for count, refused in ((limit, False), (limit + 1, True)):
        form = pb.TemplateForm(form_code="F", form_values={f"c{number}": "v" for number in range(count)})
        found = faults(bind_account.RPC, pb.BindAccountRequest(template_form=form))
        assert ("template_form.form_values" in found) is refused


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
def test_every_text_and_time_of_a_request_has_a_stated_limit(rpc: Rpc) -> None:
    texts = {field for of, field, _ in (*stated(CHARACTERS), *stated(BYTES)) if of is rpc}
    fields = rpc.request.DESCRIPTOR.fields
    assert texts == {field.name for field in fields if field.cpp_type == field.CPPTYPE_STRING}
    times = {field for of, field, _ in stated(MOMENT) if of is rpc}
    assert times == {field.name for field in fields if field.message_type is Timestamp.DESCRIPTOR}


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
def test_only_fields_documented_as_required_are_required(rpc: Rpc) -> None:
    prefix = f"{rpc.request.DESCRIPTOR.name}."
    comments = {
        name.removeprefix(prefix): text for name, text in field_comments() if name.startswith(prefix)
    }
    required = {field for field, comment in comments.items() if comment.startswith("Required. ")}
    optional = {field for field, comment in comments.items() if comment.startswith("Optional. ")}
    missed = faults(rpc, rpc.request())
    assert required <= missed
    assert not optional & missed
