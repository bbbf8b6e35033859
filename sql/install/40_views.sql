-- Typed access to answers, and views for analysts and for monitoring.
--
-- Nothing here raises, whatever a provider sent. Functions are pg_catalog's by name; operators have operands of exactly
-- the types pg_catalog declares (or are qualified), so that nothing in another schema can take their place.

-- Safe accessors: NULL instead of an error, of a value or of the value at a path, which is followed as by
-- jsonb_extract_path. They read the stored bytes in place (src/core/jsonb, src/core/typed): no value is built on the way.
-- Not STRICT: see the views below. A step of their COST is what a step of the planner costs, 7 ns.

CREATE FUNCTION @extschema@.enrich_text(value jsonb) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'enrich_text_wrapper';
CREATE FUNCTION @extschema@.enrich_text(payload jsonb, VARIADIC path text[]) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'enrich_text_wrapper';

CREATE FUNCTION @extschema@.enrich_bigint(value jsonb) RETURNS bigint
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'enrich_bigint_wrapper';
CREATE FUNCTION @extschema@.enrich_bigint(payload jsonb, VARIADIC path text[]) RETURNS bigint
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'enrich_bigint_wrapper';

CREATE FUNCTION @extschema@.enrich_asn(value jsonb) RETURNS int
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'enrich_asn_wrapper';
CREATE FUNCTION @extschema@.enrich_asn(payload jsonb, VARIADIC path text[]) RETURNS int
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'enrich_asn_wrapper';

CREATE FUNCTION @extschema@.enrich_boolean(value jsonb) RETURNS boolean
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'enrich_boolean_wrapper';
CREATE FUNCTION @extschema@.enrich_boolean(payload jsonb, VARIADIC path text[]) RETURNS boolean
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'enrich_boolean_wrapper';

CREATE FUNCTION @extschema@.enrich_timestamp(value jsonb) RETURNS timestamptz
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 15 AS 'MODULE_PATHNAME', 'enrich_timestamp_wrapper';
CREATE FUNCTION @extschema@.enrich_timestamp(payload jsonb, VARIADIC path text[]) RETURNS timestamptz
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 15 AS 'MODULE_PATHNAME', 'enrich_timestamp_wrapper';

CREATE FUNCTION @extschema@.enrich_date(value jsonb) RETURNS date
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 15 AS 'MODULE_PATHNAME', 'enrich_date_wrapper';
CREATE FUNCTION @extschema@.enrich_date(payload jsonb, VARIADIC path text[]) RETURNS date
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 15 AS 'MODULE_PATHNAME', 'enrich_date_wrapper';

CREATE FUNCTION @extschema@.enrich_text_array(value jsonb) RETURNS text[]
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 30 AS 'MODULE_PATHNAME', 'enrich_text_array_wrapper';
CREATE FUNCTION @extschema@.enrich_text_array(payload jsonb, VARIADIC path text[]) RETURNS text[]
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 30 AS 'MODULE_PATHNAME', 'enrich_text_array_wrapper';

-- The names of an object's members; of what is no object the texts, as enrich_text_array.
CREATE FUNCTION @extschema@.enrich_names(payload jsonb, VARIADIC path text[]) RETURNS text[]
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 30 AS 'MODULE_PATHNAME', 'enrich_names_wrapper';

-- The sum of an object's members, each read as by enrich_bigint.
CREATE FUNCTION @extschema@.enrich_sum(value jsonb) RETURNS bigint
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 20 AS 'MODULE_PATHNAME', 'enrich_sum_wrapper';

-- One value of a VirusTotal or Spur answer by its path in that answer, in whichever shape it was cached. What is large is
-- stored out of line and unpacked once for all columns of a row; the cost is that of one column among several.
CREATE FUNCTION @extschema@.enrich_virustotal_value(payload jsonb, VARIADIC path text[]) RETURNS jsonb
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 200 AS 'MODULE_PATHNAME', 'enrich_virustotal_value_wrapper';
CREATE FUNCTION @extschema@.enrich_spur_value(payload jsonb, VARIADIC path text[]) RETURNS jsonb
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'enrich_spur_value_wrapper';
CREATE FUNCTION @extschema@.enrich_spur_flagged(payload jsonb) RETURNS boolean
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 15 AS 'MODULE_PATHNAME', 'enrich_spur_flagged_wrapper';
CREATE FUNCTION @extschema@.enrich_urlhaus_tags(payload jsonb) RETURNS text[]
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 50 AS 'MODULE_PATHNAME', 'enrich_urlhaus_tags_wrapper';
CREATE FUNCTION @extschema@.enrich_urlhaus_online(payload jsonb) RETURNS bigint
    LANGUAGE c IMMUTABLE PARALLEL SAFE COST 20 AS 'MODULE_PATHNAME', 'enrich_urlhaus_online_wrapper';

