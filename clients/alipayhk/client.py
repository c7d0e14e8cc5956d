"""One call of AlipayHK: seal, send, unseal, result. No branch on the protocol."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from .transport import Attempt, Transport
from .wire.clock import Now, now_utc, skew_s
from .wire.endpoint import Endpoint
from .wire.errors import AnswerError, CallError, OutsideWindow, ResultError
from .wire.keys import Keys
from .wire.messages import VerifiedResponse
from .wire.protocols import PROTOCOLS
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
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._transport = transport
        self._keys_of = keys_of
        self._now = now
        self._random_bytes = random_bytes

    async def call(
        self, endpoint: Endpoint, request_id: str, body: bytes, attempt: Attempt
    ) -> VerifiedResponse:
        """Make one attempt; return a verified S, or raise an error of `errors`.

        `body` is the business content as JSON and is the same in every attempt at one request; what
        seals it (time, AES key, signature) is made anew. `attempt.sent` may be read at any time.
        """
        if self._keys_of is not None:
            endpoint = replace(endpoint, keys=self._keys_of(endpoint.api))
        protocol = PROTOCOLS[endpoint.protocol]
        sent_at = self._now()
        sealed = protocol.seal_request(
            endpoint, request_id, body, now=sent_at, random_bytes=self._random_bytes
        )
        try:
            raw = await self._transport.post(
                endpoint.base_url, sealed, attempt, reuse_connection=endpoint.idempotent
            )
            now = self._now()
            try:
                verified = protocol.unseal_response(endpoint, request_id, raw, sent_at=sent_at, now=now)
            except AnswerError as error:
                error.http_status, error.tracer_id = raw.http_status, raw.tracer_id
                if isinstance(error, OutsideWindow):
                    attempt.skew_s = error.skew_s
                raise
            if verified.response_time is not None:
                attempt.skew_s = skew_s(verified.response_time, sent_at=sent_at, now=now)
        except CallError as error:
            # `from None` hides what an error hangs on, and keeps it: foreign errors hold the whole text.
            error.__cause__ = error.__context__ = None
            raise
        if verified.result.status != SUCCESS:
            raise ResultError(
                verified.result, http_status=verified.http_status, tracer_id=verified.tracer_id
            )
        return verified
