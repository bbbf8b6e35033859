-- The tables. What each holds stands in 80_comments.sql; who may touch them in 90_grants.sql.

-- Of a column of a table, so it comes before the tables: whether a payload holds nothing, null, "", {}, [] and whatever is made
-- of these alone, such as {"ip": {"asname": "", "ascountry": ""}} or a list of 18 empty texts, which clients store when they
-- learnt nothing.
CREATE FUNCTION enrich_is_empty(payload jsonb) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'enrich_is_empty_wrapper';

CREATE TABLE enrichment_service (
    name            text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$'),
    enabled         boolean NOT NULL DEFAULT true,
    key_kind        text NOT NULL,
    method          text NOT NULL DEFAULT 'GET' CHECK (method IN ('GET', 'POST')),
    url             text NOT NULL,
    headers         jsonb NOT NULL DEFAULT '{}',
    body            text,
    secret_name     text CHECK (secret_name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,126}$'),
    secret_required boolean NOT NULL DEFAULT false,
    response_format text NOT NULL DEFAULT 'json' CHECK (response_format IN ('json', 'hibp_range')),
    ttl             interval NOT NULL DEFAULT '7 days' CHECK (ttl > interval '0'),
    not_found_ttl   interval NOT NULL DEFAULT '12 hours' CHECK (not_found_ttl > interval '0'),
    stale_ttl       interval NOT NULL DEFAULT '30 days' CHECK (stale_ttl >= interval '0'),
    limits          jsonb NOT NULL DEFAULT '[]',
    max_in_flight   int NOT NULL DEFAULT 4 CHECK (max_in_flight BETWEEN 1 AND 1000),
    timeout_ms      int NOT NULL DEFAULT 30000 CHECK (timeout_ms BETWEEN 100 AND 600000),
    max_bytes       int NOT NULL DEFAULT 4194304 CHECK (max_bytes BETWEEN 1024 AND 268435456),
    rules           jsonb NOT NULL DEFAULT '{}',
    builtin         boolean NOT NULL DEFAULT false,
    CHECK (NOT secret_required OR secret_name IS NOT NULL),
    CONSTRAINT enrichment_service_makes_sense
        CHECK (enrich_check_service(name, key_kind, method, url, headers::text, body, secret_name, limits::text, rules::text))
);

CREATE TABLE enrichment_secret (
    secret_name text PRIMARY KEY,
    secret      text NOT NULL,
    set_at      timestamptz NOT NULL DEFAULT now()
);
-- members of pg_read_all_data may read every table; rows under row security without a policy they may not
ALTER TABLE enrichment_secret ENABLE ROW LEVEL SECURITY;
-- ANALYZE would copy values into pg_statistic
ALTER TABLE enrichment_secret ALTER COLUMN secret SET STATISTICS 0;

-- numbers of rows that come together lie far apart, see docs/adr/0016-indexes-that-stay-small.md
CREATE SEQUENCE enrichment_cache_id_seq;
CREATE TABLE enrichment_cache (
    id                bigint PRIMARY KEY DEFAULT enrich_scattered(nextval('enrichment_cache_id_seq')),
    service           text COLLATE "C" NOT NULL,
    cache_key         text COLLATE "C" NOT NULL CHECK (length(cache_key) BETWEEN 1 AND 512),
    cache_key_hash    uuid NOT NULL GENERATED ALWAYS AS (enrich_key_hash(service, cache_key)) STORED,
    payload           jsonb,
    ranges            bytea,
    response_status   text NOT NULL DEFAULT 'success'
        CHECK (response_status IN ('success', 'not_found', 'error', 'rate_limited', 'unauthorized', 'invalid')),
    created_at        timestamptz NOT NULL DEFAULT now(),
    fetched_at        timestamptz NOT NULL DEFAULT now(),
    accessed_at       timestamptz,
    expires_at        timestamptz NOT NULL,
    api_response_code int,
    api_latency_ms    int CHECK (api_latency_ms >= 0),
    error_message     text,
    hit_count         bigint NOT NULL DEFAULT 0,
    version           bigint NOT NULL DEFAULT 1,
    altered           boolean NOT NULL DEFAULT false,
    etag              text,
    last_modified     text,
    -- judged once, where the payload is at hand, and not by each count of the answers
    hollow            boolean NOT NULL GENERATED ALWAYS AS (CASE
        WHEN payload IS NULL THEN false
        WHEN ranges IS NOT NULL THEN coalesce(pg_catalog.jsonb_extract_path_text(payload, 'suffixes') = '0', false)
        ELSE enrich_is_empty(payload) END) STORED,
    CONSTRAINT enrichment_cache_payload_when_known CHECK ((payload IS NOT NULL) = (response_status = 'success')),
    CONSTRAINT enrichment_cache_ranges_have_a_summary CHECK (ranges IS NULL OR payload IS NOT NULL)
) WITH (fillfactor = 90);

