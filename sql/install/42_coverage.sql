-- How much of the user's tables is answered, by keys and by rows, and why the rest is not.
--
-- Called by pg_monitor: views read tables with their owner's rights, functions in them run with the caller's; so expressions
-- are pg_catalog's, and what counts rows of the user's tables is a function that runs as its owner and gives numbers only.

-- What the cache holds, without the payloads.
CREATE VIEW @extschema@.enrichment_cache_state AS
SELECT c.service, c.cache_key, c.response_status, c.expires_at, c.hollow FROM @extschema@.enrichment_cache c;

-- The one word for what has become of a key of a service.
CREATE FUNCTION @extschema@.enrichment_outcome(response_status text, hollow boolean, queue_state text, last_outcome text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN response_status = 'success' THEN CASE WHEN hollow THEN 'empty' ELSE 'success' END
    WHEN response_status = 'not_found' THEN 'not_found'
    WHEN response_status IS NOT NULL OR queue_state = 'dead' OR last_outcome IS NOT NULL THEN 'failed'
    WHEN queue_state IN ('waiting', 'in_flight') THEN 'queued'
    ELSE 'never_asked' END;

-- What has become of each key of each source with each of its services.
CREATE VIEW @extschema@.enrichment_key_outcome AS
SELECT i.source, i.raw_key, i.cache_key, a.service,
    CASE WHEN i.cache_key IS NULL THEN 'ineligible'
        ELSE @extschema@.enrichment_outcome(c.response_status, c.hollow, q.state, q.last_outcome) END AS outcome,
    CASE WHEN i.cache_key IS NOT NULL AND @extschema@.enrichment_outcome(c.response_status, c.hollow, q.state, q.last_outcome) = 'failed'
        THEN coalesce(q.last_outcome, c.response_status, 'error') END AS cause,
    c.expires_at, q.state AS queue_state, q.last_outcome, q.rank
FROM @extschema@.enrichment_indicator i
JOIN @extschema@.enrichment_source s ON s.name = i.source
CROSS JOIN LATERAL (SELECT DISTINCT u.service FROM pg_catalog.unnest(s.services) AS u (service)) a
LEFT JOIN @extschema@.enrichment_cache_state c ON c.service = a.service AND c.cache_key = i.cache_key
LEFT JOIN @extschema@.enrichment_queue q ON q.service = a.service AND q.cache_key = i.cache_key;

-- The column of a table that says when a row happened (the source's own, if it is still there), and the one that says which
-- sensor saw it; NULL: there is none. Only types of the server's own: others would be read with our rights.
CREATE FUNCTION enrichment_time_of(relation regclass, named name) RETURNS name LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN (SELECT a.attname FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
      AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
      AND (a.attname = named OR a.attname IN ('last_event_at', 'last_seen', 'first_seen', 'first_event_at', 'created_at'))
    ORDER BY a.attname = named DESC NULLS LAST,
        array_position('{last_event_at,last_seen,first_seen,first_event_at,created_at}', a.attname::text) LIMIT 1);

CREATE FUNCTION enrichment_sensor_column(relation regclass) RETURNS name LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN (SELECT a.attname FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
      AND a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'uuid'::regtype, 'inet'::regtype, 'int4'::regtype, 'int8'::regtype)
      AND a.attname IN ('sensor', 'sensor_name', 'sensor_id', 'sensor_uuid')
    ORDER BY array_position('{sensor,sensor_name,sensor_id,sensor_uuid}', a.attname::text) LIMIT 1);

-- The percentage of a table to read so that about this many rows are: 100 for all of a table that has not twice as many.
CREATE FUNCTION enrichment_sample_percent(relation regclass, wanted bigint) RETURNS double precision LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT CASE WHEN wanted IS NULL OR t.rows <= 2 * wanted THEN 100 ELSE greatest(100.0 * wanted / t.rows, 0.0001) END
    FROM (SELECT coalesce(sum(CASE WHEN c.reltuples > 0 THEN c.reltuples ELSE pg_relation_size(c.oid) / 200 END), 0)::double precision AS rows
        FROM pg_class c WHERE c.relkind = 'r' AND (c.oid = relation OR c.oid IN (SELECT p.relid FROM pg_partition_tree(relation) p))) t);

