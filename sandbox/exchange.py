"""Handle one request: return the response, and how to send it. No I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from clients.alipayhk.diagnosis.claims import Claim
from clients.alipayhk.diagnosis.diagnose import Diagnosis
from clients.alipayhk.wire.clock import Now, time_text
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.messages import PlainResponse, RawRequest, VerifiedRequest

from .answers import Answer, Sealing, text_answer
from .apis import APIS, ServedApi, magic_id
from .delivery import Deliver, whole
from .faults import Fault, UnknownFault, find_fault
from .journal import Entry, Journal, body_text
from .opening import RequestRejected, open_request, read_claim
from .programme import Programme
from .results import documented
from .signatures import with_signatures
from .wallet import Outcome, Wallet

REQUEST_BYTES_MAX: Final = 256 * 1024
TRACER_BYTES: Final = 16

_unsigned: Final = with_signatures()


@dataclass(frozen=True, slots=True)
class Exchanged:
    """The response to a request, how to send it, and the entry in the journal."""

    answer: Answer
    deliver: Deliver
    entry: Entry


@dataclass(frozen=True, slots=True)
class _Reply:
    """A response, how to send it, and the reason for it."""

    answer: Answer
    verdict: str
    verified: bool = False
    fault_name: str = ""
    deliver: Deliver = whole
    diagnosis: Diagnosis | None = None


class Exchange:
    """AlipayHK without a listener."""

    def __init__(self, endpoints: Mapping[str, Endpoint], *, now: Now) -> None:
        self.wallet = Wallet(now)
        self.journal = Journal()
        self.programme = Programme()
        self._endpoints = {endpoint.path: endpoint for endpoint in endpoints.values()}
        self._now = now

    def reset(self) -> None:
        """Delete all stored data."""
        self.wallet.reset()
        self.journal.reset()
        self.programme.reset()

    def answer(self, method: str, raw: RawRequest) -> Exchanged:
        """Handle a request, and record request and response in the journal before anything is sent."""
        endpoint = self._endpoints.get(raw.path)
        api = APIS[endpoint.api] if endpoint else None
        claim = read_claim(api, endpoint, raw) if endpoint and api else Claim()
        if endpoint is None or api is None:
            served = ", ".join(self._endpoints)
            reply = _page(404, f"no API has this path; the paths are {served} and /__sandbox/")
        elif len(raw.body) > REQUEST_BYTES_MAX:
            reply = _page(413, "the body is larger than 256 KiB")
        else:
            reply = self._reply(api, endpoint, method, raw, claim)
        entry = self._entry(api, method, raw, claim, reply)
        self.journal.record(entry)
        return Exchanged(reply.answer, reply.deliver, entry)

    def _entry(
        self, api: ServedApi | None, method: str, raw: RawRequest, claim: Claim, reply: _Reply
    ) -> Entry:
        diagnosis = reply.diagnosis
        signed = diagnosis.signed_content if diagnosis else None
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
            signed_content=None if signed is None else body_text(signed),
            causes=diagnosis.causes if diagnosis else (),
            verified=reply.verified,
            verdict=reply.verdict,
            fault=reply.fault_name,
            http_status=reply.answer.http_status,
            answer_headers=reply.answer.headers,
            answer_body=body_text(reply.answer.body),
        )

    def _reply(
        self, api: ServedApi, endpoint: Endpoint, method: str, raw: RawRequest, claim: Claim
    ) -> _Reply:
        try:
            request = open_request(api, endpoint, method, raw, claim)
            fault_name, fault = self._fault(api, request)
        except RequestRejected as rejection:
            return self._refusal(api, endpoint, claim, rejection)
        outcome = self._outcome(api, request, fault)
        body = fault.body({"result": api.result(outcome.result), **outcome.members})
        sealing = fault.sealing(Sealing(endpoint, request, self._now()))
        answer = fault.answer(api.row, _seal(sealing, body))
        verdict = f"the signature matches; {outcome.note}"
        return _Reply(answer, verdict, verified=True, fault_name=fault_name, deliver=fault.deliver)

    def _outcome(self, api: ServedApi, request: VerifiedRequest, fault: Fault) -> Outcome:
        if not fault.takes_effect:
            return Outcome(fault.result, "it has no effect: its fault says so")
        return api.apply(self.wallet, api.request_id(request.head, request.body), request.body)

    def _fault(self, api: ServedApi, request: VerifiedRequest) -> tuple[str, Fault]:
        """Find the fault for this response: set on the console, or else the suffix of the user id."""
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

    def _refusal(
        self, api: ServedApi, endpoint: Endpoint, claim: Claim, rejection: RequestRejected
    ) -> _Reply:
        """Respond with F; unsigned and not encrypted if the signature of the request did not verify.

        AlipayHK's sibling Antom documents that: https://docs.antom.com/ac/ams/digital_signature
        """
        request = claim.as_verified()
        if not rejection.verified:
            request = replace(request, encrypted=False)
        result = documented(rejection.code, rejection.cause)
        answer = _seal(Sealing(endpoint, request, self._now()), {"result": api.result(result)})
        if not rejection.verified:
            answer = _unsigned(api.row, answer)
        return _Reply(
            answer,
            f"{rejection.code}: {rejection.cause}",
            verified=rejection.verified,
            diagnosis=rejection.diagnosis,
        )


def _seal(sealing: Sealing, body: Mapping[str, object]) -> Answer:
    endpoint = sealing.endpoint
    response = PlainResponse(body, sealing.time, tracer_id=os.urandom(TRACER_BYTES).hex())
    sealed = endpoint.protocol.seal_response(endpoint, sealing.request, response)
    return Answer(headers=sealed.headers, body=sealed.body)


def _page(http_status: int, text: str) -> _Reply:
    return _Reply(text_answer(http_status, f"{text}\n"), text)