-- One row per (service, key). Only this index is unique: with a second one, two upserts of the same new key can each
-- wait for the other (seen here), for an upsert can only give way on the index it names. Look-ups and joins go by it too.
CREATE UNIQUE INDEX enrichment_cache_service_key ON enrichment_cache (service, cache_key);
CREATE INDEX enrichment_cache_expiry ON enrichment_cache (expires_at);

-- As jsonb_path_ops, with as many terms as an index can have without growing for ever (docs/adr/0016-indexes-that-stay-small.md).
CREATE OPERATOR CLASS enrichment_payload_ops FOR TYPE jsonb USING gin AS
    OPERATOR 7 @> (jsonb, jsonb), OPERATOR 15 @? (jsonb, jsonpath), OPERATOR 16 @@ (jsonb, jsonpath),
    FUNCTION 1 btint4cmp(int4, int4),
    FUNCTION 2 enrich_payload_terms(jsonb, internal, internal),
    FUNCTION 3 enrich_payload_query_terms(jsonb, internal, int2, internal, internal, internal, internal),
    FUNCTION 4 gin_consistent_jsonb_path(internal, int2, jsonb, int4, internal, internal, internal, internal),
    FUNCTION 6 gin_triconsistent_jsonb_path(internal, int2, jsonb, int4, internal, internal, internal),
    STORAGE int4;
CREATE INDEX enrichment_cache_payload ON enrichment_cache USING gin (payload enrichment_payload_ops) WHERE service <> 'hibp';

CREATE TABLE enrichment_history (
    id              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    service         text COLLATE "C" NOT NULL,
    cache_key       text COLLATE "C" NOT NULL,
    version         bigint NOT NULL,
    payload         jsonb NOT NULL,
    ranges          bytea,
    fetched_at      timestamptz NOT NULL,
    replaced_at     timestamptz NOT NULL DEFAULT now(),
    altered         boolean NOT NULL DEFAULT false
);
-- the key first: it alone tells nearly all rows apart, and an entry is made for each answer that is replaced
CREATE INDEX enrichment_history_key ON enrichment_history (cache_key, service, fetched_at);

CREATE TABLE enrichment_queue (
    id              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    service         text COLLATE "C" NOT NULL,
    cache_key       text COLLATE "C" NOT NULL,
    priority        int NOT NULL DEFAULT 0,
    state           text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'in_flight', 'dead')),
    attempts        int NOT NULL DEFAULT 0,
    requested_at    timestamptz NOT NULL DEFAULT now(),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    leased_at       timestamptz,
    leased_by       int,
    last_outcome    text,
    last_error      text,
    last_attempt_at timestamptz,
    -- Priority and the hours that a request has been due add up. All grow old at the same pace, so that the order of two
    -- requests never changes by itself, and an index keeps it.
    rank            double precision NOT NULL GENERATED ALWAYS AS (
        priority - pg_catalog.date_part('epoch', next_attempt_at - pg_catalog.to_timestamp(0)) / 3600) STORED,
    UNIQUE (service, cache_key)
) WITH (fillfactor = 70);
-- the first answers "what is the most valuable that is due", the second "when is the next one due", both at any length
CREATE INDEX enrichment_queue_due ON enrichment_queue (service, rank DESC, next_attempt_at, id) WHERE state = 'waiting';
CREATE INDEX enrichment_queue_next ON enrichment_queue (service, next_attempt_at) WHERE state = 'waiting';

CREATE TABLE enrichment_quota (
    service      text COLLATE "C" NOT NULL,
    budget       uuid NOT NULL,
    per          text NOT NULL CHECK (per IN ('second', 'minute', 'hour', 'day', 'month')),
    window_start timestamptz NOT NULL,
    spent        bigint NOT NULL CHECK (spent >= 0),
    spent_by_all bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (service, budget, per, window_start)
) WITH (fillfactor = 50);

CREATE TABLE enrichment_lane (
    service      text COLLATE "C" PRIMARY KEY,
    paused_until timestamptz,
    cause        text,
    reason       text,
    failures     int NOT NULL DEFAULT 0,
    changed_at   timestamptz NOT NULL DEFAULT now(),
    breaker          text NOT NULL DEFAULT 'closed' CHECK (breaker IN ('closed', 'open', 'half_open')),
    breaker_since    timestamptz,
    breaker_until    timestamptz,
    breaker_failures int NOT NULL DEFAULT 0,
    breaker_openings int NOT NULL DEFAULT 0,
    breaker_request  bigint,
    breaker_reason   text
) WITH (fillfactor = 50);

CREATE TABLE enrichment_source (
    name            text PRIMARY KEY,
    relation        regclass NOT NULL,
    key_column      name,
    key_expression  text,
    key_type        regtype NOT NULL,
    eligible        text,
    services        text[] NOT NULL CHECK (cardinality(services) > 0),
    into_column     name,
    shape           text NOT NULL CHECK (shape IN ('raw', 'cowrieprocessor', 'files', 'passwords', 'none')),
    flag_columns    jsonb CHECK (jsonb_typeof(flag_columns) = 'object'),
    time_column     name,
    weight          text,
    usual_weight    boolean NOT NULL DEFAULT false,
    commit_interval int NOT NULL DEFAULT 500 CHECK (commit_interval BETWEEN 1 AND 100000),
    attached_at     timestamptz NOT NULL DEFAULT now(),
    swept_at        timestamptz,
    last_error      text,
    last_error_at   timestamptz,
    CHECK ((key_column IS NULL) <> (key_expression IS NULL))
);

