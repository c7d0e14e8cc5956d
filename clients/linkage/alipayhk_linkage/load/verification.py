"""What callers were told, beside what the sandbox AlipayHK remembers: `/__sandbox/wallet`."""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .recording import Asked, Told
from .requests import BIND, SYNC

REMEMBERED_MAX: Final = 100_000
"""What the sandbox remembers of an API; the oldest goes first."""
SHOWN_MAX: Final = 20
READ_S: Final = 30.0
UNREADABLE: Final = (http.client.HTTPException, RecursionError)
"""What a server that is no sandbox makes the library raise."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found."""

    requests: int
    """Request ids of this run."""
    sends: Mapping[str, Mapping[int, int]]
    """By API: how many ids AlipayHK received so many times; ids whose request spent none are under 0."""
    discrepancies: int
    shown: tuple[str, ...]
    """The first of them."""
    incomplete: str = ""
    """Why nothing can be said; empty where it can."""

    @property
    def well(self) -> bool:
        """Whether everything was as callers were told."""
        return not self.discrepancies and not self.incomplete


def verify(url: str, run: str, told: Iterable[Told]) -> Verification:
    """Compare; a sandbox that cannot be read is a verification that is incomplete."""
    try:
        wallet = _read(url)
        received: dict[str, dict[str, dict[str, int]]] = {api: wallet.get(api, {}) for api in (SYNC, BIND)}
        by_id: dict[tuple[str, str], list[Told]] = defaultdict(list)
        for one in told:
            by_id[one.rpc, one.request_id].append(one)
        if any(len(ids) >= REMEMBERED_MAX for ids in received.values()):
            why = (
                f"the sandbox holds {REMEMBERED_MAX} request ids and forgets older ones: make shorter runs"
            )
            return Verification(len(by_id), {}, 0, (), why)
        found = [*_discrepancies(by_id, received), *_strangers(f"load-{run}-", by_id, received)]
    except (OSError, ValueError, TypeError, AttributeError, KeyError, *UNREADABLE) as error:
        why = f"{url}/__sandbox/wallet cannot be read ({type(error).__name__})"
        return Verification(0, {}, 0, (), why)
    return Verification(len(by_id), _sends(by_id, received), len(found), tuple(found[:SHOWN_MAX]))


def _read(url: str) -> dict[str, Any]:
    # Nothing of the environment's proxies: the sandbox is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url.rstrip('/')}/__sandbox/wallet", timeout=READ_S) as answer:
        requests = json.load(answer)["requests"]
    if not isinstance(requests, dict):
        raise TypeError("requests")
    return requests


def _discrepancies(
    by_id: Mapping[tuple[str, str], list[Told]], received: Mapping[str, Mapping[str, Mapping[str, int]]]
) -> Iterator[str]:
    for (api, request_id), tellings in by_id.items():
        entry = received[api].get(request_id)
        effects, repeats = (0, 0) if entry is None else (entry["effects"], entry["repeats"])
        told = {one.outcome for one in tellings}
        words = f"{api} {request_id}: callers were told {', '.join(sorted(told))}"
        # An older update of a linkage is answered S, and overwrites nothing.
        least = 0 if any(one.asked is Asked.OUT_OF_ORDER for one in tellings) else 1
        if {"applied", "rejected"} <= told:
            yield f"{words}, which is a contradiction"
        if effects > 1 or ("applied" in told and effects < least):
            yield f"{words}; it had {effects} effects"
        elif told <= {"rejected", "not_sent"} and effects:
            yield f"{words}; yet it had an effect"
        elif told == {"not_sent"} and entry is not None:
            yield f"{words}; yet AlipayHK received it"
        if api == BIND and repeats:
            yield f"{words}; AlipayHK received it {1 + repeats} times"


def _strangers(
    prefix: str,
    by_id: Mapping[tuple[str, str], list[Told]],
    received: Mapping[str, Mapping[str, Mapping[str, int]]],
) -> Iterator[str]:
    """Ids of this run that AlipayHK received and no caller has an answer for."""
    for api, ids in received.items():
        for request_id in ids:
            if request_id.startswith(prefix) and (api, request_id) not in by_id:
                yield f"{api} {request_id}: AlipayHK received it, and its caller never got an answer"


def _sends(
    by_id: Mapping[tuple[str, str], list[Told]], received: Mapping[str, Mapping[str, Mapping[str, int]]]
) -> dict[str, dict[int, int]]:
    sends: dict[str, dict[int, int]] = {api: defaultdict(int) for api in received}
    for api, request_id in by_id:
        entry = received[api].get(request_id)
        sends[api][0 if entry is None else 1 + entry["repeats"]] += 1
    return {api: dict(sorted(counts.items())) for api, counts in sends.items() if counts}
