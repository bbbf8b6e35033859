-- Why a value is what it is: a sentence that says it, then one for each step of the way.

-- Why nobody asks the providers in this database: no_worker or fetching_off. No row: somebody does. A standby asks nobody by
-- itself, its primary does.
CREATE FUNCTION enrichment_nobody_asks(OUT cause text, OUT reason text, OUT hint text) RETURNS SETOF record LANGUAGE plpgsql STABLE
ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN;
    END IF;
    IF NOT @extschema@.enrich_preloaded() THEN
        cause := 'no_worker';
        reason := 'the library is not in shared_preload_libraries, so no worker runs';
        hint := 'Add enrichment_cache to shared_preload_libraries and restart the server.';
        RETURN NEXT;
    ELSIF NOT EXISTS (SELECT FROM @extschema@.enrich_worker_states() w WHERE w.database = current_database() AND w.pid IS NOT NULL) THEN
        cause := 'no_worker';
        reason := format('no worker serves this database (%s)', coalesce((SELECT coalesce(w.last_error, w.state)
            FROM @extschema@.enrich_worker_states() w WHERE w.database = current_database()), 'the launcher does not know it'));
        hint := 'Look at the server log; check enrichment_cache.databases and max_worker_processes.';
        RETURN NEXT;
    ELSIF NOT current_setting('enrichment_cache.enabled')::boolean THEN
        cause := 'fetching_off';
        reason := 'fetching is switched off for the whole server';
        hint := 'Set enrichment_cache.enabled = on and reload: SELECT pg_reload_conf().';
        RETURN NEXT;
    END IF;
END $$;

-- What of a row `t` of a source holds answers, as SQL: an object with a member for each service that was written into it, NULL
-- where none was. NULL: the source writes nothing, or nothing that tells. Only of types of the server's own.
CREATE FUNCTION enrichment_row_holds(source text) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN (SELECT CASE
        WHEN s.shape = 'files' AND a.atttypid IN ('text'::regtype, 'varchar'::regtype)
            THEN format('CASE WHEN coalesce(t.%I, ''pending'') <> ''pending'' THEN jsonb ''{"virustotal": 1}'' END', a.attname)
        WHEN s.shape = 'passwords' AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype)
            THEN format('CASE WHEN t.%I IS NOT NULL THEN jsonb ''{"hibp": 1}'' END', a.attname)
        WHEN a.atttypid = 'jsonb'::regtype THEN format('t.%I -> ''_meta''', a.attname)
        WHEN a.atttypid = 'json'::regtype THEN format('CASE WHEN t.%1$I::text LIKE ''%%"_meta"%%''
            THEN @extschema@.enrich_safe_jsonb(t.%1$I::text) -> ''_meta'' END', a.attname) END
    FROM @extschema@.enrichment_source s
    JOIN pg_attribute a ON a.attrelid = s.relation AND a.attnum > 0 AND NOT a.attisdropped
        AND a.attname = CASE s.shape WHEN 'files' THEN 'enrichment_status' WHEN 'passwords' THEN 'last_hibp_check' ELSE s.into_column END
    WHERE s.name = source);

-- What has become of the rows of a key: numbers only, so it may be read by whoever reads coverage. Rows are looked at (10,000 of a
-- source at most) where that is quick: by an index, or in a small table; never by an expression that a user wrote.
CREATE FUNCTION enrichment_explain_rows(service text, cache_key text) RETURNS text LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known    record;
    parts    text[] := '{}';
    answered boolean;
    holds    text;
    rows     bigint;
    bare     bigint;
