-- What the worker makes of its attempts: figures by cause, breakers, requests that rest.

CREATE TABLE enrichment_attempt_stats (
    service  text COLLATE "C" NOT NULL,
    day      date NOT NULL,
    outcome  text NOT NULL,
    cause    text NOT NULL,
    attempts bigint NOT NULL CHECK (attempts >= 0),
    PRIMARY KEY (service, day, outcome, cause)
) WITH (fillfactor = 50);

CREATE VIEW enrichment_breaker AS
SELECT s.name AS service, coalesce(l.breaker, 'closed') AS state, l.breaker_since AS since,
    coalesce(l.breaker_failures, 0) AS failures, coalesce(l.breaker_openings, 0) AS openings,
    CASE WHEN l.breaker = 'open' THEN greatest(l.breaker_until, l.paused_until) END AS next_probe_at,
    CASE WHEN l.breaker <> 'closed' THEN l.breaker_reason END AS reason
FROM @extschema@.enrichment_service s
LEFT JOIN @extschema@.enrichment_lane l ON l.service = s.name;

CREATE VIEW enrichment_dead_letter AS
SELECT q.service, q.cache_key, q.last_outcome AS outcome, q.last_error AS error, q.attempts, q.requested_at, q.last_attempt_at
FROM @extschema@.enrichment_queue q WHERE q.state = 'dead';

ALTER FUNCTION enrich_queue_length() ROWS 1;

COMMENT ON FUNCTION @extschema@.enrich_retry(text, text) IS
    'Has requests that rest after their last attempt asked again, one key or all of the service; returns how many.';

COMMENT ON FUNCTION @extschema@.enrich_queue_length() IS
    'How many requests the queue holds and may hold, and whether the number is an estimate because no worker has counted.';

COMMENT ON TABLE @extschema@.enrichment_attempt_stats IS
    'How attempts ended: per service and UTC day, by outcome and cause. Kept for 400 days.';
COMMENT ON COLUMN @extschema@.enrichment_attempt_stats.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_attempt_stats.day IS 'The day, UTC.';
COMMENT ON COLUMN @extschema@.enrichment_attempt_stats.outcome IS 'success, not_found, rate_limited, unauthorized, invalid or error.';
COMMENT ON COLUMN @extschema@.enrichment_attempt_stats.cause IS
    'http_2xx, http_3xx, http_401, http_403, http_4xx, http_5xx, http_other; limited, used_up; html_page, malformed, too_deep, not_stored; dns, connect, tls, timeout, reset, too_large, egress, redirect, protocol; no_request, internal.';
COMMENT ON COLUMN @extschema@.enrichment_attempt_stats.attempts IS 'How many.';

COMMENT ON VIEW @extschema@.enrichment_breaker IS
    'Which services are left alone because their calls fail, and until when.';
COMMENT ON COLUMN @extschema@.enrichment_breaker.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_breaker.state IS 'closed (calls go out), open (none does), half_open (one tries).';
COMMENT ON COLUMN @extschema@.enrichment_breaker.since IS 'When it came into this state. NULL: it was never in another.';
COMMENT ON COLUMN @extschema@.enrichment_breaker.failures IS 'Failed calls in a row.';
COMMENT ON COLUMN @extschema@.enrichment_breaker.openings IS 'How often it has opened since a call last succeeded; each time it is open for longer.';
COMMENT ON COLUMN @extschema@.enrichment_breaker.next_probe_at IS 'When one call tries again. NULL: it is not open.';
COMMENT ON COLUMN @extschema@.enrichment_breaker.reason IS 'What went wrong with the call that opened it. NULL: it is closed.';

COMMENT ON VIEW @extschema@.enrichment_dead_letter IS
    'Requests that rest after their last attempt; enrich_retry(service) has them asked again.';
COMMENT ON COLUMN @extschema@.enrichment_dead_letter.service IS 'The service.';
COMMENT ON COLUMN @extschema@.enrichment_dead_letter.cache_key IS 'The key, in its normal form.';
COMMENT ON COLUMN @extschema@.enrichment_dead_letter.outcome IS 'How the last attempt ended.';
COMMENT ON COLUMN @extschema@.enrichment_dead_letter.error IS 'What went wrong then.';
COMMENT ON COLUMN @extschema@.enrichment_dead_letter.attempts IS 'Attempts that failed.';
COMMENT ON COLUMN @extschema@.enrichment_dead_letter.requested_at IS 'When it was first requested.';
COMMENT ON COLUMN @extschema@.enrichment_dead_letter.last_attempt_at IS 'When the last attempt ended.';

COMMENT ON COLUMN @extschema@.enrichment_queue.last_attempt_at IS 'When the last attempt that brought no answer ended. NULL: there was none yet.';
COMMENT ON COLUMN @extschema@.enrichment_queue.rank IS 'Order of the requests that are due, the highest first: priority and the hours that it has been due, less a constant.';

COMMENT ON COLUMN @extschema@.enrichment_cache_stats.refreshed_ahead IS 'Requests made because an answer that is read is about to expire.';

COMMENT ON COLUMN @extschema@.enrichment_lane.breaker IS 'closed (calls go out), open (none does), half_open (one tries).';
COMMENT ON COLUMN @extschema@.enrichment_lane.breaker_since IS 'When it came into this state. NULL: it was never in another.';
COMMENT ON COLUMN @extschema@.enrichment_lane.breaker_until IS 'Until when it is or was open. NULL: it is closed.';
COMMENT ON COLUMN @extschema@.enrichment_lane.breaker_failures IS 'Failed calls in a row.';
COMMENT ON COLUMN @extschema@.enrichment_lane.breaker_openings IS 'How often it has opened since a call last succeeded.';
COMMENT ON COLUMN @extschema@.enrichment_lane.breaker_request IS 'The request that failed last. NULL: none did.';
COMMENT ON COLUMN @extschema@.enrichment_lane.breaker_reason IS 'What went wrong with the call that opened it last. NULL: nothing did since it closed.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.enrichment_attempt_stats', '');

INSERT INTO @extschema@.enrichment_privilege (level, action, object) VALUES
    ('writer', 'EXECUTE', 'enrich_retry(text, text)'),
    ('reader', 'EXECUTE', 'enrich_queue_length()'),
    ('monitor', 'EXECUTE', 'enrich_queue_length()'),
    ('reader', 'SELECT', 'enrichment_attempt_stats'),
    ('reader', 'SELECT', 'enrichment_breaker'),
    ('reader', 'SELECT', 'enrichment_dead_letter'),
    ('monitor', 'SELECT', 'enrichment_attempt_stats'),
    ('monitor', 'SELECT', 'enrichment_breaker'),
    ('monitor', 'SELECT', 'enrichment_dead_letter');
