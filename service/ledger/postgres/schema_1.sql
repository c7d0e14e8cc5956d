-- Version 1 of the ledger's schema. A released version never changes: add another file for the next one.
--
-- The functions decide and write in one round trip. Each is one transaction of its own, and each statement
-- inside sees what was committed before that statement (READ COMMITTED), so also what was committed while
-- the function waited for a lock. All functions that write a row first lock its linkage, or its request if it
-- has none, until their commit: `alipayhk_lock`. The number of the change is taken after that.
-- Every lease is compared with clock_timestamp(), which continues during a transaction; now() does not.

CREATE TABLE alipayhk_schema (version integer NOT NULL);
INSERT INTO alipayhk_schema VALUES (1);

-- The one ledger of the database; it has no row before the ledger is created.
CREATE TABLE alipayhk_meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    ledger_id text NOT NULL,
    -- The ledgers that `ledger restore` and `ledger init --new` have replaced by this one.
    former_ids text[] NOT NULL,
    key_id text NOT NULL,
    key_check bytea NOT NULL,
    -- Written before an export reads, so that all changes before it are durable.
    exported_change bigint NOT NULL DEFAULT 0
);

CREATE TABLE alipayhk_resolution (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id text NOT NULL,
    api text NOT NULL,
    request_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('applied', 'rejected')),
    who text NOT NULL,
    why text NOT NULL,
    at_ms bigint NOT NULL
);

CREATE TABLE alipayhk_request (
    request_id text NOT NULL,
    api text NOT NULL,
    client_id text NOT NULL,
    caller text NOT NULL,
    key_id text NOT NULL,
    fingerprint bytea NOT NULL,
    linkage bytea,
    biz_time_ms bigint,
    state text NOT NULL CHECK (state IN ('sending', 'applied', 'rejected', 'in_doubt', 'refused')),
    attempts integer NOT NULL,
    token bigint NOT NULL,
    -- A random id of the claim that was granted last, so that it can be undone if its answer was lost.
    claim bytea NOT NULL,
    -- By the database's clock, as `until_ms` below; the other times are by the clocks of the gateways.
    lease_until_ms bigint NOT NULL,
    was_in_doubt boolean NOT NULL,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    change bigint NOT NULL,
    result_status text,
    result_code text,
    sealed bytea,
    resolution bigint REFERENCES alipayhk_resolution (id),
    PRIMARY KEY (request_id, api, client_id)
);
CREATE INDEX alipayhk_request_open ON alipayhk_request (linkage, state) WHERE state IN ('sending', 'in_doubt');
CREATE INDEX alipayhk_request_applied ON alipayhk_request (linkage, biz_time_ms) WHERE state = 'applied';
CREATE INDEX alipayhk_request_ended ON alipayhk_request (updated_ms)
    WHERE state IN ('applied', 'rejected', 'refused');
CREATE INDEX alipayhk_request_change ON alipayhk_request (change);

-- The requests that wait for themselves or their linkages, one entry for each process (`holder`, a random id) in
-- which they wait. An entry counts until `until_ms`; a process that still waits extends it. Nothing is lost if the table is emptied, as it is after a crash or a failover.
CREATE UNLOGGED TABLE alipayhk_waiting (
    request_id text NOT NULL,
    api text NOT NULL,
    client_id text NOT NULL,
    holder bytea NOT NULL,
    lock bigint NOT NULL,
    biz_time_ms bigint,
    until_ms bigint NOT NULL,
    PRIMARY KEY (request_id, api, client_id, holder)
);
CREATE INDEX alipayhk_waiting_lock ON alipayhk_waiting (lock);

-- Claims that were taken back before they arrived: the network may deliver a claim after its gateway gave up.
CREATE UNLOGGED TABLE alipayhk_undone (claim bytea PRIMARY KEY, at_ms bigint NOT NULL);

-- The last tokens at times when the clock was right; see `Ledger.drop`.
CREATE TABLE alipayhk_clock_mark (at_ms bigint PRIMARY KEY, token bigint NOT NULL);

CREATE SEQUENCE alipayhk_token;
CREATE SEQUENCE alipayhk_change;

CREATE FUNCTION alipayhk_clock_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

