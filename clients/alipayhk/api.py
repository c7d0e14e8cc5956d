"""AlipayHK's APIs. Everything that has one row per API takes the names from here."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Api(StrEnum):
    """An API of AlipayHK that the gateway calls.

    The value is the name of the RPC that calls it. It never changes, because ledgers, logs, metrics and
    CALLERS_FILE contain it. The member's name is the prefix of the API's settings.
    """

    SYNC_LINKAGE = "SyncLinkage"
    """AlipayHK's "Synchronize Account Linkage Status", BINDING_SYNC."""
    BIND_ACCOUNT = "BindAccount"
    """AlipayHK's "Account Binding", alipay.intl.merchant.account.bind."""


API_NAMES: Final = tuple(map(str, Api))
"""The names as plain strings, for texts from outside (Python 3.11 allows only members left of `in Api`)."""
