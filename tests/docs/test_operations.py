"""docs/operations.md names the members of the lines of the log."""

from __future__ import annotations

import re
from typing import Final

from service.delivery import attempt_log
from service.server import access_log
from service.server.error_translation import LOGGED_CODES, LOGGED_NUMBERS, LOGGED_TEXTS
from service.telemetry.logs import ALLOWED, FrequentEvent
from tests.docs.pages import rows
from tests.peers.processes import ROOT

PAGE: Final = (ROOT / "docs/operations.md").read_text("utf-8")


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def members(event: FrequentEvent) -> set[str]:
    line = event._line
    return set(re.findall(r'"(\w+)": %s', line))


def test_the_tables_of_the_log_have_the_members_of_calls_and_attempts() -> None:
    documented = {name for cell, *_ in rows(PAGE, "member") for name in names(cell)}
    assert documented <= ALLOWED
    assert documented >= members(access_log._CALL) | members(attempt_log._ATTEMPT)
    assert documented >= {*LOGGED_CODES, *LOGGED_NUMBERS, *LOGGED_TEXTS}