-- What was cached of a VirusTotal answer: all of it, without its wrapper, or some of its attributes.
CREATE FUNCTION @extschema@.enrich_virustotal_attributes(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(pg_catalog.jsonb_extract_path(payload, 'data', 'attributes'),
    pg_catalog.jsonb_extract_path(payload, 'attributes'), payload);

-- A cached list of 18 items, in either of the orders in use, in the shape of Spur's own answer.
CREATE FUNCTION @extschema@.enrich_spur_list(items jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN @extschema@.enrich_spur_flagged(items) IS NOT NULL THEN pg_catalog.jsonb_build_object(
    'as', pg_catalog.jsonb_build_object(
        'number', @extschema@.enrich_spur_value(items, 'as', 'number'),
        'organization', @extschema@.enrich_spur_value(items, 'as', 'organization')),
    'organization', @extschema@.enrich_spur_value(items, 'organization'),
    'infrastructure', @extschema@.enrich_spur_value(items, 'infrastructure'),
    'client', pg_catalog.jsonb_build_object(
        'behaviors', @extschema@.enrich_spur_value(items, 'client', 'behaviors'),
        'proxies', @extschema@.enrich_spur_value(items, 'client', 'proxies'),
        'types', @extschema@.enrich_spur_value(items, 'client', 'types'),
        'count', @extschema@.enrich_spur_value(items, 'client', 'count'),
        'countries', @extschema@.enrich_spur_value(items, 'client', 'countries'),
        'spread', @extschema@.enrich_spur_value(items, 'client', 'spread')),
    'risks', @extschema@.enrich_spur_value(items, 'risks'),
    'services', @extschema@.enrich_spur_value(items, 'services'),
    'location', pg_catalog.jsonb_build_object(
        'city', @extschema@.enrich_spur_value(items, 'location', 'city'),
        'state', @extschema@.enrich_spur_value(items, 'location', 'state'),
        'country', @extschema@.enrich_spur_value(items, 'location', 'country')),
    -- of the older order only the parts of the first tunnel are known
    'tunnels', coalesce(@extschema@.enrich_spur_value(items, 'tunnels'),
        CASE WHEN coalesce(@extschema@.enrich_spur_value(items, 'tunnels', '0', 'type'), @extschema@.enrich_spur_value(items, 'tunnels', '0', 'operator'),
                @extschema@.enrich_spur_value(items, 'tunnels', '0', 'anonymous')) IS NOT NULL
            THEN pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
                'anonymous', @extschema@.enrich_spur_value(items, 'tunnels', '0', 'anonymous'),
                'operator', @extschema@.enrich_spur_value(items, 'tunnels', '0', 'operator'),
                'type', @extschema@.enrich_spur_value(items, 'tunnels', '0', 'type'))) END)) END;

-- A Spur answer as it was received, also where a list was cached.
CREATE FUNCTION @extschema@.enrich_spur_answer(payload jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN pg_catalog.jsonb_typeof(payload) = 'array' THEN @extschema@.enrich_spur_list(payload)
    WHEN pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(payload, 'spur_data')) = 'array'
        THEN @extschema@.enrich_spur_list(pg_catalog.jsonb_extract_path(payload, 'spur_data'))
    ELSE payload END;

-- Typed views: one row per key of the cache, one scan, an expression per column, so that a join is a join of tables and a
-- column that is not asked for is not computed.
--
-- The outer join to nothing is taken out by the planner, for service is never NULL. What stays of it (docs/adr/0012): a
-- column that is not strict could have been NULL because of the join, so it is computed where the table is read. A join then
-- carries a few short values for each row of the cache in place of its payload, and computes them once for each
-- row of the cache in place of once for each row of the result.

