-- What an index that a look-up of one key goes by costs, as ratios of one interleaved run (docs/adr/0004). Plain PostgreSQL:
-- needs a database to make two tables in, and drops them again.
--
--   psql -d DATABASE -v rows=1000000 -v probes=100000 -v rounds=15 -f benches/sql/key-indexes.sql
--
-- A quarter of the keys are 64-digit hashes, the others addresses; a probe reads a column of the row. Each round takes every
-- index once, in turn, with the same keys in random order. Hashes are made beforehand: what making one costs is not in it.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
SET jit = off;
SET max_parallel_workers_per_gather = 0;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_memoize = off;
SET enable_bitmapscan = off;
SET work_mem = '256MB';

-- two tables, so that a condition on service and key can only go by one index
CREATE TABLE key_index_a AS
SELECT k.service COLLATE "C" AS service, k.cache_key COLLATE "C" AS cache_key,
    substring(k.digest FOR 16) AS digest, encode(substring(k.digest FOR 16), 'hex')::uuid AS hash, repeat('x', 100) AS payload
FROM (SELECT q.*, sha256(convert_to(q.service || chr(10) || q.cache_key, 'UTF8')) AS digest
    FROM (SELECT (ARRAY['dshield', 'virustotal', 'spur', 'urlhaus'])[1 + n % 4] AS service,
            CASE n % 4 WHEN 1 THEN encode(sha256(n::text::bytea), 'hex') ELSE host('1.0.0.0'::inet + (n::bigint * 7919) % 3000000000) END AS cache_key
        FROM generate_series(1, :rows) n) q) k
ORDER BY random();
CREATE TABLE key_index_b AS TABLE key_index_a;
CREATE UNIQUE INDEX key_index_service_first ON key_index_a (service, cache_key);
CREATE UNIQUE INDEX key_index_uuid ON key_index_a (hash);
CREATE UNIQUE INDEX key_index_key_first ON key_index_b (cache_key, service);
CREATE UNIQUE INDEX key_index_bytea ON key_index_b (digest);
CREATE TABLE key_index_probe AS SELECT service, cache_key, digest, hash FROM key_index_a ORDER BY random() LIMIT :probes;
VACUUM (ANALYZE) key_index_a, key_index_b, key_index_probe;

CREATE TEMP TABLE variant (name text, index text, query text);
INSERT INTO variant VALUES
    ('(service, cache_key)', 'key_index_service_first', 'key_index_a c ON c.service = p.service AND c.cache_key = p.cache_key'),
    ('(cache_key, service)', 'key_index_key_first', 'key_index_b c ON c.service = p.service AND c.cache_key = p.cache_key'),
    ('hash, uuid', 'key_index_uuid', 'key_index_a c ON c.hash = p.hash'),
    ('hash, bytea', 'key_index_bytea', 'key_index_b c ON c.digest = p.digest');
CREATE TEMP TABLE taken (round int, name text, ms float8);
SELECT set_config('key_index.rounds', :'rounds', false) \g /dev/null

DO $$
DECLARE
    tried variant;
    began timestamptz;
    found bigint;
    line  text;
    plan  text;
BEGIN
    FOR round IN 0..current_setting('key_index.rounds')::int LOOP
        FOR tried IN SELECT v.* FROM variant v ORDER BY (ascii(substr(v.index, 11)) + round * 7) % 5, v.name LOOP
            IF round = 0 THEN
                plan := '';
                FOR line IN EXECUTE 'EXPLAIN SELECT count(c.payload) FROM key_index_probe p JOIN ' || tried.query LOOP
                    plan := plan || line || chr(10);
                END LOOP;
                IF position('Index Scan using ' || tried.index || ' ' IN plan) = 0 THEN
                    RAISE EXCEPTION '% is not what is measured: %', tried.index, plan;
                END IF;
            END IF;
            began := clock_timestamp();
            EXECUTE 'SELECT count(c.payload) FROM key_index_probe p JOIN ' || tried.query INTO found;
            -- the first round fills the caches
            IF round > 0 THEN
                INSERT INTO taken VALUES (round, tried.name, 1000 * extract(epoch FROM clock_timestamp() - began));
            END IF;
            IF found <> (SELECT count(*) FROM key_index_probe) THEN
                RAISE EXCEPTION '% found % rows', tried.name, found;
            END IF;
        END LOOP;
    END LOOP;
END $$;

SELECT v.name, round((percentile_cont(0.5) WITHIN GROUP (ORDER BY t.ms / s.ms))::numeric, 2) AS "ratio, median of the rounds",
    round(min(t.ms / s.ms)::numeric, 2) AS least, round(max(t.ms / s.ms)::numeric, 2) AS most,
    pg_size_pretty(pg_relation_size(v.index::regclass)) AS size
FROM variant v JOIN taken t USING (name) JOIN taken s ON s.round = t.round AND s.name = '(service, cache_key)'
GROUP BY v.name, v.index ORDER BY 2, 1;
DROP TABLE key_index_a, key_index_b, key_index_probe;
