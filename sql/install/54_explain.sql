-- Why a value is what it is: a sentence that says it, then one for each step of the way.

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
BEGIN
    SELECT * INTO found FROM @extschema@.enrich_lookup(service, key);
    SELECT r.* INTO reg FROM @extschema@.enrichment_service r WHERE r.name = service;
    SELECT q.* INTO asked FROM @extschema@.enrichment_queue q WHERE q.service = enrich_explain.service AND q.cache_key = found.cache_key;
    SELECT l.* INTO lane FROM @extschema@.enrichment_lane l WHERE l.service = enrich_explain.service AND l.paused_until > now();
    SELECT w.per, w.next_call_at INTO hold FROM @extschema@.enrich_lane_waits() w
    WHERE w.service = enrich_explain.service AND w.next_call_at > now();
    next := CASE
        WHEN asked.id IS NULL THEN 'it is not in the queue; ask with enrich_request()'
        WHEN asked.state = 'dead' THEN format('it rests after %s attempts; enrich_retry() or enrich_request() has it asked again', asked.attempts)
        WHEN asked.state = 'in_flight' THEN 'it is being asked right now'
        WHEN NOT reg.enabled THEN format('it waits because the service %s is disabled', service)
        WHEN lane.service IS NOT NULL THEN format('it waits until %s because %s', to_char(lane.paused_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), lane.reason)
        WHEN asked.next_attempt_at > now() THEN format('the next attempt is at %s', to_char(asked.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        WHEN hold.per IS NOT NULL THEN format('it waits for its turn, the limit per %s lets the next call go at %s', hold.per,
            to_char(hold.next_call_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
        ELSE 'it waits for its turn under the limits of ' || service END;
    reason := CASE found.state
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
        format('Next: %s.', CASE WHEN found.state IN ('hit', 'not_found') AND asked.id IS NULL
            THEN format('asked again by a sweep or a request once it has expired at %s', to_char(found.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
            ELSE next END)) END);
END $$;