-- The rows as they are read.
CREATE VIEW alipayhk_row AS
    SELECT request.*, lease_until_ms - alipayhk_clock_ms() AS lease_left_ms, who, why, at_ms
    FROM alipayhk_request AS request LEFT JOIN alipayhk_resolution AS resolution
        ON resolution.id = request.resolution;

-- The number of a change. Until its transaction ends, no export reads changes with this number or later ones.
CREATE FUNCTION alipayhk_next_change() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared('alipayhk_change'::regclass::bigint);
    RETURN nextval('alipayhk_change');
END
$$;

CREATE FUNCTION alipayhk_lock_number(p_linkage bytea, p_request_id text, p_api text, p_client_id text)
RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hash_record_extended(
        row(p_linkage, CASE WHEN p_linkage IS NULL THEN p_request_id END, p_api, p_client_id), 0)
$$;

-- Lock the linkage of a request, or the request if it has none, until the commit, and return the lock's number.
CREATE FUNCTION alipayhk_lock(p_linkage bytea, p_request_id text, p_api text, p_client_id text) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    number bigint := alipayhk_lock_number(p_linkage, p_request_id, p_api, p_client_id);
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- The next statements would not see what was committed while this one waited.
        RAISE EXCEPTION 'the transaction must be READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(number);
    RETURN number;
END
$$;

-- The same for the request of a row, which has the linkage; it never changes.
CREATE FUNCTION alipayhk_lock_row(p_request_id text, p_api text, p_client_id text) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT alipayhk_lock((
        SELECT linkage FROM alipayhk_request
        WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id),
        p_request_id, p_api, p_client_id)
$$;

-- A commit returns when it is durable (also on the synchronous standby, if there is one), unless `p_late`.
CREATE FUNCTION alipayhk_commit_durably(p_late boolean) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_late THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSIF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$$;

