"""The mistakes that both protocols share, in the order in which they can be combined."""

from __future__ import annotations

from typing import Final

from . import byte_forms, json_forms, json_order
from .causes import Cause
from .drafts import Hypothesis
from .json_escapes import escapes

BEFORE: Final = (
    Hypothesis(Cause.BOM, byte_forms.without_bom),
    Hypothesis(Cause.TRAILING_NEWLINE, byte_forms.without_newline),
    Hypothesis(Cause.TRAILING_NEWLINE, byte_forms.with_newline, alone=True),
    Hypothesis(Cause.LINE_ENDINGS, byte_forms.line_endings),
)
"""Mistakes that undo something in the received bytes. A lone line break at the end is not white space of
JSON, so they are tried first."""
FORMS: Final = (
    Hypothesis(Cause.JSON_WHITESPACE, json_forms.whitespace),
    Hypothesis(Cause.JSON_KEY_ORDER, json_order.key_order),
    Hypothesis(Cause.JSON_ESCAPES, escapes),
    Hypothesis(Cause.LINE_ENDINGS, byte_forms.line_endings),
    Hypothesis(Cause.CHARSET, byte_forms.charset),
)
AFTER: Final = (
    Hypothesis(Cause.BOM, byte_forms.with_bom),
    Hypothesis(Cause.TRAILING_NEWLINE, byte_forms.with_newline),
    Hypothesis(Cause.CHARSET, byte_forms.wide_charset),
    Hypothesis(Cause.DOUBLE_HASH, byte_forms.double_hash),
    # After a hash, as `sha256sum` and `echo` write it.
    Hypothesis(Cause.TRAILING_NEWLINE, byte_forms.with_newline),
)
"""Mistakes that are made with the whole content."""
LAST: Final = (Hypothesis(Cause.JSON_KEY_ORDER, json_order.any_order, alone=True),)
