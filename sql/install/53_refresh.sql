-- CALL enrich_refresh(...): asking for the keys of attached tables, and how it stands.

-- Asks for the keys of a source, all of them or those of its newest rows; returns the latter, else JSON null.
CREATE FUNCTION enrichment_ask_source(source text, newest int) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known   @extschema@.enrichment_source;
    latest  text;
    raw     text;
    asked   jsonb;
BEGIN
    SELECT s.* INTO known FROM @extschema@.enrichment_source s WHERE s.name = source;
    -- the newest rows first, by the time column the table has; a type of the owner's own would sort with our rights
    SELECT format('ORDER BY %I DESC NULLS LAST', a.attname) INTO latest FROM pg_attribute a
    WHERE a.attrelid = known.relation AND NOT a.attisdropped
      AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
      AND a.attname IN ('last_event_at', 'first_event_at', 'first_seen', 'last_seen', 'created_at')
    ORDER BY array_position('{last_event_at,last_seen,first_seen,first_event_at,created_at}', a.attname::text) LIMIT 1;
    raw := CASE known.shape
        WHEN 'passwords' THEN format('@extschema@.enrich_hibp_prefix(%I::text)', known.key_column)
        ELSE format('%I::text', known.key_column) END;
    EXECUTE format('WITH added AS (INSERT INTO @extschema@.enrichment_arrival (source, raw_key, urgent)
        SELECT DISTINCT $1, r.raw, true FROM (SELECT %1$s AS raw FROM %2$s WHERE %3$I IS NOT NULL %4$s LIMIT $2) r
        RETURNING raw_key) SELECT CASE WHEN $2 IS NOT NULL THEN coalesce(jsonb_agg(a.raw_key), ''[]'') ELSE ''null'' END FROM added a',
        raw, known.relation, known.key_column, coalesce(latest, '')) INTO asked USING source, nullif(newest, 0);
    PERFORM @extschema@.enrich_wake();
    RETURN asked;
END $$;

