"""Other forms of the same JSON: white space, order of members, escapes.

Numbers and strings are never written anew: each function changes the received text in one respect only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from .drafts import Draft, Variant

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRINGS: Final = re.compile(rb"(" + _STRING + rb")", re.DOTALL)
_TOKEN: Final = re.compile(_STRING + rb'|[{}\[\],:]|[^ \t\r\n{}\[\],:"]++', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_DEPTH_MAX: Final = 64
_HASH_MASK: Final = 0xFFFF_FFFF

Write = Callable[[bytes], bytes]
"""Takes compact JSON and returns the same JSON with other white space."""


def is_json(data: bytes) -> bool:
    """Return whether it looks like a JSON object or array."""
    text = data.strip(_SPACE)
    return text[:1] + text[-1:] in (b"{}", b"[]")


def compact(data: bytes) -> bytes:
    """Remove the white space between tokens."""
    return _outside_strings(data, lambda part: part.translate(None, _SPACE))


def _outside_strings(data: bytes, change: Write) -> bytes:
    parts = _STRINGS.split(data)
    parts[::2] = map(change, parts[::2])
    return b"".join(parts)


def _spaced(comma: bytes, colon: bytes) -> Write:
    def write(data: bytes) -> bytes:
        return _outside_strings(data, lambda part: part.replace(b",", comma).replace(b":", colon))

    return write


def _indented(indent: bytes, colon: bytes) -> Write:
    def write(data: bytes) -> bytes:
        written, depth, tokens = list[bytes](), 0, _TOKEN.findall(data)
        for token, after in zip(tokens, [*tokens[1:], b""], strict=True):
            empty = token + after in (b"{}", b"[]")
            depth += (token in b"{[") - (after in (b"}", b"]") and not empty)
            if depth < 0 or depth > _DEPTH_MAX:
                return data
            written.append(colon if token == b":" else token)
            depth -= token in b"{[" and empty
            if not empty and (token in b"{[," or after in (b"}", b"]")):
                written.append(b"\n" + indent * depth)
        return b"".join(written)

    return write


_ON_ONE_LINE: Final[dict[str, Write]] = {
    "compact JSON": bytes,
    "JSON with spaces after commas and colons": _spaced(b", ", b": "),
    "JSON with spaces after colons": _spaced(b",", b": "),
    "JSON with spaces after commas": _spaced(b", ", b":"),
}
_STYLES: Final = {
    **_ON_ONE_LINE,
    "JSON indented by 2 spaces": _indented(b"  ", b": "),
    "JSON indented by 4 spaces": _indented(b"    ", b": "),
    "JSON indented by tabs": _indented(b"\t", b": "),
    "JSON indented by 2 spaces, with spaces around colons": _indented(b"  ", b" : "),
}


def whitespace(draft: Draft) -> Iterator[Variant]:
    """Yield the JSON with other white space."""
    if is_json(draft.body):
        tokens, core = compact(draft.body), draft.body.strip(_SPACE)
        before, after = draft.body.split(core, 1)
        for phrase, write in _STYLES.items():
            yield phrase, replace(draft, body=before + write(tokens) + after)
        yield "JSON without the white space around it", replace(draft, body=core)


def key_order(draft: Draft) -> Iterator[Variant]:
    """Yield the JSON with its members in other orders, if its white space can be written again."""
    if not is_json(draft.body):
        return
    tokens = compact(draft.body)
    styles = _STYLES if b"\n" in draft.body else _ON_ONE_LINE
    write = next((write for write in styles.values() if write(tokens) == draft.body), None)
    tree = None if write is None else _tree(tokens)
    if write is None or tree is None:
        return
    for phrase, sort, levels in _ORDERS:
        yield phrase, replace(draft, body=write(_text(tree, sort, levels)))


Node = bytes | list["Node"] | dict[bytes, "Node"]
"""A number, string or constant as it is written; an array; an object by the written names."""
Sort = Callable[[list[bytes]], list[bytes]]


def _tree(data: bytes) -> Node | None:
    """Parse compact JSON; None if it is not JSON, is too deep, or has two members of one name."""
    tokens = iter(_TOKEN.findall(data))
    try:
        tree = _node(next(tokens), tokens, _DEPTH_MAX)
        return tree if next(tokens, None) is None else None
    except (StopIteration, ValueError):
        return None


def _node(token: bytes, tokens: Iterator[bytes], depth: int) -> Node:
    if depth == 0 or token in b"}],:":
        raise ValueError
    if token == b"[":
        items: list[Node] = []
        while (token := next(tokens)) != b"]":
            items.append(_node(next(tokens) if token == b"," else token, tokens, depth - 1))
        return items
    if token != b"{":
        return token
    members: dict[bytes, Node] = {}
    while (token := next(tokens)) != b"}":
        name = next(tokens) if token == b"," else token
        if name in members or not name.startswith(b'"') or next(tokens) != b":":
            raise ValueError
        members[name] = _node(next(tokens), tokens, depth - 1)
    return members


def _text(node: Node, sort: Sort, levels: int) -> bytes:
    if isinstance(node, list):
        return b"[" + b",".join(_text(item, sort, levels) for item in node) + b"]"
    if isinstance(node, dict):
        names = sort(list(node)) if levels else list(node)
        return b"{" + b",".join(name + b":" + _text(node[name], sort, levels - 1) for name in names) + b"}"
    return node


def _name(raw: bytes) -> str:
    try:
        return str(json.loads(raw))
    except ValueError:
        return raw.decode("utf-8", "replace")


def _alphabetical(names: list[bytes]) -> list[bytes]:
    return sorted(names, key=_name)


def _documented(names: list[bytes]) -> list[bytes]:
    last = len(DOCUMENTED_ORDER)
    return sorted(names, key=lambda name: DOCUMENTED_ORDER.get(_name(name), last))


def _java_hash_map(names: list[bytes]) -> list[bytes]:
    """Sort as java.util.HashMap iterates: by the bucket of each name's hash."""
    capacity = 16
    while len(names) * 4 > capacity * 3:
        capacity *= 2

    def bucket(name: bytes) -> int:
        code = 0
        units = _name(name).encode("utf-16-be", "surrogatepass")
        for high, low in zip(units[::2], units[1::2], strict=True):
            code = (code * 31 + (high << 8 | low)) & _HASH_MASK
        return (code ^ code >> 16) & (capacity - 1)

    return sorted(names, key=bucket)


