"""The same JSON with its members in other orders, if its white space can be written again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, permutations
from typing import Final

from .drafts import Draft, Variant
from .json_forms import DEPTH_MAX, ON_ONE_LINE, STYLES, TOKEN, Write, compact, is_json

PERMUTED_MAX: Final = 6
"""Objects with up to this many members are tried in every order: 6 have 720."""
MOVED_MAX: Final = 24
ANY_ORDER_BYTES_MAX: Final = 8 * 1024
ANY_ORDER_MAX: Final = 5_000
_HOLE: Final = b"\0"
_HASH_MASK: Final = 0xFFFF_FFFF

Node = bytes | list["Node"] | dict[bytes, "Node"]
"""A number, string or constant as it is written; an array; an object by the written names."""
Sort = Callable[[list[bytes]], list[bytes]]


def key_order(draft: Draft) -> Iterator[Variant]:
    """Yield the JSON with its members in other orders, if its white space can be written again."""
    if (read := _read(draft.body)) is not None:
        tree, write = read
        for phrase, sort, levels in _ORDERS:
            yield phrase, replace(draft, body=write(_text(tree, sort, levels)))


def any_order(draft: Draft) -> Iterator[Variant]:
    """Yield the JSON with the members of one object in any order; of a large one, with one member moved."""
    if len(draft.body) <= ANY_ORDER_BYTES_MAX and (read := _read(draft.body)) is not None:
        tree, write = read
        for text in islice(_reordered(tree), ANY_ORDER_MAX):
            yield "members in another order", replace(draft, body=write(text))


def _reordered(tree: Node) -> Iterator[bytes]:
    for node in _objects(tree):
        before, after = _text(tree, list, 0, hole=node).split(_HOLE, 1)
        members = [name + b":" + _text(value, list, 0) for name, value in node.items()]
        for order in permutations(members) if len(members) <= PERMUTED_MAX else _moves(members):
            yield before + b"{" + b",".join(order) + b"}" + after


def _read(body: bytes) -> tuple[Node, Write] | None:
    """Return the tree and the function that writes its white space; None if either is not known."""
    if not is_json(body):
        return None
    tokens = compact(body)
    styles = STYLES if b"\n" in body else ON_ONE_LINE
    write = next((write for write in styles.values() if write(tokens) == body), None)
    tree = None if write is None else _tree(tokens)
    return None if write is None or tree is None else (tree, write)


def _moves(names: list[bytes]) -> Iterator[list[bytes]]:
    for at, name in enumerate(names[:MOVED_MAX]):
        others = names[:at] + names[at + 1 :]
        for place in range(len(others) + 1):
            yield [*others[:place], name, *others[place:]]


def _objects(node: Node) -> Iterator[dict[bytes, Node]]:
    """Yield each object, the outer ones first."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _objects(child)


def _tree(data: bytes) -> Node | None:
    """Parse compact JSON; None if it is not JSON, is too deep, or has two members of one name."""
    tokens = iter(TOKEN.findall(data))
    try:
        tree = _node(next(tokens), tokens, DEPTH_MAX)
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


def _text(node: Node, sort: Sort, levels: int, hole: Node | None = None) -> bytes:
    """Write compact JSON, with the objects of the first `levels` sorted, and a mark instead of `hole`."""
    if node is hole:
        return _HOLE
    if isinstance(node, list):
        return b"[" + b",".join(_text(item, sort, levels, hole) for item in node) + b"]"
    if isinstance(node, dict):
        names = sort(list(node)) if levels > 0 else list(node)
        return (
            b"{"
            + b",".join(name + b":" + _text(node[name], sort, levels - 1, hole) for name in names)
            + b"}"
        )
    return node


def _name(raw: bytes) -> str:
    try:
        return str(json.loads(raw))
    except ValueError:
        return raw.decode("utf-8", "replace")


def _alphabetical(names: list[bytes]) -> list[bytes]:
    return sorted(names, key=_name)


def _reversed(names: list[bytes]) -> list[bytes]:
    return names[::-1]


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
    ("members in alphabetical order", _alphabetical, DEPTH_MAX),
    ("members in alphabetical order at the top level", _alphabetical, 1),
    ("members in the order of AlipayHK's pages", _documented, DEPTH_MAX),
    ("members in the order of a Java HashMap", _java_hash_map, DEPTH_MAX),
    ("members in reverse order", _reversed, DEPTH_MAX),
)
