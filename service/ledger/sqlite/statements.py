"""The SQL statements, built from constants; every value from outside is a parameter."""

from __future__ import annotations

from functools import cache
from typing import Final

_SELECT: Final = """
    SELECT request.client_id, request.api, request.request_id, caller, fingerprint, linkage, biz_time_ms,
           request.state, attempts, token, lease_until_ms, created_ms, updated_ms, was_in_doubt,
           result_status, result_code, sealed, who, why, at_ms, coalesce(change, updated_ms), request.id
    FROM request LEFT JOIN resolution ON resolution.id = request.resolution
"""
_ENDED: Final = "request.state IN ('applied', 'rejected', 'refused')"
_OPEN: Final = "(request.state = 'sending' OR request.state = 'in_doubt')"
_CHANGE: Final = "coalesce(change, updated_ms)"
_THIS_CHANGE: Final = "(SELECT last_change FROM meta)"
_KEY: Final = "request_id = ? AND api = ? AND client_id = ?"
_HELD: Final = f"{_KEY} AND token = ?"

BEGIN_CHANGE: Final = """
    UPDATE meta SET last_token = last_token + ?, last_change = last_change + 1 RETURNING last_token - ?
"""
SELECT_ROW: Final = f"{_SELECT} WHERE request.request_id = ? AND request.api = ? AND request.client_id = ?"
FIND: Final = f"{_SELECT} WHERE request.request_id = ? ORDER BY request.api, request.client_id"
PAGE_OF_ROWS: Final = f"""
    {_SELECT} WHERE {_CHANGE} >= :change AND ({_CHANGE} > :change OR request.id > :id)
    ORDER BY {_CHANGE}, request.id LIMIT :limit
"""
FIRST_CHANGE_SINCE: Final = f"""
    SELECT min(change) FROM (
        SELECT {_CHANGE} AS change FROM request WHERE {_ENDED} AND updated_ms >= :since_ms
        UNION ALL SELECT {_CHANGE} FROM request WHERE {_OPEN} AND updated_ms >= :since_ms)
"""
_IN_DOUBT: Final = f"{_OPEN} AND (request.state = 'in_doubt' OR lease_until_ms <= ?)"
IDS_IN_DOUBT: Final = f"SELECT id FROM request WHERE {_IN_DOUBT} ORDER BY {_CHANGE}, id"
_COUNTED: Final = f"SELECT api, created_ms FROM request WHERE {_IN_DOUBT} AND linkage IS"
COUNT_IN_DOUBT: Final = f"""
    SELECT api, count(*), min(created_ms) FROM (
        SELECT * FROM ({_COUNTED} NULL LIMIT ?)
        UNION ALL SELECT * FROM ({_COUNTED} NOT NULL LIMIT ?))
    GROUP BY api
"""


def rows_in_doubt(count: int) -> str:
    """Return the statement that reads so many rows by their ids, if they are in doubt."""
    ids = ", ".join("?" * count)
    return f"{_SELECT} WHERE request.id IN ({ids}) AND {_IN_DOUBT} ORDER BY {_CHANGE}, request.id"


# Applied requests: biz_time, content, 0: one with the newest biz_time, and one with the claim's biz_time
# and content, because several may have the newest one. Older ones do not matter. Requests being sent:
# 0, NULL, end of the lease.
_OTHERS: Final = "client_id = :client_id AND api = :api AND request_id <> :request_id"
_APPLIED: Final = f"linkage = :linkage AND state = 'applied' AND {_OTHERS}"
SELECT_LINKAGE: Final = f"""
    SELECT * FROM (
        SELECT biz_time_ms, fingerprint, 0 FROM request WHERE {_APPLIED} AND biz_time_ms >= :biz_time_ms
        ORDER BY biz_time_ms DESC LIMIT 1)
    UNION ALL
    SELECT * FROM (
        SELECT biz_time_ms, fingerprint, 0 FROM request
        WHERE {_APPLIED} AND biz_time_ms = :biz_time_ms AND fingerprint = :fingerprint LIMIT 1)
    UNION ALL
    SELECT 0, NULL, lease_until_ms FROM request
    WHERE linkage = :linkage AND state = 'sending' AND lease_until_ms > :now_ms AND {_OTHERS}
"""
_CLAIM_COLUMNS: Final = (
    *("number", "is_checked", "client_id", "api", "request_id", "caller", "fingerprint"),
    *("linkage", "biz_time_ms", "lease_until_ms", "now_ms"),
)
CLAIM_WIDTH: Final = len(_CLAIM_COLUMNS)


@cache
def insert_claims(count: int) -> str:
    """Return the statement that inserts up to so many claims; those whose number is NULL are not there.

    Its parameters are the key id, the last token, and the columns of each claim. It leaves out a claim with
    a row, and one that is not checked yet and meets a lease or an applied request of its linkage.
    """
    names = ", ".join(_CLAIM_COLUMNS)
    same = "request.client_id = claim.client_id AND request.api = claim.api"
    other = f"request.linkage = claim.linkage AND {same}"
    return f"""
        INSERT INTO request (client_id, api, request_id, caller, fingerprint, linkage, biz_time_ms,
            lease_until_ms, created_ms, updated_ms, key_id, token, state, attempts, was_in_doubt, change)
        WITH claim ({names}) AS (VALUES {_values(count, CLAIM_WIDTH)})
        SELECT client_id, api, request_id, caller, fingerprint, linkage, biz_time_ms,
            lease_until_ms, now_ms, now_ms, ?, ? + row_number() OVER (ORDER BY number), 'sending', 1, 0,
            {_THIS_CHANGE}
        FROM claim
        WHERE number IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM request WHERE request.request_id = claim.request_id AND {same})
        AND (is_checked OR claim.linkage IS NULL OR NOT EXISTS (
            SELECT 1 FROM request WHERE {other}
                AND request.state = 'sending' AND request.lease_until_ms > claim.now_ms)
            AND NOT EXISTS (
            SELECT 1 FROM request WHERE {other}
                AND request.state = 'applied' AND request.biz_time_ms >= claim.biz_time_ms))
    """