-- The clock is always there. A condition that is volatile keeps the planner from putting a Memoize node over the index (docs/adr/0012):
-- it believes the pages of the index scan to be shared by all rows of the join and then counts only the misses, so that it prefers
-- that to a hash join four times as fast, as soon as it takes the user's table to have fewer keys than it has.

CREATE VIEW @extschema@.enrichment_dshield AS
SELECT c.cache_key, c.asn, c.as_name, c.country, c.network, c.abuse_contact, c.reports, c.attacks, c.first_seen,
    c.last_seen, c.threatfeeds,
    c.response_status, c.fetched_at, c.expires_at
FROM (SELECT) AS one
LEFT JOIN (
    SELECT c.service, c.cache_key,
        @extschema@.enrich_asn(c.payload, 'ip', 'as') AS asn,
        @extschema@.enrich_text(c.payload, 'ip', 'asname') AS as_name,
        @extschema@.enrich_text(c.payload, 'ip', 'ascountry') AS country,
        @extschema@.enrich_text(c.payload, 'ip', 'network') AS network,
        @extschema@.enrich_text(c.payload, 'ip', 'asabusecontact') AS abuse_contact,
        @extschema@.enrich_bigint(c.payload, 'ip', 'count') AS reports,
        @extschema@.enrich_bigint(c.payload, 'ip', 'attacks') AS attacks,
        @extschema@.enrich_date(c.payload, 'ip', 'mindate') AS first_seen,
        @extschema@.enrich_date(c.payload, 'ip', 'maxdate') AS last_seen,
        @extschema@.enrich_names(c.payload, 'ip', 'threatfeeds') AS threatfeeds,
        c.response_status, c.fetched_at, c.expires_at
    FROM @extschema@.enrichment_cache c) c ON true
WHERE c.service = 'dshield' AND pg_catalog.clock_timestamp() IS NOT NULL;

CREATE VIEW @extschema@.enrichment_spur AS
SELECT c.cache_key, c.asn, c.as_organization, c.organization, c.infrastructure, c.city, c.state, c.country, c.client_count,
    c.client_countries, c.client_spread, c.client_types, c.behaviors, c.proxies, c.risks, c.services,
    c.tunnel_type, c.tunnel_operator, c.anonymous, c.flagged,
    c.response_status, c.fetched_at, c.expires_at
FROM (SELECT) AS one
LEFT JOIN (
    SELECT c.service, c.cache_key,
        @extschema@.enrich_asn(@extschema@.enrich_spur_value(c.payload, 'as', 'number')) AS asn,
        @extschema@.enrich_text(@extschema@.enrich_spur_value(c.payload, 'as', 'organization')) AS as_organization,
        @extschema@.enrich_text(@extschema@.enrich_spur_value(c.payload, 'organization')) AS organization,
        @extschema@.enrich_text(@extschema@.enrich_spur_value(c.payload, 'infrastructure')) AS infrastructure,
        @extschema@.enrich_text(@extschema@.enrich_spur_value(c.payload, 'location', 'city')) AS city,
        @extschema@.enrich_text(@extschema@.enrich_spur_value(c.payload, 'location', 'state')) AS state,
        @extschema@.enrich_text(@extschema@.enrich_spur_value(c.payload, 'location', 'country')) AS country,
        @extschema@.enrich_bigint(@extschema@.enrich_spur_value(c.payload, 'client', 'count')) AS client_count,
        @extschema@.enrich_bigint(@extschema@.enrich_spur_value(c.payload, 'client', 'countries')) AS client_countries,
        @extschema@.enrich_bigint(@extschema@.enrich_spur_value(c.payload, 'client', 'spread')) AS client_spread,
        @extschema@.enrich_text_array(@extschema@.enrich_spur_value(c.payload, 'client', 'types')) AS client_types,
        @extschema@.enrich_text_array(@extschema@.enrich_spur_value(c.payload, 'client', 'behaviors')) AS behaviors,
        @extschema@.enrich_text_array(@extschema@.enrich_spur_value(c.payload, 'client', 'proxies')) AS proxies,
        @extschema@.enrich_text_array(@extschema@.enrich_spur_value(c.payload, 'risks')) AS risks,
        @extschema@.enrich_text_array(@extschema@.enrich_spur_value(c.payload, 'services')) AS services,
        @extschema@.enrich_text(@extschema@.enrich_spur_value(c.payload, 'tunnels', '0', 'type')) AS tunnel_type,
        @extschema@.enrich_text(@extschema@.enrich_spur_value(c.payload, 'tunnels', '0', 'operator')) AS tunnel_operator,
        @extschema@.enrich_boolean(@extschema@.enrich_spur_value(c.payload, 'tunnels', '0', 'anonymous')) AS anonymous,
        @extschema@.enrich_spur_flagged(c.payload) AS flagged,
        c.response_status, c.fetched_at, c.expires_at
    FROM @extschema@.enrichment_cache c) c ON true
