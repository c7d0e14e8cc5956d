"""The statements that call the schema's functions, or read; every value from outside is a parameter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MIGRATIONS: Final = (Path(__file__).with_name("schema_1.sql"),)
"""Each file migrates the schema from the version before it."""
_SCHEMA: Final = "".join(file.read_text() for file in MIGRATIONS)
CHANNEL: Final = "alipayhk_ledger"
"""The channel of notifications; each has a lock's number as its text."""

ALIVE: Final = "SELECT 1"

_ROWS: Final = "SELECT * FROM alipayhk_row AS request"
FIND: Final = f"{_ROWS} WHERE request_id = $1 ORDER BY api, client_id"
PAGE_OF_ROWS: Final = f"{_ROWS} WHERE change > $1 AND change <= $3 ORDER BY change LIMIT $2"
_IN_DOUBT: Final = """
    request.state IN ('sending', 'in_doubt')
        AND (request.state = 'in_doubt' OR lease_until_ms <= alipayhk_clock_ms())
"""
ROWS_IN_DOUBT: Final = f"""
    {_ROWS} WHERE {_IN_DOUBT} AND change > $1
    ORDER BY change LIMIT $2
"""
_COUNTED: Final = f"SELECT api, created_ms FROM alipayhk_request request WHERE {_IN_DOUBT} AND linkage IS"
COUNT_IN_DOUBT: Final = f"""
    SELECT api, count(*), min(created_ms)
    FROM (({_COUNTED} NULL LIMIT $1) UNION ALL ({_COUNTED} NOT NULL LIMIT $1)) AS found
    GROUP BY api
"""
LAST_CHANGE: Final = "SELECT alipayhk_export()"
LAST_ROWS: Final = "SELECT * FROM alipayhk_last_rows($1, $2)"
FIRST_CHANGE_SINCE: Final = """
    SELECT min(change) FROM alipayhk_request WHERE updated_ms >= $1 AND change <= $2
"""
CLAIM: Final = """
    SELECT * FROM alipayhk_claim(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
"""
QUEUE: Final = "SELECT alipayhk_queue($1, $2, $3, $4, $5, $6, $7)"
"""Its first five parameters are arrays: the places of several requests."""
LEAVE: Final = "SELECT alipayhk_leave($1, $2, $3, $4)"
EXTEND: Final = "SELECT alipayhk_extend($1, $2, $3, $4, $5, $6, $7)"
RECORD: Final = "SELECT alipayhk_record($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
UNDO: Final = "SELECT alipayhk_undo($1, $2, $3, $4, $5, $6, $7)"
TAKE_BACK: Final = "SELECT alipayhk_take_back($1, $2, $3, $4, $5, $6)"
RESOLVE: Final = "SELECT alipayhk_resolve($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
MARK: Final = "SELECT alipayhk_mark($1, $2, $3)"
DROP: Final = "SELECT alipayhk_drop($1, $2)"

LOCK_SCHEMA: Final = f"SELECT pg_advisory_xact_lock(hashtext('{CHANNEL}'))"
HAS_SCHEMA: Final = "SELECT to_regclass('alipayhk_schema') IS NOT NULL"
TABLES: Final = re.findall(r"CREATE (?:UNLOGGED )?TABLE (\w+)", _SCHEMA)
LOST_TABLES: Final = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL"
ISOLATION: Final = "SELECT current_setting('transaction_isolation')"
VERSION: Final = "SELECT version FROM alipayhk_schema"
SET_VERSION: Final = "UPDATE alipayhk_schema SET version = $1"
META: Final = """
    SELECT ledger_id, former_ids, key_id, key_check,
        (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM alipayhk_token) AS token
    FROM alipayhk_meta
"""
MUST_BE_ALLOWED_TO_CREATE: Final = """
    DO $$ BEGIN
        IF (CASE WHEN to_regclass('alipayhk_meta') IS NULL
            THEN coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)
            ELSE has_table_privilege('alipayhk_meta', 'INSERT') END)
        THEN RETURN; END IF;
        RAISE insufficient_privilege;
    END $$
"""
CREATE_LEDGER: Final = """
    INSERT INTO alipayhk_meta (ledger_id, key_id, key_check, former_ids) VALUES ($1, $2, $3, $4)
"""
RESTORED: Final = """
    UPDATE alipayhk_meta SET ledger_id = $1,
            former_ids = ARRAY(SELECT DISTINCT unnest(former_ids || ledger_id || $2::text[]))
        RETURNING setval('alipayhk_token', (SELECT last_value + 1e12::bigint FROM alipayhk_token)),
            setval('alipayhk_change', (SELECT last_value + 1e12::bigint FROM alipayhk_change))
"""
"""A new id, in place of its own and of those that the marker lists here; and higher numbers, so that those
that the ledger gave after the backup was taken are not given again.

At 10,000 requests per second it takes years to give so many.
"""
SUMMARY: Final = """
    SELECT count(*) AS requests,
        count(*) FILTER (WHERE state = 'in_doubt'
            OR state = 'sending' AND lease_until_ms <= alipayhk_clock_ms()) AS in_doubt,
        max(updated_ms) AS newest_ms
    FROM alipayhk_request
"""

_FUNCTIONS: Final = re.findall(r"CREATE FUNCTION (\w+)", _SCHEMA)
GRANTS: Final = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT, INSERT, UPDATE ON alipayhk_meta, alipayhk_resolution TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON alipayhk_request, alipayhk_waiting TO {role}",
    "GRANT SELECT, INSERT, DELETE ON alipayhk_clock_mark, alipayhk_undone TO {role}",
    "GRANT SELECT ON alipayhk_schema, alipayhk_row TO {role}",
    "GRANT USAGE, SELECT, UPDATE ON SEQUENCE alipayhk_token, alipayhk_change TO {role}",
    f"GRANT EXECUTE ON FUNCTION {', '.join(_FUNCTIONS)} TO {{role}}",
)
"""What a role needs that only uses the ledger."""
SCHEMA: Final = "SELECT quote_ident(current_schema())"
ROLE: Final = "SELECT quote_ident(rolname) FROM pg_roles WHERE rolname = $1"
