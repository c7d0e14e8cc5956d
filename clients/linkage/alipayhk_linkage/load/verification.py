"""Compare the reported outcomes with the sandbox's record of requests, `/__sandbox/wallet`."""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .recording import ReportedOutcome, Variant
from .requests import BIND, SYNC

REMEMBERED_MAX: Final = 100_000
"""The number of request ids that the sandbox remembers for each API. It forgets the oldest first."""
SHOWN_MAX: Final = 20
READ_S: Final = 30.0
PROTOCOL_ERRORS: Final = (http.client.HTTPException, RecursionError)
"""The errors that urllib and json raise if the server is not a sandbox."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification."""

    requests: int
    """The number of request ids in this run."""
    sends: Mapping[str, Mapping[int, int]]
    """For each API: times received by AlipayHK → number of request ids."""
    discrepancies: int
    shown: tuple[str, ...]
    """The first SHOWN_MAX discrepancies."""
    incomplete: str = ""
    """Why the comparison was not possible; empty if it was."""

    @property
    def passed(self) -> bool:
        """Whether the sandbox confirms all reported outcomes."""
        return not self.discrepancies and not self.incomplete


def verify(url: str, run: str, reported: Iterable[ReportedOutcome]) -> Verification:
    """Compare the reported outcomes with the sandbox at `url`; incomplete if the sandbox cannot be read."""
    try:
        wallet = _read(url)
        received: dict[str, dict[str, dict[str, int]]] = {api: wallet.get(api, {}) for api in (SYNC, BIND)}
        by_id: dict[tuple[str, str], list[ReportedOutcome]] = defaultdict(list)
        for outcome in reported:
            by_id[outcome.rpc, outcome.request_id].append(outcome)
        if any(len(ids) >= REMEMBERED_MAX for ids in received.values()):
            why = f"the sandbox has {REMEMBERED_MAX} request ids and forgets older ones: restart it"
            return Verification(len(by_id), {}, 0, (), why)
        found = [*_discrepancies(by_id, received), *_unreported(f"load-{run}-", by_id, received)]
    except (OSError, ValueError, TypeError, AttributeError, KeyError, *PROTOCOL_ERRORS) as error:
        why = f"{url}/__sandbox/wallet cannot be read ({type(error).__name__})"
        return Verification(0, {}, 0, (), why)
    return Verification(len(by_id), _sends(by_id, received), len(found), tuple(found[:SHOWN_MAX]))


def _read(url: str) -> dict[str, Any]:
    # The sandbox is on this machine, so the proxies in the environment must not be used.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url.rstrip('/')}/__sandbox/wallet", timeout=READ_S) as response:
        requests = json.load(response)["requests"]
    if not isinstance(requests, dict):
        raise TypeError("requests")
    return requests


def _discrepancies(
    by_id: Mapping[tuple[str, str], list[ReportedOutcome]],
    received: Mapping[str, Mapping[str, Mapping[str, int]]],
) -> Iterator[str]:
    for (api, request_id), calls in by_id.items():
        entry = received[api].get(request_id)
        effects, repeats = (0, 0) if entry is None else (entry["effects"], entry["repeats"])
        outcomes = {call.outcome for call in calls}
        prefix = f"{api} {request_id}: reported as {', '.join(sorted(outcomes))}"
        # AlipayHK returns S for an older update of a linkage, but does not apply it.
        least = 0 if any(call.variant is Variant.OUT_OF_ORDER for call in calls) else 1
        if {"applied", "rejected"} <= outcomes:
            yield f"{prefix}, which is a contradiction"
        if effects > 1 or ("applied" in outcomes and effects < least):
            yield f"{prefix}, but it had {effects} effects"
        elif outcomes <= {"rejected", "not_sent"} and effects:
            yield f"{prefix}, but it had an effect"
        elif outcomes == {"not_sent"} and entry is not None:
            yield f"{prefix}, but AlipayHK received it"
        if api == BIND and repeats:
            yield f"{prefix}, but AlipayHK received it {1 + repeats} times"


def _unreported(
    prefix: str,
    by_id: Mapping[tuple[str, str], list[ReportedOutcome]],
    received: Mapping[str, Mapping[str, Mapping[str, int]]],
) -> Iterator[str]:
    """Yield the request ids of this run that AlipayHK received but that have no reported outcome."""
    for api, ids in received.items():
        for request_id in ids:
            if request_id.startswith(prefix) and (api, request_id) not in by_id:
                yield f"{api} {request_id}: AlipayHK received it, but no outcome was reported"


def _sends(
    by_id: Mapping[tuple[str, str], list[ReportedOutcome]],
    received: Mapping[str, Mapping[str, Mapping[str, int]]],
) -> dict[str, dict[int, int]]:
    sends: dict[str, dict[int, int]] = {api: defaultdict(int) for api in received}
    for api, request_id in by_id:
        entry = received[api].get(request_id)
        sends[api][0 if entry is None else 1 + entry["repeats"]] += 1
    return {api: dict(sorted(counts.items())) for api, counts in sends.items() if counts}