WHERE c.service = 'spur' AND pg_catalog.clock_timestamp() IS NOT NULL;

CREATE VIEW @extschema@.enrichment_urlhaus AS
SELECT c.cache_key, c.host, c.url_count, c.urls_online, c.tags, c.threat, c.first_seen, c.blacklisted, c.spamhaus_dbl,
    c.surbl, c.reference,
    c.response_status, c.fetched_at, c.expires_at
FROM (SELECT) AS one
LEFT JOIN (
    SELECT c.service, c.cache_key,
        @extschema@.enrich_text(c.payload, 'host') AS host,
        @extschema@.enrich_bigint(c.payload, 'url_count') AS url_count,
        @extschema@.enrich_urlhaus_online(c.payload) AS urls_online,
        @extschema@.enrich_urlhaus_tags(c.payload) AS tags,
        coalesce(@extschema@.enrich_text(c.payload, 'threat'), @extschema@.enrich_text(c.payload, 'urls', '0', 'threat')) AS threat,
        coalesce(@extschema@.enrich_timestamp(c.payload, 'firstseen'), @extschema@.enrich_timestamp(c.payload, 'date_added')) AS first_seen,
        CASE WHEN coalesce(@extschema@.enrich_text(c.payload, 'blacklists', 'spamhaus_dbl'),
                @extschema@.enrich_text(c.payload, 'blacklists', 'surbl')) IS NOT NULL
            THEN coalesce(@extschema@.enrich_text(c.payload, 'blacklists', 'spamhaus_dbl'), 'not listed') <> 'not listed'
                OR coalesce(@extschema@.enrich_text(c.payload, 'blacklists', 'surbl'), 'not listed') <> 'not listed' END AS blacklisted,
        @extschema@.enrich_text(c.payload, 'blacklists', 'spamhaus_dbl') AS spamhaus_dbl,
        @extschema@.enrich_text(c.payload, 'blacklists', 'surbl') AS surbl,
        @extschema@.enrich_text(c.payload, 'urlhaus_reference') AS reference,
        c.response_status, c.fetched_at, c.expires_at
    FROM @extschema@.enrichment_cache c) c ON true
WHERE c.service = 'urlhaus' AND pg_catalog.clock_timestamp() IS NOT NULL;

CREATE VIEW @extschema@.enrichment_virustotal AS
SELECT c.cache_key, c.sha256, c.malicious, c.suspicious, c.undetected, c.harmless, c.total, c.label, c.type_description,
    c.meaningful_name, c.names, c.tags, c.reputation, c.size, c.first_seen, c.last_seen, c.last_analysis,
    c.asn, c.as_owner, c.country,
    c.response_status, c.fetched_at, c.expires_at
