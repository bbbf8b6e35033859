-- What is wrong, and what to do.

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
    RETURN QUERY SELECT 'warning', 'fetching', format('%s: requests wait, and answers that expire are not refilled', n.reason), n.hint
        FROM @extschema@.enrichment_nobody_asks() n WHERE n.cause = 'fetching_off';
    RETURN QUERY SELECT 'warning', 'service ' || l.service, format('paused until %s (%s): %s',
            to_char(l.paused_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), l.cause, l.reason),
            CASE l.cause WHEN 'unauthorized' THEN format('Give the right secret: SELECT enrich_set_secret(%L, ...).', l.service)
                WHEN 'no_credential' THEN format('Give the secret: SELECT enrich_set_secret(%L, ...).', l.service)
                ELSE 'It goes on by itself.' END
        FROM @extschema@.enrichment_lane l WHERE l.paused_until > now() ORDER BY l.service;
    RETURN QUERY SELECT 'warning', 'service ' || q.service, format('the balance at the provider is used up, the next call is tried at %s',
            to_char(q.resets_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')), 'Buy queries; requests wait, and go on by themselves.'
        FROM @extschema@.enrichment_quota_status q WHERE q.per = 'balance' AND q.remaining = 0 AND q.resets_at > now() ORDER BY q.service;
    RETURN QUERY SELECT 'notice', 'service ' || s.name, 'what the provider says of its limits is not asked: usage names another host than the service',
            'Change the url in the usage of its rules, too.'
        FROM @extschema@.enrichment_service s
        WHERE lower(substring(s.rules #>> '{usage,url}' FROM '^https?://([^/?]+)')) <> lower(substring(s.url FROM '^https?://([^/?]+)'))
        ORDER BY s.name;
    RETURN QUERY SELECT d.severity, d.check_name, d.detail, d.hint FROM @extschema@.enrich_disk_health() d;
    RETURN QUERY SELECT 'error', 'source ' || s.name, s.last_error, 'Mend the table, or detach the source with enrich_detach().'
        FROM @extschema@.enrichment_source s WHERE s.last_error IS NOT NULL ORDER BY s.name;
    -- an index whose first column is an expression is taken for the right one where an expression finds the rows
    RETURN QUERY SELECT 'warning', 'source ' || s.name, format('no index finds the rows of a key in a table of %s: each batch of answers reads all of it',
            pg_size_pretty(size.bytes)), format('CREATE INDEX CONCURRENTLY ON %s (%s);', s.relation, CASE
                WHEN s.shape = 'passwords' THEN format('@extschema@.enrich_hibp_prefix(%I) COLLATE "C"', s.key_column)
                ELSE coalesce(quote_ident(s.key_column), format('(%s)', s.key_expression)) END)
        FROM @extschema@.enrichment_source s
        JOIN pg_class c ON c.oid = s.relation AND s.shape <> 'none' AND s.last_error IS NULL
        CROSS JOIN LATERAL (SELECT coalesce(sum(pg_relation_size(t.relid)), pg_relation_size(s.relation)) AS bytes
            FROM pg_partition_tree(s.relation) t) size
        WHERE size.bytes > 8 * 1024 * 1024 AND NOT EXISTS (
            SELECT FROM pg_index x WHERE x.indrelid = s.relation AND x.indisvalid AND x.indpred IS NULL
              AND CASE WHEN s.key_expression IS NULL AND s.shape <> 'passwords'
                THEN x.indkey[0] = (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = s.relation AND a.attname = s.key_column)
                ELSE x.indkey[0] = 0 END)
        ORDER BY s.name;
    RETURN QUERY SELECT 'warning', 'source ' || s.name, 'a trigger of it is missing or disabled: new rows are found by the periodic search only',
            format('ALTER TABLE %s ENABLE TRIGGER USER; or detach the source and attach it again.', s.relation)
        FROM @extschema@.enrichment_source s JOIN pg_class c ON c.oid = s.relation
        WHERE s.last_error IS NULL AND (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = s.relation AND NOT t.tgisinternal
            AND t.tgenabled IN ('O', 'A') AND t.tgfoid = '@extschema@.enrichment_note_rows()'::regprocedure
            AND split_part(encode(t.tgargs, 'escape'), '\000', 1) = encode(convert_to(s.name, getdatabaseencoding()), 'escape')) < 3
        ORDER BY s.name;
    RETURN QUERY SELECT 'warning', 'queue length', format('%s of at most %s requests', n.requests, n.max_queue),
            'The worker goes on; writers are refused at the bound. Raise enrichment_cache.max_queue, or ask for less.'
        FROM @extschema@.enrich_queue_length() n WHERE n.requests > n.max_queue * 0.9;
    RETURN QUERY SELECT 'warning', 'queue ' || q.service, format('%s requests rest after their last attempt', q.dead),
            format('Look at enrichment_dead_letter; SELECT enrich_retry(%L) has them asked again.', q.service)
        FROM @extschema@.enrichment_queue_status q WHERE q.dead > 0 ORDER BY q.service;
    RETURN QUERY SELECT 'notice', 'queue ' || q.service, format('%s requests have failed and are tried again, for example %s: %s',
            count(*), min(q.cache_key), (array_agg(coalesce(q.last_error, q.last_outcome) ORDER BY q.cache_key))[1]), 'It goes on by itself.'
        FROM @extschema@.enrichment_queue q WHERE q.state = 'waiting' AND q.last_outcome IS NOT NULL
        GROUP BY q.service ORDER BY q.service;
END $$;
