-- Passwords of a honeypot: what was tried most, what is new, what is old, and what the sessions' JSON says of them.
-- Tables are read and written with the caller's rights. A default names the table that the caller's search_path finds.

-- The table of uses that stands beside a table of passwords, or NULL.
CREATE FUNCTION enrichment_password_uses(passwords regclass) RETURNS regclass LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    lacking text;
BEGIN
    IF passwords IS NULL THEN
        RAISE EXCEPTION 'no table of passwords' USING ERRCODE = '42P01',
            HINT = 'Name it: passwords => ''schema.password_tracking''.';
    END IF;
    SELECT w INTO lacking FROM unnest('{id,password_hash,password_text,breached,breach_prevalence,last_hibp_check,first_seen,last_seen,times_seen,unique_sessions}'::text[]) w
    WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = passwords AND a.attname = w AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'column "%" of relation % does not exist', lacking, passwords USING ERRCODE = '42703',
            HINT = 'These functions read a table of passwords as Cowrie analytics has it (password_tracking).';
    END IF;
    RETURN (SELECT u.oid::regclass FROM pg_class c JOIN pg_class u ON u.relnamespace = c.relnamespace
        WHERE c.oid = passwords AND u.relname = 'password_session_usage' AND u.relkind IN ('r', 'p'));
END $$;

-- What is known of a password is known from its last check on; before that breached says nothing, whatever it holds.
CREATE FUNCTION enrich_top_passwords(
    days      int DEFAULT 30,
    max_rows  int DEFAULT 20,
    passwords regclass DEFAULT pg_catalog.to_regclass('password_tracking'),
    OUT password_text text, OUT password_hash text, OUT attempts bigint, OUT sessions bigint,
    OUT breached boolean, OUT prevalence bigint, OUT first_seen timestamptz, OUT last_seen timestamptz
) RETURNS SETOF record LANGUAGE plpgsql STABLE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    uses  regclass := @extschema@.enrichment_password_uses(passwords);
    since timestamptz := now() - make_interval(days => days);