-- The rows of an attached table by what has become of their keys; `by` is all, week or sensor. `wanted` NULL reads every
-- row; else about so many, and `rows` is scaled up to the whole. `expired`: more than an hour ago, which a sweep has had time
-- to see; `cause` is then why the latest try to refill it failed. `asked`: a request waits or is under way. Where the user wrote an expression or a condition, it is
-- evaluated as the table's owner by enrichment_tally_rows, never here (docs/adr/0023).
CREATE FUNCTION enrichment_count_rows(source text, by text, wanted bigint,
    OUT bucket text, OUT service text, OUT outcome text, OUT cause text, OUT expired boolean, OUT asked boolean, OUT rows bigint, OUT example text)
RETURNS SETOF record LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known  @extschema@.enrichment_source;
    chosen name;
    bucket_sql text;
    key_type oid;
    percent double precision;
BEGIN
    SELECT s.* INTO known FROM @extschema@.enrichment_source s WHERE s.name = source;
    SELECT a.atttypid INTO key_type FROM pg_attribute a
    WHERE a.attrelid = known.relation AND a.attname = known.key_column AND a.attnum > 0 AND NOT a.attisdropped;
    IF known.key_expression IS NOT NULL THEN
        key_type := known.key_type;
    END IF;
    -- a table that is gone or was changed: enrich_health() says so
    IF key_type IS NULL OR key_type NOT IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'inet'::regtype, 'cidr'::regtype) THEN
        RETURN;
    END IF;
    chosen := CASE by WHEN 'week' THEN @extschema@.enrichment_time_of(known.relation, known.time_column)
        WHEN 'sensor' THEN @extschema@.enrichment_sensor_column(known.relation) END;
    IF by <> 'all' AND chosen IS NULL THEN
        RETURN;
    END IF;
    -- weeks begin on Monday in UTC, whatever the session's time zone
    bucket_sql := CASE by WHEN 'all' THEN 'NULL::text' WHEN 'sensor' THEN format('t.%s::text', quote_ident(chosen))
        ELSE format('date_trunc(''week'', t.%s%s)::date::text', quote_ident(chosen), CASE (SELECT a.atttypid FROM pg_attribute a
            WHERE a.attrelid = known.relation AND a.attname = chosen) WHEN 'timestamptz'::regtype THEN ' AT TIME ZONE ''UTC''' ELSE '::timestamp' END) END;
    percent := @extschema@.enrichment_sample_percent(known.relation, wanted);
    IF known.key_expression IS NOT NULL OR known.eligible IS NOT NULL THEN
        RETURN QUERY SELECT c.bucket, c.service, c.outcome, c.cause, c.expired, c.asked, (c.rows * (100 / percent))::bigint, c.example
        FROM @extschema@.enrichment_tally_rows(source, bucket_sql, percent) c;
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format('WITH r AS MATERIALIZED (
            SELECT %1$s AS raw, %2$s AS bucket, count(*) AS rows FROM %3$s t %4$s GROUP BY 1, 2),
        o AS (SELECT k.raw_key, k.service, k.outcome, k.expires_at <= now() - interval ''1 hour'' AS expired,
                coalesce(k.cause, CASE WHEN k.expires_at <= now() - interval ''1 hour'' THEN k.last_outcome END) AS cause,
                coalesce(k.queue_state IN (''waiting'', ''in_flight''), false) AS asked
            FROM @extschema@.enrichment_key_outcome k WHERE k.source = $1)
        SELECT r.bucket, a.service, coalesce(o.outcome, CASE WHEN r.raw IS NULL THEN ''no_key'' ELSE ''unknown'' END), o.cause,
            o.expired, coalesce(o.asked, false), (sum(r.rows) * %5$s)::bigint, min(r.raw)
        FROM r CROSS JOIN (SELECT DISTINCT u FROM unnest($2) u) a (service)
        LEFT JOIN o ON o.raw_key = r.raw AND o.service = a.service
        GROUP BY 1, 2, 3, 4, 5, 6',
        CASE known.shape WHEN 'passwords' THEN format('@extschema@.enrich_hibp_prefix(t.%I::text)', known.key_column)
            ELSE format('t.%I::text', known.key_column) END,
        bucket_sql, known.relation,
        CASE WHEN percent < 100 THEN format('TABLESAMPLE SYSTEM (%s) REPEATABLE (1)', percent) ELSE '' END, 100 / percent)
        USING source, known.services;
