-- When what waits will have been asked, and when 50, 90 and 100 % of the rows are covered.

-- When so many calls of a service will have been made: for each limit the rest of the current window, then whole windows; the
-- latest of them binds. How many calls run at once binds too, by the latency seen. NULL: never, or nothing limits.
CREATE FUNCTION enrichment_done_after(service text, calls bigint, OUT binding_limit text, OUT calls_per_hour numeric, OUT done timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH registered AS (
        SELECT s.name AS service, s.limits, s.max_in_flight, greatest(now(), l.paused_until) AS start
        FROM @extschema@.enrichment_service s
        LEFT JOIN @extschema@.enrichment_lane l ON l.service = s.name
        WHERE s.name = $1),
    windows AS (
        SELECT j.max, j.per, p.start,
            CASE j.per WHEN 'second' THEN 1 WHEN 'minute' THEN 60 WHEN 'hour' THEN 3600 WHEN 'day' THEN 86400 ELSE 2629746 END::numeric AS seconds,
            date_trunc(j.per, p.start AT TIME ZONE 'UTC') AS opens,
            -- whole windows needed after the one that is open at the start
            ceil(greatest($2 - greatest(j.max - coalesce(q.spent, 0), 0), 0)::numeric / nullif(j.max, 0)) AS more
        FROM registered p
        CROSS JOIN LATERAL jsonb_to_recordset(p.limits) AS j (max bigint, per text)
        LEFT JOIN LATERAL (
            SELECT max(greatest(x.spent, x.spent_by_all)) AS spent FROM @extschema@.enrichment_quota x
            WHERE x.service = p.service AND x.per = j.per
                AND x.window_start = date_trunc(j.per, p.start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') q ON true),
    bounds AS (
        SELECT concat(w.max, '/', w.per) AS name, w.max * 3600 / w.seconds AS calls_per_hour,
            CASE WHEN w.more = 0 THEN w.start
                -- past the year 9999 is never
                WHEN w.more * w.seconds > 250000000000 THEN NULL
                WHEN w.per = 'month' THEN (w.opens + make_interval(months => w.more::int)) AT TIME ZONE 'UTC'
                ELSE (w.opens + make_interval(secs => (w.more * w.seconds)::double precision)) AT TIME ZONE 'UTC' END AS done
        FROM windows w
        UNION ALL
        SELECT concat(p.max_in_flight, ' at once'), p.max_in_flight * 3600000 / t.latency,
            CASE WHEN $2 * t.latency <= 250000000000000
                THEN p.start + make_interval(secs => ($2 * t.latency / (p.max_in_flight * 1000))::double precision) END
        FROM registered p
        JOIN LATERAL (
            SELECT greatest(d.avg_api_latency_ms, 1)::numeric AS latency FROM @extschema@.enrichment_cache_stats d
            WHERE d.service = p.service AND d.avg_api_latency_ms < 1e9
            ORDER BY d.day DESC LIMIT 1) t ON true)
    SELECT b.name, b.calls_per_hour, b.done FROM bounds b ORDER BY b.done DESC NULLS FIRST, b.calls_per_hour, b.name LIMIT 1
$$;

-- For each service the rows of all attached tables that can be covered, how many are, and after how many calls a share of
-- them is. The queue is taken as it works: by rank (priority and age); among equal ones those of which most rows wait.
-- Each call is assumed to bring an answer. NULL: what is queued does not suffice.
-- Rows of a source with an expression or a condition are those its triggers and sweeps have counted (row_count): nothing a
-- user wrote is evaluated here, and the table is not read.
CREATE FUNCTION enrichment_rows_ahead(OUT service text, OUT rows bigint, OUT covered bigint, OUT calls_50 bigint, OUT calls_90 bigint, OUT calls_100 bigint)
RETURNS SETOF record LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 5 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known   record;
    parts   text[] := '{}';
BEGIN
    FOR known IN
        SELECT s.name FROM @extschema@.enrichment_source s
        WHERE (s.key_expression IS NOT NULL OR s.eligible IS NOT NULL) AND EXISTS (SELECT FROM pg_class c WHERE c.oid = s.relation)
    LOOP
        parts := parts || format('SELECT i.source::text COLLATE "default" AS source, i.raw_key::text COLLATE "default" AS raw, i.row_count AS rows
            FROM @extschema@.enrichment_indicator i WHERE i.source = %L', known.name);
    END LOOP;
    FOR known IN
        SELECT s.name, s.relation, s.key_column, s.shape FROM @extschema@.enrichment_source s
        JOIN pg_attribute a ON a.attrelid = s.relation AND a.attname = s.key_column AND a.attnum > 0 AND NOT a.attisdropped
            AND a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'inet'::regtype, 'cidr'::regtype)
        WHERE s.eligible IS NULL
    LOOP
        parts := parts || format('SELECT %L::text AS source, %s AS raw, count(*) AS rows FROM %s t WHERE t.%I IS NOT NULL GROUP BY 2', known.name,
            CASE known.shape WHEN 'passwords' THEN format('@extschema@.enrich_hibp_prefix(t.%I::text)', known.key_column)
                ELSE format('t.%I::text', known.key_column) END, known.relation, known.key_column);
    END LOOP;
    IF parts = '{}' THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format('WITH r AS (%s),
        keys AS (
            SELECT a.service, o.cache_key, sum(r.rows) AS rows,
                bool_or(o.outcome IN (''success'', ''not_found'')) AS covered,
                bool_or(coalesce(o.queue_state, ''dead'') <> ''dead'' OR o.queue_state = ''in_flight'') AS queued, max(o.rank) AS rank
            FROM r JOIN @extschema@.enrichment_source s ON s.name = r.source
            CROSS JOIN LATERAL (SELECT DISTINCT u FROM unnest(s.services) u) a (service)
            LEFT JOIN @extschema@.enrichment_key_outcome o ON o.source = r.source AND o.raw_key = r.raw AND o.service = a.service
            WHERE o.outcome IS DISTINCT FROM ''ineligible''
            GROUP BY a.service, o.cache_key, CASE WHEN o.cache_key IS NULL THEN r.raw END),
        ahead AS (
            -- what is covered already comes without a call
            SELECT k.service, k.rows, k.covered,
                sum(k.rows) OVER w AS so_far, count(*) FILTER (WHERE NOT k.covered) OVER w AS calls, sum(k.rows) OVER (PARTITION BY k.service) AS all_rows,
                k.covered OR k.queued AS comes
            FROM keys k
            WINDOW w AS (PARTITION BY k.service ORDER BY k.covered DESC NULLS LAST, k.queued DESC NULLS LAST, k.rank DESC NULLS LAST, k.rows DESC, k.cache_key
                ROWS UNBOUNDED PRECEDING))
        SELECT h.service, max(h.all_rows)::bigint, coalesce(sum(h.rows) FILTER (WHERE h.covered), 0)::bigint,
            min(h.calls) FILTER (WHERE h.comes AND h.so_far >= 0.5 * h.all_rows), min(h.calls) FILTER (WHERE h.comes AND h.so_far >= 0.9 * h.all_rows),
            min(h.calls) FILTER (WHERE h.comes AND h.so_far >= h.all_rows)
        FROM ahead h GROUP BY h.service', array_to_string(parts, ' UNION ALL '));
END $$;

CREATE VIEW @extschema@.enrichment_eta AS
WITH ahead AS MATERIALIZED (SELECT * FROM @extschema@.enrichment_rows_ahead())
SELECT s.name AS service, coalesce(q.pending, 0::bigint) AS pending, b.binding_limit, pg_catalog.round(b.calls_per_hour, 2) AS calls_per_hour,
    CASE WHEN q.pending > 0::bigint AND s.enabled AND pg_catalog.isfinite(b.done) THEN greatest(b.done, q.last_attempt_at) END AS eta,
    (SELECT a.rows FROM ahead a WHERE a.service = s.name) AS rows,
    (SELECT a.covered FROM ahead a WHERE a.service = s.name) AS rows_covered,
    (SELECT CASE WHEN a.calls_50 = 0::bigint THEN pg_catalog.now() WHEN s.enabled AND pg_catalog.isfinite(d.done) THEN d.done END
        FROM ahead a, @extschema@.enrichment_done_after(s.name, a.calls_50) AS d WHERE a.service = s.name AND a.calls_50 IS NOT NULL) AS eta_50,
    (SELECT CASE WHEN a.calls_90 = 0::bigint THEN pg_catalog.now() WHEN s.enabled AND pg_catalog.isfinite(d.done) THEN d.done END
        FROM ahead a, @extschema@.enrichment_done_after(s.name, a.calls_90) AS d WHERE a.service = s.name AND a.calls_90 IS NOT NULL) AS eta_90,
    (SELECT CASE WHEN a.calls_100 = 0::bigint THEN pg_catalog.now() WHEN s.enabled AND pg_catalog.isfinite(d.done) THEN d.done END
        FROM ahead a, @extschema@.enrichment_done_after(s.name, a.calls_100) AS d WHERE a.service = s.name AND a.calls_100 IS NOT NULL) AS eta_100
FROM @extschema@.enrichment_service s
LEFT JOIN (
    SELECT r.service, pg_catalog.count(*) AS pending,
        pg_catalog.count(*) FILTER (WHERE r.state = 'waiting') AS waiting,
        pg_catalog.max(r.next_attempt_at) FILTER (WHERE r.state = 'waiting') AS last_attempt_at
    FROM @extschema@.enrichment_queue r WHERE r.state <> 'dead' GROUP BY r.service) q ON q.service = s.name
LEFT JOIN LATERAL @extschema@.enrichment_done_after(s.name, coalesce(q.waiting, 0::bigint)) AS b ON true;

COMMENT ON FUNCTION @extschema@.enrichment_done_after(text, bigint) IS
    'When so many more calls of a service will have been made, and which limit decides. done NULL: never, or no limit and no latency is known.';
COMMENT ON FUNCTION @extschema@.enrichment_rows_ahead() IS
    'Internal: for each service the rows of the attached tables, how many are covered, and after how many calls 50, 90 and 100 % are.';
COMMENT ON VIEW @extschema@.enrichment_eta IS
    'When what waits now will have been asked, by each service''s limits, the spend so far, and the latency seen; and when a share of the rows is covered.';
COMMENT ON COLUMN @extschema@.enrichment_eta.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_eta.pending IS 'Requests waiting or in flight.';
COMMENT ON COLUMN @extschema@.enrichment_eta.binding_limit IS 'The limit that decides, such as 500/day; "n at once" when latency decides. NULL: nothing limits.';
COMMENT ON COLUMN @extschema@.enrichment_eta.calls_per_hour IS 'Calls an hour that limit allows in the long run.';
COMMENT ON COLUMN @extschema@.enrichment_eta.eta IS 'Forecast of the end of the queue. NULL: nothing waits, the service is disabled or paused without end, or no forecast is possible.';
COMMENT ON COLUMN @extschema@.enrichment_eta.rows IS 'Rows of the attached tables that this service can cover; NULL: none. This and the columns behind it read the tables, where they are asked for; of a source with an expression or a condition, the rows its last sweep and the triggers since counted.';
COMMENT ON COLUMN @extschema@.enrichment_eta.rows_covered IS 'Rows whose key is answered.';
COMMENT ON COLUMN @extschema@.enrichment_eta.eta_50 IS 'When half of the rows are covered, if each call brings an answer: in the order of the queue, then the keys of most rows. Now: they are already. NULL: what is queued does not suffice, or as for eta.';
COMMENT ON COLUMN @extschema@.enrichment_eta.eta_90 IS 'The same for 90 %.';
COMMENT ON COLUMN @extschema@.enrichment_eta.eta_100 IS 'The same for all of them.';

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT l, 'SELECT', 'enrichment_eta' FROM pg_catalog.unnest(ARRAY['reader', 'monitor']) AS l;
INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT l, 'EXECUTE', o FROM pg_catalog.unnest(ARRAY['reader', 'monitor']) AS l,
    pg_catalog.unnest(ARRAY['enrichment_done_after(text, bigint)', 'enrichment_rows_ahead()']) AS o;
