"""The SQL statements, built from constants; every value from outside is a parameter."""

from __future__ import annotations

from typing import Final

_SELECT: Final = """
    SELECT request.client_id, request.api, request.request_id, caller, fingerprint, linkage, biz_time_ms,
           request.state, attempts, token, lease_until_ms, created_ms, updated_ms, was_in_doubt,
           result_status, result_code, sealed, who, why, at_ms, request.id
    FROM request LEFT JOIN resolution ON resolution.id = request.resolution
"""
_ENDED: Final = "request.state IN ('applied', 'rejected', 'refused')"
_OPEN: Final = "(request.state = 'sending' OR request.state = 'in_doubt')"
_KEY: Final = "request_id = ? AND api = ? AND client_id = ?"
_HELD: Final = f"{_KEY} AND token = ?"

SELECT_ROW: Final = f"{_SELECT} WHERE request.request_id = ? AND request.api = ? AND request.client_id = ?"
FIND: Final = f"{_SELECT} WHERE request.request_id = ? ORDER BY request.api, request.client_id"
_PAGE: Final = "(updated_ms, request.id) > (:updated_ms, :id) ORDER BY updated_ms, request.id LIMIT :limit"
PAGE_OF_ROWS: Final = f"""
    SELECT * FROM ({_SELECT} WHERE {_ENDED} AND {_PAGE})
    UNION ALL
    SELECT * FROM ({_SELECT} WHERE {_OPEN} AND {_PAGE})
    ORDER BY updated_ms, id LIMIT :limit
"""
PAGE_IN_DOUBT: Final = f"""
    {_SELECT} WHERE {_OPEN} AND (request.state = 'in_doubt' OR lease_until_ms <= :in_doubt_at_ms)
    AND {_PAGE}
"""

# Applied requests: biz_time, content, 0. Requests being sent: 0, NULL, end of the lease.
SELECT_LINKAGE: Final = """
    SELECT biz_time_ms, fingerprint, 0 FROM request
    WHERE linkage = ? AND state = 'applied' AND biz_time_ms >= ?
      AND client_id = ? AND api = ? AND request_id <> ?
    UNION ALL
    SELECT 0, NULL, lease_until_ms FROM request
    WHERE linkage = ? AND state = 'sending' AND lease_until_ms > ?
      AND client_id = ? AND api = ? AND request_id <> ?
"""
INSERT: Final = """
    INSERT INTO request (client_id, api, request_id, caller, key_id, fingerprint, linkage, biz_time_ms,
        state, attempts, token, lease_until_ms, was_in_doubt, created_ms, updated_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'sending', 1, ?, ?, 0, ?, ?) ON CONFLICT DO NOTHING
"""
CLAIM: Final = f"""
    UPDATE request SET state = 'sending', attempts = attempts + 1, token = ?, lease_until_ms = ?,
        was_in_doubt = ?, updated_ms = ? WHERE {_KEY}
"""
_NOT_OVERTAKEN: Final = """
    WHERE request_id = :request_id AND api = :api AND client_id = :client_id AND token = :token
      AND (state = 'sending' AND lease_until_ms > :now_ms OR
           NOT EXISTS (
               SELECT 1 FROM request AS other
               WHERE other.linkage = request.linkage AND other.state = 'sending'
                 AND other.lease_until_ms > :now_ms AND other.client_id = :client_id AND other.api = :api
                 AND other.request_id <> :request_id))
"""
RENEW: Final = f"""
    UPDATE request SET state = 'sending', attempts = attempts + 1, lease_until_ms = :lease_until_ms,
        was_in_doubt = 1, updated_ms = :now_ms {_NOT_OVERTAKEN} AND state IN ('sending', 'in_doubt')
"""
EXTEND: Final = f"""
    UPDATE request SET lease_until_ms = :lease_until_ms, updated_ms = :now_ms
    {_NOT_OVERTAKEN} AND state = 'sending'
"""
RECORD: Final = f"""
    UPDATE request SET state = ?, result_status = ?, result_code = ?, sealed = ?,
        updated_ms = max(updated_ms, ?)
    WHERE {_HELD} AND state IN ('sending', 'in_doubt')
"""
_SHORTEN: Final = "UPDATE request SET lease_until_ms = ? WHERE state = 'sending' AND lease_until_ms > ? AND"
SHORTEN_ROW: Final = f"{_SHORTEN} {_KEY}"
SHORTEN_LINKAGE: Final = f"{_SHORTEN} linkage = ?"
IS_RECORDED: Final = f"SELECT 1 FROM request WHERE {_HELD} AND state = ?"
REMOVE: Final = f"""
    DELETE FROM request
    WHERE {_HELD} AND state = 'sending' AND was_in_doubt = 0 AND result_status IS NULL
"""
PUT_BACK: Final = f"""
    UPDATE request SET state = CASE WHEN was_in_doubt THEN 'in_doubt' ELSE 'refused' END,
        attempts = attempts - 1, updated_ms = max(updated_ms, ?)
    WHERE {_HELD} AND state = 'sending'
"""
INSERT_RESOLUTION: Final = """
    INSERT INTO resolution (client_id, api, request_id, state, who, why, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
RESOLVE: Final = f"""
    UPDATE request SET state = ?, token = ?, result_status = ?, result_code = ?, sealed = ?, resolution = ?,
        updated_ms = max(updated_ms, ?) WHERE {_KEY}
"""
DROP: Final = """
    DELETE FROM request WHERE id IN (
        SELECT id FROM request
        WHERE state IN ('applied', 'rejected', 'refused') AND updated_ms < :before_ms
          AND token <= (SELECT token FROM clock_mark WHERE at_ms < :before_ms ORDER BY at_ms DESC LIMIT 1)
        ORDER BY updated_ms LIMIT :limit)
"""
MARK: Final = """
    INSERT INTO clock_mark (at_ms, token) SELECT :now_ms, last_token FROM meta
    WHERE NOT EXISTS (SELECT 1 FROM clock_mark WHERE at_ms > :now_ms - :every_ms)
"""
DROP_MARKS: Final = """
    DELETE FROM clock_mark WHERE at_ms < (SELECT max(at_ms) FROM clock_mark WHERE at_ms < ?)
"""