END $$;

CREATE FUNCTION enrichment_coverage_by(by text,
    OUT source text, OUT service text, OUT bucket text, OUT rows bigint, OUT eligible bigint, OUT answered bigint, OUT success bigint,
    OUT not_found bigint, OUT empty bigint, OUT failed bigint, OUT queued bigint, OUT never_asked bigint, OUT ineligible bigint,
    OUT percent numeric, OUT failed_by_cause jsonb)
RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER ROWS 200 SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.source, t.service, t.bucket, t.rows, t.rows - t.ineligible, t.success + t.not_found, t.success, t.not_found, t.empty, t.failed,
        t.queued, t.never_asked, t.ineligible,
        trunc((t.success + t.not_found)::numeric * 100 / nullif(t.rows - t.ineligible, 0), 2)::numeric(5, 2), coalesce(t.failed_by_cause, '{}')
    FROM (SELECT c.source, c.service, c.bucket, sum(c.rows)::bigint AS rows,
            jsonb_object_agg(coalesce(c.cause, 'error'), c.rows) FILTER (WHERE c.outcome = 'failed') AS failed_by_cause,
            coalesce(sum(c.rows) FILTER (WHERE c.outcome = 'success'), 0)::bigint AS success,
            coalesce(sum(c.rows) FILTER (WHERE c.outcome = 'not_found'), 0)::bigint AS not_found,
            coalesce(sum(c.rows) FILTER (WHERE c.outcome = 'empty'), 0)::bigint AS empty,
            coalesce(sum(c.rows) FILTER (WHERE c.outcome = 'failed'), 0)::bigint AS failed,
            coalesce(sum(c.rows) FILTER (WHERE c.outcome = 'queued'), 0)::bigint AS queued,
            coalesce(sum(c.rows) FILTER (WHERE c.outcome IN ('never_asked', 'unknown')), 0)::bigint AS never_asked,
            coalesce(sum(c.rows) FILTER (WHERE c.outcome IN ('ineligible', 'no_key')), 0)::bigint AS ineligible
        FROM (SELECT s.name AS source, c.service, c.bucket, c.outcome, CASE WHEN c.outcome = 'failed' THEN c.cause END AS cause, sum(c.rows) AS rows
            FROM @extschema@.enrichment_source s
            CROSS JOIN LATERAL @extschema@.enrichment_count_rows(s.name, $1, NULL) c
            GROUP BY 1, 2, 3, 4, 5) c
        GROUP BY c.source, c.service, c.bucket) t
$$;

-- The columns about rows read the user's tables, once a source, and only where one of them is asked for.
CREATE VIEW @extschema@.enrichment_coverage AS
WITH by_rows AS MATERIALIZED (SELECT * FROM @extschema@.enrichment_coverage_by('all')),
keys AS (
    -- a key may stand in the table in several spellings
    SELECT i.source, i.cache_key FROM @extschema@.enrichment_indicator i
    WHERE i.cache_key IS NOT NULL GROUP BY i.source, i.cache_key),
tally AS MATERIALIZED (
    SELECT o.source, o.service, o.outcome, o.cause, pg_catalog.count(*) AS keys
    FROM (
        SELECT k.source, a.service, @extschema@.enrichment_outcome(c.response_status, c.hollow, q.state, q.last_outcome) AS outcome,
            CASE WHEN @extschema@.enrichment_outcome(c.response_status, c.hollow, q.state, q.last_outcome) = 'failed'
                THEN coalesce(q.last_outcome, c.response_status, 'error') END AS cause
        FROM keys k
        JOIN @extschema@.enrichment_source s ON s.name = k.source
        CROSS JOIN LATERAL (SELECT DISTINCT u.service FROM pg_catalog.unnest(s.services) AS u (service)) a
        LEFT JOIN @extschema@.enrichment_cache_state c ON c.service = a.service AND c.cache_key = k.cache_key
        LEFT JOIN @extschema@.enrichment_queue q ON q.service = a.service AND q.cache_key = k.cache_key) o
    GROUP BY o.source, o.service, o.outcome, o.cause),
causes AS (
    SELECT c.source, c.service, pg_catalog.jsonb_object_agg(c.cause, c.keys) AS failed_by_cause
    FROM tally c WHERE c.outcome = 'failed' GROUP BY c.source, c.service),
