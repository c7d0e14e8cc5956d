"""The errors of a ledger."""


class LedgerFault(ValueError):
    """The ledger cannot be opened as it is configured. The text is a sentence for the operator."""


class LedgerUnavailable(Exception):
    """The ledger cannot be used now, and promises nothing. The text is for the log.

    The write may be durable anyway if the disk failed during the commit. `record`, `renew` and `undo` can
    be repeated. A claim that was written, but whose grant reached no caller, becomes in doubt.
    """


class LedgerBusy(LedgerUnavailable):
    """Another process holds the ledger's lock; the operation had no effect and may soon succeed."""