BEGIN
    IF max_rows < 0 THEN
        RAISE EXCEPTION 'max_rows must not be negative' USING ERRCODE = '22023', HINT = 'NULL means all of them.';
    END IF;
    RETURN QUERY EXECUTE format('SELECT p.password_text::text, p.password_hash::text, u.attempts, u.sessions,
            CASE WHEN p.last_hibp_check IS NOT NULL THEN p.breached END, CASE WHEN p.last_hibp_check IS NOT NULL THEN p.breach_prevalence::bigint END,
            p.first_seen::timestamptz, p.last_seen::timestamptz
        FROM %s p JOIN (%s) u ON u.id = p.id ORDER BY u.attempts DESC, u.sessions DESC, p.id LIMIT $2', passwords,
        CASE WHEN uses IS NOT NULL
            THEN format('SELECT s.password_id AS id, count(*) AS attempts, count(DISTINCT s.session_id) AS sessions FROM %s s
                WHERE $1 IS NULL OR s."timestamp" >= $1 GROUP BY 1', uses)
            -- without a table of uses: all that was ever counted of those seen lately
            ELSE format('SELECT q.id, q.times_seen::bigint AS attempts, q.unique_sessions::bigint AS sessions FROM %s q
                WHERE $1 IS NULL OR q.last_seen >= $1', passwords) END)
        USING since, max_rows;
END $$;

CREATE FUNCTION enrich_new_passwords(
    since     timestamptz DEFAULT pg_catalog.now() - interval '7 days',
    max_rows  int DEFAULT NULL,
    passwords regclass DEFAULT pg_catalog.to_regclass('password_tracking'),
    OUT password_text text, OUT password_hash text, OUT attempts bigint, OUT sessions bigint,
    OUT breached boolean, OUT prevalence bigint, OUT first_seen timestamptz, OUT last_seen timestamptz
) RETURNS SETOF record LANGUAGE plpgsql STABLE ROWS 100 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM @extschema@.enrichment_password_uses(passwords);
    RETURN QUERY EXECUTE format('SELECT p.password_text::text, p.password_hash::text, p.times_seen::bigint, p.unique_sessions::bigint,
            CASE WHEN p.last_hibp_check IS NOT NULL THEN p.breached END, CASE WHEN p.last_hibp_check IS NOT NULL THEN p.breach_prevalence::bigint END,
            p.first_seen::timestamptz, p.last_seen::timestamptz
        FROM %s p WHERE $1 IS NULL OR p.first_seen >= $1 ORDER BY p.first_seen DESC, p.id LIMIT $2', passwords) USING since, max_rows;
END $$;

CREATE FUNCTION enrich_prune_passwords(
    retention interval DEFAULT '180 days',
    dry_run   boolean DEFAULT false,
    passwords regclass DEFAULT pg_catalog.to_regclass('password_tracking'),
    OUT pruned bigint, OUT pruned_uses bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    uses   regclass := @extschema@.enrichment_password_uses(passwords);
    before timestamptz := now() - retention;
BEGIN
    IF retention IS NULL OR retention < interval '0' THEN
        RAISE EXCEPTION 'retention must not be negative or NULL' USING ERRCODE = '22023',
            HINT = 'Passwords that were last seen longer ago are deleted with their uses; for example ''180 days''.';
    END IF;
    pruned_uses := 0;
    IF dry_run THEN
        EXECUTE format('SELECT count(*) FROM %s p WHERE p.last_seen < $1', passwords) INTO pruned USING before;
        IF uses IS NOT NULL THEN
            EXECUTE format('SELECT count(*) FROM %s u JOIN %s p ON p.id = u.password_id WHERE p.last_seen < $1', uses, passwords)
                INTO pruned_uses USING before;
        END IF;
        RETURN;
    END IF;
    -- those that are deleted are locked first: one that is seen again meanwhile stays, with its uses
    IF uses IS NOT NULL THEN
        EXECUTE format('WITH old AS MATERIALIZED (SELECT p.id FROM %s p WHERE p.last_seen < $1 ORDER BY p.id FOR UPDATE)
            DELETE FROM %s u USING old WHERE u.password_id = old.id', passwords, uses) USING before;
        GET DIAGNOSTICS pruned_uses = ROW_COUNT;
    END IF;
    EXECUTE format('DELETE FROM %s p WHERE p.last_seen < $1', passwords) USING before;
    GET DIAGNOSTICS pruned = ROW_COUNT;
END $$;

-- One batch of sessions, in the order of their ids: the member password_stats is made and merged, nothing else is touched.
CREATE FUNCTION enrichment_password_stats_batch(sessions regclass, passwords regclass, into_column name, after text, since timestamptz,
    batch_size int, OUT last text, OUT seen bigint, OUT written bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    uses    regclass := @extschema@.enrichment_password_uses(passwords);
    column_type regtype;
    old     text;
BEGIN
    SELECT a.atttypid::regtype INTO column_type FROM pg_attribute a
    WHERE a.attrelid = sessions AND a.attname = into_column AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN ('json'::regtype, 'jsonb'::regtype);
    IF uses IS NULL OR column_type IS NULL THEN
        RAISE EXCEPTION '%', CASE WHEN uses IS NULL THEN 'no table password_session_usage beside the passwords'
                ELSE format('relation %s has no json column "%s"', coalesce(sessions::text, 'session_summaries'), into_column) END
            USING ERRCODE = CASE WHEN uses IS NULL THEN '42P01' ELSE '42703' END,
                HINT = 'Sessions have session_id and a json or jsonb column; password_session_usage has password_id, session_id, username, success, timestamp.';
    END IF;
    EXECUTE format('SELECT max(u.session_id), count(*) FROM (
            SELECT DISTINCT u.session_id::text AS session_id FROM %s u
            WHERE u.session_id > $1 AND ($2 IS NULL OR u."timestamp" >= $2) ORDER BY 1 LIMIT $3) u', uses)
        INTO last, seen USING after, since, batch_size;
    IF seen = 0 THEN
        written := 0;
        RETURN;
    END IF;
    old := format(CASE column_type WHEN 'jsonb'::regtype THEN 's.%I' ELSE '@extschema@.enrich_safe_jsonb(s.%I::text)' END, into_column);
    EXECUTE format('WITH picked AS MATERIALIZED (
            SELECT s.session_id FROM %1$s s WHERE s.session_id > $1 AND s.session_id <= $2 AND EXISTS (
                SELECT FROM %2$s u WHERE u.session_id = s.session_id AND ($3 IS NULL OR u."timestamp" >= $3))
            ORDER BY s.session_id FOR UPDATE),
        made AS (
            SELECT t.session_id, jsonb_build_object(
                ''total_attempts'', count(*), ''unique_passwords'', count(DISTINCT t.id),
                ''breached_passwords'', count(DISTINCT t.id) FILTER (WHERE t.breached),
                ''breach_prevalence_max'', coalesce(max(t.prevalence), 0),
                ''novel_password_hashes'', coalesce(jsonb_agg(DISTINCT t.password_hash) FILTER (WHERE NOT t.breached), ''[]''),
                ''password_details'', coalesce(jsonb_agg(jsonb_build_object(''username'', t.username, ''password_sha256'', t.password_hash,
                    ''breached'', t.breached, ''prevalence'', t.prevalence, ''success'', t.success,
                    ''timestamp'', to_char(t."timestamp" AT TIME ZONE ''UTC'', ''YYYY-MM-DD"T"HH24:MI:SS"+00:00"'')) ORDER BY t.nr)
                    FILTER (WHERE t.nr <= 1000), ''[]'')) AS stats
            FROM (SELECT u.session_id, u.username, u.success, u."timestamp", p.id, p.password_hash,
                    CASE WHEN p.last_hibp_check IS NOT NULL THEN p.breached END AS breached,
                    CASE WHEN p.last_hibp_check IS NOT NULL THEN coalesce(p.breach_prevalence, 0) END AS prevalence,
                    row_number() OVER (PARTITION BY u.session_id ORDER BY u."timestamp", u.ctid) AS nr
                FROM picked k JOIN %2$s u ON u.session_id = k.session_id JOIN %3$s p ON p.id = u.password_id) t
            GROUP BY t.session_id)
        UPDATE %1$s s SET %4$I = (coalesce(nullif(%5$s, ''null''), ''{}'') || jsonb_build_object(''password_stats'', m.stats))::%6$s
        FROM made m WHERE s.session_id = m.session_id
          AND coalesce(jsonb_typeof(%5$s), ''null'') IN (''object'', ''null'') AND %5$s -> ''password_stats'' IS DISTINCT FROM m.stats',
        sessions, uses, passwords, into_column, old, column_type) USING after, last, since;
    GET DIAGNOSTICS written = ROW_COUNT;
END $$;

CREATE PROCEDURE enrich_password_stats(
    sessions    regclass DEFAULT pg_catalog.to_regclass('session_summaries'),
    passwords   regclass DEFAULT pg_catalog.to_regclass('password_tracking'),
    into_column name DEFAULT 'enrichment',
    since       timestamptz DEFAULT NULL,
    batch_size  int DEFAULT 1000
) LANGUAGE plpgsql AS $$
DECLARE
    batch   record;
    place   text := '';
    seen    bigint := 0;
    written bigint := 0;
    told    timestamptz := pg_catalog.clock_timestamp();
BEGIN
    IF batch_size IS NULL OR batch_size < 1 OR batch_size > 100000 THEN
        RAISE EXCEPTION 'batch_size must lie between 1 and 100000' USING ERRCODE = '22023', HINT = 'It is the number of sessions between two commits.';
    END IF;
    LOOP
        SELECT b.* INTO batch FROM @extschema@.enrichment_password_stats_batch(sessions, passwords, into_column, place, since, batch_size) AS b;
        COMMIT;
        EXIT WHEN batch.seen = 0::bigint;
        place := batch.last;
        seen := seen + batch.seen;
        written := written + batch.written;
        IF pg_catalog.clock_timestamp() >= told + interval '5 seconds' THEN
            RAISE NOTICE 'enrich_password_stats: % sessions, % of them changed, up to %', seen, written, place;
            told := pg_catalog.clock_timestamp();
        END IF;
    END LOOP;
    RAISE NOTICE 'enrich_password_stats: done, % sessions, % of them changed', seen, written;
END $$;

COMMENT ON FUNCTION @extschema@.enrichment_password_uses(regclass) IS
    'Internal: the table of uses beside a table of passwords. NULL: there is none.';
COMMENT ON FUNCTION @extschema@.enrich_top_passwords(int, int, regclass) IS
    'The passwords tried most in the last days (NULL: ever), at most max_rows. breached and prevalence are NULL where HIBP was never asked. Without a table password_session_usage attempts are those ever counted.';
COMMENT ON FUNCTION @extschema@.enrich_new_passwords(timestamptz, int, regclass) IS
    'The passwords first seen since then, the newest first. breached and prevalence are NULL where HIBP was never asked.';
COMMENT ON FUNCTION @extschema@.enrich_prune_passwords(interval, boolean, regclass) IS
    'Deletes passwords that were last seen longer than retention ago, and their uses; dry_run counts only. Runs with the caller''s rights on these tables.';
COMMENT ON FUNCTION @extschema@.enrichment_password_stats_batch(regclass, regclass, name, text, timestamptz, int) IS
    'Internal: one batch of enrich_password_stats, with the caller''s rights on the tables.';
COMMENT ON PROCEDURE @extschema@.enrich_password_stats(regclass, regclass, name, timestamptz, int) IS
    'Writes the member password_stats into the JSON of the sessions in which passwords were used (since then), from password_session_usage; no other member is touched, and a row only where it changes. password_details holds the first 1000 uses. batch_size sessions a commit. Runs with the caller''s rights on these tables.';
COMMENT ON FUNCTION @extschema@.enrich_safe_jsonb(text) IS
    'A JSON text as jsonb, zero characters and halves of surrogate pairs replaced by U+FFFD. NULL: it is not JSON.';

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'reader', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY['enrich_safe_jsonb(text)', 'enrichment_password_uses(regclass)',
    'enrich_top_passwords(integer, integer, regclass)', 'enrich_new_passwords(timestamp with time zone, integer, regclass)']) AS o;
INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'writer', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY['enrich_prune_passwords(interval, boolean, regclass)',
    'enrichment_password_stats_batch(regclass, regclass, name, text, timestamp with time zone, integer)',
    'enrich_password_stats(regclass, regclass, name, timestamp with time zone, integer)']) AS o;