CREATE TABLE enrichment_arrival (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source     text NOT NULL,
    raw_keys   text[] COLLATE "C" NOT NULL,
    row_counts bigint[] NOT NULL,
    weights    float8[] NOT NULL,
    latest     timestamptz[] NOT NULL,
    key_count  int NOT NULL GENERATED ALWAYS AS (cardinality(raw_keys)) STORED,
    urgent     boolean NOT NULL DEFAULT false,
    moved      boolean NOT NULL DEFAULT false,
    CHECK (cardinality(row_counts) = cardinality(raw_keys) AND cardinality(weights) = cardinality(raw_keys)
        AND cardinality(latest) = cardinality(raw_keys))
);

CREATE TABLE enrichment_indicator (
    source     text COLLATE "C" NOT NULL,
    raw_key    text COLLATE "C" NOT NULL,
    cache_key  text COLLATE "C",
    problem    text,
    dirty      boolean NOT NULL DEFAULT true,
    moved      boolean NOT NULL DEFAULT false,
    row_count  bigint NOT NULL DEFAULT 1,
    weight     float8 NOT NULL DEFAULT 1,
    latest     timestamptz,
    first_seen timestamptz NOT NULL DEFAULT now(),
    written_at timestamptz,
    PRIMARY KEY (source, raw_key),
    CHECK ((cache_key IS NULL) = (problem IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX enrichment_indicator_key ON enrichment_indicator (cache_key);
CREATE INDEX enrichment_indicator_dirty ON enrichment_indicator (source, raw_key) WHERE dirty;

-- One row for each CALL enrich_refresh that runs, or ran until it was cut short.
CREATE TABLE enrichment_refresh_run (
    pid           int PRIMARY KEY,
    started_at    timestamptz NOT NULL,
    phase         text NOT NULL,
    sources       text[] NOT NULL,
    keys_total    bigint,
    keys_done     bigint,
    keys_failed   bigint,
    keys_to_write bigint,
    per_second    numeric,
    eta           timestamptz,
    waiting_for   text,
    updated_at    timestamptz NOT NULL,
    commit_interval int CHECK (commit_interval BETWEEN 1 AND 100000)
) WITH (fillfactor = 50);

CREATE TABLE enrichment_cache_stats (
    service            text COLLATE "C" NOT NULL,
    day                date NOT NULL,
    cache_hits         bigint NOT NULL DEFAULT 0,
    cache_misses       bigint NOT NULL DEFAULT 0,
    cache_stores       bigint NOT NULL DEFAULT 0,
    api_calls          bigint NOT NULL DEFAULT 0,
    api_failures       bigint NOT NULL DEFAULT 0,
    avg_api_latency_ms double precision,
    max_api_latency_ms int,
    total_entries      bigint,
    expired_entries    bigint,
    touches_dropped    bigint NOT NULL DEFAULT 0,
    disk_hits          bigint NOT NULL DEFAULT 0,
    disk_adopted       bigint NOT NULL DEFAULT 0,
    disk_written       bigint NOT NULL DEFAULT 0,
    refreshed_ahead    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (service, day)
) WITH (fillfactor = 50);

CREATE TABLE enrichment_privilege (
    level  text NOT NULL CHECK (level IN ('reader', 'writer', 'admin', 'monitor')),
    action text NOT NULL CHECK (action IN ('EXECUTE', 'SELECT', 'INSERT, UPDATE, DELETE')),
    object text NOT NULL,
    PRIMARY KEY (level, action, object)
);

ALTER SEQUENCE enrichment_cache_id_seq OWNED BY enrichment_cache.id;

-- digits of hashes do not get smaller, and of what is not compressed a part can be read
ALTER TABLE enrichment_cache ALTER COLUMN ranges SET STORAGE EXTERNAL;
ALTER TABLE enrichment_history ALTER COLUMN ranges SET STORAGE EXTERNAL;

-- lz4 halves the cost of reading large payloads, where the server was built with it
DO $lz4$
BEGIN
    ALTER TABLE enrichment_cache ALTER COLUMN payload SET COMPRESSION lz4;
    ALTER TABLE enrichment_history ALTER COLUMN payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL; -- pglz, PostgreSQL's own, is the default then
END
$lz4$;

SELECT pg_catalog.pg_extension_config_dump('enrichment_service', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('enrichment_cache', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_history', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_queue', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_quota', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_source', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_arrival', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_indicator', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_cache_stats', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_cache_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_history_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_queue_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('enrichment_arrival_id_seq', '');