FROM (SELECT) AS one
LEFT JOIN (
    SELECT c.service, c.cache_key,
        coalesce(@extschema@.enrich_text(@extschema@.enrich_virustotal_value(c.payload, 'sha256')),
            CASE WHEN c.response_status = 'success' AND pg_catalog.length(c.cache_key) = 64 THEN c.cache_key END) AS sha256,
        @extschema@.enrich_bigint(@extschema@.enrich_virustotal_value(c.payload, 'last_analysis_stats', 'malicious')) AS malicious,
        @extschema@.enrich_bigint(@extschema@.enrich_virustotal_value(c.payload, 'last_analysis_stats', 'suspicious')) AS suspicious,
        @extschema@.enrich_bigint(@extschema@.enrich_virustotal_value(c.payload, 'last_analysis_stats', 'undetected')) AS undetected,
        @extschema@.enrich_bigint(@extschema@.enrich_virustotal_value(c.payload, 'last_analysis_stats', 'harmless')) AS harmless,
        @extschema@.enrich_sum(@extschema@.enrich_virustotal_value(c.payload, 'last_analysis_stats')) AS total,
        @extschema@.enrich_text(@extschema@.enrich_virustotal_value(c.payload, 'popular_threat_classification', 'suggested_threat_label')) AS label,
        @extschema@.enrich_text(@extschema@.enrich_virustotal_value(c.payload, 'type_description')) AS type_description,
        @extschema@.enrich_text(@extschema@.enrich_virustotal_value(c.payload, 'meaningful_name')) AS meaningful_name,
        @extschema@.enrich_text_array(@extschema@.enrich_virustotal_value(c.payload, 'names')) AS names,
        @extschema@.enrich_text_array(@extschema@.enrich_virustotal_value(c.payload, 'tags')) AS tags,
        @extschema@.enrich_bigint(@extschema@.enrich_virustotal_value(c.payload, 'reputation')) AS reputation,
        @extschema@.enrich_bigint(@extschema@.enrich_virustotal_value(c.payload, 'size')) AS size,
        @extschema@.enrich_timestamp(@extschema@.enrich_virustotal_value(c.payload, 'first_submission_date')) AS first_seen,
        @extschema@.enrich_timestamp(@extschema@.enrich_virustotal_value(c.payload, 'last_submission_date')) AS last_seen,
        @extschema@.enrich_timestamp(@extschema@.enrich_virustotal_value(c.payload, 'last_analysis_date')) AS last_analysis,
        @extschema@.enrich_asn(@extschema@.enrich_virustotal_value(c.payload, 'asn')) AS asn,
        @extschema@.enrich_text(@extschema@.enrich_virustotal_value(c.payload, 'as_owner')) AS as_owner,
        @extschema@.enrich_text(@extschema@.enrich_virustotal_value(c.payload, 'country')) AS country,
        c.response_status, c.fetched_at, c.expires_at
    FROM @extschema@.enrichment_cache c) c ON true
WHERE c.service = 'virustotal' AND pg_catalog.clock_timestamp() IS NOT NULL;

CREATE VIEW @extschema@.enrichment_hibp AS
SELECT c.cache_key AS prefix,
    CASE WHEN c.ranges IS NOT NULL THEN @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(c.payload, 'suffixes'))
        WHEN pg_catalog.jsonb_typeof(c.payload) = 'object' THEN (
        SELECT pg_catalog.count(*) FROM pg_catalog.jsonb_each(c.payload) AS s
        WHERE @extschema@.enrich_bigint(s.value) > 0::bigint) END AS suffixes,
    CASE WHEN c.ranges IS NOT NULL THEN @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(c.payload, 'most_seen'))
        WHEN pg_catalog.jsonb_typeof(c.payload) = 'object' THEN (
        SELECT pg_catalog.max(@extschema@.enrich_bigint(s.value)) FROM pg_catalog.jsonb_each(c.payload) AS s) END AS most_seen,
    c.ranges, c.response_status, c.fetched_at, c.expires_at
FROM @extschema@.enrichment_cache c
WHERE c.service = 'hibp' AND pg_catalog.clock_timestamp() IS NOT NULL;

-- Earlier payloads beside what replaced them. ---------------------------------------------------------------------

CREATE VIEW @extschema@.enrichment_changes AS
SELECT h.service, h.cache_key, h.replaced_at AS changed_at, h.version AS from_version,
    coalesce(@extschema@.enrich_hibp_range(h.ranges), h.payload) AS old_payload,
    CASE WHEN n.id IS NOT NULL THEN coalesce(@extschema@.enrich_hibp_range(n.ranges), n.payload)
        ELSE coalesce(@extschema@.enrich_hibp_range(c.ranges), c.payload) END AS new_payload
FROM @extschema@.enrichment_history h
LEFT JOIN LATERAL (
    SELECT s.id, s.payload, s.ranges FROM @extschema@.enrichment_history s
    WHERE s.service = h.service AND s.cache_key = h.cache_key AND s.id > h.id
    ORDER BY s.id LIMIT 1) n ON true
LEFT JOIN @extschema@.enrichment_cache c ON c.service = h.service AND c.cache_key = h.cache_key;

-- Monitoring (coverage and forecasts: 42_coverage.sql, 43_eta.sql): pg_monitor reads these, so they call nothing but pg_catalog, enrich_worker_states,
-- enrich_lane_waits, enrich_quota_live and enrich_live_lookups.

