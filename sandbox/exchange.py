"""One exchange: a request as it came in, the answer and how it is to leave out. No I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from clients.alipayhk.diagnosis.claims import Claim
from clients.alipayhk.wire.clock import Now, time_text
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.messages import PlainResponse, RawRequest, VerifiedRequest

from .answers import Answer, Sealing, text_answer
from .apis import APIS, Api, magic_id
from .delivery import Deliver, whole
from .faults import Fault, UnknownFault, find_fault
from .journal import Entry, Journal, body_text
from .opening import RequestRejected, open_request
from .programme import Programme
from .results import documented
from .signatures import with_signatures
from .wallet import Outcome, Wallet

REQUEST_BYTES_MAX: Final = 256 * 1024
TRACER_BYTES: Final = 16

_unsigned: Final = with_signatures()


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What came of a request."""

    answer: Answer
    deliver: Deliver
    entry: Entry


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer, how it is to leave, and why."""

    answer: Answer
    verdict: str
    verified: bool = False
    fault_name: str = ""
    deliver: Deliver = whole


class Exchange:
    """A stand-in AlipayHK without its listener."""

    def __init__(self, endpoints: Mapping[str, Endpoint], *, now: Now) -> None:
        self.wallet = Wallet(now)
        self.journal = Journal()
        self.programme = Programme()
        self._endpoints = {endpoint.path: endpoint for endpoint in endpoints.values()}
        self._now = now

    def reset(self) -> None:
        """Forget everything."""
        self.wallet.reset()
        self.journal.reset()
        self.programme.reset()

    def answer(self, method: str, raw: RawRequest) -> Exchanged:
        """Answer a request, and journal both before anything is sent."""
        endpoint = self._endpoints.get(raw.path)
        api = APIS[endpoint.api] if endpoint else None
        claim = api.diagnosis.claim(endpoint, raw) if endpoint and api else Claim()
        if endpoint is None or api is None:
            served = ", ".join(self._endpoints)
            reply = _page(404, f"no API is at this path; served are {served} and /__sandbox/")
        elif len(raw.body) > REQUEST_BYTES_MAX:
            reply = _page(413, "the body is larger than 256 KiB")
        else:
            reply = self._reply(api, endpoint, method, raw, claim)
        entry = self._entry(api, method, raw, claim, reply)
        self.journal.record(entry)
        return Exchanged(reply.answer, reply.deliver, entry)

    def _entry(self, api: Api | None, method: str, raw: RawRequest, claim: Claim, reply: _Reply) -> Entry:
        return Entry(
            number=self.journal.next_number(),
            time=time_text(self._now()),
            api=api.name if api else "",
            request_id=api.request_id(claim.head, claim.body) if api else "",
            method=method,
            path=raw.path,
            headers=raw.headers,
            body=body_text(raw.body),
            decrypted_body=None if claim.decrypted is None else body_text(claim.decrypted),
            content_to_sign=body_text(claim.content),
            verified=reply.verified,
            verdict=reply.verdict,
            fault=reply.fault_name,
            http_status=reply.answer.http_status,
            answer_headers=reply.answer.headers,
            answer_body=body_text(reply.answer.body),
        )

    def _reply(self, api: Api, endpoint: Endpoint, method: str, raw: RawRequest, claim: Claim) -> _Reply:
        try:
            request = open_request(api, endpoint, method, raw, claim)
            fault_name, fault = self._fault(api, request)
        except RequestRejected as refused:
            return self._refusal(api, endpoint, claim, refused)
        outcome = self._outcome(api, request, fault)
        body = fault.body({"result": api.result(outcome.result), **outcome.members})
        sealing = fault.sealing(Sealing(endpoint, request, self._now()))
        answer = fault.answer(api.diagnosis, _seal(sealing, body))
        verdict = f"the signature matches; {outcome.note}"
        return _Reply(answer, verdict, verified=True, fault_name=fault_name, deliver=fault.deliver)

    def _outcome(self, api: Api, request: VerifiedRequest, fault: Fault) -> Outcome:
        if not fault.takes_effect:
            return Outcome(fault.result, "it takes no effect, as its fault asks")
        return api.apply(self.wallet, api.request_id(request.head, request.body), request.body)

    def _fault(self, api: Api, request: VerifiedRequest) -> tuple[str, Fault]:
        """Find the fault that was asked for: in advance, else by the user's id."""
        member, value = magic_id(request.body)
        name = self.programme.take(api.name)
        if name is None:
            name = value.partition("+")[2]
        try:
            fault = find_fault(name)
        except UnknownFault as error:
            raise RequestRejected("PARAM_ILLEGAL", f"{member}: {error}") from None
        if not fault.applies_to(api):
            raise RequestRejected("PARAM_ILLEGAL", f"{member}: this fault does not apply to {api.name}")
        return name, fault

    def _refusal(self, api: Api, endpoint: Endpoint, claim: Claim, refused: RequestRejected) -> _Reply:
        """Answer F; unsigned, and so plain, where the request's signature did not verify."""
        request = claim.believed()
        if not refused.verified:
            request = replace(request, encrypted=False)
        result = documented(refused.code, refused.cause)
        answer = _seal(Sealing(endpoint, request, self._now()), {"result": api.result(result)})
        if not refused.verified:
            answer = _unsigned(api.diagnosis, answer)
        return _Reply(answer, f"{refused.code}: {refused.cause}", verified=refused.verified)


def _seal(sealing: Sealing, body: Mapping[str, object]) -> Answer:
    endpoint = sealing.endpoint
    response = PlainResponse(body, sealing.time, tracer_id=os.urandom(TRACER_BYTES).hex())
    sealed = endpoint.protocol.seal_response(endpoint, sealing.request, response)
    return Answer(headers=sealed.headers, body=sealed.body)


def _page(http_status: int, text: str) -> _Reply:
    return _Reply(text_answer(http_status, f"{text}\n"), text)
