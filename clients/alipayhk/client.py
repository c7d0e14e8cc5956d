"""One call to AlipayHK: seal the request, send it, unseal the response, read the result.

The endpoint's protocol does the sealing and unsealing, so nothing here depends on which protocol it is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from .transport import Attempt, Transport
from .wire.clock import Now, now_utc, since_boot_s, skew_s
from .wire.endpoint import Endpoint
from .wire.errors import (
    AnswerError,
    CallError,
    Malformed,
    OutsideWindow,
    ResultError,
    SignatureInvalid,
)
from .wire.messages import Exchange, PlainRequest, RawResponse, VerifiedResponse
from .wire.result import SUCCESS

Watch = Callable[[Endpoint, Exchange, CallError | None], str]


class Client:
    """Calls AlipayHK's APIs over one transport.

    `endpoint_of` returns the endpoint in use for an API, by its name, and is asked in each call. Without it
    a call uses the endpoint that it is given.

    `watch` sees each exchange at its end, with its error if it failed, and returns the name of its capture
    or an empty text.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        endpoint_of: Callable[[str], Endpoint] | None = None,
        watch: Watch | None = None,
        now: Now = now_utc,
    ) -> None:
        self._transport = transport
        self._endpoint_of = endpoint_of
        self._watch = watch
        self._now = now

    async def call(
        self, endpoint: Endpoint, request_id: str, body: bytes, attempt: Attempt
    ) -> VerifiedResponse:
        """Make one attempt; return a verified response with status S, or raise an error of `errors`.

        `body` is the business content as JSON. It is the same in every attempt at one request; the time,
        the AES key and the signature are new each time. `attempt.sent` can be read at any time.
        """
        endpoint = self._in_use(endpoint)
        attempt.signing_version = endpoint.keys.signing_version
        if self._watch is None:
            return await self._call(endpoint, request_id, body, attempt)
        attempt.keeps_exchange = True
        try:
            verified = await self._call(endpoint, request_id, body, attempt)
        except CallError as error:
            self._show(self._watch, endpoint, attempt, error)
            raise
        self._show(self._watch, endpoint, attempt, None)
        return verified

    @staticmethod
    def _show(watch: Watch, endpoint: Endpoint, attempt: Attempt, error: CallError | None) -> None:
        if attempt.exchange is not None:
            attempt.capture = watch(endpoint, attempt.exchange, error)
            attempt.exchange = None  # it can be large

    async def _call(
        self, endpoint: Endpoint, request_id: str, body: bytes, attempt: Attempt
    ) -> VerifiedResponse:
        request, began_s = PlainRequest(request_id, body, self._now()), since_boot_s()
        sealed = endpoint.protocol.seal_request(endpoint, request)
        try:
            raw = await self._transport.post(
                endpoint.base_url, sealed, attempt, reuse_connection=endpoint.idempotent
            )
            now = self._now()
            try:
                verified = self._unsealed(endpoint, request, raw, now)
            except AnswerError as error:
                error.http_status, error.tracer_id = raw.http_status, raw.tracer_id
                if isinstance(error, OutsideWindow):
                    attempt.skew_s = error.skew_s
                raise
            if verified.response_time is not None:
                # By the clock as it is now: if it was set a month ahead during the call, the response's
                # time is between `request.time` and now, and would prove that the clocks agree.
                sent_at = now - timedelta(seconds=since_boot_s() - began_s)
                attempt.skew_s = skew_s(verified.response_time, sent_at=sent_at, now=now)
        except CallError as error:
            # Foreign exceptions may quote the whole response. `from None` would only hide them from the
            # traceback, so drop the references.
            error.__cause__ = error.__context__ = None
            raise
        if verified.result.status != SUCCESS:
            raise ResultError(
                verified.result, http_status=verified.http_status, tracer_id=verified.tracer_id
            )
        return verified

    def _in_use(self, endpoint: Endpoint) -> Endpoint:
        return endpoint if self._endpoint_of is None else self._endpoint_of(endpoint.api)

    def _unsealed(
        self, endpoint: Endpoint, request: PlainRequest, raw: RawResponse, now: datetime
    ) -> VerifiedResponse:
        """Unseal with the keys of the attempt's start, or else with those that have replaced them since."""
        try:
            return endpoint.protocol.unseal_response(endpoint, request, raw, now=now)
        except (SignatureInvalid, Malformed):
            current = self._in_use(endpoint)
            if current is endpoint:
                raise
            return current.protocol.unseal_response(current, request, raw, now=now)
