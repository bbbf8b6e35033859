-- Functions that are SQL by nature: attaching tables, their triggers, refresh, explanation, health, grants.

ALTER FUNCTION enrich_get_many(text, text[]) ROWS 100;
ALTER FUNCTION enrich_lookup(text, text) ROWS 1;
ALTER FUNCTION enrich_password(text) ROWS 1;
ALTER FUNCTION enrich_worker_states() ROWS 10;
ALTER FUNCTION enrich_live_lookups() ROWS 10;

-- The registry -------------------------------------------------------------------------------------------------

CREATE FUNCTION enrichment_registry_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM @extschema@.enrich_registry_changed(TG_RELID);
    RETURN NULL;
END $$;

CREATE TRIGGER enrichment_registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON enrichment_service
    FOR EACH STATEMENT EXECUTE FUNCTION enrichment_registry_changed();

CREATE FUNCTION enrichment_take_over_builtin() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- a row restored from a dump replaces the untouched one that CREATE EXTENSION has just made
    IF TG_OP = 'INSERT' THEN
        DELETE FROM @extschema@.enrichment_service s WHERE s.name = NEW.name AND s.builtin;
    END IF;
    NEW.builtin := false;
    RETURN NEW;
END $$;

CREATE TRIGGER enrichment_take_over_builtin BEFORE INSERT OR UPDATE ON enrichment_service
    FOR EACH ROW EXECUTE FUNCTION enrichment_take_over_builtin();

-- The cache ----------------------------------------------------------------------------------------------------

-- Runs for each row whose answer changed, so it sets no search_path: every name and operator is pg_catalog's or ours.
CREATE FUNCTION enrichment_keep_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO @extschema@.enrichment_history (service, cache_key, version, payload, ranges, fetched_at)
    VALUES (OLD.service, OLD.cache_key, OLD.version, OLD.payload, OLD.ranges, OLD.fetched_at);
    RETURN NULL;
END $$;

CREATE TRIGGER enrichment_keep_history AFTER UPDATE OF payload, ranges ON enrichment_cache
    FOR EACH ROW WHEN (OLD.payload IS NOT NULL
        AND (OLD.payload IS DISTINCT FROM NEW.payload OR OLD.ranges IS DISTINCT FROM NEW.ranges))
    EXECUTE FUNCTION enrichment_keep_history();

-- Attached tables ----------------------------------------------------------------------------------------------

CREATE FUNCTION enrichment_note_rows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key_column text;
    key_type   oid;
    raw        text;
