-- Why a value is what it is.

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
        WHEN asked.state = 'dead' THEN format('it rests after %s attempts; enrich_retry() or enrich_request() has it asked again', asked.attempts)
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