CREATE VIEW @extschema@.enrichment_queue_status AS
SELECT coalesce(s.name, q.service) AS service,
    coalesce(q.waiting, 0::bigint) AS waiting,
    coalesce(q.in_flight, 0::bigint) AS in_flight,
    coalesce(q.dead, 0::bigint) AS dead,
    -- greatest() passes over NULLs
    CASE WHEN q.next_attempt_at IS NOT NULL THEN greatest(q.next_attempt_at, l.held_until, h.next_call_at) END AS next_attempt_at,
    q.oldest,
    CASE WHEN l.held_until IS NULL AND h.next_call_at IS NULL THEN coalesce(q.due, 0::bigint) ELSE 0::bigint END AS due,
    coalesce(q.retrying, 0::bigint) AS retrying,
    l.breaker, l.paused_until, l.cause AS pause_cause
FROM @extschema@.enrichment_service s
FULL JOIN (
    SELECT r.service,
        pg_catalog.count(*) FILTER (WHERE r.state = 'waiting') AS waiting,
        pg_catalog.count(*) FILTER (WHERE r.state = 'in_flight') AS in_flight,
        pg_catalog.count(*) FILTER (WHERE r.state = 'dead') AS dead,
        pg_catalog.min(r.next_attempt_at) FILTER (WHERE r.state = 'waiting') AS next_attempt_at,
        pg_catalog.min(r.requested_at) FILTER (WHERE r.state <> 'dead') AS oldest,
        pg_catalog.count(*) FILTER (WHERE r.state = 'waiting' AND r.next_attempt_at <= pg_catalog.now()) AS due,
        pg_catalog.count(*) FILTER (WHERE r.state = 'waiting' AND r.attempts > 0) AS retrying
    FROM @extschema@.enrichment_queue r GROUP BY r.service) q ON q.service = s.name
LEFT JOIN (
    SELECT v.name, coalesce(k.breaker, 'closed') AS breaker,
        CASE WHEN k.paused_until > pg_catalog.now() THEN k.paused_until END AS paused_until,
        CASE WHEN k.paused_until > pg_catalog.now() THEN k.cause END AS cause,
        greatest(CASE WHEN k.paused_until > pg_catalog.now() THEN k.paused_until END,
            CASE WHEN k.breaker = 'open' AND k.breaker_until > pg_catalog.now() THEN k.breaker_until END) AS held_until
    FROM @extschema@.enrichment_service v LEFT JOIN @extschema@.enrichment_lane k ON k.service = v.name) l ON l.name = s.name
LEFT JOIN @extschema@.enrich_lane_waits() h ON h.service = s.name AND h.next_call_at > pg_catalog.now();

CREATE VIEW @extschema@.enrichment_quota_status AS
WITH live AS MATERIALIZED (SELECT * FROM @extschema@.enrich_quota_live()),
ledger AS (
    SELECT q.service, q.per, q.window_start, pg_catalog.max(greatest(q.spent, q.spent_by_all)) AS spent
    FROM @extschema@.enrichment_quota q GROUP BY q.service, q.per, q.window_start)
SELECT s.name AS service, w.per, w.max, w.spent,
    CASE WHEN h.service IS NOT NULL THEN 0::bigint ELSE coalesce(w.provider_remaining, greatest(w.max - w.spent, 0::bigint)) END AS remaining,
    w.window_start, coalesce(h.next_call_at, w.resets_at) AS resets_at,
    w.provider_max, w.provider_spent, w.provider_remaining, w.provider_resets_at, w.provider_said_at,
    l.paused_until, l.cause AS pause_cause, l.reason AS pause_reason