BEGIN
    answered := EXISTS (SELECT FROM @extschema@.enrichment_cache c WHERE c.service = enrichment_explain_rows.service
        AND c.cache_key = enrichment_explain_rows.cache_key AND c.response_status IN ('success', 'not_found'));
    FOR known IN
        SELECT i.source, i.raw_key, i.dirty, i.row_count, i.written_at, s.relation, s.shape, s.last_error, a.attname, a.atttypid,
            (SELECT coalesce(sum(pg_relation_size(p.relid)), pg_relation_size(s.relation)) FROM pg_partition_tree(s.relation) p) <= 8 * 1024 * 1024
                OR EXISTS (SELECT FROM pg_index x WHERE x.indrelid = s.relation AND x.indisvalid AND x.indpred IS NULL
                    AND x.indkey[0] = a.attnum) AS quick
        FROM @extschema@.enrichment_indicator i
        JOIN @extschema@.enrichment_source s ON s.name = i.source
        JOIN pg_class t ON t.oid = s.relation
        LEFT JOIN pg_attribute a ON a.attrelid = s.relation AND a.attname = s.key_column AND a.attnum > 0 AND NOT a.attisdropped
            AND s.key_expression IS NULL AND s.eligible IS NULL AND s.shape <> 'passwords'
            AND a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'inet'::regtype, 'cidr'::regtype)
        WHERE i.cache_key = enrichment_explain_rows.cache_key AND enrichment_explain_rows.service = ANY (s.services)
        ORDER BY i.source, i.raw_key LIMIT 20
    LOOP
        holds := CASE WHEN known.quick AND known.attname IS NOT NULL THEN @extschema@.enrichment_row_holds(known.source) END;
        rows := NULL;
        bare := 0;
        IF answered AND NOT known.dirty AND holds IS NOT NULL THEN
            EXECUTE format('SELECT count(*), count(*) FILTER (WHERE NOT coalesce(r.held ? $2, false)) FROM (
                    SELECT %s AS held FROM %s t WHERE t.%I = $1::%s LIMIT 10000) r', holds, known.relation, known.attname,
                CASE known.atttypid WHEN 'bpchar'::regtype THEN 'bpchar' WHEN 'inet'::regtype THEN 'inet' WHEN 'cidr'::regtype THEN 'cidr' ELSE 'text' END)
                INTO rows, bare USING known.raw_key, service;
        END IF;
        parts := parts || format('%s (%s): %s', known.source, coalesce(rows, known.row_count), CASE
            WHEN known.shape = 'none' THEN 'joined only, nothing is written'
            WHEN NOT answered THEN 'no answer to write yet'
            WHEN known.dirty THEN 'still to be written' || coalesce(' (' || rtrim(known.last_error, '.') || ')', '')
            WHEN bare > 0 THEN format('%s without the answer that is there (%s)', bare, coalesce(rtrim(known.last_error, '.'),
                'a value that is no JSON object is left alone, others are written after the next sweep'))
            WHEN rows IS NOT NULL THEN 'written'
            ELSE 'written' || coalesce(to_char(known.written_at AT TIME ZONE 'UTC', '" at "YYYY-MM-DD HH24:MI:SS "UTC"'), '') END);
    END LOOP;
    RETURN CASE WHEN parts = '{}' THEN 'no attached table has this key' ELSE array_to_string(parts, '; ') END;
END $$;

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
    ahead  bigint;
    limits text;
    kept   @extschema@.enrichment_lane;
    nobody record;