-- Wake the gateways in which a call waits for a request or linkage that may be free now.
CREATE FUNCTION alipayhk_wake(p_lock bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- NOTIFY makes commits wait for each other, so it is left out where nobody waits.
    IF EXISTS (SELECT FROM alipayhk_waiting WHERE lock = p_lock AND until_ms > alipayhk_clock_ms()) THEN
        PERFORM pg_notify('alipayhk_ledger', p_lock::text);
    END IF;
END
$$;

-- Answer a claim: grant it, or return what decides its answer. It is granted if it is new and meets nothing at
-- its linkage, or if the caller has decided so (`p_decided`) and what decided it has not changed since
-- (`p_seen_change`, `p_seen_applied`). With `p_writes` false it only reads.
CREATE FUNCTION alipayhk_claim(
    p_writes boolean, p_request_id text, p_api text, p_client_id text, p_caller text,
    p_key_id text, p_fingerprint bytea, p_linkage bytea, p_biz_time_ms bigint, p_lease_ms bigint,
    p_lease_max_ms bigint, p_wait_ms bigint, p_now_ms bigint, p_claim bytea, p_may_be_new boolean,
    p_decided boolean, p_was_in_doubt boolean, p_seen_change bigint, p_seen_applied bigint, p_holder bytea,
    OUT granted bigint, OUT change bigint, OUT fingerprint bytea, OUT state text, OUT lease_left_ms bigint,
    OUT was_in_doubt boolean, OUT result_status text, OUT result_code text, OUT sealed bytea,
    OUT is_resolved boolean, OUT applied_change bigint, OUT applied_biz_time_ms bigint,
    OUT applied_same boolean, OUT busy_left_ms bigint, OUT lock bigint
) LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' AS $$
#variable_conflict use_column
DECLARE
    clock_ms bigint;
    known alipayhk_request;
    may_grant boolean;
    waits boolean;
BEGIN
    IF p_writes THEN
        lock := alipayhk_lock(p_linkage, p_request_id, p_api, p_client_id);
    ELSE
        lock := alipayhk_lock_number(p_linkage, p_request_id, p_api, p_client_id);
    END IF;
    clock_ms := alipayhk_clock_ms();
    SELECT * INTO known FROM alipayhk_request
        WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id;
    IF p_linkage IS NOT NULL THEN
        SELECT max(lease_until_ms) - clock_ms INTO busy_left_ms FROM alipayhk_request
            WHERE linkage = p_linkage AND state = 'sending' AND lease_until_ms > clock_ms
                AND client_id = p_client_id AND api = p_api AND request_id <> p_request_id;
        IF known.request_id IS NULL THEN
            SELECT other.change, other.biz_time_ms INTO applied_change, applied_biz_time_ms
                FROM alipayhk_request AS other
                WHERE linkage = p_linkage AND state = 'applied' AND biz_time_ms >= p_biz_time_ms
                    AND client_id = p_client_id AND api = p_api
                ORDER BY biz_time_ms DESC LIMIT 1;
            applied_same := applied_biz_time_ms = p_biz_time_ms AND EXISTS (
                SELECT FROM alipayhk_request
                WHERE linkage = p_linkage AND state = 'applied' AND biz_time_ms = p_biz_time_ms
                    AND client_id = p_client_id AND api = p_api AND fingerprint = p_fingerprint);
        END IF;
    END IF;
    -- A lease that lasts too long is from before the database's clock was set back.
    IF greatest(busy_left_ms, known.lease_until_ms - clock_ms) > p_lease_max_ms THEN
        busy_left_ms := CASE WHEN busy_left_ms > 0 THEN least(busy_left_ms, p_lease_max_ms) END;
        known.lease_until_ms := least(known.lease_until_ms, clock_ms + p_lease_max_ms);
        IF p_writes THEN
            UPDATE alipayhk_request SET lease_until_ms = clock_ms + p_lease_max_ms,
                    change = alipayhk_next_change()
                WHERE state = 'sending' AND lease_until_ms > clock_ms + p_lease_max_ms
                    AND (linkage = p_linkage
                        OR request_id = p_request_id AND api = p_api AND client_id = p_client_id);
        END IF;
    END IF;

    may_grant := p_writes AND busy_left_ms IS NULL AND CASE
        WHEN p_decided THEN coalesce(known.change, 0) = p_seen_change
            AND coalesce(applied_change, 0) = p_seen_applied
            -- The clock may have been set back since.
            AND (known.state = 'sending' AND known.lease_until_ms > clock_ms) IS NOT TRUE
        ELSE known.request_id IS NULL AND applied_change IS NULL AND p_may_be_new END;
    IF may_grant AND p_linkage IS NOT NULL THEN
        -- The oldest that waits for this linkage is first. An entry for longer is from before the clock was set back.
        SELECT max(until_ms) - clock_ms INTO busy_left_ms FROM alipayhk_waiting AS waiting
            WHERE waiting.lock = alipayhk_claim.lock AND until_ms > clock_ms
                AND until_ms <= clock_ms + p_lease_max_ms AND biz_time_ms < p_biz_time_ms
                AND (request_id, api, client_id) <> (p_request_id, p_api, p_client_id)
                -- With an outcome it only waits to be told that.
                AND NOT EXISTS (SELECT FROM alipayhk_request AS ended
                    WHERE (ended.request_id, ended.api, ended.client_id)
                        = (waiting.request_id, waiting.api, waiting.client_id)
                        AND ended.state IN ('applied', 'rejected'));
        may_grant := busy_left_ms IS NULL;
    END IF;
    IF may_grant THEN
        IF EXISTS (SELECT FROM alipayhk_undone WHERE claim = p_claim) THEN
            RAISE EXCEPTION 'the claim was taken back';
        END IF;
        PERFORM alipayhk_commit_durably(false);
        IF known.request_id IS NULL THEN
            INSERT INTO alipayhk_request (request_id, api, client_id, caller, key_id, fingerprint, linkage,
                    biz_time_ms, state, attempts, token, claim, lease_until_ms, was_in_doubt, created_ms,
                    updated_ms, change)
                VALUES (p_request_id, p_api, p_client_id, p_caller, p_key_id, p_fingerprint, p_linkage,
                    p_biz_time_ms, 'sending', 1, nextval('alipayhk_token'), p_claim, clock_ms + p_lease_ms,
                    false, p_now_ms, p_now_ms, alipayhk_next_change())
                -- The same id with other content has another linkage, and so another lock.
                ON CONFLICT DO NOTHING RETURNING token INTO granted;
        ELSE
            UPDATE alipayhk_request SET state = 'sending', attempts = attempts + 1,
                    token = nextval('alipayhk_token'), claim = p_claim, lease_until_ms = clock_ms + p_lease_ms,
                    was_in_doubt = p_was_in_doubt, updated_ms = p_now_ms, change = alipayhk_next_change()
                WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id
                    AND change = p_seen_change
                RETURNING token INTO granted;
        END IF;
        IF granted IS NULL THEN
            SELECT * INTO known FROM alipayhk_request
                WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id;
        END IF;
    END IF;
    change := known.change;
    fingerprint := known.fingerprint;
    state := known.state;
    lease_left_ms := known.lease_until_ms - clock_ms;
    was_in_doubt := known.was_in_doubt;
    result_status := known.result_status;
    result_code := known.result_code;
    sealed := known.sealed;
    is_resolved := known.resolution IS NOT NULL;

    IF p_writes THEN
        -- A call that decides to be granted keeps its place until it has asked again.
        waits := granted IS NULL AND CASE
            WHEN known.request_id IS NULL THEN p_may_be_new AND (applied_change IS NULL OR applied_same)
            ELSE known.fingerprint = p_fingerprint AND (known.state = 'sending' AND lease_left_ms > 0
                OR known.state IN ('sending', 'in_doubt', 'refused') AND p_linkage IS NOT NULL) END;
        IF waits THEN
            INSERT INTO alipayhk_waiting AS waiting
                    (request_id, api, client_id, holder, lock, biz_time_ms, until_ms)
                VALUES (p_request_id, p_api, p_client_id, p_holder, alipayhk_claim.lock, p_biz_time_ms,
                    clock_ms + p_wait_ms)
                -- The id may have been used with another content before, which was not sent.
                ON CONFLICT (request_id, api, client_id, holder) DO UPDATE SET
                    lock = excluded.lock, biz_time_ms = excluded.biz_time_ms, until_ms = excluded.until_ms;
        ELSE
            DELETE FROM alipayhk_waiting
                WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id
                    AND holder = p_holder;
            IF found AND granted IS NULL THEN
                PERFORM alipayhk_wake(lock);  -- younger requests waited for this one
            END IF;
        END IF;
    END IF;
END
$$;

-- Keep the places of requests that wait for their linkages inside their gateway.
CREATE FUNCTION alipayhk_queue(
    p_request_ids text[], p_apis text[], p_client_ids text[], p_linkages bytea[], p_biz_times_ms bigint[],
    p_wait_ms bigint, p_holder bytea
) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO alipayhk_waiting AS waiting (request_id, api, client_id, holder, lock, biz_time_ms, until_ms)
        SELECT request_id, api, client_id, p_holder, alipayhk_lock_number(linkage, request_id, api, client_id), biz_time_ms,
            alipayhk_clock_ms() + p_wait_ms
        FROM unnest(p_request_ids, p_apis, p_client_ids, p_linkages, p_biz_times_ms)
            AS place (request_id, api, client_id, linkage, biz_time_ms)
        ORDER BY request_id, api, client_id
        ON CONFLICT (request_id, api, client_id, holder) DO UPDATE SET
            lock = excluded.lock, biz_time_ms = excluded.biz_time_ms, until_ms = excluded.until_ms
$$;

-- Give up the place of a request that ends in one process without a grant, and wake those that waited for it.
CREATE FUNCTION alipayhk_leave(p_request_id text, p_api text, p_client_id text, p_holder bytea) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    number bigint;
BEGIN
    DELETE FROM alipayhk_waiting
        WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id AND holder = p_holder
        RETURNING lock INTO number;
    PERFORM alipayhk_wake(number);
END
$$;

-- Lengthen the lease of an attempt, or of another one that begins (1 in `p_attempts`, else 0), unless another
-- claim, an operator or, with an expired lease, another request for the linkage has overtaken the holder.
CREATE FUNCTION alipayhk_extend(
    p_request_id text, p_api text, p_client_id text, p_token bigint, p_lease_ms bigint,
    p_now_ms bigint, p_attempts integer
) RETURNS boolean LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' AS $$
DECLARE
    clock_ms bigint;
BEGIN
    PERFORM alipayhk_lock_row(p_request_id, p_api, p_client_id);
    PERFORM alipayhk_commit_durably(false);
    clock_ms := alipayhk_clock_ms();
    UPDATE alipayhk_request AS request SET state = 'sending', lease_until_ms = clock_ms + p_lease_ms,
            attempts = attempts + p_attempts, was_in_doubt = was_in_doubt OR p_attempts > 0,
            updated_ms = p_now_ms, change = alipayhk_next_change()
        WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id AND token = p_token
            AND (state = 'sending' OR p_attempts > 0 AND state = 'in_doubt')
            AND (state = 'sending' AND lease_until_ms > clock_ms OR NOT EXISTS (
                SELECT FROM alipayhk_request AS other
                WHERE other.linkage = request.linkage AND other.state = 'sending'
                    AND other.lease_until_ms > clock_ms AND other.client_id = p_client_id
                    AND other.api = p_api AND other.request_id <> p_request_id));
    RETURN found;
END
$$;

-- Write the outcome of a held request; an outcome that is recorded stays.
CREATE FUNCTION alipayhk_record(
    p_request_id text, p_api text, p_client_id text, p_token bigint, p_state text,
    p_result_status text, p_result_code text, p_sealed bytea, p_now_ms bigint, p_late boolean
) RETURNS boolean LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' AS $$
DECLARE
    lock bigint := alipayhk_lock_row(p_request_id, p_api, p_client_id);
BEGIN
    PERFORM alipayhk_commit_durably(p_late);
    UPDATE alipayhk_request SET state = p_state, result_status = p_result_status,
            result_code = p_result_code, sealed = p_sealed, updated_ms = greatest(updated_ms, p_now_ms),
            change = alipayhk_next_change()
        WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id AND token = p_token
            AND state IN ('sending', 'in_doubt');
    IF found THEN
        PERFORM alipayhk_wake(lock);
        RETURN true;
    END IF;
    RETURN EXISTS (SELECT FROM alipayhk_request
        WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id AND token = p_token
            AND state = p_state);
END
$$;

-- Take back a grant by its token, or by its claim if the token was lost: restore the row as it was before. A lost
-- claim may not be committed yet, so that its row cannot say which linkage must be locked to wait for it.
CREATE FUNCTION alipayhk_undo(
    p_request_id text, p_api text, p_client_id text, p_token bigint, p_claim bytea, p_linkage bytea,
    p_now_ms bigint
) RETURNS boolean LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' AS $$
DECLARE
    lock bigint := CASE WHEN p_claim IS NULL THEN alipayhk_lock_row(p_request_id, p_api, p_client_id)
        ELSE alipayhk_lock(p_linkage, p_request_id, p_api, p_client_id) END;
BEGIN
    PERFORM alipayhk_commit_durably(false);
    DELETE FROM alipayhk_request
        WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id
            AND (token = p_token OR claim = p_claim)
            AND state = 'sending' AND NOT was_in_doubt AND result_status IS NULL;
    IF NOT found THEN
        UPDATE alipayhk_request SET state = CASE WHEN was_in_doubt THEN 'in_doubt' ELSE 'refused' END,
                attempts = attempts - 1, updated_ms = greatest(updated_ms, p_now_ms),
                change = alipayhk_next_change()
            WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id
                AND (token = p_token OR claim = p_claim) AND state = 'sending';
    END IF;
    IF found THEN
        PERFORM alipayhk_wake(lock);
        RETURN true;
    END IF;
    RETURN false;
END
$$;

-- Undo a claim whose answer was lost, also if it arrives later; return whether it was granted.
CREATE FUNCTION alipayhk_take_back(
    p_request_id text, p_api text, p_client_id text, p_claim bytea, p_linkage bytea, p_now_ms bigint
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF alipayhk_undo(p_request_id, p_api, p_client_id, NULL, p_claim, p_linkage, p_now_ms) THEN
        RETURN true;
    END IF;
    INSERT INTO alipayhk_undone VALUES (p_claim, alipayhk_clock_ms()) ON CONFLICT DO NOTHING;
    RETURN false;
END
$$;

-- Write an operator's decision about a request in doubt. The new token ends the power of an old holder.
CREATE FUNCTION alipayhk_resolve(
    p_request_id text, p_api text, p_client_id text, p_state text, p_result_status text,
    p_result_code text, p_sealed bytea, p_who text, p_why text, p_now_ms bigint, p_lease_max_ms bigint
) RETURNS boolean LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' AS $$
DECLARE
    clock_ms bigint;
    in_doubt boolean;
    audit bigint;
    lock bigint := alipayhk_lock_row(p_request_id, p_api, p_client_id);
BEGIN
    PERFORM alipayhk_commit_durably(false);
    clock_ms := alipayhk_clock_ms();
    UPDATE alipayhk_request SET lease_until_ms = clock_ms + p_lease_max_ms, change = alipayhk_next_change()
        WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id
            AND state = 'sending' AND lease_until_ms > clock_ms + p_lease_max_ms;
    SELECT state = 'in_doubt' OR state = 'sending' AND lease_until_ms <= clock_ms INTO in_doubt
        FROM alipayhk_request
        WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id;
    IF in_doubt IS NOT TRUE THEN
        RETURN false;
    END IF;
    INSERT INTO alipayhk_resolution (client_id, api, request_id, state, who, why, at_ms)
        VALUES (p_client_id, p_api, p_request_id, p_state, p_who, p_why, p_now_ms) RETURNING id INTO audit;
    UPDATE alipayhk_request SET state = p_state, token = nextval('alipayhk_token'),
            result_status = p_result_status, result_code = p_result_code, sealed = p_sealed,
            resolution = audit, updated_ms = greatest(updated_ms, p_now_ms), change = alipayhk_next_change()
        WHERE request_id = p_request_id AND api = p_api AND client_id = p_client_id;
    PERFORM alipayhk_wake(lock);
    RETURN true;
END
$$;

-- Return the last change that every export may read: all changes up to it are committed and durable.
CREATE FUNCTION alipayhk_export() RETURNS bigint LANGUAGE plpgsql VOLATILE SET lock_timeout = '1s' AS $$
DECLARE
    last bigint;
BEGIN
    -- Wait for the transactions that have a number but are not committed yet.
    PERFORM pg_advisory_xact_lock('alipayhk_change'::regclass::bigint);
    PERFORM alipayhk_commit_durably(false);
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO last FROM alipayhk_change;
    UPDATE alipayhk_meta SET exported_change = last;
    RETURN last;
END
$$;

-- Return the rows that changed last while no change is made, so that none can move out of what is read.
CREATE FUNCTION alipayhk_last_rows(p_after bigint, p_limit bigint) RETURNS SETOF alipayhk_row
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM alipayhk_export();
    RETURN QUERY SELECT * FROM alipayhk_row WHERE change > p_after ORDER BY change LIMIT p_limit;
END
$$;

-- Mark the last token of this time, and delete marks that are no longer needed.
CREATE FUNCTION alipayhk_mark(p_before_ms bigint, p_now_ms bigint, p_every_ms bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO alipayhk_clock_mark (at_ms, token)
        SELECT p_now_ms, CASE WHEN is_called THEN last_value ELSE 0 END FROM alipayhk_token
        WHERE NOT EXISTS (SELECT FROM alipayhk_clock_mark WHERE at_ms > p_now_ms - p_every_ms)
        ON CONFLICT DO NOTHING;
    DELETE FROM alipayhk_clock_mark
        WHERE at_ms < (SELECT max(at_ms) FROM alipayhk_clock_mark WHERE at_ms < p_before_ms);
    DELETE FROM alipayhk_waiting WHERE until_ms < alipayhk_clock_ms();
    DELETE FROM alipayhk_undone WHERE at_ms < alipayhk_clock_ms() - 3600000;
END
$$;

-- Delete the oldest rows that have an outcome, and return how many.
CREATE FUNCTION alipayhk_drop(p_before_ms bigint, p_limit integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    dropped bigint;
BEGIN
    DELETE FROM alipayhk_request WHERE (request_id, api, client_id) IN (
        SELECT request_id, api, client_id FROM alipayhk_request
        WHERE state IN ('applied', 'rejected', 'refused') AND updated_ms < p_before_ms
            AND token <= (SELECT token FROM alipayhk_clock_mark WHERE at_ms < p_before_ms
                ORDER BY at_ms DESC LIMIT 1)
        ORDER BY updated_ms LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS dropped = ROW_COUNT;
    RETURN dropped;
END
$$;