def _values(count: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return ", ".join([row] * count)


CLAIM: Final = f"""
    UPDATE request SET state = 'sending', attempts = attempts + 1, token = ?, lease_until_ms = ?,
        was_in_doubt = ?, updated_ms = ?, change = {_THIS_CHANGE} WHERE {_KEY}
"""
_NOT_OVERTAKEN: Final = """
    WHERE request_id = :request_id AND api = :api AND client_id = :client_id AND token = :token
      AND (state = 'sending' AND lease_until_ms > :latest_ms OR
           NOT EXISTS (
               SELECT 1 FROM request AS other
               WHERE other.linkage = request.linkage AND other.state = 'sending'
                 AND other.lease_until_ms > :now_ms AND other.client_id = :client_id AND other.api = :api
                 AND other.request_id <> :request_id))
"""
RENEW: Final = f"""
    UPDATE request SET state = 'sending', attempts = attempts + 1, lease_until_ms = :lease_until_ms,
        was_in_doubt = 1, updated_ms = :now_ms, change = {_THIS_CHANGE}
    {_NOT_OVERTAKEN} AND state IN ('sending', 'in_doubt')
"""
EXTEND: Final = f"""
    UPDATE request SET lease_until_ms = :lease_until_ms, updated_ms = :now_ms,
        change = {_THIS_CHANGE} {_NOT_OVERTAKEN} AND state = 'sending'
"""
RECORD: Final = f"""
    UPDATE request SET state = ?, result_status = ?, result_code = ?, sealed = ?,
        updated_ms = max(updated_ms, ?), change = {_THIS_CHANGE}
    WHERE {_HELD} AND state IN ('sending', 'in_doubt')
"""
_OUTCOME_COLUMNS: Final = (
    *("state", "result_status", "result_code", "sealed", "now_ms"),
    *("request_id", "api", "client_id", "token"),
)
OUTCOME_WIDTH: Final = len(_OUTCOME_COLUMNS)


@cache
def record_outcomes(count: int) -> str:
    """Return the statement that does what RECORD does for up to so many rows; a token may be NULL."""
    names = ", ".join(_OUTCOME_COLUMNS)
    return f"""
        UPDATE request SET state = ending.state, result_status = ending.result_status,
            result_code = ending.result_code, sealed = ending.sealed,
            updated_ms = max(updated_ms, ending.now_ms), change = {_THIS_CHANGE}
        FROM (
            WITH given ({names}) AS (VALUES {_values(count, OUTCOME_WIDTH)}) SELECT * FROM given) AS ending
        WHERE request.request_id = ending.request_id AND request.api = ending.api
          AND request.client_id = ending.client_id AND request.token = ending.token
          AND request.state IN ('sending', 'in_doubt')
    """


_SHORTEN: Final = f"""
    UPDATE request SET lease_until_ms = ?, change = {_THIS_CHANGE}
    WHERE state = 'sending' AND lease_until_ms > ? AND
"""
SHORTEN_ROW: Final = f"{_SHORTEN} {_KEY}"
SHORTEN_LINKAGE: Final = f"{_SHORTEN} linkage = ?"
IS_RECORDED: Final = f"SELECT 1 FROM request WHERE {_HELD} AND state = ?"
REMOVE: Final = f"""
    DELETE FROM request
    WHERE {_HELD} AND state = 'sending' AND was_in_doubt = 0 AND result_status IS NULL
"""
PUT_BACK: Final = f"""
    UPDATE request SET state = CASE WHEN was_in_doubt THEN 'in_doubt' ELSE 'refused' END,
        attempts = attempts - 1, updated_ms = max(updated_ms, ?), change = {_THIS_CHANGE}
    WHERE {_HELD} AND state = 'sending'
"""
INSERT_RESOLUTION: Final = """
    INSERT INTO resolution (client_id, api, request_id, state, who, why, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
RESOLVE: Final = f"""
    UPDATE request SET state = ?, token = ?, result_status = ?, result_code = ?, sealed = ?, resolution = ?,
        updated_ms = max(updated_ms, ?), change = {_THIS_CHANGE} WHERE {_KEY}
"""
DROP: Final = """
    DELETE FROM request WHERE id IN (
        SELECT id FROM request
        WHERE state IN ('applied', 'rejected', 'refused') AND updated_ms < :before_ms
          AND token <= (SELECT token FROM clock_mark WHERE at_ms < :before_ms ORDER BY at_ms DESC LIMIT 1)
        ORDER BY updated_ms LIMIT :limit)
"""
MARK: Final = """
    INSERT INTO clock_mark (at_ms, token) SELECT :now_ms, :token
    WHERE NOT EXISTS (SELECT 1 FROM clock_mark WHERE at_ms > :now_ms - :every_ms)
"""
DROP_MARKS: Final = """
    DELETE FROM clock_mark WHERE at_ms < (SELECT max(at_ms) FROM clock_mark WHERE at_ms < ?)
"""
