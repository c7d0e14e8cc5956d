"""The mix: choose and build the request of each call. All identities are fictitious."""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from alipayhk.linkage.v1 import linkage_service_pb2 as pb

from .recording import Variant

SYNC: Final = "SyncLinkage"
BIND: Final = "BindAccount"
USER_ID: Final = "2160000000000001"
CANCEL_WITHIN_S: Final = 0.02
"""A call of the variant CANCELLED is cancelled at a random time within this time after its start."""
OUT_OF_ORDER_BY_MS: Final = 60_000
"""How much older the `biz_time` of an out-of-order request is than the earlier request's."""
REMEMBERED: Final = 1_024
"""Duplicates and out-of-order requests refer to one of this many latest requests."""


@dataclass(frozen=True, slots=True)
class Mix:
    """The shares of the kinds of calls, each 0 to 1."""

    sync: float = 1.0
    """The share of SyncLinkage. The others are BindAccount."""
    encrypted: float = 0.0
    """The share of SyncLinkage calls that go to the gateway with encryption."""
    variants: dict[Variant, float] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)
    short_deadline: float = 0.05
    """In seconds."""


class Request(NamedTuple):
    """One call to make."""

    rpc: str
    encrypted: bool
    """Whether it goes to the gateway with encryption."""
    variant: Variant
    request_id: str
    body: bytes
    """The serialised message. A duplicate reuses it."""
    cancel_after: float | None = None
    timeout: float | None = None
    member: str = ""
    time_ms: int = 0


class Requests:
    """Builds random requests from the mix with a seed. Their ids differ in every run."""

    def __init__(self, mix: Mix, run: str, *, seed: str, process: int) -> None:
        self._mix = mix
        self._prefix = f"load-{run}-{process:x}"
        self._draw = random.Random(f"{seed} mix {process}")  # noqa: S311  (no secret)
        self._number = 0
        self._plain: deque[Request] = deque(maxlen=REMEMBERED)
        self._plain_sync: deque[Request] = deque(maxlen=REMEMBERED)
        shares = {**mix.variants, Variant.FAULT: sum(mix.faults.values())}
        self._variants = [Variant.PLAIN, *shares]
        self._weights = [max(0.0, 1 - sum(shares.values())), *shares.values()]
        self._is_mixed = any(shares.values())

    def next(self) -> Request:
        """Build the next request."""
        variant = Variant.PLAIN
        if self._is_mixed:
            variant = self._draw.choices(self._variants, self._weights)[0]
        match variant:
            case Variant.DUPLICATE if self._plain:
                earlier = self._plain[self._draw.randrange(len(self._plain))]
                return earlier._replace(variant=variant)
            case Variant.OUT_OF_ORDER if self._plain_sync:
                return self._older(self._plain_sync[self._draw.randrange(len(self._plain_sync))])
            case Variant.CANCELLED:
                return self._new(variant)._replace(cancel_after=self._draw.uniform(0, CANCEL_WITHIN_S))
            case Variant.SHORT_DEADLINE:
                return self._new(variant)._replace(timeout=self._mix.short_deadline)
            case Variant.FAULT:
                return self._new(variant, self._fault())
        request = self._new(Variant.PLAIN)
        self._plain.append(request)
        if request.rpc == SYNC:
            self._plain_sync.append(request)
        return request

    def _fault(self) -> str:
        return self._draw.choices(list(self._mix.faults), list(self._mix.faults.values()))[0]

    def _new(self, variant: Variant, fault: str = "") -> Request:
        self._number += 1
        number = f"{self._prefix}-{self._number}"
        user_id = f"{USER_ID}+{fault}" if fault else USER_ID
        now_ms = time.time_ns() // 1_000_000
        if self._mix.sync < 1 and self._draw.random() >= self._mix.sync:
            body = _account(number, user_id, now_ms)
            return Request(BIND, encrypted=False, variant=variant, request_id=number, body=body)
        encrypted = self._mix.encrypted > 0 and self._draw.random() < self._mix.encrypted
        body = _linkage(number, number, user_id, now_ms)
        return Request(SYNC, encrypted, variant, number, body, member=number, time_ms=now_ms)

    def _older(self, newer: Request) -> Request:
        """Build a request for the same linkage, with its own id and an older `biz_time`."""
        self._number += 1
        number = f"{self._prefix}-{self._number}"
        body = _linkage(number, newer.member, USER_ID, newer.time_ms - OUT_OF_ORDER_BY_MS)
        return newer._replace(variant=Variant.OUT_OF_ORDER, request_id=number, body=body)


def _linkage(request_id: str, member: str, user_id: str, time_ms: int) -> bytes:
    request = pb.SyncLinkageRequest(
        request_id=request_id,
        operate_type=pb.OPERATE_TYPE_BIND,
        external_identity_type=pb.EXTERNAL_IDENTITY_TYPE_UID,
        external_identity_value=member,
        user_id=user_id,
        binding_target_type=pb.BINDING_TARGET_TYPE_USER_ID,
    )
    request.biz_time.FromMilliseconds(time_ms)
    return request.SerializeToString()


def _account(request_id: str, user_id: str, time_ms: int) -> bytes:
    request = pb.BindAccountRequest(
        request_id=request_id,
        merchant_account_id="2160400000002012",
        type="TELECOM",
        sub_type="MOBILE_SERVICE",
        account_id=request_id,
        user_id=user_id,
    )
    request.timestamp.FromMilliseconds(time_ms)
    return request.SerializeToString()