BEGIN
    -- the column is named by its number, which a rename leaves as it is
    SELECT a.attname, a.atttypid INTO key_column, key_type FROM pg_attribute a
    WHERE a.attrelid = TG_RELID AND a.attnum = TG_ARGV[1]::int2 AND NOT a.attisdropped;
    -- only types whose text form the server makes: a cast of the table's owner must not run with our rights
    IF key_type IS NULL OR key_type NOT IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'inet'::regtype, 'cidr'::regtype) THEN
        RETURN NULL; -- the worker reports the source as broken
    END IF;
    raw := CASE TG_ARGV[2]
        WHEN 'passwords' THEN format('@extschema@.enrich_hibp_prefix(%I::text)', key_column)
        ELSE format('%I::text', key_column) END;
    IF TG_OP = 'INSERT' THEN
        EXECUTE format('INSERT INTO @extschema@.enrichment_arrival (source, raw_key)
            SELECT DISTINCT $1, %1$s FROM new_rows WHERE %2$I IS NOT NULL', raw, key_column) USING TG_ARGV[0];
    ELSE
        EXECUTE format('INSERT INTO @extschema@.enrichment_arrival (source, raw_key)
            SELECT $1, n.raw FROM (SELECT %1$s AS raw FROM new_rows WHERE %2$I IS NOT NULL
                EXCEPT SELECT %1$s FROM old_rows WHERE %2$I IS NOT NULL) n', raw, key_column) USING TG_ARGV[0];
    END IF;
    IF FOUND THEN
        PERFORM @extschema@.enrich_wake();
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION enrich_attach(
    relation    regclass,
    key_column  name,
    services    text[],
    into_column name DEFAULT NULL,
    source_name text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    class    pg_class;
    schema   text;
    wanted   text := source_name;
    key_att  pg_attribute;
    into_att pg_attribute;
    unknown  text;
    layout   text;
    files    CONSTANT text[] := '{vt_classification,vt_description,vt_malicious,vt_positives,vt_total,vt_first_seen,vt_last_analysis,vt_scan_date,enrichment_status}';
    accounts CONSTANT text[] := '{breached,breach_prevalence,last_hibp_check}';
BEGIN
    IF relation IS NULL OR key_column IS NULL OR services IS NULL OR cardinality(services) = 0 THEN
        RAISE EXCEPTION 'relation, key_column and services must be given' USING ERRCODE = '22023',
            HINT = 'For example: SELECT enrich_attach(''session_summaries'', ''source_ip'', ''{dshield,urlhaus,spur}'', ''enrichment'').';
    END IF;
    SELECT c.* INTO class FROM pg_class c WHERE c.oid = relation;
    SELECT n.nspname INTO schema FROM pg_namespace n WHERE n.oid = class.relnamespace;
    IF class.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '"%" is not a table', class.relname USING ERRCODE = '42809',
            DETAIL = format('It is %s.', CASE class.relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view'
                WHEN 'f' THEN 'a foreign table' ELSE format('a relation of kind "%s"', class.relkind) END),
            HINT = 'Attach the table that the rows stand in.';
    END IF;
    IF class.relpersistence = 't' THEN
        RAISE EXCEPTION '"%" is a temporary table', class.relname USING ERRCODE = '42809',
            HINT = 'The worker cannot see other sessions'' temporary tables; attach a permanent one.';
    END IF;
    IF NOT pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, class.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', class.relname USING ERRCODE = '42501',
            HINT = 'Have the owner of the table, or a superuser, attach it.';
    END IF;
    SELECT a.* INTO key_att FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attname = key_column AND a.attnum > 0 AND NOT a.attisdropped;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'column "%" of relation "%" does not exist', key_column, class.relname USING ERRCODE = '42703',
            HINT = format('Its columns are: %s.', (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
                WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped));
    END IF;
    IF key_att.atttypid NOT IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'inet'::regtype, 'cidr'::regtype) THEN
        RAISE EXCEPTION 'column "%" of type % cannot hold keys', key_column, format_type(key_att.atttypid, key_att.atttypmod)
            USING ERRCODE = '42804', HINT = 'Key columns are of type text, varchar, char, inet or cidr.';
    END IF;
    IF into_column IS NOT NULL THEN
        SELECT a.* INTO into_att FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attname = into_column AND a.attnum > 0 AND NOT a.attisdropped;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'column "%" of relation "%" does not exist', into_column, class.relname USING ERRCODE = '42703',
                HINT = format('Add it: ALTER TABLE %s ADD COLUMN %I jsonb.', relation, into_column);
        END IF;
        IF into_att.atttypid NOT IN ('json'::regtype, 'jsonb'::regtype) THEN
            RAISE EXCEPTION 'column "%" of type % cannot hold answers', into_column, format_type(into_att.atttypid, into_att.atttypmod)
                USING ERRCODE = '42804', HINT = 'The target column is of type json or jsonb.';
        END IF;
    END IF;
    SELECT s INTO unknown FROM unnest(services) s
    WHERE NOT EXISTS (SELECT FROM @extschema@.enrichment_service r WHERE r.name = s) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'unknown service "%"', unknown USING ERRCODE = '42704',
            HINT = format('Known services: %s.', (SELECT string_agg(r.name, ', ' ORDER BY r.name) FROM @extschema@.enrichment_service r));
    END IF;
    layout := CASE
        WHEN into_column IS NOT NULL THEN 'json'
        WHEN services = '{virustotal}' AND EXISTS (SELECT FROM pg_attribute a
            WHERE a.attrelid = relation AND NOT a.attisdropped AND a.attname = ANY (files)) THEN 'files'
        WHEN services = '{hibp}' THEN 'passwords'
        ELSE 'none' END;
    IF layout = 'passwords' AND NOT EXISTS (SELECT FROM pg_attribute a
            WHERE a.attrelid = relation AND NOT a.attisdropped AND a.attname = ANY (accounts)) THEN
        RAISE EXCEPTION 'table "%" has no column for what is known of a password', class.relname USING ERRCODE = '42703',
            HINT = 'Give it at least one of: breached boolean, breach_prevalence integer, last_hibp_check timestamptz.';
    END IF;
    IF layout <> 'passwords' AND 'hibp' = ANY (services) THEN
        RAISE EXCEPTION 'hibp cannot share a source with other services or a target column' USING ERRCODE = '22023',
            HINT = 'Attach the table of passwords with ''{hibp}'' alone; passwords are hashed inside.';
    END IF;
    wanted := coalesce(wanted, CASE WHEN schema = 'public' THEN class.relname ELSE schema || '.' || class.relname END);
    IF EXISTS (SELECT FROM @extschema@.enrichment_source s WHERE s.name = wanted) THEN
        RAISE EXCEPTION 'source "%" is attached already', wanted USING ERRCODE = '42710',
            HINT = 'Detach it first with enrich_detach(), or give another source_name.';
    END IF;
    INSERT INTO @extschema@.enrichment_source (name, relation, key_column, services, into_column, shape)
    VALUES (wanted, relation, key_column, services, into_column, layout);
    EXECUTE format('CREATE TRIGGER %I AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
        EXECUTE FUNCTION @extschema@.enrichment_note_rows(%L, %L, %L)',
        'enrichment_insert_' || wanted, relation, wanted, key_att.attnum, layout);
    EXECUTE format('CREATE TRIGGER %I AFTER UPDATE ON %s REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows
        FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.enrichment_note_rows(%L, %L, %L)',
        'enrichment_update_' || wanted, relation, wanted, key_att.attnum, layout);
    PERFORM @extschema@.enrich_wake();
    RETURN wanted;
END $$;

CREATE FUNCTION enrich_detach(source text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known @extschema@.enrichment_source;
    owner oid;
BEGIN
    SELECT s.* INTO known FROM @extschema@.enrichment_source s WHERE s.name = source FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no source "%" is attached', source USING ERRCODE = '42704',
            HINT = format('Attached sources: %s.', coalesce((SELECT string_agg(s.name, ', ' ORDER BY s.name) FROM @extschema@.enrichment_source s), 'none'));
    END IF;
    SELECT c.relowner INTO owner FROM pg_class c WHERE c.oid = known.relation;
    IF FOUND THEN
        IF NOT pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, owner, 'USAGE') THEN
            RAISE EXCEPTION 'must be owner of table %', known.relation USING ERRCODE = '42501',
                HINT = 'Have the owner of the table, or a superuser, detach it.';
        END IF;
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', 'enrichment_insert_' || source, known.relation);
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', 'enrichment_update_' || source, known.relation);
    END IF;
    DELETE FROM @extschema@.enrichment_arrival a WHERE a.source = enrich_detach.source;
    DELETE FROM @extschema@.enrichment_indicator i WHERE i.source = enrich_detach.source;
    DELETE FROM @extschema@.enrichment_source s WHERE s.name = source;
END $$;

-- Refresh ------------------------------------------------------------------------------------------------------

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

-- Explanations -------------------------------------------------------------------------------------------------

CREATE FUNCTION enrich_explain(service text, key text) RETURNS text LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found  record;
    asked  @extschema@.enrichment_queue;
    lane   @extschema@.enrichment_lane;
    hold   record;
    reg    @extschema@.enrichment_service;
    reason text;
    next   text;
BEGIN
    SELECT * INTO found FROM @extschema@.enrich_lookup(service, key);
    SELECT r.* INTO reg FROM @extschema@.enrichment_service r WHERE r.name = service;
    SELECT q.* INTO asked FROM @extschema@.enrichment_queue q WHERE q.service = enrich_explain.service AND q.cache_key = found.cache_key;
    SELECT l.* INTO lane FROM @extschema@.enrichment_lane l WHERE l.service = enrich_explain.service AND l.paused_until > now();
    SELECT w.per, w.next_call_at INTO hold FROM @extschema@.enrich_lane_waits() w
    WHERE w.service = enrich_explain.service AND w.next_call_at > now();
    next := CASE
        WHEN asked.id IS NULL THEN 'it is not in the queue; ask with enrich_request()'
        WHEN asked.state = 'dead' THEN format('it rests after %s attempts; enrich_request() revives it', asked.attempts)
        WHEN asked.state = 'in_flight' THEN 'it is being asked right now'
        WHEN NOT reg.enabled THEN format('it waits because the service %s is disabled', service)
        WHEN lane.service IS NOT NULL THEN format('it waits until %s because %s', to_char(lane.paused_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), lane.reason)
        WHEN asked.next_attempt_at > now() THEN format('the next attempt is at %s', to_char(asked.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        WHEN hold.per IS NOT NULL THEN format('it waits for its turn, the limit per %s lets the next call go at %s', hold.per,
            to_char(hold.next_call_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        ELSE 'it waits for its turn under the limits of ' || service END;
    RETURN CASE found.state
        WHEN 'hit' THEN format('%s answered for %s at %s; the answer is fresh until %s.', service, found.cache_key,
            to_char(found.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), to_char(found.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        WHEN 'stale' THEN format('%s answered for %s at %s; the answer expired at %s%s; %s.', service, found.cache_key,
            to_char(found.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), to_char(found.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
            coalesce(format(' and the last refresh failed (%s)', found.error_message), ''), next)
        WHEN 'not_found' THEN format('%s was asked about %s at %s and knows nothing; it is asked again after %s.', service, found.cache_key,
            to_char(found.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), to_char(found.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        WHEN 'ineligible' THEN format('%s is never sent to %s: %s.', found.cache_key, service, @extschema@.enrich_ineligible(reg.key_kind, key))
        WHEN 'queued' THEN format('%s has not answered for %s yet: %s.', service, found.cache_key, next)
        WHEN 'error' THEN format('%s has not answered for %s: the last attempt failed (%s); %s.', service, found.cache_key,
            coalesce(found.error_message, asked.last_outcome, found.response_status), next)
        ELSE format('%s was never asked about %s: %s.', service, found.cache_key, next) END;
END $$;

CREATE FUNCTION enrich_health(OUT severity text, OUT check_name text, OUT detail text, OUT hint text)
RETURNS SETOF record LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT @extschema@.enrich_preloaded() THEN
        RETURN QUERY SELECT 'error', 'preloaded', 'the library is not in shared_preload_libraries, so no worker runs',
            'Add enrichment_cache to shared_preload_libraries and restart the server.';
    ELSE
        RETURN QUERY SELECT CASE WHEN w.pid IS NOT NULL THEN 'ok' ELSE 'error' END, 'worker',
            CASE WHEN w.pid IS NOT NULL THEN format('process %s is %s', w.pid, w.state)
                ELSE format('no worker serves this database: %s', coalesce(w.last_error, w.state, 'the launcher does not know it')) END,
            CASE WHEN w.pid IS NULL THEN 'Look at the server log; check enrichment_cache.databases and max_worker_processes.' END
        FROM (SELECT 1) one LEFT JOIN @extschema@.enrichment_worker w ON w.database = current_database();
        RETURN QUERY SELECT 'warning', 'worker step', format('a step fails and is tried again: %s', w.last_error),
            'Mend the cause; nothing is lost meanwhile, and the worker goes on by itself.'
        FROM @extschema@.enrichment_worker w
        WHERE w.database = current_database() AND w.pid IS NOT NULL AND w.last_error IS NOT NULL;
    END IF;
    RETURN QUERY SELECT 'warning', 'service ' || l.service, format('paused until %s (%s): %s',
            to_char(l.paused_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), l.cause, l.reason),
            CASE l.cause WHEN 'unauthorized' THEN format('Give the right secret: SELECT enrich_set_secret(%L, ...).', l.service)
                WHEN 'no_credential' THEN format('Give the secret: SELECT enrich_set_secret(%L, ...).', l.service)
                ELSE 'It goes on by itself.' END
        FROM @extschema@.enrichment_lane l WHERE l.paused_until > now() ORDER BY l.service;
    RETURN QUERY SELECT 'notice', 'service ' || s.name, 'what the provider says of its limits is not asked: usage names another host than the service',
            'Change the url in the usage of its rules, too.'
        FROM @extschema@.enrichment_service s
        WHERE lower(substring(s.rules #>> '{usage,url}' FROM '^https?://([^/?]+)')) <> lower(substring(s.url FROM '^https?://([^/?]+)'))
        ORDER BY s.name;
    RETURN QUERY SELECT 'error', 'source ' || s.name, s.last_error, 'Mend the table, or detach the source with enrich_detach().'
        FROM @extschema@.enrichment_source s WHERE s.last_error IS NOT NULL ORDER BY s.name;
    RETURN QUERY SELECT 'warning', 'queue ' || q.service, format('%s requests rest after their last attempt', q.dead),
            'Look at last_error in enrichment_queue; enrich_request() revives a key.'
        FROM @extschema@.enrichment_queue_status q WHERE q.dead > 0 ORDER BY q.service;
    RETURN QUERY SELECT 'notice', 'queue ' || q.service, format('%s requests have failed and are tried again, for example %s: %s',
            count(*), min(q.cache_key), (array_agg(coalesce(q.last_error, q.last_outcome) ORDER BY q.cache_key))[1]), 'It goes on by itself.'
        FROM @extschema@.enrichment_queue q WHERE q.state = 'waiting' AND q.last_outcome IS NOT NULL
        GROUP BY q.service ORDER BY q.service;
END $$;

CREATE FUNCTION enrich_grant(role regrole, level text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    levels  CONSTANT text[] := '{reader,writer,admin}';
    granted text[];
    item    text;
BEGIN
    IF level IS NULL OR level <> ALL (levels) THEN
        RAISE EXCEPTION 'unknown level "%"', level USING ERRCODE = '22023', HINT = 'Use reader, writer or admin.';
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA @extschema@ TO %s', role);
    granted := ARRAY[
        'enrich_get(text, text)', 'enrich_get(text, inet)', 'enrich_get(text, text, interval)', 'enrich_get_many(text, text[])',
        'enrich_get_text(text, text)', 'enrich_lookup(text, text)', 'enrich_explain(text, text)', 'enrich_health()',
        'enrich_preloaded()', 'enrich_key_hash(text, text)', 'enrich_normalize_key(text, text)', 'enrich_ineligible(text, text)',
        'enrich_hibp_prefix(text)', 'enrich_hibp_suffix(text)', 'enrich_hibp_count(bytea, text)', 'enrich_hibp_range(bytea)',
        'enrich_worker_states()', 'enrich_lane_waits()', 'enrich_quota_live()', 'enrich_live_lookups()',
        'enrich_text(jsonb)', 'enrich_text(jsonb, text[])', 'enrich_bigint(jsonb)', 'enrich_bigint(jsonb, text[])',
        'enrich_asn(jsonb)', 'enrich_asn(jsonb, text[])', 'enrich_boolean(jsonb)', 'enrich_boolean(jsonb, text[])',
        'enrich_timestamp(jsonb)', 'enrich_timestamp(jsonb, text[])', 'enrich_date(jsonb)',
        'enrich_date(jsonb, text[])', 'enrich_text_array(jsonb)', 'enrich_text_array(jsonb, text[])',
        'enrich_names(jsonb, text[])', 'enrich_sum(jsonb)', 'enrich_virustotal_value(jsonb, text[])',
        'enrich_virustotal_attributes(jsonb)', 'enrich_spur_value(jsonb, text[])', 'enrich_spur_flagged(jsonb)',
        'enrich_spur_answer(jsonb)', 'enrich_spur_list(jsonb)', 'enrich_urlhaus_tags(jsonb)',
        'enrich_urlhaus_online(jsonb)'];
    EXECUTE format('GRANT SELECT ON @extschema@.enrichment_cache, @extschema@.enrichment_service, @extschema@.enrichment_queue,
        @extschema@.enrichment_lane, @extschema@.enrichment_source, @extschema@.enrichment_history, @extschema@.enrichment_dshield,
        @extschema@.enrichment_urlhaus, @extschema@.enrichment_spur, @extschema@.enrichment_virustotal, @extschema@.enrichment_hibp,
        @extschema@.enrichment_coverage, @extschema@.enrichment_eta, @extschema@.enrichment_queue_status,
        @extschema@.enrichment_quota_status, @extschema@.enrichment_stat, @extschema@.enrichment_worker,
        @extschema@.enrichment_changes TO %s', role);
    IF level IN ('writer', 'admin') THEN
        granted := granted || ARRAY[
            'enrich_store(text, text, jsonb, interval, text, integer, integer, text, timestamp with time zone)',
            'enrich_store_many(text, text[], jsonb[], interval)', 'enrich_store_text(text, text, text, interval)',
            'enrich_compare_and_store(text, text, bigint, jsonb, interval)', 'enrich_request(text, text, integer)',
            'enrich_request_many(text, text[], integer)', 'enrich_fetch(text, text, interval)', 'enrich_password(text)'];
    END IF;
    IF level = 'admin' THEN
        granted := granted || ARRAY[
            'enrich_invalidate(text, text, boolean)', 'enrich_cleanup(bigint)', 'enrich_set_secret(text, text)',
            'enrich_attach(regclass, name, text[], name, text)', 'enrich_detach(text)', 'enrich_wake()',
            'enrichment_refresh_begin(integer, integer, integer, integer)', 'enrichment_refresh_state(jsonb)',
            'enrich_check_service(text, text, text, text, text, text, text, text, text)', 'enrich_registry_changed(oid)'];
        EXECUTE format('GRANT INSERT, UPDATE, DELETE ON @extschema@.enrichment_service TO %s', role);
        EXECUTE format('GRANT EXECUTE ON PROCEDURE @extschema@.enrich_refresh(integer, integer, integer, integer) TO %s', role);
    END IF;
    FOREACH item IN ARRAY granted LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION @extschema@.%s TO %s', item, role);
    END LOOP;
END $$;

-- the launcher learns of this database when CREATE EXTENSION commits
SELECT enrich_wake_launcher();