-- what is to be written is found by its mark, which hardly a key has
unwritten AS MATERIALIZED (
    SELECT i.source, c.service, pg_catalog.sum(i.row_count)::bigint AS rows
    FROM @extschema@.enrichment_indicator i
    JOIN @extschema@.enrichment_source s ON s.name = i.source AND s.shape <> 'none'
    CROSS JOIN LATERAL (SELECT DISTINCT u.service FROM pg_catalog.unnest(s.services) AS u (service)) a
    JOIN @extschema@.enrichment_cache_state c ON c.service = a.service AND c.cache_key = i.cache_key
    WHERE i.dirty AND c.response_status IN ('success', 'not_found') GROUP BY i.source, c.service),
ineligible AS (
    SELECT i.source, pg_catalog.count(*) AS keys FROM @extschema@.enrichment_indicator i
    WHERE i.cache_key IS NULL GROUP BY i.source),
counted AS (
    SELECT s.name AS source, a.service,
        coalesce(pg_catalog.sum(k.keys), 0::numeric)::bigint AS eligible,
        coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome = 'success'), 0::numeric)::bigint AS success,
        coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome = 'not_found'), 0::numeric)::bigint AS not_found,
        coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome = 'empty'), 0::numeric)::bigint AS empty,
        coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome = 'failed'), 0::numeric)::bigint AS failed,
        coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome = 'queued'), 0::numeric)::bigint AS queued,
        coalesce(pg_catalog.sum(k.keys) FILTER (WHERE k.outcome = 'never_asked'), 0::numeric)::bigint AS never_asked
    FROM @extschema@.enrichment_source s
    CROSS JOIN LATERAL (SELECT DISTINCT u.service FROM pg_catalog.unnest(s.services) AS u (service)) a
    LEFT JOIN tally k ON k.source = s.name AND k.service = a.service
    GROUP BY s.name, a.service)
SELECT t.source, t.service,
    t.eligible + coalesce(i.keys, 0::bigint) AS total,
    t.eligible,
    t.success + t.not_found AS answered,
    t.success, t.not_found, t.failed, t.queued, t.never_asked,
    coalesce(i.keys, 0::bigint) AS ineligible,
    -- rounded down: 100 means all
    pg_catalog.trunc((t.success + t.not_found)::numeric * 100::numeric / nullif(t.eligible, 0::bigint)::numeric, 2)::numeric(5, 2) AS percent,
    t.empty,
    coalesce((SELECT c.failed_by_cause FROM causes c WHERE c.source = t.source AND c.service = t.service), '{}') AS failed_by_cause,
    (SELECT r.rows FROM by_rows r WHERE r.source = t.source AND r.service = t.service) AS rows,
    (SELECT r.eligible FROM by_rows r WHERE r.source = t.source AND r.service = t.service) AS rows_eligible,
    (SELECT r.answered FROM by_rows r WHERE r.source = t.source AND r.service = t.service) AS rows_answered,
    (SELECT r.percent FROM by_rows r WHERE r.source = t.source AND r.service = t.service) AS rows_percent,
    coalesce((SELECT w.rows FROM unwritten w WHERE w.source = t.source AND w.service = t.service), 0::bigint) AS rows_to_write
FROM counted t LEFT JOIN ineligible i ON i.source = t.source;

CREATE VIEW @extschema@.enrichment_coverage_weekly AS
SELECT c.source, c.service, c.bucket::date AS week, c.rows, c.eligible, c.answered, c.success, c.not_found, c.empty, c.failed, c.queued,
    c.never_asked, c.ineligible, c.percent, c.failed_by_cause
FROM @extschema@.enrichment_coverage_by('week') AS c;

CREATE VIEW @extschema@.enrichment_coverage_by_sensor AS
SELECT c.source, c.service, c.bucket AS sensor, c.rows, c.eligible, c.answered, c.success, c.not_found, c.empty, c.failed, c.queued,
    c.never_asked, c.ineligible, c.percent, c.failed_by_cause
FROM @extschema@.enrichment_coverage_by('sensor') AS c;

COMMENT ON FUNCTION @extschema@.enrich_is_empty(jsonb) IS
    'Whether a payload holds nothing: null, "", {}, [], or only such values inside. Stored as an answer it is none.';
