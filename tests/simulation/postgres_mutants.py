"""Mutants of the ledger on PostgreSQL: the simulation with LEDGER=postgres must notice each of them.

A race between two transactions cannot happen there; tests/ledger/test_postgres_races.py has these mutants.
`make simulate LEDGER=postgres MUTANTS=all` finds their seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Final

from service.delivery.delivery import Delivery
from service.delivery.ledger_session import LedgerSession
from service.ledger.postgres import opening
from service.ledger.postgres.ledger import PostgresLedger
from service.ledger.postgres.lost_claims import LostClaims
from service.ledger.postgres.wakeups import Wakeups
from tests.ledger.postgres_functions import SCHEMA, Piece, edited_function

from . import postgres_store
from .mutants import Mutant, Patch, _nothing, _set, edited
from .postgres_session import BEGAN


def _edit(statement: str) -> Callable[[Patch], None]:
    def make(patch: Patch) -> None:
        patch.setattr(postgres_store, "EDITS", [*postgres_store.EDITS, statement])
        # Other tests create the schema.
        schema = SimpleNamespace(read_text=lambda: f"{SCHEMA};\n{statement}")
        patch.setattr(opening, "MIGRATIONS", (schema,))

    return make


def _sql(function: str, *pieces: Piece) -> Callable[[Patch], None]:
    return _edit(edited_function(function, *pieces))


POSTGRES_MUTANTS: Final[dict[str, Mutant]] = {
    "record fencing": Mutant(
        "the holder of an older claim can record an outcome",
        54,
        _sql("record", ("AND token = p_token\n            AND state IN", "AND state IN")),
    ),
    "extend fencing": Mutant(
        "the holder of an older claim can extend its lease",
        87,
        _sql("extend", (" AND token = p_token", "")),
    ),
    "extend in doubt": Mutant(
        "a claim is extended whose request is in doubt",
        -1,
        _sql("extend", (" OR p_attempts > 0 AND state = 'in_doubt')", " OR state = 'in_doubt')")),
        "tests/ledger/test_conformance.py::test_attempt_in_doubt_gets_no_more_time[postgres]",
    ),
    "extend overtaken": Mutant(
        "a claim whose lease has expired is extended while another one holds its linkage",
        196,
        _sql("extend", ("OR NOT EXISTS (", "OR true OR NOT EXISTS (")),
    ),
    "caller's clock": Mutant(
        "leases are compared with the clock of the gateway that asks",
        0,
        _sql("claim", ("clock_ms := alipayhk_clock_ms();", "clock_ms := p_now_ms;")),
    ),
    "now": Mutant(
        "leases are compared with the time at which the transaction began",
        4,
        _edit(
            "CREATE OR REPLACE FUNCTION alipayhk_clock_ms() RETURNS bigint LANGUAGE sql VOLATILE AS "
            f"'SELECT current_setting(''{BEGAN}'')::bigint'"
        ),
    ),
    "older ignored": Mutant(
        "a call does not wait for older ones that wait",
        12,
        _sql("claim", ("may_grant := busy_left_ms IS NULL;", "may_grant := true;")),
    ),
    "order reversed": Mutant(
        "the newest that waits is first",
        1,
        _sql("claim", ("AND biz_time_ms < p_biz_time_ms", "AND biz_time_ms > p_biz_time_ms")),
    ),
    "queue unknown": Mutant(
        "the requests that wait inside a gateway are unknown to the others",
        164,
        _set(PostgresLedger, "queue", _nothing),
    ),
    "gives no way": Mutant(
        "the first request of a gateway gives no way to an older one that came later",
        32,
        _set(Delivery, "_give_way", _nothing),
    ),
    "place lost": Mutant(
        "a call loses its place between its two questions",
        1,
        _sql(
            "claim",
            ("IS NULL THEN p_may_be_new AND (", "IS NULL THEN busy_left_ms IS NOT NULL AND ("),
            ("'refused') AND p_linkage IS NOT NULL", "'refused') AND busy_left_ms IS NOT NULL"),
        ),
    ),
    "place of others": Mutant(
        "a request that ends in one gateway loses its place in the others",
        23,
        _sql("claim", ("AND holder = p_holder;", ";")),
    ),
    "place kept": Mutant(
        "a request that ends keeps its place",
        1,
        _set(PostgresLedger, "leave", lambda *_: None),
    ),
    "lost claims": Mutant(
        "a claim whose answer was lost is not undone", 4, _set(LostClaims, "add", lambda *_: None)
    ),
    "lost claims once": Mutant(
        "a claim whose answer was lost is forgotten if it cannot be undone at once",
        4,
        edited(LostClaims, "_run", "while self._claims:", "if self._claims:"),
    ),
    "lost claims cancelled": Mutant(
        "a claim that was cancelled is not undone",
        -1,
        edited(PostgresLedger, "claim", "asking.add_done_callback(lambda _: self._lost.add(lost))", "pass"),
        "tests/ledger/test_postgres_trouble.py::test_claim_that_is_cancelled_is_taken_back[while it runs]",
    ),
    "claim late": Mutant(
        "a claim is answered before it is durable",
        0,
        _sql(
            "claim", ("PERFORM alipayhk_commit_durably(false);", "PERFORM alipayhk_commit_durably(true);")
        ),
    ),
    "outcome late": Mutant(
        "the outcome of a BindAccount may be late",
        186,
        edited(LedgerSession, "_record", "may_be_late=may_be_late", "may_be_late=True"),
    ),
    "seen row": Mutant(
        "a claim is granted although its row has changed since it was decided",
        152,
        _sql(
            "claim",
            ("coalesce(known.change, 0) = p_seen_change", "true"),
            ("\n                    AND change = p_seen_change", ""),
        ),
    ),
    "seen linkage": Mutant(
        "a claim is granted although its linkage has changed since it was decided",
        -1,
        _sql("claim", ("AND coalesce(applied_change, 0) = p_seen_applied", "")),
        "tests/ledger/test_postgres_order.py::"
        "test_grant_that_was_decided_is_not_written_if_its_linkage_has_changed",
    ),
    "future": Mutant(
        "a claim is granted whose biz_time is in the future",
        -1,
        _sql(
            "claim", ("AND applied_change IS NULL AND p_may_be_new END", "AND applied_change IS NULL END")
        ),
        "tests/ledger/test_conformance.py::test_biz_time_can_be_ahead_up_to_a_limit[postgres-1300001-in_future]",
    ),
    "reader's clock": Mutant(
        "the end of a lease is returned by a clock that was read before the question",
        -1,
        edited(PostgresLedger, "_ask", "self._now_ms()", "now_ms"),
        "tests/ledger/test_clock_faults.py::"
        "test_delayed_claim_shortens_no_lease_that_was_granted_meanwhile[postgres]",
    ),
    "linkage busy": Mutant(
        "a claim is granted while another one holds its linkage",
        1,
        _sql("claim", ("p_writes AND busy_left_ms IS NULL AND CASE", "p_writes AND CASE")),
    ),
    "uncut": Mutant(
        "an impossibly long lease is not shortened",
        38,
        _sql(
            "claim",
            ("SET lease_until_ms = clock_ms + p_lease_max_ms,", "SET"),
        ),
    ),
    "cut is busy": Mutant(
        "a request in doubt with an impossibly long lease makes its linkage busy",
        30,
        _sql(
            "claim",
            (
                "CASE WHEN busy_left_ms > 0 THEN least(busy_left_ms, p_lease_max_ms) END",
                "least(busy_left_ms, p_lease_max_ms)",
            ),
        ),
    ),
    "long wait": Mutant(
        "a wait that began before the clock was set back counts",
        70,
        _sql("claim", ("AND until_ms <= clock_ms + p_lease_max_ms ", "")),
    ),
    "undo claim of others": Mutant(
        "a claim is undone by an id that is not its own",
        4,
        _sql(
            "undo",
            ("(token = p_token OR claim = p_claim)\n            AND state", "true\n            AND state"),
            ("(token = p_token OR claim = p_claim) AND state", "true AND state"),
        ),
    ),
    "undo state": Mutant(
        "a claim is undone whose request has an outcome",
        99,
        _sql(
            "undo",
            ("AND state = 'sending' AND NOT", "AND NOT"),
            ("OR claim = p_claim) AND state = 'sending';", "OR claim = p_claim);"),
        ),
    ),
    "undone doubt": Mutant(
        "undo removes a request whose earlier attempt is in doubt",
        86,
        _sql("undo", ("AND NOT was_in_doubt AND result_status IS NULL", "AND result_status IS NULL")),
    ),
    "undone refusal": Mutant(
        "undo removes a request that was refused before",
        47,
        _sql("undo", (" AND result_status IS NULL;", ";")),
    ),
    "resolve token": Mutant(
        "an operator's decision leaves the old holder its power",
        81,
        _sql("resolve", ("token = nextval('alipayhk_token'),", "")),
    ),
    "resolve held": Mutant(
        "an operator can decide about a request that is held",
        32,
        _sql(
            "resolve",
            (" AND lease_until_ms <= clock_ms INTO", " INTO"),
        ),
    ),
    "outcome replaced": Mutant(
        "a later outcome of the same holder replaces a final one",
        5,
        _sql(
            "record",
            (
                "AND token = p_token\n            AND state IN ('sending', 'in_doubt');",
                "AND token = p_token;",
            ),
        ),
    ),
    "dropped doubt": Mutant(
        "old requests in doubt are dropped",
        299,
        _sql("drop", ("'refused')", "'refused', 'in_doubt')")),
    ),
    "drop unmarked": Mutant(
        "requests are dropped whatever the clock was when they were written",
        84,
        _sql("drop", ("AND token <= (", "AND 0 <= (")),
    ),
    "silent": Mutant("nobody is woken", 9, _sql("wake", ("IF EXISTS", "IF false AND EXISTS"))),
    "wake-up before the wait": Mutant(
        "a notification between the question and the wait is forgotten",
        111,
        edited(Wakeups, "wait", "if max(", "if False and max("),
    ),
    "no poll": Mutant(
        "a call whose notification was lost waits for the end of the lease",
        16,
        edited(LedgerSession, "_busy", "min(max(left_s, 0.0), POLL_S)", "max(left_s, 0.0)"),
    ),
    "decided doubt": Mutant(
        "a grant that was decided does not say that an earlier attempt is in doubt",
        3,
        edited(PostgresLedger, "_claim", "decided is not None and decided.was_in_doubt", "False"),
    ),
    "tie": Mutant(
        "a claim is granted whose biz_time was applied with other content",
        1,
        _sql("claim", ("biz_time_ms >= p_biz_time_ms", "biz_time_ms > p_biz_time_ms")),
    ),
}
