"""Faults: a suffix `+NAME` on the userId or openId makes the response have the fault of that row."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, ItemsView
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from clients.alipayhk.diagnosis import ROWS
from clients.alipayhk.diagnosis.protocol_row import ProtocolRow
from clients.alipayhk.wire.result import FAILURE, SUCCESS, Result

from .answers import Sealing, text_answer
from .apis import APIS, ServedApi
from .delivery import Deliver, close, delayed, hang, reset, slowly, truncated, whole
from .results import RESULT_CODES, documented
from .signatures import Resign, corrupted, empty, same, with_signature_pair, with_signatures

DELAY_MS_MAX: Final = 60_000
HUGE_BYTES: Final = 256 * 1024
_STATUS: Final = re.compile(r"[A-Za-z0-9_]{1,16}")

_UNKNOWN_EXCEPTION: Final = documented("UNKNOWN_EXCEPTION")

Body = dict[str, object]


class UnknownFault(ValueError):
    """No row has this name. The message suggests the most similar name, and does not quote this one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to respond with an error or wrongly: it replaces some of the steps of a response."""

    does: str
    takes_effect: bool = True
    """Whether the wallet applies the request first. If not, the response has `result`."""
    result: Result = _UNKNOWN_EXCEPTION
    body: Callable[[Body], Body] = lambda body: body
    sealing: Callable[[Sealing], Sealing] = lambda sealing: sealing
    answer: Resign = lambda _, answer: answer
    deliver: Deliver = whole
    needs: Callable[[ProtocolRow], bool] = lambda _: True
    """Whether a response of a protocol can have this fault."""
    given: Callable[[Fault, str], Fault] | None = None
    """For a row whose name ends in `<…>`: apply the argument; raise UnknownFault if it is invalid."""

    def applies_to(self, api: ServedApi) -> bool:
        """Whether a response of `api` can have this fault."""
        return self.needs(api.row)


def find_fault(name: str) -> Fault:
    """Return the fault with this name, or ORDINARY for an empty name; otherwise raise UnknownFault."""
    if not name:
        return ORDINARY
    fault = FAULTS.get(name)
    if fault is not None and fault.given is None:
        return fault
    start, _, argument = name.partition("_")
    for row, family in FAULTS.items():
        if family.given is not None and row.partition("_<")[0] == start:
            return family.given(family, argument)
    nearest = difflib.get_close_matches(name, FAULTS, n=1)
    hint = f"; the nearest is {nearest[0]}" if nearest else ""
    raise UnknownFault(f"no fault has this name{hint} (GET /__sandbox/faults lists the faults)")


def table() -> list[dict[str, object]]:
    """Return all rows, for the console."""
    return [
        {
            "name": name,
            "does": fault.does,
            "takes_effect": fault.takes_effect,
            "apis": [api.name for api in APIS.values() if fault.applies_to(api)],
        }
        for name, fault in FAULTS.items()
    ]


class _Doubled(Body):
    """An object that is written with each member twice."""

    def items(self) -> ItemsView[str, object]:  # type: ignore[override]
        return [*super().items(), *super().items()]  # type: ignore[return-value]


def _refuses(code: str) -> Fault:
    result = documented(code)
    return Fault(f"returns {result.status} {code}", takes_effect=False, result=result)


def _status(family: Fault, status: str) -> Fault:
    if not _STATUS.fullmatch(status) or status in (SUCCESS, FAILURE):
        raise UnknownFault(
            "STATUS_<status>: the status must be 1 to 16 letters, digits or _, and neither S nor F"
        )
    return replace(family, result=Result(status=status, code="ODD_STATUS", code_id="ODD_STATUS"))


def _delay(family: Fault, delay_ms: str) -> Fault:
    if not _is_number(delay_ms) or int(delay_ms) > DELAY_MS_MAX:
        raise UnknownFault(f"DELAY_<ms>: the delay must be a whole number up to {DELAY_MS_MAX}")
    return replace(family, deliver=delayed(int(delay_ms) / 1000))


def _http(family: Fault, http_status: str) -> Fault:
    if not _is_number(http_status) or not 300 <= int(http_status) <= 599:  # noqa: PLR2004
        raise UnknownFault("HTTP_<status>: the status must be from 300 to 599")
    status = int(http_status)
    retry = (("Retry-After", "1"),) if status in (429, 503) else ()
    page = text_answer(status, f"<html><body><h1>{status}</h1></body></html>\n", "text/html", *retry)
    return replace(family, answer=lambda _, __: page)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(DELAY_MS_MAX))


def _an_hour_ago(sealing: Sealing) -> Sealing:
    return replace(sealing, time=sealing.time - timedelta(hours=1))


def _to_another_request(sealing: Sealing) -> Sealing:
    row = ROWS[type(sealing.endpoint.protocol)]
    return replace(sealing, request=row.to_another_request(sealing.request))


def _plain(sealing: Sealing) -> Sealing:
    return replace(sealing, request=replace(sealing.request, encrypted=False))


def _undecryptable(sealing: Sealing) -> Sealing:
    """Wrap the AES key with AlipayHK's own public key, so that the merchant cannot unwrap it."""
    endpoint = sealing.endpoint
    own = dict.fromkeys(endpoint.keys.verifying, endpoint.keys.signing.public_key())
    return replace(
        sealing,
        endpoint=replace(endpoint, keys=replace(endpoint.keys, verifying=own)),
        request=replace(sealing.request, encrypted=True),
    )


