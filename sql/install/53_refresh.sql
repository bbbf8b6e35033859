-- CALL enrich_refresh(...): asking for the keys of attached tables, and how it stands.

-- How a refresh stands. asked: by source, the raw keys it is about, or null for all. unwritten: what is on its way. Calls are not
-- as long as nobody gives the secret, switches them on, or mends the provider (a breaker has opened again after a call that tried).
-- unserved, refused: why nothing is on its way although there is something to do.
CREATE FUNCTION enrichment_refresh_state(asked jsonb,
    OUT keys bigint, OUT done bigint, OUT failed bigint, OUT unwritten bigint, OUT to_write bigint, OUT waiting text,
    OUT unserved text, OUT refused text, OUT refused_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    open_services text[];
    calls_on      CONSTANT boolean := coalesce(current_setting('enrichment_cache.enabled', true)::boolean, true);
BEGIN
    WITH whole AS (
        SELECT j.key AS source FROM jsonb_each(asked) j WHERE j.value = 'null'),
    part AS (
        SELECT j.key AS source, e.raw FROM jsonb_each(asked) j
        CROSS JOIN LATERAL jsonb_array_elements_text(CASE WHEN j.value = 'null' THEN '[]' ELSE j.value END) e (raw)),
    picked AS MATERIALIZED (
        SELECT i.source, i.cache_key, i.dirty FROM @extschema@.enrichment_indicator i JOIN whole w ON w.source = i.source
        UNION ALL
        SELECT i.source, i.cache_key, i.dirty FROM part p
        JOIN @extschema@.enrichment_indicator i ON i.source = p.source AND i.raw_key = p.raw),
    wanted AS MATERIALIZED (
        SELECT DISTINCT p.source, a.service, p.cache_key FROM picked p
        JOIN @extschema@.enrichment_source s ON s.name = p.source
        CROSS JOIN LATERAL unnest(s.services) AS a (service)
        WHERE p.cache_key IS NOT NULL),
    counted AS (
        SELECT count(*) AS keys,
            count(*) FILTER (WHERE c.response_status IN ('success', 'not_found')) AS done,
            count(*) FILTER (WHERE coalesce(c.response_status, 'error') NOT IN ('success', 'not_found')
                AND (c.response_status IS NOT NULL OR q.state = 'dead' OR q.last_outcome IS NOT NULL)) AS failed,
            count(DISTINCT q.id) FILTER (WHERE q.state <> 'dead' AND r.enabled AND l.service IS NULL AND (calls_on OR q.state = 'in_flight')) AS open,
            array_agg(DISTINCT w.service) FILTER (WHERE q.state <> 'dead' AND r.enabled) AS pending
        FROM wanted w
        LEFT JOIN @extschema@.enrichment_cache c ON c.service = w.service AND c.cache_key = w.cache_key
        LEFT JOIN @extschema@.enrichment_queue q ON q.service = w.service AND q.cache_key = w.cache_key
        LEFT JOIN @extschema@.enrichment_service r ON r.name = w.service
        LEFT JOIN @extschema@.enrichment_lane l ON l.service = w.service
            AND (l.paused_until > now() AND l.cause IN ('no_credential', 'unauthorized') OR l.breaker <> 'closed' AND l.breaker_openings > 1))
    SELECT t.keys, t.done, t.failed, t.pending, t.open
        + (SELECT count(*) FROM picked p WHERE p.dirty)
        + (SELECT count(*) FROM @extschema@.enrichment_arrival a WHERE a.source IN (SELECT w.source FROM whole w)
            OR (a.urgent AND a.source IN (SELECT p.source FROM part p)))
        + (SELECT count(*) FROM @extschema@.enrichment_source s JOIN whole w ON w.source = s.name WHERE s.swept_at IS NULL)
        , (SELECT count(*) FROM picked p WHERE p.dirty)
    INTO keys, done, failed, open_services, unwritten, to_write FROM counted t;
    SELECT string_agg(format('%s: %s', e.service, e.line), '; ' ORDER BY e.service) INTO waiting FROM (
        SELECT t.service, CASE WHEN l.service IS NOT NULL THEN format('%s to go, paused: %s', t.pending, l.reason)
            WHEN b.service IS NOT NULL THEN format('%s to go, paused: one call tries whether it works again (%s)', t.pending, b.breaker_reason)
            ELSE format('%s to go, done about %s (%s)', t.pending, to_char(t.eta AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'),
                coalesce(t.binding_limit, 'no limit')) END AS line
        FROM @extschema@.enrichment_eta t
        LEFT JOIN @extschema@.enrichment_lane l ON l.service = t.service AND l.paused_until > now()
        LEFT JOIN @extschema@.enrichment_lane b ON b.service = t.service AND b.breaker <> 'closed'
        WHERE t.pending > 0 AND t.service = ANY (open_services)) e;
    IF waiting IS NOT NULL AND NOT calls_on THEN
        waiting := 'calls are switched off (enrichment_cache.enabled); ' || waiting;
    END IF;
    SELECT format('no worker serves this database: %s', coalesce(w.last_error, w.state, 'the launcher does not know it')) INTO unserved
    FROM (SELECT 1) one LEFT JOIN @extschema@.enrichment_worker w ON w.database = current_database() WHERE w.pid IS NULL;
    SELECT string_agg(format('%s: %s', s.name, s.last_error), '; ' ORDER BY s.name), max(s.last_error_at) INTO refused, refused_at
    FROM @extschema@.enrichment_source s WHERE asked ? s.name AND s.last_error IS NOT NULL;
END $$;

-- A length of time as one says it.
CREATE FUNCTION enrichment_words(seconds numeric) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN seconds >= 2 * 86400 THEN ceil(seconds / 86400) || ' days'
        WHEN seconds >= 2 * 3600 THEN ceil(seconds / 3600) || ' h'
        WHEN seconds >= 120 THEN ceil(seconds / 60) || ' min'
        ELSE ceil(seconds) || ' s' END
$$;

-- How long a service's limits make so many calls take from now on, and which limit it is.
CREATE FUNCTION enrichment_time_for(service text, calls bigint, OUT seconds numeric, OUT binding_limit text) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.windows * w.seconds, w.max || '/' || w.per FROM (
        SELECT j.max, j.per,
            CASE j.per WHEN 'second' THEN 1 WHEN 'minute' THEN 60 WHEN 'hour' THEN 3600 WHEN 'day' THEN 86400 ELSE 2629746 END AS seconds,
            ceil(greatest(calls - coalesce(q.remaining, j.max), 0)::numeric / nullif(j.max, 0)) AS windows
        FROM @extschema@.enrichment_service s
        CROSS JOIN LATERAL jsonb_to_recordset(s.limits) AS j (max bigint, per text)
        LEFT JOIN @extschema@.enrichment_quota_status q ON q.service = s.name AND q.per = j.per
        WHERE s.name = enrichment_time_for.service) w
    ORDER BY w.windows * w.seconds DESC NULLS FIRST LIMIT 1
$$;

-- The sources a refresh is about, each with how many of its newest rows; 0 is all.
CREATE FUNCTION enrichment_refresh_chosen(sessions int, files int, passwords int) RETURNS TABLE (name text, newest int)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.name, c.newest FROM (
        SELECT s.name, CASE s.shape WHEN 'files' THEN files WHEN 'passwords' THEN passwords ELSE sessions END AS newest
        FROM @extschema@.enrichment_source s) c
    WHERE c.newest IS NOT NULL ORDER BY c.name
$$;

-- Says what a refresh would cost; changes nothing.
CREATE FUNCTION enrichment_refresh_cost(sessions int, files int, passwords int) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    source record;
    cost   record;
    costs  jsonb := '{}';
    total  bigint := 0;
    counted bigint[] := '{}';
    longest record;
    rest   numeric;
BEGIN
    FOR source IN SELECT c.name, c.newest FROM @extschema@.enrichment_refresh_chosen(sessions, files, passwords) c LOOP
        BEGIN
            FOR cost IN SELECT * FROM @extschema@.enrichment_cost(source.name, nullif(source.newest, 0), counted) LOOP
                RAISE NOTICE 'enrich_refresh: %: % of % keys need a call to %', source.name, cost.calls, cost.keys, cost.service;
                -- a key that stands in two tables is one call
                costs := jsonb_set(costs, ARRAY[cost.service],
                    to_jsonb(coalesce((costs ->> cost.service)::bigint, 0) + cost.further_calls));
                total := total + cost.further_calls;
                counted := counted || cost.met;
            END LOOP;
        -- as below
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'source "%" is left out: %', source.name, SQLERRM
                USING HINT = 'Mend the table, or detach the source with enrich_detach().';
        END;
    END LOOP;
    -- all services are asked at the same time: the slowest says how long it takes, the others are done before
    SELECT c.key AS service, t.seconds, t.binding_limit
    INTO longest FROM jsonb_each_text(costs) c
    CROSS JOIN LATERAL @extschema@.enrichment_time_for(c.key, c.value::bigint) t
    WHERE c.value::bigint > 0 AND t.seconds IS NOT NULL ORDER BY t.seconds DESC LIMIT 1;
    IF longest.service IS NULL THEN
        RAISE NOTICE 'enrich_refresh: dry run: % calls', total;
        RETURN;
    END IF;
    SELECT max(t.seconds) INTO rest FROM jsonb_each_text(costs) c
    CROSS JOIN LATERAL @extschema@.enrichment_time_for(c.key, c.value::bigint) t
    WHERE c.value::bigint > 0 AND c.key <> longest.service;
    RAISE NOTICE 'enrich_refresh: dry run: % calls, % at %', total, @extschema@.enrichment_words(longest.seconds),
        concat(longest.service, '''s ', longest.binding_limit, ', ' || @extschema@.enrichment_words(rest) || ' for the rest');
END $$;

-- Notes how this session's refresh stands, for others to see; without a phase, that it is over.
CREATE FUNCTION enrichment_refresh_note(run_phase text, chosen text[] DEFAULT NULL, total bigint DEFAULT NULL, done bigint DEFAULT NULL,
    failed bigint DEFAULT NULL, to_write bigint DEFAULT NULL, rate numeric DEFAULT NULL, done_at timestamptz DEFAULT NULL, waiting text DEFAULT NULL,
    every int DEFAULT NULL)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM @extschema@.enrichment_refresh_run r WHERE (run_phase IS NULL AND r.pid = pg_backend_pid())
        OR (run_phase = 'asking' AND (r.pid = pg_backend_pid() OR NOT EXISTS (
            SELECT FROM pg_stat_get_activity(r.pid) a WHERE a.query_start = r.started_at)));
    INSERT INTO @extschema@.enrichment_refresh_run AS r
    SELECT pg_backend_pid(), statement_timestamp(), run_phase, chosen, total, done, failed, to_write, rate, done_at, waiting, clock_timestamp(), every
    WHERE run_phase IS NOT NULL
    ON CONFLICT (pid) DO UPDATE SET started_at = excluded.started_at, phase = excluded.phase, sources = excluded.sources,
        keys_total = excluded.keys_total, keys_done = excluded.keys_done, keys_failed = excluded.keys_failed,
        keys_to_write = excluded.keys_to_write, per_second = excluded.per_second, eta = excluded.eta,
        waiting_for = excluded.waiting_for, updated_at = excluded.updated_at;
$$;

-- A refresh that was cut short leaves its row; whether it still runs, the activity of its session tells.
CREATE FUNCTION enrichment_refresh_running() RETURNS SETOF enrichment_refresh_run LANGUAGE sql STABLE SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.* FROM @extschema@.enrichment_refresh_run r
    WHERE EXISTS (SELECT FROM pg_stat_get_activity(r.pid) a WHERE a.query_start = r.started_at AND a.state = 'active')
$$;

CREATE VIEW enrichment_refresh_progress AS
SELECT r.pid, d.oid AS datid, d.datname, r.started_at, r.phase, r.sources, r.keys_total, r.keys_done, r.keys_failed, r.keys_to_write,
    pg_catalog.trunc((r.keys_done * 100)::numeric / nullif(r.keys_total, 0)::numeric, 2)::numeric(5, 2) AS percent,
    r.per_second, r.eta, r.waiting_for, r.updated_at
FROM @extschema@.enrichment_refresh_running() r
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database();

CREATE PROCEDURE enrich_refresh(
    sessions        int DEFAULT 0,
    files           int DEFAULT 0,
    passwords       int DEFAULT 0,
    commit_interval int DEFAULT NULL,
    dry_run         boolean DEFAULT false
) LANGUAGE plpgsql AS $$
DECLARE
    -- a worker that has died is there again before, and a table that refuses has been tried several times
    patience CONSTANT interval := '20 seconds';
    chosen  jsonb;
    names   text[];
    state   record;
    asked   timestamptz;
    told    timestamptz := clock_timestamp();
    started timestamptz := clock_timestamp();
    began   bigint;
    stands  text;
    stood   text;
    moved   timestamptz := clock_timestamp();
    served  timestamptz := clock_timestamp();
    ended   text := 'done';
    rate    numeric;
    eta     timestamptz;
BEGIN
    IF least(sessions, files, passwords) < 0 OR commit_interval NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION 'numbers of rows must not be negative, commit_interval must lie between 1 and 100000' USING ERRCODE = '22023',
            HINT = '0 means all rows; NULL leaves a kind of table out. Without commit_interval each source keeps its own.';
    END IF;
    -- what it would cost can be said without a worker
    IF NOT dry_run AND NOT @extschema@.enrich_preloaded() THEN
        RAISE EXCEPTION 'enrich_refresh needs enrichment_cache in shared_preload_libraries' USING ERRCODE = '55000',
            HINT = 'Add enrichment_cache to shared_preload_libraries and restart the server.';
    END IF;
    names := ARRAY(SELECT c.name FROM @extschema@.enrichment_refresh_chosen(sessions, files, passwords) c);
    IF pg_catalog.cardinality(names) = 0 THEN
        RAISE EXCEPTION 'no table is attached' USING ERRCODE = '55000',
            HINT = 'Attach one first, for example: SELECT enrich_attach(''session_summaries'', ''source_ip'', ''{dshield,urlhaus,spur}'', ''enrichment'').';
    END IF;
    IF dry_run THEN
        PERFORM @extschema@.enrichment_refresh_cost(sessions, files, passwords);
        RETURN;
    END IF;
    PERFORM @extschema@.enrichment_refresh_note('asking', names, every => commit_interval);
    COMMIT;
    chosen := @extschema@.enrichment_refresh_begin(sessions, files, passwords);
    COMMIT;
    LOOP
        asked := clock_timestamp();
        SELECT * INTO state FROM @extschema@.enrichment_refresh_state(chosen);
        EXIT WHEN state.unwritten = 0;
        stands := pg_catalog.concat_ws(' ', state.done, state.failed, state.unwritten);
        IF stands IS DISTINCT FROM stood THEN
            moved := asked;
        END IF;
        stood := stands;
        IF state.unserved IS NULL THEN
            served := asked;
        END IF;
        -- nothing goes on by itself: nobody is there, or all that is left was refused by its table
        IF asked > served + patience OR (asked > moved + patience AND state.refused IS NOT NULL AND state.unwritten = state.to_write) THEN
            ended := 'ended';
            EXIT;
        END IF;
        began := coalesce(began, state.done);
        rate := (state.done - began) / greatest(extract(epoch FROM clock_timestamp() - started), 1);
        eta := CASE WHEN rate > 0 AND (state.keys - state.done - state.failed) / rate < 1e9
            THEN clock_timestamp() + pg_catalog.make_interval(secs => ((state.keys - state.done - state.failed) / rate)::float8) END;
        PERFORM @extschema@.enrichment_refresh_note(CASE WHEN state.done + state.failed < state.keys THEN 'fetching' ELSE 'writing' END,
            names, state.keys, state.done, state.failed, state.to_write, pg_catalog.round(rate, 1), eta, state.waiting);
        COMMIT;
        IF clock_timestamp() >= told + interval '5 seconds' THEN
            RAISE NOTICE 'enrich_refresh: % of % keys answered, % failed, % per second%', state.done, state.keys, state.failed,
                pg_catalog.round(rate, 1), pg_catalog.concat(
                    pg_catalog.to_char(eta AT TIME ZONE 'UTC', '", done about "YYYY-MM-DD HH24:MI:SS" UTC"'),
                    '; ' || nullif(state.to_write, 0) || ' to be written', '; ' || state.waiting, '; ' || state.unserved, '; ' || state.refused);
            told := clock_timestamp();
        END IF;
        -- looking at a large table takes its time: at most a fifth of the time is spent on it
        PERFORM pg_catalog.pg_sleep(greatest(0.2, 4 * extract(epoch FROM clock_timestamp() - asked)::double precision));
    END LOOP;
    PERFORM @extschema@.enrichment_refresh_note(NULL);
    COMMIT;
    RAISE NOTICE 'enrich_refresh: %, % of % keys answered, % failed, in % s', ended, state.done, state.keys, state.failed,
        pg_catalog.round(extract(epoch FROM clock_timestamp() - started), 1);
    -- what went wrong before may be mended: the next search of the table tells
    IF ended = 'done' AND state.refused_at < started THEN
        state.refused := NULL;
    END IF;
    IF ended <> 'done' OR state.waiting IS NOT NULL OR state.refused IS NOT NULL THEN
        RAISE WARNING 'enrich_refresh: not everything could be done: %', pg_catalog.concat_ws('; ',
                nullif(state.to_write, 0) || ' keys to be written', state.waiting, state.unserved, state.refused)
            USING HINT = 'What is left goes on by itself when the cause is mended. SELECT * FROM enrich_health() says what to do.';
    END IF;
END $$;

CREATE FUNCTION enrichment_refresh_begin(sessions int, files int, passwords int) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen jsonb := '{}';
    source record;
BEGIN
    FOR source IN SELECT c.name, c.newest FROM @extschema@.enrichment_refresh_chosen(sessions, files, passwords) c LOOP
        BEGIN
            chosen := chosen || jsonb_build_object(source.name,
                to_jsonb(@extschema@.enrichment_ask_source(source.name, nullif(source.newest, 0))));
        -- a table that changed, or an expression that fails on one of its rows in whatever way (a cancel is none of them)
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'source "%" is left out: %', source.name, SQLERRM
                USING HINT = 'Mend the table, or detach the source with enrich_detach().';
        END;
    END LOOP;
    RETURN chosen;
END $$;

INSERT INTO @extschema@.enrichment_privilege (level, action, object) VALUES
    ('reader', 'SELECT', 'enrichment_refresh_progress'),
    ('reader', 'EXECUTE', 'enrichment_refresh_running()'),
    ('monitor', 'SELECT', 'enrichment_refresh_progress'),
    ('monitor', 'EXECUTE', 'enrichment_refresh_running()'),
    ('admin', 'EXECUTE', 'enrichment_refresh_chosen(integer, integer, integer)'),
    ('admin', 'EXECUTE', 'enrichment_refresh_cost(integer, integer, integer)'),
    ('admin', 'EXECUTE', 'enrichment_refresh_begin(integer, integer, integer)'),
    ('admin', 'EXECUTE', 'enrichment_refresh_state(jsonb)'),
    ('admin', 'EXECUTE', 'enrichment_refresh_note(text, text[], bigint, bigint, bigint, bigint, numeric, timestamptz, text, integer)'),
    ('admin', 'EXECUTE', 'enrich_refresh(integer, integer, integer, integer, boolean)');

COMMENT ON TABLE enrichment_refresh_run IS 'How each CALL enrich_refresh stands or stood when it was cut short; enrichment_refresh_progress shows those that run.';
COMMENT ON COLUMN enrichment_refresh_run.pid IS 'The session.';
COMMENT ON COLUMN enrichment_refresh_run.started_at IS 'When its statement began.';
COMMENT ON COLUMN enrichment_refresh_run.phase IS 'asking, fetching or writing.';
COMMENT ON COLUMN enrichment_refresh_run.sources IS 'The sources it is about.';
COMMENT ON COLUMN enrichment_refresh_run.keys_total IS 'Keys, each counted once for each service.';
COMMENT ON COLUMN enrichment_refresh_run.keys_done IS 'Of these, answered.';
COMMENT ON COLUMN enrichment_refresh_run.keys_failed IS 'Of these, failed so far.';
COMMENT ON COLUMN enrichment_refresh_run.keys_to_write IS 'Keys whose rows are still to be written.';
COMMENT ON COLUMN enrichment_refresh_run.per_second IS 'Keys answered per second since it began.';
COMMENT ON COLUMN enrichment_refresh_run.eta IS 'When the rest is answered at that rate. NULL: cannot be told yet.';
COMMENT ON COLUMN enrichment_refresh_run.waiting_for IS 'Per service, how many keys are to go and what they wait for.';
COMMENT ON COLUMN enrichment_refresh_run.updated_at IS 'When this was noted.';
COMMENT ON COLUMN enrichment_refresh_run.commit_interval IS 'Rows written in one transaction while it runs. NULL: as the sources have it.';
COMMENT ON VIEW enrichment_refresh_progress IS 'Each CALL enrich_refresh that runs in this database, in the manner of pg_stat_progress_vacuum.';
COMMENT ON COLUMN enrichment_refresh_progress.pid IS 'The session.';
COMMENT ON COLUMN enrichment_refresh_progress.datid IS 'Its database.';
COMMENT ON COLUMN enrichment_refresh_progress.datname IS 'The name of its database.';
COMMENT ON COLUMN enrichment_refresh_progress.started_at IS 'When its statement began.';
COMMENT ON COLUMN enrichment_refresh_progress.phase IS 'asking (keys are being listed), fetching, or writing (all are answered, rows are still to be written).';
COMMENT ON COLUMN enrichment_refresh_progress.sources IS 'The sources it is about.';
COMMENT ON COLUMN enrichment_refresh_progress.keys_total IS 'Keys, each counted once for each service.';
COMMENT ON COLUMN enrichment_refresh_progress.keys_done IS 'Of these, answered.';
COMMENT ON COLUMN enrichment_refresh_progress.keys_failed IS 'Of these, failed so far.';
COMMENT ON COLUMN enrichment_refresh_progress.keys_to_write IS 'Keys whose rows are still to be written.';
COMMENT ON COLUMN enrichment_refresh_progress.percent IS 'Answered of all, rounded down.';
COMMENT ON COLUMN enrichment_refresh_progress.per_second IS 'Keys answered per second since it began.';
COMMENT ON COLUMN enrichment_refresh_progress.eta IS 'When the rest is answered at that rate. NULL: cannot be told yet.';
COMMENT ON COLUMN enrichment_refresh_progress.waiting_for IS 'Per service, how many keys are to go and what they wait for.';
COMMENT ON COLUMN enrichment_refresh_progress.updated_at IS 'When this was noted.';
COMMENT ON PROCEDURE enrich_refresh(integer, integer, integer, integer, boolean) IS
    'Asks for the newest n rows of attached tables (sessions, files, passwords; 0: all, NULL: none) and waits until they are answered and written, with notices on the way. dry_run: says what it would cost.';
COMMENT ON FUNCTION enrichment_words(numeric) IS 'Part of enrich_refresh: a number of seconds as one says it.';
COMMENT ON FUNCTION enrichment_time_for(text, bigint) IS 'How long the limits of a service make so many calls take, and which limit binds.';
COMMENT ON FUNCTION enrichment_refresh_chosen(integer, integer, integer) IS 'Part of enrich_refresh: the sources it is about.';
COMMENT ON FUNCTION enrichment_refresh_cost(integer, integer, integer) IS 'Part of enrich_refresh: says what it would cost.';
COMMENT ON FUNCTION enrichment_refresh_begin(integer, integer, integer) IS 'Part of enrich_refresh: lists the keys of the sources.';
COMMENT ON FUNCTION enrichment_refresh_state(jsonb) IS 'Part of enrich_refresh: how far these sources are, in distinct keys.';
COMMENT ON FUNCTION enrichment_refresh_note(text, text[], bigint, bigint, bigint, bigint, numeric, timestamptz, text, integer) IS
    'Part of enrich_refresh: notes how this session''s refresh stands.';
COMMENT ON FUNCTION enrichment_refresh_running() IS 'The rows of enrichment_refresh_run whose session is still at it.';