DOCUMENTED_ORDER: Final = {
    name: rank
    for rank, name in enumerate(
        (
            *(
                "head",
                "clientId",
                "function",
                "reserve",
                "reqTime",
                "respTime",
                "version",
                "reqMsgId",
                "body",
            ),
            *(
                "requestId",
                "bizTime",
                "bizType",
                "externalBindingId",
                "operateType",
                "externalIdentityType",
            ),
            *("externalIdentityValue", "result", "resultInfo", "needBind", "merchantAccountId"),
            *(
                "subMerchantId",
                "merchantName",
                "merchantEnglishName",
                "type",
                "subType",
                "source",
                "status",
            ),
            *(
                "autoDebitStatus",
                "merchant",
                "accountInfo",
                "accountId",
                "openId",
                "name",
                "phone",
                "userId",
            ),
            *("bindingTargetType", "bindingTarget", "expiryTime", "timestamp", "extendInfo"),
            *("resultStatus", "resultCode", "resultCodeId", "resultMessage", "resultMsg"),
        )
    )
}
"""The members of both APIs in the order of AlipayHK's pages, which differ in details."""
_ORDERS: Final[tuple[tuple[str, Sort, int], ...]] = (
    ("members in alphabetical order", _alphabetical, _DEPTH_MAX),
    ("members in alphabetical order at the top level", _alphabetical, 1),
    ("members in the order of AlipayHK's pages", _documented, _DEPTH_MAX),
    ("members in the order of a Java HashMap", _java_hash_map, _DEPTH_MAX),
)