FROM @extschema@.enrichment_service s
LEFT JOIN LATERAL (
    -- the shared budgets know it best; without them (no worker has come to it yet) the ledger does
    SELECT coalesce(v.per, c.per) AS per, coalesce(v.max, c.max) AS max,
        CASE WHEN v.per IS NOT NULL THEN v.spent ELSE coalesce(c.spent, 0::bigint) END AS spent,
        coalesce(v.window_start, c.window_start) AS window_start, coalesce(v.resets_at, c.resets_at) AS resets_at,
        v.provider_max, v.provider_spent, v.provider_remaining, v.provider_resets_at, v.provider_said_at
    FROM (
        SELECT j.max, j.per, t.window_start, t.resets_at, q.spent
        FROM pg_catalog.jsonb_to_recordset(s.limits) AS j (max bigint, per text)
        CROSS JOIN LATERAL (
            SELECT pg_catalog.date_trunc(j.per, pg_catalog.now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS window_start,
                (pg_catalog.date_trunc(j.per, pg_catalog.now() AT TIME ZONE 'UTC') + CASE j.per WHEN 'second' THEN interval '1 second'
                    WHEN 'minute' THEN interval '1 minute' WHEN 'hour' THEN interval '1 hour' WHEN 'day' THEN interval '1 day'
                    ELSE interval '1 month' END) AT TIME ZONE 'UTC' AS resets_at) t
        LEFT JOIN ledger q ON q.service = s.name AND q.per = j.per AND q.window_start = t.window_start) c
    FULL JOIN (SELECT live.* FROM live WHERE live.service = s.name) v ON v.per = c.per) w ON true
LEFT JOIN @extschema@.enrich_lane_waits() h
    ON h.service = s.name AND h.per = w.per AND h.next_call_at > pg_catalog.now()
LEFT JOIN @extschema@.enrichment_lane l ON l.service = s.name AND l.paused_until > pg_catalog.now();

CREATE VIEW @extschema@.enrichment_worker AS
SELECT w.pid, w.database, w.state, w.in_flight, w.last_error FROM @extschema@.enrich_worker_states() AS w;

CREATE VIEW @extschema@.enrichment_stat AS
SELECT coalesce(s.name, d.service, l.service) AS service,
    coalesce(d.cache_hits, 0::bigint) + coalesce(l.cache_hits, 0::bigint) AS cache_hits,
    coalesce(d.cache_misses, 0::bigint) + coalesce(l.cache_misses, 0::bigint) AS cache_misses,
    coalesce(d.cache_stores, 0::bigint) AS cache_stores,
    coalesce(d.api_calls, 0::bigint) AS api_calls,
    coalesce(d.api_failures, 0::bigint) AS api_failures,
    d.avg_api_latency_ms, d.max_api_latency_ms,
    n.total_entries, n.expired_entries,
    coalesce(d.touches_dropped, 0::bigint) + coalesce(l.touches_dropped, 0::bigint) AS touches_dropped,
    coalesce(d.disk_hits, 0::bigint) + coalesce(l.disk_hits, 0::bigint) AS disk_hits,
    coalesce(d.disk_adopted, 0::bigint) AS disk_adopted,
    coalesce(d.disk_written, 0::bigint) AS disk_written
FROM @extschema@.enrichment_service s
FULL JOIN (
    SELECT t.service,
        pg_catalog.sum(t.cache_hits)::bigint AS cache_hits,
        pg_catalog.sum(t.cache_misses)::bigint AS cache_misses,
        pg_catalog.sum(t.touches_dropped)::bigint AS touches_dropped,
        pg_catalog.sum(t.disk_hits)::bigint AS disk_hits,
        pg_catalog.sum(t.disk_adopted)::bigint AS disk_adopted,
        pg_catalog.sum(t.disk_written)::bigint AS disk_written,
        pg_catalog.sum(t.cache_stores)::bigint AS cache_stores,
        pg_catalog.sum(t.api_calls)::bigint AS api_calls,
        pg_catalog.sum(t.api_failures)::bigint AS api_failures,
        pg_catalog.sum(t.avg_api_latency_ms * t.api_calls::double precision)
            / nullif(pg_catalog.sum(t.api_calls) FILTER (WHERE t.avg_api_latency_ms IS NOT NULL), 0::numeric)::double precision
            AS avg_api_latency_ms,
        pg_catalog.max(t.max_api_latency_ms) AS max_api_latency_ms
    FROM @extschema@.enrichment_cache_stats t GROUP BY t.service) d ON d.service = s.name
-- what shared memory holds beside it
FULL JOIN @extschema@.enrich_live_lookups() l ON l.service = coalesce(s.name, d.service)
LEFT JOIN LATERAL (
    SELECT t.total_entries, t.expired_entries FROM @extschema@.enrichment_cache_stats t
    WHERE t.service = coalesce(s.name, d.service, l.service) AND t.total_entries IS NOT NULL
    ORDER BY t.day DESC LIMIT 1) n ON true;
