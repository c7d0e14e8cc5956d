"""The comments of the protos document the API for callers: each has the parts promised by the contract."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
BUF = ROOT / ".venv" / "bin" / "buf"
BASELINE = ROOT / "protos" / "baseline.binpb"
LIMIT = re.compile(
    r"\b(No limit|At most [0-9]+|[0-9]+ to [0-9]+|From [0-9]+ to [0-9]+|One of the enum's values"
    r"|Whole seconds)\b",
    re.IGNORECASE,
)
WIRE = re.compile(r"\bOn the wire: [A-Za-z]")
EXAMPLE = re.compile(r"\bExample: \S")
# Field numbers of descriptor.proto: the path of a comment consists of them.
MESSAGE_TYPE, ENUM_TYPE, FIELD, NESTED_TYPE, VALUE = 4, 5, 2, 3, 2


def buf(*args: str) -> bytes:
    if not BUF.exists():
        pytest.fail(f"{BUF.relative_to(ROOT)} is missing, and this test needs it: run `make setup`.")
    done = subprocess.run([BUF, *args], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout


@cache
def files() -> list[FileDescriptorProto]:
    image = FileDescriptorSet.FromString(
        buf("build", "protos", "--exclude-imports", "--output", "-#format=binpb")
    )
    return list(image.file)


def comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    locations = file.source_code_info.location
    return {
        tuple(at.path): " ".join(at.leading_comments.split()) for at in locations if at.leading_comments
    }


def messages(
    parent: FileDescriptorProto | DescriptorProto, path: tuple[int, ...], kind: int
) -> Iterator[tuple[tuple[int, ...], DescriptorProto]]:
    children = parent.message_type if isinstance(parent, FileDescriptorProto) else parent.nested_type
    for number, message in enumerate(children):
        if message.options.map_entry:
            continue
        yield (*path, kind, number), message
        yield from messages(message, (*path, kind, number), NESTED_TYPE)


def field_comments() -> Iterator[tuple[str, str]]:
    for file in files():
        texts = comments(file)
        for path, message in messages(file, (), MESSAGE_TYPE):
            for number, field in enumerate(message.field):
                yield f"{message.name}.{field.name}", texts.get((*path, FIELD, number), "")


def value_comments() -> Iterator[tuple[str, int, str]]:
    for file in files():
        texts = comments(file)
        for number, enum in enumerate(file.enum_type):
            for index, value in enumerate(enum.value):
                comment = texts.get((ENUM_TYPE, number, VALUE, index), "")
                yield f"{enum.name}.{value.name}", value.number, comment


@pytest.mark.parametrize(("part", "pattern"), [("limit", LIMIT), ("wire name", WIRE), ("example", EXAMPLE)])
def test_every_field_comment_has_its(part: str, pattern: re.Pattern[str]) -> None:
    found = dict(field_comments())
    assert len(found) > 40
    assert [name for name, comment in found.items() if not pattern.search(comment)] == []


def test_every_field_comment_starts_with_the_meaning() -> None:
    meaningless = re.compile(r"^(Required\. |Optional\. )?(On the wire|Example|At most|No limit)")
    assert [name for name, comment in field_comments() if not comment or meaningless.match(comment)] == []


def test_the_first_value_of_every_enum_is_unspecified_and_never_sent() -> None:
    firsts = {name: comment for name, number, comment in value_comments() if number == 0}
    assert len(firsts) == sum(len(file.enum_type) for file in files())
    assert [name for name in firsts if not name.endswith("_UNSPECIFIED")] == []
    assert set(firsts.values()) == {"Never sent."}


def test_every_other_enum_value_has_its_wire_name_or_an_example() -> None:
    unclear = [
        name
        for name, number, comment in value_comments()
        if number and not (EXAMPLE if name.startswith("ErrorReason.") else WIRE).search(comment)
    ]
    assert unclear == []


def test_error_reasons_are_numbered_without_gaps_unless_reserved() -> None:
    numbers = [number for name, number, _ in value_comments() if name.startswith("ErrorReason.")]
    reserved = {
        number
        for file in files()
        for enum in file.enum_type
        if enum.name == "ErrorReason"
        for gap in enum.reserved_range
        for number in range(gap.start, gap.end + 1)
    }
    assert sorted({*numbers, *reserved}) == list(range(max(numbers) + 1))


def test_the_protos_are_compatible_with_the_baseline() -> None:
    buf("breaking", "protos", "--against", str(BASELINE))


def test_the_baseline_contains_the_service_under_its_promised_name() -> None:
    image = FileDescriptorSet.FromString(BASELINE.read_bytes())
    services = {
        f"{file.package}.{service.name}": [method.name for method in service.method]
        for file in image.file
        for service in file.service
    }
    assert services["alipayhk.linkage.v1.LinkageService"] == ["SyncLinkage", "BindAccount"]
