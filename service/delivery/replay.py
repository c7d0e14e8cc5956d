"""Encode a final result for the ledger, and answer a repeated request from it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from google.protobuf.message import Message

from clients.alipayhk.wire.errors import ResultError
from clients.alipayhk.wire.result import Result

from ..ledger import Ending, State
from ..ledger.vault import Vault
from ..outcomes.refusal import ResolvedAsRejected
from .outbound_request import OutboundRequest


def rejection_data(error: ResultError) -> bytes:
    """Encode the data that a rejection's replay needs. For a success, that is its whole response."""
    facts = {
        "result": asdict(error.result),
        "http_status": error.http_status,
        "tracer_id": error.tracer_id,
    }
    return json.dumps(facts).encode()


def replay(request: OutboundRequest, ending: Ending, vault: Vault) -> Message:
    """Return the recorded response, or raise the recorded rejection as ResultError."""
    data = vault.unseal(ending.sealed, request.key) if ending.sealed else b""
    if ending.state is State.APPLIED:
        response = request.response.FromString(data)
        response.replayed = True  # type: ignore[attr-defined]  # every response type has both
        response.resolved_by_operator = ending.resolved_by_operator  # type: ignore[attr-defined]
        return response
    if not data:
        raise ResolvedAsRejected
    facts: dict[str, Any] = json.loads(data)
    raise ResultError(Result(**facts.pop("result")), **facts)