-- How a refresh stands. asked: by source, the raw keys it is about, or null for all.
CREATE FUNCTION enrichment_refresh_state(asked jsonb,
    OUT keys bigint, OUT done bigint, OUT failed bigint, OUT unwritten bigint, OUT waiting text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    open_services text[];
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
            -- what waits for a secret waits for somebody to give it, not for time to pass
            count(DISTINCT q.id) FILTER (WHERE q.state <> 'dead' AND r.enabled AND l.service IS NULL) AS open,
            array_agg(DISTINCT w.service) FILTER (WHERE q.state <> 'dead' AND r.enabled) AS pending
        FROM wanted w
        LEFT JOIN @extschema@.enrichment_cache c ON c.service = w.service AND c.cache_key = w.cache_key
        LEFT JOIN @extschema@.enrichment_queue q ON q.service = w.service AND q.cache_key = w.cache_key
        LEFT JOIN @extschema@.enrichment_service r ON r.name = w.service
        LEFT JOIN @extschema@.enrichment_lane l ON l.service = w.service AND l.paused_until > now()
            AND l.cause IN ('no_credential', 'unauthorized'))
    SELECT t.keys, t.done, t.failed, t.pending, t.open
        + (SELECT count(*) FROM picked p WHERE p.dirty)
        + (SELECT count(*) FROM @extschema@.enrichment_arrival a WHERE a.source IN (SELECT w.source FROM whole w)
            OR (a.source, a.raw_key) IN (SELECT p.source, p.raw FROM part p))
        + (SELECT count(*) FROM @extschema@.enrichment_source s JOIN whole w ON w.source = s.name WHERE s.swept_at IS NULL)
    INTO keys, done, failed, open_services, unwritten FROM counted t;
    SELECT string_agg(format('%s: %s', e.service, e.line), '; ' ORDER BY e.service) INTO waiting FROM (
        SELECT t.service, CASE WHEN l.service IS NOT NULL THEN format('%s to go, paused: %s', t.pending, l.reason)
            ELSE format('%s to go, done about %s (%s)', t.pending, to_char(t.eta AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'),
                coalesce(t.binding_limit, 'no limit')) END AS line
        FROM @extschema@.enrichment_eta t
        LEFT JOIN @extschema@.enrichment_lane l ON l.service = t.service AND l.paused_until > now()
        WHERE t.pending > 0 AND t.service = ANY (open_services)) e;
END $$;

CREATE PROCEDURE enrich_refresh(
    sessions        int DEFAULT 0,
    files           int DEFAULT 0,
    passwords       int DEFAULT 0,
    commit_interval int DEFAULT 100
) LANGUAGE plpgsql AS $$
DECLARE
    chosen  jsonb;
    state   record;
    asked   timestamptz;
    told    timestamptz := clock_timestamp();
    started timestamptz := clock_timestamp();
    began   bigint;
    rate    numeric;
BEGIN
    IF NOT @extschema@.enrich_preloaded() THEN
        RAISE EXCEPTION 'enrich_refresh needs enrichment_cache in shared_preload_libraries' USING ERRCODE = '55000',
            HINT = 'Add enrichment_cache to shared_preload_libraries and restart the server.';
    END IF;
    IF least(sessions, files, passwords) < 0 OR commit_interval IS NULL OR commit_interval < 1 OR commit_interval > 100000 THEN
        RAISE EXCEPTION 'numbers of rows must not be negative, commit_interval must lie between 1 and 100000' USING ERRCODE = '22023',
            HINT = '0 means all rows; NULL leaves a kind of table out.';
    END IF;
    chosen := @extschema@.enrichment_refresh_begin(sessions, files, passwords, commit_interval);
    IF chosen IS NULL THEN
        RAISE EXCEPTION 'no table is attached' USING ERRCODE = '55000',
            HINT = 'Attach one first, for example: SELECT enrich_attach(''session_summaries'', ''source_ip'', ''{dshield,urlhaus,spur}'', ''enrichment'').';
    END IF;
    COMMIT;
    LOOP
        asked := clock_timestamp();
        SELECT * INTO state FROM @extschema@.enrichment_refresh_state(chosen);
        ROLLBACK;
        EXIT WHEN state.unwritten = 0;
        began := coalesce(began, state.done);
        IF clock_timestamp() >= told + interval '5 seconds' THEN
            rate := (state.done - began) / greatest(extract(epoch FROM clock_timestamp() - started), 1);
            RAISE NOTICE 'enrich_refresh: % of % keys answered, % failed, % per second%', state.done, state.keys, state.failed,
                pg_catalog.round(rate, 1), coalesce('; ' || state.waiting, '');
            told := clock_timestamp();
        END IF;
        -- looking at a large table takes its time: at most a fifth of the time is spent on it
        PERFORM pg_catalog.pg_sleep(greatest(0.2, 4 * extract(epoch FROM clock_timestamp() - asked)::double precision));
    END LOOP;
    RAISE NOTICE 'enrich_refresh: done, % of % keys answered, % failed, in % s', state.done, state.keys, state.failed,
        pg_catalog.round(extract(epoch FROM clock_timestamp() - started), 1);
    IF state.waiting IS NOT NULL THEN
        RAISE WARNING 'enrich_refresh: not everything could be asked: %', state.waiting
            USING HINT = 'SELECT * FROM enrich_health() says what to do.';
    END IF;
END $$;

CREATE FUNCTION enrichment_refresh_begin(sessions int, files int, passwords int, every int) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen jsonb;
    source record;
BEGIN
    FOR source IN
        SELECT s.name, CASE s.shape WHEN 'files' THEN files WHEN 'passwords' THEN passwords ELSE sessions END AS newest
        FROM @extschema@.enrichment_source s ORDER BY s.name
    LOOP
        CONTINUE WHEN source.newest IS NULL;
        UPDATE @extschema@.enrichment_source s SET commit_interval = every WHERE s.name = source.name AND s.commit_interval <> every;
        BEGIN
            chosen := coalesce(chosen, '{}')
                || jsonb_build_object(source.name, @extschema@.enrichment_ask_source(source.name, source.newest));
        EXCEPTION WHEN undefined_table OR undefined_column OR syntax_error THEN
            chosen := coalesce(chosen, '{}');
            RAISE WARNING 'source "%" is left out: %', source.name, SQLERRM
                USING HINT = 'Mend the table, or detach the source with enrich_detach().';
        END;
    END LOOP;
    RETURN chosen;
END $$;
