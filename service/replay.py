"""What a replay needs: written when a request ends, and read when it is asked for again."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from google.protobuf.message import Message

from clients.alipayhk.errors import ResultError
from clients.alipayhk.messages import VerifiedResponse
from clients.alipayhk.result import FAILURE, Result

from .ledger import Ending, State
from .ledger.vault import Vault
from .order import Order


def rejection_data(response: VerifiedResponse) -> bytes:
    """Write what a rejection's replay needs; a success is its whole response."""
    facts = {
        "result": asdict(response.result),
        "http_status": response.http_status,
        "tracer_id": response.tracer_id,
    }
    return json.dumps(facts).encode()


def replay(order: Order, ending: Ending, vault: Vault) -> Message:
    """Answer as AlipayHK did, or as a person decided: return the response, or raise ResultError."""
    data = vault.unseal(ending.sealed, order.key) if ending.sealed else b""
    if ending.state is State.APPLIED:
        response = order.response.FromString(data)
        response.replayed = True  # type: ignore[attr-defined]  # every response has them
        response.resolved_by_operator = ending.resolved_by_operator  # type: ignore[attr-defined]
        return response
    facts: dict[str, Any] = json.loads(data) if data else {"result": {"status": FAILURE}}
    raise ResultError(
        VerifiedResponse(
            http_status=facts.get("http_status", 0),
            result=Result(**facts["result"]),
            body={},
            tracer_id=facts.get("tracer_id", ""),
        )
    )
