"""Faults on demand: a row of FAULTS for each, named by what follows the `+` in a userId or openId."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, ItemsView
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from clients.alipayhk.diagnosis import DIAGNOSES
from clients.alipayhk.diagnosis.mistakes import Diagnosis
from clients.alipayhk.wire.result import FAILURE, SUCCESS, Result

from .answers import Sealing, text_answer
from .apis import APIS, Api
from .delivery import Deliver, close, delayed, hang, reset, slowly, truncated, whole
from .results import RESULT_CODES, documented
from .signatures import Resign, empty, same, spoilt, with_signature_pair, with_signatures

DELAY_MS_MAX: Final = 60_000
HUGE_BYTES: Final = 256 * 1024
_STATUS: Final = re.compile(r"[A-Za-z0-9_]{1,16}")

_UNKNOWN_EXCEPTION: Final = documented("UNKNOWN_EXCEPTION")

Body = dict[str, object]


class UnknownFault(ValueError):
    """A name that is in no row. The message says what is, and holds nothing of the name."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to misbehave: each stage of an answer may be another than the ordinary one."""

    does: str
    takes_effect: bool = True
    """Whether the wallet applies the request first; else `result` is the answer."""
    result: Result = _UNKNOWN_EXCEPTION
    body: Callable[[Body], Body] = lambda body: body
    sealing: Callable[[Sealing], Sealing] = lambda sealing: sealing
    answer: Resign = lambda _, answer: answer
    deliver: Deliver = whole
    needs: Callable[[Diagnosis], bool] = lambda _: True
    """Whether a response of a protocol can have this fault."""
    given: Callable[[Fault, str], Fault] | None = None
    """Fill in the argument of a row whose name ends in `<…>`; raise UnknownFault for a bad one."""

    def applies_to(self, api: Api) -> bool:
        """Whether this can happen to an answer of `api`."""
        return self.needs(api.diagnosis)


def find_fault(name: str) -> Fault:
    """Return the fault of a name, the ordinary answer for none; else raise UnknownFault."""
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
    raise UnknownFault(f"there is no fault of this name{hint} (GET /__sandbox/faults lists them)")


def table() -> list[dict[str, object]]:
    """Return every row for people to read."""
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
    """An object each of whose members is written twice."""

    def items(self) -> ItemsView[str, object]:  # type: ignore[override]
        return [*super().items(), *super().items()]  # type: ignore[return-value]


def _refuses(code: str) -> Fault:
    result = documented(code)
    return Fault(f"answers {result.status} {code}", takes_effect=False, result=result)


def _status(family: Fault, status: str) -> Fault:
    if not _STATUS.fullmatch(status) or status in (SUCCESS, FAILURE):
        raise UnknownFault("STATUS_<status> takes 1 to 16 letters or digits that are neither S nor F")
    return replace(family, result=Result(status=status, code="ODD_STATUS", code_id="ODD_STATUS"))


def _delay(family: Fault, delay_ms: str) -> Fault:
    if not _is_number(delay_ms) or int(delay_ms) > DELAY_MS_MAX:
        raise UnknownFault(f"DELAY_<ms> takes a whole number up to {DELAY_MS_MAX}")
    return replace(family, deliver=delayed(int(delay_ms) / 1000))


def _http(family: Fault, http_status: str) -> Fault:
    if not _is_number(http_status) or not 300 <= int(http_status) <= 599:  # noqa: PLR2004
        raise UnknownFault("HTTP_<status> takes a status from 300 to 599")
    status = int(http_status)
    retry = (("Retry-After", "1"),) if status in (429, 503) else ()
    page = text_answer(status, f"<html><body><h1>{status}</h1></body></html>\n", "text/html", *retry)
    return replace(family, answer=lambda _, __: page)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(DELAY_MS_MAX))


def _an_hour_ago(sealing: Sealing) -> Sealing:
    return replace(sealing, time=sealing.time - timedelta(hours=1))


def _to_another_request(sealing: Sealing) -> Sealing:
    diagnosis = DIAGNOSES[type(sealing.endpoint.protocol)]
    return replace(sealing, request=diagnosis.to_another_request(sealing.request))


def _plain(sealing: Sealing) -> Sealing:
    return replace(sealing, request=replace(sealing.request, encrypted=False))


def _undecryptable(sealing: Sealing) -> Sealing:
    """Wrap the AES key for AlipayHK itself, so that the merchant cannot unwrap it."""
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


ORDINARY: Final = Fault("answers as AlipayHK should")

FAULTS: Final[dict[str, Fault]] = {
    **{code: _refuses(code) for code in RESULT_CODES},
    "STATUS_<status>": Fault(
        "answers that status, which is neither S nor F", takes_effect=False, given=_status
    ),
    "HTTP_<status>": Fault(
        "answers an unsigned HTML page under that HTTP status, 300 to 599; 429 and 503 say Retry-After: 1",
        takes_effect=False,
        given=_http,
    ),
    "DELAY_<ms>": Fault("answers that many milliseconds late, at most 60000", given=_delay),
    "HANG": Fault("never answers; closes after 60 s", deliver=hang),
    "RESET": Fault("resets the connection (TCP RST) in place of an answer", deliver=reset),
    "CLOSE": Fault("closes the connection in place of an answer", deliver=close),
    "TRUNCATE": Fault("announces the whole answer, sends half of it and closes", deliver=truncated),
    "SLOW": Fault("sends the answer at one byte a second", deliver=slowly),
    "HUGE": Fault("sends a signed answer of more than 256 KiB", body=_huge),
    "UNSIGNED": Fault("sends the right answer without a signature", answer=with_signatures()),
    "BAD_SIGNATURE": Fault("sends a signature that does not match", answer=with_signatures(spoilt)),
    "EMPTY_SIGNATURE": Fault("sends an empty signature", answer=with_signatures(empty)),
    "TWO_SIGNATURES": Fault(
        "sends the right signature twice: two headers, or two members of the envelope",
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
    "OLD": Fault("sends a signed answer whose time is an hour old", sealing=_an_hour_ago),
    "OTHER_REQUEST": Fault(
        "sends a signed answer to another request: another Client-Id, or another reqMsgId in an envelope",
        sealing=_to_another_request,
    ),
    "PLAIN": Fault(
        "sends a signed answer that is plain although the request was encrypted",
        sealing=_plain,
        needs=lambda protocol: protocol.has_encryption,
    ),
    "UNDECRYPTABLE": Fault(
        "sends a signed answer encrypted for somebody else, even to a plain request",
        sealing=_undecryptable,
        needs=lambda protocol: protocol.has_encryption,
    ),
    "DUPLICATE_MEMBER": Fault("sends a signed answer with two members of one name", body=_Doubled),
    "NO_RESULT": Fault("sends a signed answer without a result", body=_without_result),
}