COMMENT ON FUNCTION @extschema@.enrichment_outcome(text, boolean, text, text) IS
    'Internal: the word for what has become of a key: success, not_found, empty, failed, queued, never_asked.';
COMMENT ON VIEW @extschema@.enrichment_cache_state IS
    'Internal: what the cache holds, without the payloads.';
COMMENT ON COLUMN @extschema@.enrichment_cache_state.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_cache_state.cache_key IS 'The key in its normal form.';
COMMENT ON COLUMN @extschema@.enrichment_cache_state.response_status IS 'enrichment_cache.response_status.';
COMMENT ON COLUMN @extschema@.enrichment_cache_state.expires_at IS 'enrichment_cache.expires_at.';
COMMENT ON COLUMN @extschema@.enrichment_cache_state.hollow IS 'The payload holds nothing (enrich_is_empty), or is a hash range of padding only.';
COMMENT ON VIEW @extschema@.enrichment_key_outcome IS
    'What has become of each key of each attached table with each of its services: the base of coverage and diagnosis.';
COMMENT ON COLUMN @extschema@.enrichment_key_outcome.source IS 'enrichment_source.name.';
COMMENT ON COLUMN @extschema@.enrichment_key_outcome.raw_key IS 'The key as it stands in the table; of a password its prefix.';
COMMENT ON COLUMN @extschema@.enrichment_key_outcome.cache_key IS 'Its normal form. NULL: it is no key, or never sent anywhere.';
COMMENT ON COLUMN @extschema@.enrichment_key_outcome.service IS 'One of the services of the source.';
COMMENT ON COLUMN @extschema@.enrichment_key_outcome.outcome IS 'success, not_found, empty (a payload that holds nothing), failed, queued (not tried yet), never_asked, ineligible.';
COMMENT ON COLUMN @extschema@.enrichment_key_outcome.cause IS 'Of what failed: the last outcome, such as error, rate_limited, unauthorized, invalid. NULL: it did not fail.';
COMMENT ON COLUMN @extschema@.enrichment_key_outcome.expires_at IS 'Until when the cached row is fresh. NULL: there is none.';
COMMENT ON COLUMN @extschema@.enrichment_key_outcome.queue_state IS 'State of its request. NULL: none waits.';
COMMENT ON COLUMN @extschema@.enrichment_key_outcome.last_outcome IS 'How the last attempt of that request ended. NULL: none was made.';
COMMENT ON COLUMN @extschema@.enrichment_key_outcome.rank IS 'Rank of that request in the queue. NULL: none waits.';
COMMENT ON FUNCTION @extschema@.enrichment_tally_rows(text, text, double precision) IS
    'Internal: rows of a source with an expression or a condition by what has become of their keys; both are evaluated as the table''s owner.';
COMMENT ON FUNCTION @extschema@.enrichment_row_keys(text, double precision) IS
    'Internal: where the rows of a sample stand that the source''s condition lets in, and their keys, evaluated as the table''s owner.';
COMMENT ON FUNCTION @extschema@.enrichment_time_of(regclass, name) IS
    'The column that says when a row happened: the named one, else last_event_at, last_seen, first_seen, first_event_at or created_at. NULL: there is none.';
COMMENT ON FUNCTION @extschema@.enrichment_sensor_column(regclass) IS
    'The column that says which sensor saw a row: sensor, sensor_name, sensor_id or sensor_uuid. NULL: there is none.';
COMMENT ON FUNCTION @extschema@.enrichment_sample_percent(regclass, bigint) IS
    'Internal: the percentage of a table to read for about so many rows.';
COMMENT ON FUNCTION @extschema@.enrichment_count_rows(text, text, bigint) IS
    'Internal: rows of an attached table by what has become of their keys. outcome is also no_key (NULL in the row) or unknown (not picked up yet).';
COMMENT ON FUNCTION @extschema@.enrichment_coverage_by(text) IS
    'Internal: coverage by rows of the attached tables, of all rows, by week or by sensor.';
COMMENT ON VIEW @extschema@.enrichment_coverage IS
    'How much of each attached table each service has answered, counted in distinct keys and in rows. What holds nothing is not an answer.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.source IS 'enrichment_source.name.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.service IS 'One of its services.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.total IS 'Distinct keys seen, eligible or not.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.eligible IS 'Keys that can be asked about.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.answered IS 'success and not_found, fresh or expired.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.success IS 'The provider knows something.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.not_found IS 'The provider was asked and knows nothing.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.failed IS 'No answer, and the last attempt failed; some of them wait for the next one.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.queued IS 'Waiting for the first attempt, or in it.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.never_asked IS 'Neither answered nor requested; also keys of a kind this service does not take.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.ineligible IS 'Values that are no key, or never sent anywhere (private addresses).';
