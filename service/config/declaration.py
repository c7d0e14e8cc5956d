"""Settings as fields of a dataclass: how they are declared, listed, and made from parsed values.

The settings of one API are a group: a dataclass of its own. The field `path` of the group `sync_linkage`
is the setting SYNC_LINKAGE_PATH.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, field, fields
from typing import Any, Final, TypeVar, cast

REQUIRED: Final = object()
"""The default of a setting that must be given."""

Group = TypeVar("Group")


def setting(parse: Callable[[str], object], default: object, meaning: str) -> Any:
    """Declare a setting; its default is a text as the environment has it, None, or REQUIRED."""
    return field(metadata={"parse": parse, "default": default, "meaning": meaning})


def group(cls: type[Group]) -> Group:
    """Declare a group of settings."""
    return cast("Group", field(metadata={"group": cls}))


def declared(cls: type, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Yield the name, in lower case, and the field of every setting, those of groups included."""
    for each in fields(cls):
        if inner := each.metadata.get("group"):
            yield from declared(inner, f"{prefix}{each.name}_")
        else:
            yield prefix + each.name, each


def built(cls: type[Group], values: Mapping[str, object], prefix: str = "") -> Group:
    """Make the dataclass and its groups from the values of all settings, by their names."""
    members = {
        each.name: built(inner, values, f"{prefix}{each.name}_")
        if (inner := each.metadata.get("group"))
        else values[prefix + each.name]
        for each in fields(cast("Any", cls))
    }
    return cls(**members)


def values_of(settings: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the name, in lower case, and the value of every setting, in the order of `declared`."""
    for each in fields(cast("Any", settings)):
        value = getattr(settings, each.name)
        if "group" in each.metadata:
            yield from values_of(value, f"{prefix}{each.name}_")
        else:
            yield prefix + each.name, value