def _without_result(body: Body) -> Body:
    return {name: value for name, value in body.items() if name != "result"}


def _huge(body: Body) -> Body:
    return {**body, "padding": "x" * HUGE_BYTES}


ORDINARY: Final = Fault("responds correctly")

FAULTS: Final[dict[str, Fault]] = {
    **{code: _refuses(code) for code in RESULT_CODES},
    "STATUS_<status>": Fault(
        "returns that status, which is neither S nor F", takes_effect=False, given=_status
    ),
    "HTTP_<status>": Fault(
        "returns an unsigned HTML page with that HTTP status, 300 to 599; 429 and 503 have Retry-After: 1",
        takes_effect=False,
        given=_http,
    ),
    "DELAY_<ms>": Fault("responds that many milliseconds late, at most 60000", given=_delay),
    "HANG": Fault("sends no response; closes the connection after 60 s", deliver=hang),
    "RESET": Fault("resets the connection (TCP RST) instead of sending a response", deliver=reset),
    "CLOSE": Fault("closes the connection instead of sending a response", deliver=close),
    "TRUNCATE": Fault(
        "announces the whole response, sends half of it and closes the connection", deliver=truncated
    ),
    "SLOW": Fault("sends the response at one byte per second", deliver=slowly),
    "HUGE": Fault("sends a signed response of more than 256 KiB", body=_huge),
    "UNSIGNED": Fault("sends the correct response without a signature", answer=with_signatures()),
    "BAD_SIGNATURE": Fault("sends a signature that does not match", answer=with_signatures(corrupted)),
    "EMPTY_SIGNATURE": Fault("sends an empty signature", answer=with_signatures(empty)),
    "TWO_SIGNATURES": Fault(
        "sends the correct signature twice: in two headers, or in two members of the envelope",
        answer=with_signatures(same, same),
    ),
    "UNKNOWN_KEY_VERSION": Fault(
        "names keyVersion 999 in the header Signature",
        answer=with_signature_pair("keyVersion", "999"),
        needs=lambda protocol: protocol.names_key,
    ),
    "OTHER_ALGORITHM": Fault(
        "names the algorithm ECC224 in the header Signature",
        answer=with_signature_pair("algorithm", "ECC224"),
        needs=lambda protocol: protocol.names_key,
    ),
    "OLD": Fault("sends a signed response with a time that is one hour old", sealing=_an_hour_ago),
    "OTHER_REQUEST": Fault(
        "sends a signed response to another request: other Client-Id, or other reqMsgId in an envelope",
        sealing=_to_another_request,
    ),
    "PLAIN": Fault(
        "sends a signed response that is not encrypted, although the request was",
        sealing=_plain,
        needs=lambda protocol: protocol.has_encryption,
    ),
    "UNDECRYPTABLE": Fault(
        "sends a signed response that the merchant cannot decrypt, even if the request was not encrypted",
        sealing=_undecryptable,
        needs=lambda protocol: protocol.has_encryption,
    ),
    "DUPLICATE_MEMBER": Fault("sends a signed response with each member twice", body=_Doubled),
    "NO_RESULT": Fault("sends a signed response without a result", body=_without_result),
}
