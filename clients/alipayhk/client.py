"""One call to AlipayHK: seal the request, send it, unseal the response, read the result.

The endpoint's protocol does the sealing and unsealing, so nothing here depends on which protocol it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from .transport import Attempt, Transport
from .wire.clock import Now, now_utc, since_boot_s, skew_s
from .wire.endpoint import Endpoint
from .wire.errors import AnswerError, CallError, OutsideWindow, ResultError
from .wire.keys import Keys
from .wire.messages import PlainRequest, VerifiedResponse
from .wire.result import SUCCESS


class Client:
    """Calls AlipayHK's APIs over one transport.

    `keys_of` returns the keys in use for an API, by its name, and is asked in each call. Without it a call
    uses the keys of its endpoint.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        keys_of: Callable[[str], Keys] | None = None,
        now: Now = now_utc,
    ) -> None:
        self._transport = transport
        self._keys_of = keys_of
        self._now = now
        self._endpoints: dict[str, tuple[Endpoint, Endpoint]] = {}
        """The last endpoint of each API, as it was given and with the keys that were in use."""

    def _with_keys_in_use(self, endpoint: Endpoint) -> Endpoint:
        if self._keys_of is None:
            return endpoint
        keys, last = self._keys_of(endpoint.api), self._endpoints.get(endpoint.api)
        if last is None or last[0] is not endpoint or last[1].keys is not keys:
            last = self._endpoints[endpoint.api] = endpoint, replace(endpoint, keys=keys)
        return last[1]

    async def call(
        self, endpoint: Endpoint, request_id: str, body: bytes, attempt: Attempt
    ) -> VerifiedResponse:
        """Make one attempt; return a verified response with status S, or raise an error of `errors`.

        `body` is the business content as JSON. It is the same in every attempt at one request; the time,
        the AES key and the signature are new each time. `attempt.sent` can be read at any time.
        """
        endpoint = self._with_keys_in_use(endpoint)
        request, began_s = PlainRequest(request_id, body, self._now()), since_boot_s()
        sealed = endpoint.protocol.seal_request(endpoint, request)
        try:
            raw = await self._transport.post(
                endpoint.base_url, sealed, attempt, reuse_connection=endpoint.idempotent
            )
            now = self._now()
            try:
                verified = endpoint.protocol.unseal_response(endpoint, request, raw, now=now)
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
