-- What keeps the attached tables from being filled: causes with the share of rows behind each, an example, what to do.
--
-- Bounded: of a table that has more than twice as many, about 100,000 rows are read (TABLESAMPLE SYSTEM, numbers scaled up), of
-- each service 200 payloads (20,000 or 64 MB before a reader is accused), of the catalogues 5,000 views and functions. It can be
-- cancelled at any time.

-- The paths that stand in the payloads of a service, from a sample.
CREATE FUNCTION enrichment_payload_paths(service text) RETURNS TABLE (path text[]) LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE walk AS (
        SELECT '{}'::text[] AS path, s.payload AS value FROM (
            SELECT c.payload FROM @extschema@.enrichment_cache c
            WHERE c.service = $1 AND c.payload IS NOT NULL AND c.ranges IS NULL LIMIT 50) s
        UNION ALL
        SELECT w.path || e.key, e.value FROM walk w
        CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(w.value) WHEN 'object' THEN w.value ELSE '{}' END) e
        WHERE cardinality(w.path) < 4 AND length(e.key) <= 64)
    SELECT DISTINCT w.path FROM walk w WHERE w.path <> '{}'
$$;

-- Whether one of the payloads of a service has a path, as received or (`shaped`) in the shape cowrieprocessor: in so many of them,
-- and no more than 64 MB as they are stored; and how many were looked at. NULL: there is none.
CREATE FUNCTION enrichment_has_path(service text, path text[], raw boolean, shaped boolean, most bigint, OUT has boolean, OUT seen bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held record;
    size bigint := 0;
BEGIN
    seen := 0;
    FOR held IN SELECT c.payload, pg_column_size(c.payload) AS size FROM @extschema@.enrichment_cache c
        WHERE c.service = enrichment_has_path.service AND c.payload IS NOT NULL AND c.ranges IS NULL LIMIT most
    LOOP
        seen := seen + 1;
        size := size + held.size;
        has := coalesce(raw AND held.payload #> path IS NOT NULL, false)
            OR coalesce(shaped AND @extschema@.enrich_cowrieprocessor(service, held.payload) #> path IS NOT NULL, false);
        EXIT WHEN has OR size > 64000000;
    END LOOP;
END $$;

-- Views and functions of users, and statements that run or have run, which read a path no payload of the service has. A column
-- into which answers are written in the shape cowrieprocessor is held against that shape; where only a name tells, either shape
-- will do.
CREATE FUNCTION enrichment_wrong_paths(OUT service text, OUT reader text, OUT path text[], OUT meant text, OUT seen bigint)
RETURNS SETOF record LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- what others' sessions run is for who may see it
    stats   boolean := pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, 'pg_read_all_stats', 'USAGE');
    extra   text;
    catalog text;
    known   record;
    last    text;
    found   boolean;
BEGIN
    SELECT format('%I.pg_stat_statements', n.nspname) INTO extra FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_stat_statements' AND stats AND current_setting('shared_preload_libraries') ~ 'pg_stat_statements';
    catalog := $sql$
        SELECT format('%s %s', CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, c.oid::regclass) AS reader, pg_get_viewdef(c.oid) AS body
        FROM (SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_t'
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
            ORDER BY c.oid LIMIT 5000) c
        UNION ALL
        SELECT format('function %s', p.oid::regprocedure), CASE WHEN p.prosqlbody IS NOT NULL THEN pg_get_functiondef(p.oid) ELSE p.prosrc END
        FROM (SELECT p.* FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE l.lanname IN ('sql', 'plpgsql') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_t' AND p.prokind <> 'a'
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
            ORDER BY p.oid LIMIT 5000) p
        UNION ALL
        SELECT 'a statement of ' || coalesce(nullif(a.application_name, ''), 'a session'), a.query FROM pg_stat_activity a
        WHERE $1 AND a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'$sql$;
    IF extra IS NOT NULL THEN
        catalog := catalog || format(' UNION ALL (SELECT ''a statement in pg_stat_statements'', s.query FROM %s s
            WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY s.calls DESC LIMIT 5000)', extra);
    END IF;
    FOR known IN EXECUTE format('WITH texts AS MATERIALIZED (SELECT t.reader, t.body FROM (%s) t
            WHERE length(t.body) <= 1000000 AND t.body ~ ''->|#>|extract_path|enrich_|\[''''''),
        reads AS (SELECT DISTINCT t.reader, t.body, r.root, r.path FROM texts t CROSS JOIN LATERAL @extschema@.enrichment_json_reads(t.body) r)
        SELECT DISTINCT m.service, m.reader, m.path, m.shaped, m.raw, concat_ws('' '', m.service, m.path, m.shaped, m.raw) AS what
        FROM (SELECT s.name AS service, d.reader, CASE WHEN d.path[1] = s.name THEN d.path[2:] ELSE d.path END AS path,
                -- the cache itself has answers as received, a column that is attached has them as it is attached
                NOT v.of_cache AND (v.of_column IS NULL OR ''cowrieprocessor'' = ANY (v.of_column)) AS shaped,
                v.of_cache OR v.of_column IS NULL OR ''raw'' = ANY (v.of_column) AS raw
            FROM reads d JOIN @extschema@.enrichment_service s
                -- a member of the service, a column or alias of its name, or the column of the cache where the text names the service
                ON d.path[1] = s.name OR d.root = s.name
                OR (d.root IN (''payload'', ''cache_value'') AND d.body ~ ''enrichment_cache'' AND position(quote_literal(s.name) IN d.body) > 0)
            CROSS JOIN LATERAL (SELECT d.root IN (''payload'', ''cache_value'') AND d.path[1] <> s.name AS of_cache,
                (SELECT array_agg(e.shape) FROM @extschema@.enrichment_source e WHERE e.into_column = d.root AND s.name = ANY (e.services)
                    AND d.path[1] = s.name) AS of_column) v
            WHERE s.response_format = ''json'') m
        ORDER BY 1, 3, 4, 5, 2', catalog) USING stats
    LOOP
        CONTINUE WHEN cardinality(known.path) = 0;
        -- readers of one path stand together
        IF last IS DISTINCT FROM known.what THEN
            last := known.what;
            SELECT p.has, p.seen INTO found, seen FROM @extschema@.enrichment_has_path(known.service, known.path, known.raw, known.shaped, 200) p;
            -- a member that few answers have is no wrong path
            IF NOT found AND seen = 200 THEN
                SELECT p.has, p.seen INTO found, seen FROM @extschema@.enrichment_has_path(known.service, known.path, known.raw, known.shaped, 20000) p;
            END IF;
        END IF;
        -- without a payload nobody can tell
        CONTINUE WHEN found IS NULL OR found;
        service := known.service;
        reader := known.reader;
        path := known.path;
        SELECT string_agg(array_to_string(m.path, '.'), ', ' ORDER BY m.near, m.path) INTO meant FROM (
            SELECT p.path, abs(length(p.path[cardinality(p.path)]) - length(known.path[cardinality(known.path)])) AS near
            FROM @extschema@.enrichment_payload_paths(known.service) p
            WHERE known.raw AND (p.path[cardinality(p.path)] ILIKE '%' || known.path[cardinality(known.path)] || '%'
               OR (known.path[cardinality(known.path)] ILIKE '%' || p.path[cardinality(p.path)] || '%' AND length(p.path[cardinality(p.path)]) > 1))
            ORDER BY 2, 1 LIMIT 3) m;
        RETURN NEXT;
    END LOOP;
END $$;

-- What the rows themselves show, apart from what has become of their keys: empty values of other clients, zero characters,
-- an address that stands in for a missing one, flags that were cleared, passwords called safe without an answer or breached by
-- padding, days on which keys stopped coming.
CREATE FUNCTION enrichment_look_at_rows(source text, OUT cause text, OUT service text, OUT affected bigint, OUT of bigint, OUT example text, OUT since date,
    OUT flag text)
RETURNS SETOF record LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 5 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known    @extschema@.enrichment_source;
    percent  double precision;
    sample_sql text;
    rows_sql text;
    raw      text;
    at_column name;
    into_type oid;
    one      text;
    has      text[];
    holds    text;
    day      text;
BEGIN
    SELECT s.* INTO known FROM @extschema@.enrichment_source s WHERE s.name = source;
    IF known.key_expression IS NULL AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = known.relation AND a.attname = known.key_column AND NOT a.attisdropped
            AND a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'inet'::regtype, 'cidr'::regtype)) THEN
        RETURN;
    END IF;
    has := (SELECT array_agg(a.attname::text) FROM pg_attribute a WHERE a.attrelid = known.relation AND a.attnum > 0 AND NOT a.attisdropped);
    IF has IS NULL THEN
        RETURN;
    END IF;
    percent := @extschema@.enrichment_sample_percent(known.relation, 50000);
    sample_sql := format('%s t %s', known.relation, CASE WHEN percent < 100 THEN format('TABLESAMPLE SYSTEM (%s) REPEATABLE (1)', percent) ELSE '' END);
    IF known.key_expression IS NOT NULL OR known.eligible IS NOT NULL THEN
        -- what the user wrote is evaluated as the table's owner; rows outside the condition are nobody's gap
        rows_sql := format('%s JOIN @extschema@.enrichment_row_keys(%L, %s) e ON e.part = t.tableoid AND e.place = t.ctid', sample_sql, source, percent);
        raw := 'e.raw';
    ELSE
        rows_sql := sample_sql;
        raw := CASE known.shape WHEN 'passwords' THEN format('@extschema@.enrich_hibp_prefix(t.%I::text)', known.key_column)
            ELSE format('t.%I::text', known.key_column) END;
    END IF;

    -- one value that is never sent, in many rows
    cause := 'stand_in_key';
    FOR service, affected, of, example IN EXECUTE format('SELECT NULL::text, (r.rows * %s)::bigint, (r.all_rows * %s)::bigint, r.raw FROM (
            SELECT %s AS raw, count(*) AS rows, sum(count(*)) OVER () AS all_rows FROM %s GROUP BY 1) r
        JOIN @extschema@.enrichment_indicator i ON i.source = $1 AND i.raw_key = r.raw AND i.problem IS NOT NULL
        WHERE r.rows >= 0.05 * r.all_rows AND r.rows >= 2 ORDER BY r.rows DESC LIMIT 1', 100 / percent, 100 / percent, raw, rows_sql) USING source
    LOOP
        RETURN NEXT;
    END LOOP;

    SELECT a.atttypid INTO into_type FROM pg_attribute a WHERE a.attrelid = known.relation AND a.attname = known.into_column AND NOT a.attisdropped
        AND a.atttypid IN ('json'::regtype, 'jsonb'::regtype);
    IF into_type IS NOT NULL THEN
        FOREACH one IN ARRAY known.services LOOP
            cause := 'empty_values';
            FOR service, affected, of, example IN EXECUTE format('SELECT $1, (count(*) FILTER (WHERE r.empty) * %1$s)::bigint, (count(*) * %1$s)::bigint, min(r.raw) FILTER (WHERE r.empty)
                FROM (SELECT %2$s AS raw, coalesce(CASE WHEN t.%3$I IS NOT NULL AND t.%3$I::text LIKE ''%%"%4$s"%%'' OR btrim(t.%3$I::text) = ''{}'' THEN (
                        SELECT j.v = ''{}'' OR (jsonb_typeof(j.v) = ''object'' AND j.v ? $1 AND @extschema@.enrich_is_empty(j.v -> $1))
                            -- as the loader nests them: session, address, service
                            OR (jsonb_typeof(j.v #> ARRAY[''session'', %2$s]) = ''object'' AND (j.v #> ARRAY[''session'', %2$s]) ? $1
                                AND @extschema@.enrich_is_empty(j.v #> ARRAY[''session'', %2$s, $1]))
                        FROM (SELECT %5$s AS v) j) END, false) AS empty FROM %6$s) r
                WHERE r.raw IS NULL OR NOT EXISTS (SELECT FROM @extschema@.enrichment_indicator i JOIN @extschema@.enrichment_cache c
                        ON c.service = $1 AND c.cache_key = i.cache_key AND c.response_status IN (''success'', ''not_found'')
                    WHERE i.source = $2 AND i.raw_key = r.raw AND i.dirty) HAVING bool_or(r.empty)',
                100 / percent, raw, known.into_column, replace(one, '%', '\%'),
                CASE into_type WHEN 'jsonb'::regtype THEN format('t.%I', known.into_column) ELSE format('@extschema@.enrich_safe_jsonb(t.%I::text)', known.into_column) END,
                rows_sql) USING one, source
            LOOP
                RETURN NEXT;
            END LOOP;
        END LOOP;
        IF into_type = 'json'::regtype THEN
            cause := 'zero_character';
            FOR service, affected, of, example IN EXECUTE format('SELECT NULL::text, (count(*) FILTER (WHERE r.zero) * %1$s)::bigint, (count(*) * %1$s)::bigint, min(r.raw) FILTER (WHERE r.zero)
                FROM (SELECT %2$s AS raw, coalesce(t.%3$I::text LIKE ''%%\\u0000%%'' AND t.%3$I::text ~ ''(?<!\\)(\\\\)*\\u0000'', false) AS zero FROM %4$s) r
                HAVING bool_or(r.zero)', 100 / percent, raw, known.into_column, rows_sql)
            LOOP
                RETURN NEXT;
            END LOOP;
        END IF;
    END IF;

    -- answered, and not in the row. What is marked for writing, or was told of by a statement, comes within moments, unless nobody writes
    holds := @extschema@.enrichment_row_holds(source);
    IF holds IS NOT NULL THEN
        cause := 'not_written';
        FOR service, affected, of, example IN EXECUTE format('SELECT r.service, (count(*) FILTER (WHERE r.bare) * %1$s)::bigint, (count(*) * %1$s)::bigint,
                min(r.raw) FILTER (WHERE r.bare)
            FROM (SELECT k.raw, a.service, coalesce(c.response_status IN (''success'', ''not_found'') AND NOT c.hollow AND NOT coalesce(k.held ? a.service, false)
                    AND ($3 OR NOT i.dirty OR greatest(c.fetched_at, i.first_seen) < now() - interval ''10 minutes'')
                    AND ($3 OR k.raw NOT IN (SELECT u FROM @extschema@.enrichment_arrival n, unnest(n.raw_keys) u WHERE n.source = $1)), false) AS bare
                FROM (SELECT %2$s AS raw, %3$s AS held FROM %4$s) k
                CROSS JOIN (SELECT DISTINCT u FROM unnest($2) u) a (service)
                LEFT JOIN @extschema@.enrichment_indicator i ON i.source = $1 AND i.raw_key = k.raw
                LEFT JOIN @extschema@.enrichment_cache c ON c.service = a.service AND c.cache_key = i.cache_key
                WHERE k.raw IS NOT NULL AND i.problem IS NULL) r
            GROUP BY r.service HAVING bool_or(r.bare)', 100 / percent, raw, holds, rows_sql)
            USING source, known.services, known.last_error IS NOT NULL OR EXISTS (
                SELECT FROM @extschema@.enrichment_nobody_asks() n WHERE n.cause = 'no_worker')
        LOOP
            RETURN NEXT;
        END LOOP;
    END IF;

    -- the answer finds fault, it has been written, and the row says that it does not
    FOR one, flag IN SELECT f.value, f.key FROM jsonb_each_text(known.flag_columns) f WHERE holds IS NOT NULL AND f.key = ANY (has) LOOP
        cause := 'flag_cleared';
        FOR service, affected, of, example IN EXECUTE format('SELECT $2, (count(*) FILTER (WHERE r.cleared) * %1$s)::bigint, (count(*) * %1$s)::bigint,
                min(r.raw) FILTER (WHERE r.cleared)
            FROM (SELECT k.raw, k.flag IS NOT TRUE AND coalesce(k.held ? $2, false) AND NOT coalesce(i.dirty, false)
                    AND coalesce(@extschema@.enrich_flagged(c.service, c.payload), false) AS cleared
                FROM (SELECT %2$s AS raw, %3$s AS held, t.%4$I AS flag FROM %5$s) k
                LEFT JOIN @extschema@.enrichment_indicator i ON i.source = $1 AND i.raw_key = k.raw
                LEFT JOIN @extschema@.enrichment_cache c ON c.service = $2 AND c.cache_key = i.cache_key AND c.response_status = ''success'') r
            HAVING bool_or(r.cleared)', 100 / percent, raw, holds, flag, rows_sql) USING source, one
        LOOP
            RETURN NEXT;
        END LOOP;
    END LOOP;
    flag := NULL;

    IF known.shape = 'passwords' AND 'breached' = ANY (has) AND 'last_hibp_check' = ANY (has) THEN
        cause := 'unfounded_not_breached';
        FOR service, affected, of, example IN EXECUTE format('SELECT ''hibp'', (count(*) FILTER (WHERE r.wrong) * %1$s)::bigint, (count(*) * %1$s)::bigint, min(r.raw) FILTER (WHERE r.wrong)
            FROM (SELECT k.raw, NOT k.breached AND k.checked AND NOT EXISTS (SELECT FROM @extschema@.enrichment_cache c
                    WHERE c.service = ''hibp'' AND c.cache_key = k.raw AND c.response_status = ''success'') AS wrong
                FROM (SELECT %2$s AS raw, t.breached, t.last_hibp_check IS NOT NULL AS checked FROM %3$s) k) r HAVING bool_or(r.wrong)',
            100 / percent, raw, rows_sql)
        LOOP
            RETURN NEXT;
        END LOOP;
        -- a row of padding, seen in breaches no time, that a client took for an answer
        IF 'breach_prevalence' = ANY (has) THEN
            cause := 'unfounded_breached';
            FOR service, affected, of, example IN EXECUTE format('SELECT ''hibp'', (count(*) FILTER (WHERE r.wrong) * %1$s)::bigint, (count(*) * %1$s)::bigint, min(r.raw) FILTER (WHERE r.wrong)
                FROM (SELECT %2$s AS raw, coalesce(t.breached AND t.breach_prevalence <= 0, false) AS wrong FROM %3$s) r HAVING bool_or(r.wrong)',
                100 / percent, raw, rows_sql)
            LOOP
                RETURN NEXT;
            END LOOP;
        END IF;
    END IF;

    at_column := @extschema@.enrichment_time_of(known.relation, known.time_column);
    IF at_column IS NOT NULL THEN
        -- days are those of UTC, whatever the session's time zone
        day := format(CASE (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = known.relation AND a.attname = at_column)
            WHEN 'timestamptz'::regtype THEN '(t.%I AT TIME ZONE ''UTC'')::date' ELSE 't.%I::date' END, at_column);
        service := NULL;
        cause := 'ingestion_gap';
        -- the day from which on hardly a row has a key that was picked up, where before most had
        FOR affected, of, since, example IN EXECUTE format('WITH days AS (
                SELECT %1$s AS day, count(*) AS rows, count(*) FILTER (WHERE i.raw_key IS NULL) AS missed
                FROM %2$s LEFT JOIN @extschema@.enrichment_indicator i ON i.source = $1 AND i.raw_key = %3$s
                WHERE %1$s IS NOT NULL GROUP BY 1),
            cut AS (
                SELECT d.day, sum(d.rows) OVER later AS rows_after, sum(d.missed) OVER later AS missed_after,
                    sum(d.rows) OVER () - sum(d.rows) OVER later AS rows_before, sum(d.missed) OVER () - sum(d.missed) OVER later AS missed_before,
                    sum(d.rows) OVER () AS rows
                FROM days d WINDOW later AS (ORDER BY d.day DESC))
            SELECT (c.missed_after * %4$s)::bigint, (c.rows * %4$s)::bigint, c.day, NULL::text FROM cut c
            WHERE c.missed_after >= 0.95 * c.rows_after AND c.missed_before <= 0.2 * c.rows_before AND c.rows_before > 0
              AND c.missed_after >= 2 AND c.missed_after >= 0.01 * c.rows
            ORDER BY c.missed_after DESC, c.day LIMIT 1', day, rows_sql, raw, 100 / percent) USING source
        LOOP
            example := format('no row since %s has a key that was picked up', since);
            RETURN NEXT;
        END LOOP;
        cause := 'no_new_rows';
        -- by the newest row of an index or of the sample; a table that rests for a season is an archive
        FOR affected, of, since IN EXECUTE format('SELECT NULL::bigint, NULL::bigint, d.last FROM (
                SELECT max(%1$s) AS last, min(%1$s) AS first, count(DISTINCT %1$s) AS days, (now() AT TIME ZONE ''UTC'')::date AS today
                FROM %2$s WHERE isfinite(%1$s)) d
            WHERE d.days >= 7 AND d.last < d.today - 3 AND d.last > d.today - 90
              AND d.today - d.last > 5.0 * (d.last - d.first) / d.days', day, sample_sql)
        LOOP
            example := format('the newest row is of %s', since);
            RETURN NEXT;
        END LOOP;
    END IF;
END $$;

CREATE FUNCTION enrich_diagnose(OUT severity text, OUT cause text, OUT service text, OUT affected bigint, OUT share numeric, OUT example text, OUT hint text)
RETURNS SETOF record LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    links record;
BEGIN
    RETURN QUERY
    WITH counted AS MATERIALIZED (
        SELECT s.name AS source, c.*,
            -- a key is shown to who may read the table
            CASE WHEN has_table_privilege(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, s.relation, 'SELECT') THEN c.example END AS shown
        FROM @extschema@.enrichment_source s CROSS JOIN LATERAL @extschema@.enrichment_count_rows(s.name, 'all', 100000) c
        WHERE c.outcome NOT IN ('ineligible', 'no_key')),
    whole AS (SELECT c.service, sum(c.rows) AS rows, coalesce(sum(c.rows) FILTER (WHERE c.outcome = 'success'), 0) AS answered FROM counted c GROUP BY c.service),
    state AS (
        SELECT s.name AS service, s.enabled, CASE WHEN l.paused_until > now() THEN l.cause END AS pause, coalesce(l.breaker, 'closed') <> 'closed' AS broken, l.changed_at,
            (SELECT max(c.fetched_at) FROM @extschema@.enrichment_cache c
             WHERE c.service = s.name AND c.response_status IN ('success', 'not_found') AND c.api_response_code IS NOT NULL) AS last_answer,
            EXISTS (SELECT FROM @extschema@.enrichment_cache c WHERE c.service = s.name)
                OR EXISTS (SELECT FROM @extschema@.enrichment_queue q WHERE q.service = s.name)
                OR EXISTS (SELECT FROM @extschema@.enrichment_cache_stats d WHERE d.service = s.name AND d.api_calls > 0) AS ever_asked
        FROM @extschema@.enrichment_service s
        LEFT JOIN @extschema@.enrichment_lane l ON l.service = s.name),
    nobody AS MATERIALIZED (SELECT n.* FROM @extschema@.enrichment_nobody_asks() n),
    judged AS (
        SELECT c.service, c.rows, c.shown, CASE
            WHEN c.outcome = 'empty' THEN 'empty_answer'
            WHEN c.outcome IN ('success', 'not_found') AND NOT coalesce(c.expired, false) THEN NULL
            WHEN NOT t.enabled THEN 'service_disabled'
            WHEN t.pause = 'unauthorized' OR c.cause = 'unauthorized' THEN 'bad_key'
            WHEN t.pause = 'no_credential' THEN 'no_credential'
            WHEN t.broken THEN 'service_down'
            -- a request that failed and waits would be tried again by now, were anybody there
            WHEN c.asked OR n.cause = 'no_worker' AND c.outcome <> 'failed' THEN CASE
                WHEN n.cause IS NOT NULL THEN n.cause
                WHEN c.cause IS NULL OR c.cause = 'rate_limited' THEN NULL
                WHEN coalesce(t.last_answer, '-infinity') < now() - interval '1 hour' THEN 'service_down'
                ELSE 'failing_keys' END
            WHEN c.outcome IN ('success', 'not_found') THEN 'expired'
            WHEN c.cause = 'rate_limited' THEN NULL
            WHEN c.outcome = 'failed' THEN CASE WHEN coalesce(t.last_answer, '-infinity') < now() - interval '1 hour' THEN 'service_down' ELSE 'failing_keys' END
            WHEN NOT t.ever_asked THEN 'refresh_never_ran'
            ELSE 'not_asked' END AS cause
        FROM counted c JOIN state t ON t.service = c.service LEFT JOIN nobody n ON true),
    causes AS (SELECT j.service, j.cause, sum(j.rows) AS rows, min(j.shown) AS example FROM judged j WHERE j.cause IS NOT NULL GROUP BY j.service, j.cause),
    looked AS MATERIALIZED (
        SELECT s.name AS source, s.last_error, s.relation, s.eligible, CASE WHEN s.key_expression IS NULL THEN s.key_column END AS key_column, l.*,
            CASE WHEN l.since IS NOT NULL OR has_table_privilege(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, s.relation, 'SELECT') THEN l.example END AS shown
        FROM @extschema@.enrichment_source s CROSS JOIN LATERAL @extschema@.enrichment_look_at_rows(s.name) l),
    findings AS (
        SELECT CASE WHEN c.cause IN ('empty_answer', 'expired', 'failing_keys', 'not_asked', 'service_disabled', 'fetching_off') THEN 'warning' ELSE 'error' END AS severity,
            c.cause, c.service, c.rows::bigint AS affected, round(c.rows / nullif(w.rows, 0), 4) AS share, c.example,
            CASE c.cause
                WHEN 'bad_key' THEN format('The provider refuses the key%s. Give the right one: SELECT enrich_set_secret(%L, ...).',
                    CASE WHEN t.pause = 'unauthorized' THEN ' since ' || to_char(t.changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') ELSE '' END, c.service)
                WHEN 'no_credential' THEN format('The service has no key. Give one: SELECT enrich_set_secret(%L, ...).', c.service)
                WHEN 'service_down' THEN format('No answer since %s. %s; see last_error in enrichment_queue.',
                    coalesce(to_char(t.last_answer AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), 'the beginning'),
                    coalesce('And nobody tries again: ' || n.reason, 'It is tried again by itself'))
                WHEN 'failing_keys' THEN 'The provider answers, but not for these keys; see last_error in enrichment_queue, and enrich_explain().'
                WHEN 'refresh_never_ran' THEN 'Nothing was ever asked. See enrich_health(); then CALL enrich_refresh().'
                WHEN 'not_asked' THEN 'These keys were never asked. A sweep asks for them; CALL enrich_refresh() does it now.'
                WHEN 'no_worker' THEN format('Nobody asks: %s. %s', n.reason, n.hint)
                WHEN 'fetching_off' THEN format('Requests wait and nobody asks: %s. %s', n.reason, n.hint)
                WHEN 'service_disabled' THEN format('UPDATE enrichment_service SET enabled = true WHERE name = %L.', c.service)
                WHEN 'expired' THEN 'Answers have expired and nothing has asked again. Look at enrichment_cache.sweep_interval and enrich_health(); CALL enrich_refresh() asks now.'
                WHEN 'empty_answer' THEN format('What is cached holds nothing and does not count. Remove it, and it is asked again: SELECT enrich_invalidate(service, cache_key, true) FROM enrichment_cache WHERE service = %L AND enrich_is_empty(payload).', c.service)
                END AS hint
        FROM causes c JOIN whole w ON w.service = c.service JOIN state t ON t.service = c.service LEFT JOIN nobody n ON true
        UNION ALL
        SELECT CASE WHEN l.cause IN ('ingestion_gap', 'not_written') THEN 'error' ELSE 'warning' END, l.cause, l.service, l.affected, round(l.affected::numeric / nullif(l.of, 0), 4),
            CASE WHEN l.service IS NULL THEN concat_ws(': ', l.source, l.shown) ELSE l.shown END,
            CASE l.cause
                WHEN 'ingestion_gap' THEN format('Rows of %s come without a key that was picked up. Look at the loader, at the triggers of the table, and at enrich_health().', l.source)
                WHEN 'no_new_rows' THEN 'The table has stopped growing. Look at the loader.'
                WHEN 'not_written' THEN concat_ws(' ', format('These rows of %s have not got the answer that is there.', l.source),
                    (SELECT format('Nobody writes it: %s. %s', n.reason, n.hint) FROM nobody n WHERE n.cause = 'no_worker'),
                    coalesce(rtrim(l.last_error, '.') || '. Mend that; the next sweep has them written again.',
                        'A value that is no JSON object is left alone, a trigger of the table may undo what is written; others the next sweep has written again. See enrich_explain() and enrich_health().'))
                WHEN 'stand_in_key' THEN 'One value that is never sent stands in many rows: a loader may write it where it has none. NULL is what it should write.'
                WHEN 'empty_values' THEN 'These values of another client hold nothing. They do not count as answers and are replaced when the provider has answered.'
                WHEN 'zero_character' THEN 'Casts of these values to jsonb fail. Read them with enrich_safe_jsonb(column::text), or make the column jsonb with it.'
                WHEN 'unfounded_not_breached' THEN 'These passwords are called not breached, but no answer says so. Set breached to NULL or last_hibp_check to NULL and CALL enrich_refresh().'
                WHEN 'unfounded_breached' THEN 'These passwords are called breached and were seen in no breach: a row of padding was taken for an answer. Set breached and last_hibp_check to NULL and CALL enrich_refresh().'
                WHEN 'flag_cleared' THEN format('The answer finds fault, it was written into these rows of %s, and %I is not true: something has cleared it since. It is set again with the next new answer of the key.%s',
                    -- a key that an expression makes is for its owner to write down
                    l.source, l.flag, CASE WHEN l.key_column IS NOT NULL THEN format(' To set it now: UPDATE %s SET %I = true WHERE %I IS NOT TRUE AND enrich_flagged(%L, enrich_get(%L, %I))%s;',
                        l.relation, l.flag, l.flag, l.service, l.service, l.key_column, ' AND (' || l.eligible || ')') END) END
        FROM looked l
        UNION ALL
        SELECT 'error', 'wrong_json_path', p.service, w.answered::bigint, round(w.answered / nullif(w.rows, 0), 4), format('%s reads %s', p.reader, array_to_string(p.path, '.')),
            format('No payload of %s has this path (%s were looked at), so it is always NULL.%s The view enrichment_%s has typed columns.', p.service, p.seen,
                coalesce(' Payloads have ' || p.meant || '.', ''), p.service)
        FROM @extschema@.enrichment_wrong_paths() p LEFT JOIN whole w ON w.service = p.service)
    SELECT f.severity, f.cause, f.service, f.affected, f.share, f.example, f.hint FROM findings f
    ORDER BY f.severity, f.share DESC NULLS LAST, f.cause, f.service, f.example;

    -- links that an earlier back-fill made twice
    FOR links IN
        SELECT DISTINCT c.oid::regclass AS relation FROM pg_class c JOIN pg_class s ON s.relnamespace = c.relnamespace
        JOIN @extschema@.enrichment_source e ON e.relation = s.oid
        WHERE c.relname = 'session_ssh_keys' AND c.relkind IN ('r', 'p') AND pg_table_size(c.oid) < 1000000000
          AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname IN ('session_id', 'ssh_key_id', 'timestamp') AND NOT a.attisdropped) = 3
    LOOP
        EXECUTE format('SELECT sum(d.n) - count(*), round((sum(d.n) - count(*)) / nullif(sum(d.n), 0), 4) FROM (
            SELECT count(*) AS n FROM %s GROUP BY session_id, ssh_key_id, "timestamp") d', links.relation) INTO affected, share;
        IF affected > 0 THEN
            severity := 'warning';
            cause := 'doubled_links';
            service := NULL;
            example := links.relation::text;
            hint := 'A back-fill linked keys twice. Delete the repeats; CALL enrich_ssh_backfill() counts each link once.';
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

COMMENT ON FUNCTION @extschema@.enrichment_json_reads(text) IS
    'The paths of JSON values that a text of SQL reads, and the name each starts at.';
COMMENT ON FUNCTION @extschema@.enrichment_has_secret(text) IS
    'Whether the secret of a service can be found (not the secret).';
COMMENT ON FUNCTION @extschema@.enrichment_payload_paths(text) IS 'Internal: the paths in fifty payloads of a service, four levels deep.';
COMMENT ON FUNCTION @extschema@.enrichment_wrong_paths() IS
    'Views, functions and (for who may see them) statements that read a path which no payload of the service has, of as many as were looked at (20,000 at most), and what may be meant.';
COMMENT ON FUNCTION @extschema@.enrichment_has_path(text, text[], boolean, boolean, bigint) IS
    'Internal: whether one of so many payloads of a service has a path, as received or in the shape cowrieprocessor, and how many were looked at.';
COMMENT ON FUNCTION @extschema@.enrichment_look_at_rows(text) IS 'Internal: what the rows of a source show apart from their keys.';
COMMENT ON FUNCTION @extschema@.enrich_diagnose() IS
    'What keeps the attached tables from being filled: severity (error, warning), cause, service, rows affected, their share of the rows that could be filled (0 to 1), an example, what to do. Nothing: no cause is known. Of large tables about 100,000 rows are read and numbers scaled up.';

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'reader', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY['enrich_diagnose()', 'enrichment_wrong_paths()', 'enrichment_json_reads(text)', 'enrichment_has_secret(text)']) AS o;