COMMENT ON COLUMN @extschema@.enrichment_coverage.percent IS 'answered of eligible, rounded down: 100 means all. NULL: there is no eligible key.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.empty IS 'A payload is cached that holds nothing ({}, null, "", the empty values of older clients): no answer.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.failed_by_cause IS 'Object of causes and keys: how failed is made up.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.rows IS 'Rows of the table. NULL: it cannot be read, or an expression of the source fails (enrich_health says which). This and the columns behind it read the whole table, where they are asked for.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.rows_eligible IS 'Rows that the source''s condition lets in and whose key can be asked about, or is not judged yet.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.rows_answered IS 'Rows whose key is answered.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.rows_percent IS 'rows_answered of rows_eligible, rounded down.';
COMMENT ON COLUMN @extschema@.enrichment_coverage.rows_to_write IS 'Rows whose key is answered and whose turn to be written has not come, as many as triggers and sweeps have counted. What a row has refused is not among them: enrich_diagnose tells of it.';

DO $comments$
DECLARE
    described record;
    view      text;
BEGIN
    FOREACH view IN ARRAY '{enrichment_coverage_weekly,enrichment_coverage_by_sensor}'::text[] LOOP
        FOR described IN SELECT * FROM (VALUES
            ('source', 'enrichment_source.name.'), ('service', 'One of its services.'), ('rows', 'Rows of the table.'),
            ('eligible', 'Rows whose key can be asked about, or is not judged yet.'), ('answered', 'success and not_found, fresh or expired.'),
            ('success', 'The provider knows something.'), ('not_found', 'The provider was asked and knows nothing.'),
            ('empty', 'What is cached holds nothing.'), ('failed', 'No answer, and the last attempt failed.'),
            ('queued', 'Waiting for the first attempt, or in it.'), ('never_asked', 'Neither answered nor requested.'),
            ('ineligible', 'Left out by the source''s condition, without a key, with a value that is none, or one that is never sent anywhere.'),
            ('percent', 'answered of eligible, rounded down. NULL: no row is eligible.'),
            ('failed_by_cause', 'Object of causes and rows: how failed is made up.')) AS v (name, says)
        LOOP
            EXECUTE pg_catalog.format('COMMENT ON COLUMN @extschema@.%I.%I IS %L', view, described.name, described.says);
        END LOOP;
    END LOOP;
END
$comments$;
COMMENT ON VIEW @extschema@.enrichment_coverage_weekly IS
    'Coverage of each attached table with a time column, by week, in rows. It reads the whole table.';
COMMENT ON COLUMN @extschema@.enrichment_coverage_weekly.week IS 'The Monday, by the source''s time_column, else last_event_at, last_seen, first_seen, first_event_at or created_at, the first of them there is. NULL: rows without a time.';
COMMENT ON VIEW @extschema@.enrichment_coverage_by_sensor IS
    'Coverage of each attached table with a column sensor, sensor_name, sensor_id or sensor_uuid, by its value, in rows. It reads the whole table.';
COMMENT ON COLUMN @extschema@.enrichment_coverage_by_sensor.sensor IS 'Value of that column.';

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT l, 'SELECT', o FROM pg_catalog.unnest(ARRAY['reader', 'monitor']) AS l,
    pg_catalog.unnest(ARRAY['enrichment_coverage', 'enrichment_coverage_weekly', 'enrichment_coverage_by_sensor']) AS o;
INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT l, 'EXECUTE', o FROM pg_catalog.unnest(ARRAY['reader', 'monitor']) AS l,
    pg_catalog.unnest(ARRAY['enrichment_coverage_by(text)', 'enrichment_outcome(text, boolean, text, text)']) AS o;
INSERT INTO @extschema@.enrichment_privilege (level, action, object)
VALUES ('reader', 'EXECUTE', 'enrich_is_empty(jsonb)'), ('reader', 'SELECT', 'enrichment_key_outcome'),
    ('reader', 'SELECT', 'enrichment_cache_state');