BEGIN
    SELECT * INTO found FROM @extschema@.enrich_lookup(service, key);
    SELECT r.* INTO reg FROM @extschema@.enrichment_service r WHERE r.name = service;
    SELECT q.* INTO asked FROM @extschema@.enrichment_queue q WHERE q.service = enrich_explain.service AND q.cache_key = found.cache_key;
    SELECT l.* INTO lane FROM @extschema@.enrichment_lane l WHERE l.service = enrich_explain.service AND l.paused_until > now();
    SELECT w.per, w.next_call_at INTO hold FROM @extschema@.enrich_lane_waits() w
    WHERE w.service = enrich_explain.service AND w.next_call_at > now();
    SELECT n.* INTO nobody FROM @extschema@.enrichment_nobody_asks() n;
    next := CASE
        WHEN asked.state IN ('waiting', 'in_flight') AND nobody.cause IS NOT NULL THEN
            format('it waits and nobody asks, because %s (%s)', nobody.reason, rtrim(nobody.hint, '.'))
        WHEN asked.id IS NULL AND nobody.cause IS NOT NULL THEN
            format('it is not in the queue, and nobody asks, because %s (%s)', nobody.reason, rtrim(nobody.hint, '.'))
        WHEN asked.id IS NULL THEN 'it is not in the queue; ask with enrich_request()'
        WHEN asked.state = 'dead' THEN format('it rests after %s attempts; enrich_retry() or enrich_request() has it asked again', asked.attempts)
        WHEN asked.state = 'in_flight' THEN 'it is being asked right now'
        WHEN NOT reg.enabled THEN format('it waits because the service %s is disabled', service)
        WHEN lane.service IS NOT NULL THEN format('it waits until %s because %s', to_char(lane.paused_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), lane.reason)
        WHEN asked.next_attempt_at > now() THEN format('the next attempt is at %s', to_char(asked.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        WHEN hold.per = 'pause' THEN format('it waits until %s because the provider has asked another database of this cluster to wait',
            to_char(hold.next_call_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        WHEN hold.per IS NOT NULL THEN format('it waits for its turn, the limit per %s lets the next call go at %s', hold.per,
            to_char(hold.next_call_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        ELSE 'it waits for its turn under the limits of ' || service END;
    reason := CASE found.state
        WHEN 'hit' THEN format('%s answered for %s at %s; the answer is fresh until %s.', service, found.cache_key,
            to_char(found.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), to_char(found.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        WHEN 'stale' THEN format('%s answered for %s at %s; the answer expired at %s%s; %s.', service, found.cache_key,
            to_char(found.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), to_char(found.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
            coalesce(' and the last refresh failed (' || found.error_message || ')', ''), next)
        WHEN 'not_found' THEN format('%s was asked about %s at %s and knows nothing; it is asked again after %s.', service, found.cache_key,
            to_char(found.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), to_char(found.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        WHEN 'ineligible' THEN format('%s is never sent to %s: %s.', found.cache_key, service, @extschema@.enrich_ineligible(reg.key_kind, key))
        WHEN 'queued' THEN format('%s has not answered for %s yet: %s.', service, found.cache_key, next)
        WHEN 'error' THEN format('%s has not answered for %s: the last attempt failed (%s); %s.', service, found.cache_key,
            coalesce(found.error_message, asked.last_outcome, found.response_status), next)
        ELSE format('%s was never asked about %s: %s.', service, found.cache_key, next) END;
    SELECT pg_catalog.string_agg(format('%s a %s (%s spent, %s left until %s)', q.max, q.per, coalesce(q.spent, 0), q.remaining,
            to_char(q.resets_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')), ', ' ORDER BY q.max::numeric / CASE q.per WHEN 'second' THEN 1
            WHEN 'minute' THEN 60 WHEN 'hour' THEN 3600 WHEN 'day' THEN 86400 ELSE 2629746 END DESC)
    INTO limits FROM @extschema@.enrichment_quota_status q WHERE q.service = enrich_explain.service AND q.max IS NOT NULL;
    SELECT l.* INTO kept FROM @extschema@.enrichment_lane l WHERE l.service = enrich_explain.service;
    IF asked.state = 'waiting' THEN
        -- counted in the order of the queue, and no further than anybody would wait
        SELECT count(*) INTO ahead FROM (SELECT FROM @extschema@.enrichment_queue q
            WHERE q.service = asked.service AND q.state = 'waiting'
              AND (q.rank > asked.rank OR (q.rank = asked.rank AND (q.next_attempt_at, q.id) < (asked.next_attempt_at, asked.id)))
            LIMIT 1000000) q;
    END IF;
    RETURN concat_ws(E'\n', reason,
        format('Eligible: %s.', CASE WHEN found.state = 'ineligible' THEN 'no, ' || @extschema@.enrich_ineligible(reg.key_kind, key)
            ELSE format('yes, as %s %s', reg.key_kind, found.cache_key) END),
        CASE WHEN found.state = 'ineligible' THEN NULL ELSE concat_ws(E'\n',
        format('Credential: %s.', CASE
            WHEN reg.secret_name IS NULL THEN service || ' needs none'
            WHEN lane.cause = 'unauthorized' THEN format('%s is refused by the provider', reg.secret_name)
            WHEN @extschema@.enrichment_has_secret(service) THEN format('%s is there', reg.secret_name)
            WHEN reg.secret_required THEN format('%s is missing, give it with enrich_set_secret() or as a file', reg.secret_name)
            ELSE format('%s is not there and not required', reg.secret_name) END),
        format('Limits: %s, and %s calls at once.', coalesce(limits, 'none'), reg.max_in_flight),
        format('Queue: %s.', CASE
            WHEN asked.id IS NULL THEN 'no request'
            WHEN asked.state = 'in_flight' THEN 'being asked'
            WHEN asked.state = 'dead' THEN format('set aside after %s attempts', asked.attempts)
            ELSE format('%s ahead of it, priority %s, requested at %s, %s failed attempts', CASE WHEN ahead >= 1000000 THEN 'a million' ELSE ahead::text END,
                asked.priority, to_char(asked.requested_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), asked.attempts) END),
        format('Breaker: %s.', CASE
            WHEN kept.breaker <> 'closed' THEN format('%s since %s after %s failures in a row (%s), one call tries again at %s', replace(kept.breaker, '_', ' '),
                to_char(kept.breaker_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), kept.breaker_failures, rtrim(kept.breaker_reason, '.'),
                to_char(greatest(kept.breaker_until, lane.paused_until) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
            WHEN lane.service IS NULL THEN 'closed, calls go out'
            ELSE format('%s is not asked until %s (%s: %s), %s failures in a row', service,
                CASE WHEN isfinite(lane.paused_until) THEN to_char(lane.paused_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') ELSE 'that is mended' END,
                lane.cause, rtrim(lane.reason, '.'), lane.failures) END),
        format('Last outcome: %s.', CASE
            WHEN asked.last_outcome IS NOT NULL THEN format('%s%s', asked.last_outcome, coalesce(', ' || rtrim(asked.last_error, '.'), ''))
            WHEN found.error_message IS NOT NULL THEN format('%s, %s', coalesce(found.response_status, 'error'), rtrim(found.error_message, '.'))
            WHEN found.response_status IS NOT NULL THEN format('%s at %s%s', found.response_status,
                to_char(found.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
                CASE WHEN @extschema@.enrich_is_empty(found.payload) THEN ', which holds nothing and counts as no answer' ELSE '' END)
            ELSE 'none yet' END),
        format('Rows: %s.', @extschema@.enrichment_explain_rows(service, found.cache_key)),
        format('Next: %s.', CASE WHEN found.state IN ('hit', 'not_found') AND asked.id IS NULL
            THEN format('asked again by a sweep or a request once it has expired at %s', to_char(found.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
                || coalesce('; as it stands nobody asks then, because ' || nobody.reason || ' (' || rtrim(nobody.hint, '.') || ')', '')
            ELSE next END)) END);
END $$;

COMMENT ON FUNCTION @extschema@.enrichment_nobody_asks() IS
    'Why nobody asks providers in this database (no_worker, fetching_off), and what to do. No row: somebody does, or this is a standby.';
COMMENT ON FUNCTION @extschema@.enrichment_row_holds(text) IS
    'Internal: SQL over a row t of a source for an object of the services whose answers were written into it. NULL: nothing tells.';
COMMENT ON FUNCTION @extschema@.enrichment_explain_rows(text, text) IS
    'Internal: what has become of the rows that a key has in attached tables, in words and numbers.';

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'reader', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY['enrichment_nobody_asks()', 'enrichment_explain_rows(text, text)']) AS o;
