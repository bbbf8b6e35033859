-- The typed views by PostgreSQL's own functions: slow, but easy to believe. The views are compared with these.
--
-- On purpose different there: names and tags are in the order of their bytes, which is written here as COLLATE "C"; white
-- space around commas is ASCII's whatever the database's locale; fractions of seconds after the year 2242 are exact.

CREATE SCHEMA by_sql;


CREATE FUNCTION by_sql.enrich_bigint(value jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE pg_catalog.jsonb_typeof(value)
    WHEN 'number' THEN
        CASE WHEN value::numeric > '-9223372036854775809'::numeric AND value::numeric < '9223372036854775808'::numeric
            THEN pg_catalog.trunc(value::numeric)::bigint END
    WHEN 'string' THEN CASE
        -- 18 digits always fit; 19 may not
        WHEN (value #>> '{}'::text[]) COLLATE "C" ~ '^[[:space:]]*[+-]?[0-9]{1,18}([.][0-9]*)?[[:space:]]*$'
            THEN pg_catalog.substring(value #>> '{}'::text[], '[+-]?[0-9]+'::text)::bigint
        WHEN (value #>> '{}'::text[]) COLLATE "C" ~ '^[[:space:]]*[+-]?[0-9]{19}([.][0-9]*)?[[:space:]]*$'
            THEN CASE WHEN pg_catalog.substring(value #>> '{}'::text[], '[+-]?[0-9]+'::text)::numeric
                    BETWEEN '-9223372036854775808'::numeric AND '9223372036854775807'::numeric
                THEN pg_catalog.substring(value #>> '{}'::text[], '[+-]?[0-9]+'::text)::bigint END
        END
    END;

CREATE FUNCTION by_sql.enrich_text(value jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN pg_catalog.jsonb_typeof(value) IN ('string', 'number', 'boolean')
    THEN nullif(value #>> '{}'::text[], '') END;

CREATE FUNCTION by_sql.enrich_boolean(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN pg_catalog.jsonb_typeof(value) NOT IN ('string', 'number', 'boolean') THEN NULL
    WHEN pg_catalog.lower((value #>> '{}'::text[]) COLLATE "C") IN ('true', 't', 'yes', 'y', 'on', '1') THEN true
    WHEN pg_catalog.lower((value #>> '{}'::text[]) COLLATE "C") IN ('false', 'f', 'no', 'n', 'off', '0') THEN false
    END;

-- Unix seconds (a number, or a text of 9 to 11 digits), or a date with or without time, UTC unless an offset says
-- otherwise. The casts from text to timestamps depend on settings and raise, hence the taking apart.
CREATE FUNCTION by_sql.enrich_timestamp(value jsonb) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE pg_catalog.jsonb_typeof(value)
    WHEN 'number' THEN
        CASE WHEN value::numeric >= '0'::numeric AND value::numeric < '253402300800'::numeric
            THEN pg_catalog.to_timestamp(pg_catalog.round(value::numeric, 6)::double precision) END
    WHEN 'string' THEN CASE
        WHEN (value #>> '{}'::text[]) COLLATE "C" ~ '^[0-9]{9,11}$'
            THEN pg_catalog.to_timestamp((value #>> '{}'::text[])::double precision)
        WHEN (value #>> '{}'::text[]) COLLATE "C" ~ '^[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])([ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?( ?(UTC|GMT|Z|[+-](0[0-9]|1[0-4]):?[0-5][0-9]))?)?$'
            THEN CASE
                -- the day exists when counting to it from the first stays within the month
                WHEN EXTRACT(month FROM pg_catalog.make_date(
                        pg_catalog.substr(value #>> '{}'::text[], 1, 4)::int,
                        pg_catalog.substr(value #>> '{}'::text[], 6, 2)::int, 1)
                        + (pg_catalog.substr(value #>> '{}'::text[], 9, 2)::int - 1))
                    = pg_catalog.substr(value #>> '{}'::text[], 6, 2)::numeric
                THEN (pg_catalog.make_timestamp(
                        pg_catalog.substr(value #>> '{}'::text[], 1, 4)::int,
                        pg_catalog.substr(value #>> '{}'::text[], 6, 2)::int,
                        pg_catalog.substr(value #>> '{}'::text[], 9, 2)::int,
                        coalesce(nullif(pg_catalog.substr(value #>> '{}'::text[], 12, 2), '')::int, 0),
                        coalesce(nullif(pg_catalog.substr(value #>> '{}'::text[], 15, 2), '')::int, 0),
                        coalesce(pg_catalog.substring(value #>> '{}'::text[],
                            ':[0-9]{2}:([0-9]{2}([.][0-9]+)?)'::text)::double precision, 0::double precision))
                    - pg_catalog.make_interval(
                        hours => coalesce(pg_catalog.substring(value #>> '{}'::text[],
                            ':[0-9.]+ ?([+-][0-9]{2}):?[0-9]{2}$'::text)::int, 0),
                        mins => coalesce((
                            pg_catalog.substring(value #>> '{}'::text[], ':[0-9.]+ ?([+-])[0-9]{2}:?[0-9]{2}$'::text)
                            || pg_catalog.substring(value #>> '{}'::text[], ':[0-9.]+ ?[+-][0-9]{2}:?([0-9]{2})$'::text))::int, 0))
                    ) AT TIME ZONE 'UTC'
                END
        END
    END;

-- Strict and with a subquery, so it is called, not inlined; a NULL costs nothing. A text is a list with commas, or a
-- list as Python prints it.
CREATE FUNCTION by_sql.enrich_text_array(value jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
COST 20
RETURN CASE pg_catalog.jsonb_typeof(value)
    WHEN 'array' THEN (
        SELECT coalesce(pg_catalog.array_agg(e.item #>> '{}'::text[] ORDER BY e.place), '{}'::text[])
        FROM pg_catalog.jsonb_array_elements(value) WITH ORDINALITY AS e (item, place)
        WHERE pg_catalog.jsonb_typeof(e.item) IN ('string', 'number', 'boolean') AND (e.item #>> '{}'::text[]) <> '')
    WHEN 'string' THEN
        CASE WHEN (value #>> '{}'::text[]) COLLATE "C" ~ '^[[].*[]]$'
            THEN CASE WHEN (value #>> '{}'::text[]) COLLATE "C" ~ '[^][''", ]'
                THEN pg_catalog.array_remove(pg_catalog.regexp_split_to_array(
                    pg_catalog.btrim(value #>> '{}'::text[], '[]''" '), '[''"]?[[:space:]]*,[[:space:]]*[''"]?'), '') END
        WHEN (value #>> '{}'::text[]) COLLATE "C" ~ '[^, ]'
            THEN pg_catalog.array_remove(pg_catalog.regexp_split_to_array(
                pg_catalog.btrim(value #>> '{}'::text[]), '[[:space:]]*,[[:space:]]*'), '')
        END
    END;

-- A number of an autonomous system, also as "AS123"; above 2147483647 and 0 are NULL.
CREATE FUNCTION by_sql.enrich_asn(value jsonb) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE pg_catalog.jsonb_typeof(value)
    WHEN 'number' THEN CASE WHEN value::numeric >= '1'::numeric AND value::numeric < '2147483648'::numeric
        THEN pg_catalog.trunc(value::numeric)::int END
    WHEN 'string' THEN CASE
        WHEN pg_catalog.substring(value #>> '{}'::text[], '^(?:AS|as)?0*([1-9][0-9]{0,9})(?:[.]0*)?$'::text)::bigint <= '2147483647'::bigint
            THEN pg_catalog.substring(value #>> '{}'::text[], '[1-9][0-9]*'::text)::int END
    END;

CREATE FUNCTION by_sql.enrich_date(value jsonb) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (by_sql.enrich_timestamp(value) AT TIME ZONE 'UTC')::date;

-- What was cached of a VirusTotal answer: all of it, without its wrapper, or some of its attributes.
CREATE FUNCTION by_sql.enrich_virustotal_attributes(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(pg_catalog.jsonb_extract_path(payload, 'data', 'attributes'),
    pg_catalog.jsonb_extract_path(payload, 'attributes'), payload);

-- A cached list of 18 items, in either of the orders in use, in the shape of Spur's own answer.
CREATE FUNCTION by_sql.enrich_spur_list(items jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE COST 1
RETURN CASE
    -- a list of nothing is what was kept when nothing was learnt
    WHEN items <@ '["", null, []]'::jsonb THEN NULL
    WHEN 'array' IN (
            pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(items, '1')),
            pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(items, '7')),
            pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(items, '9')),
            pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(items, '15')),
            pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(items, '16')),
            pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(items, '17')))
        OR 'number' IN (
            pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(items, '5')),
            pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(items, '6')))
    THEN pg_catalog.jsonb_build_object(
        'as', pg_catalog.jsonb_build_object('organization', pg_catalog.jsonb_extract_path(items, '0')),
        'client', pg_catalog.jsonb_build_object(
            'behaviors', pg_catalog.jsonb_extract_path(items, '1'),
            'countries', pg_catalog.jsonb_extract_path(items, '5'),
            'count', pg_catalog.jsonb_extract_path(items, '6'),
            'proxies', pg_catalog.jsonb_extract_path(items, '7'),
            'spread', pg_catalog.jsonb_extract_path(items, '8'),
            'types', pg_catalog.jsonb_extract_path(items, '9')),
        'infrastructure', pg_catalog.jsonb_extract_path(items, '10'),
        'location', pg_catalog.jsonb_build_object(
            'city', pg_catalog.jsonb_extract_path(items, '11'),
            'country', pg_catalog.jsonb_extract_path(items, '12'),
            'state', pg_catalog.jsonb_extract_path(items, '13')),
        'organization', pg_catalog.jsonb_extract_path(items, '14'),
        'risks', pg_catalog.jsonb_extract_path(items, '15'),
        'services', pg_catalog.jsonb_extract_path(items, '16'),
        'tunnels', pg_catalog.jsonb_extract_path(items, '17'))
    ELSE pg_catalog.jsonb_build_object(
        'as', pg_catalog.jsonb_build_object(
            'number', pg_catalog.jsonb_extract_path(items, '0'),
            'organization', pg_catalog.jsonb_extract_path(items, '1')),
        'organization', pg_catalog.jsonb_extract_path(items, '2'),
        'infrastructure', pg_catalog.jsonb_extract_path(items, '3'),
        'client', pg_catalog.jsonb_build_object(
            'behaviors', pg_catalog.jsonb_extract_path(items, '4'),
            'proxies', pg_catalog.jsonb_extract_path(items, '5'),
            'types', pg_catalog.jsonb_extract_path(items, '6'),
            'count', pg_catalog.jsonb_extract_path(items, '7'),
            'countries', pg_catalog.jsonb_extract_path(items, '9'),
            'spread', pg_catalog.jsonb_extract_path(items, '10')),
        'risks', pg_catalog.jsonb_extract_path(items, '11'),
        'services', pg_catalog.jsonb_extract_path(items, '12'),
        -- "city, state, country" without what was empty: two parts do not say which the first one is
        'location', pg_catalog.jsonb_build_object(
            'city', pg_catalog.substring(pg_catalog.jsonb_extract_path_text(items, '13'), '^(.+), [^,]+, [A-Z]{2}$'::text),
            'state', pg_catalog.substring(pg_catalog.jsonb_extract_path_text(items, '13'), ', ([^,]+), [A-Z]{2}$'::text),
            'country', pg_catalog.substring(pg_catalog.jsonb_extract_path_text(items, '13'), '(?:^|, )([A-Z]{2})$'::text)),
        'tunnels', CASE WHEN coalesce(
                by_sql.enrich_text(pg_catalog.jsonb_extract_path(items, '17')),
                by_sql.enrich_text(pg_catalog.jsonb_extract_path(items, '16')),
                by_sql.enrich_text(pg_catalog.jsonb_extract_path(items, '14'))) IS NOT NULL
            THEN pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
                'anonymous', pg_catalog.jsonb_extract_path(items, '14'),
                'operator', pg_catalog.jsonb_extract_path(items, '16'),
                'type', pg_catalog.jsonb_extract_path(items, '17'))) END)
    END;

-- A Spur answer as it was received, also where a list was cached. The costs of 1 let the accessors be inlined around it.
CREATE FUNCTION by_sql.enrich_spur_answer(payload jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE COST 1
RETURN CASE
    WHEN pg_catalog.jsonb_typeof(payload) = 'array' THEN by_sql.enrich_spur_list(payload)
    WHEN pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(payload, 'spur_data')) = 'array'
        THEN by_sql.enrich_spur_list(pg_catalog.jsonb_extract_path(payload, 'spur_data'))
    ELSE payload END;

-- Typed views: one row per key of the cache, one scan, an expression per column, so that a join is a join of tables and a
-- column that is not asked for is not computed. (A lateral subquery would be memoized by whole payloads.) -------------

CREATE VIEW by_sql.enrichment_dshield AS
SELECT c.cache_key,
    by_sql.enrich_asn(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'as')) AS asn,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'asname')) AS as_name,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'ascountry')) AS country,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'network')) AS network,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'asabusecontact')) AS abuse_contact,
    by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'count')) AS reports,
    by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'attacks')) AS attacks,
    (SELECT (by_sql.enrich_timestamp(v.day) AT TIME ZONE 'UTC')::date
        FROM (SELECT pg_catalog.jsonb_extract_path(c.payload, 'ip', 'mindate') AS day OFFSET 0) v) AS first_seen,
    (SELECT (by_sql.enrich_timestamp(v.day) AT TIME ZONE 'UTC')::date
        FROM (SELECT pg_catalog.jsonb_extract_path(c.payload, 'ip', 'maxdate') AS day OFFSET 0) v) AS last_seen,
    CASE pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'threatfeeds'))
        WHEN 'object' THEN (
            SELECT coalesce(pg_catalog.array_agg(f.name ORDER BY f.name COLLATE "C"), '{}'::text[])
            FROM pg_catalog.jsonb_object_keys(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'threatfeeds')) AS f (name))
        ELSE by_sql.enrich_text_array(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'threatfeeds')) END AS threatfeeds,
    c.response_status, c.fetched_at, c.expires_at
FROM enrichment_cache c
WHERE c.service = 'dshield';

CREATE VIEW by_sql.enrichment_spur AS
SELECT c.cache_key,
    by_sql.enrich_asn(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'as', 'number')) AS asn,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'as', 'organization')) AS as_organization,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'organization')) AS organization,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'infrastructure')) AS infrastructure,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'location', 'city')) AS city,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'location', 'state')) AS state,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'location', 'country')) AS country,
    by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'client', 'count')) AS client_count,
    by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'client', 'countries')) AS client_countries,
    by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'client', 'spread')) AS client_spread,
    by_sql.enrich_text_array(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'client', 'types')) AS client_types,
    by_sql.enrich_text_array(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'client', 'behaviors')) AS behaviors,
    by_sql.enrich_text_array(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'client', 'proxies')) AS proxies,
    by_sql.enrich_text_array(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'risks')) AS risks,
    by_sql.enrich_text_array(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'services')) AS services,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'tunnels', '0', 'type')) AS tunnel_type,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'tunnels', '0', 'operator')) AS tunnel_operator,
    by_sql.enrich_boolean(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'tunnels', '0', 'anonymous')) AS anonymous,
    CASE WHEN pg_catalog.jsonb_typeof(by_sql.enrich_spur_answer(c.payload)) = 'object' THEN
        coalesce(by_sql.enrich_text(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'infrastructure')) IN ('DATACENTER', 'VPN'), false)
        OR coalesce(pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(by_sql.enrich_spur_answer(c.payload), 'tunnels', '0')) = 'object', false) END AS flagged,
    c.response_status, c.fetched_at, c.expires_at
FROM enrichment_cache c
WHERE c.service = 'spur';

CREATE VIEW by_sql.enrichment_urlhaus AS
SELECT c.cache_key,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'host')) AS host,
    by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(c.payload, 'url_count')) AS url_count,
    CASE WHEN pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(c.payload, 'urls')) = 'array' THEN (
        SELECT pg_catalog.count(*) FROM pg_catalog.jsonb_array_elements(pg_catalog.jsonb_extract_path(c.payload, 'urls')) AS u (url)
        WHERE pg_catalog.jsonb_extract_path_text(u.url, 'url_status') = 'online') END AS urls_online,
    CASE WHEN pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(c.payload, 'urls')) = 'array' THEN (
            SELECT coalesce(pg_catalog.array_agg(DISTINCT t.tag COLLATE "C" ORDER BY t.tag COLLATE "C"), '{}'::text[])
            FROM pg_catalog.jsonb_array_elements(pg_catalog.jsonb_extract_path(c.payload, 'urls')) AS u (url)
            CROSS JOIN LATERAL pg_catalog.unnest(
                by_sql.enrich_text_array(pg_catalog.jsonb_extract_path(u.url, 'tags'))) AS t (tag))
        ELSE (
            SELECT pg_catalog.array_agg(DISTINCT t.tag COLLATE "C" ORDER BY t.tag COLLATE "C") FROM pg_catalog.unnest(by_sql.enrich_text_array(
                CASE pg_catalog.jsonb_typeof(c.payload) WHEN 'string' THEN c.payload
                    ELSE pg_catalog.jsonb_extract_path(c.payload, 'tags') END)) AS t (tag))
        END AS tags,
    coalesce(by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'threat')),
        by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'urls', '0', 'threat'))) AS threat,
    coalesce(by_sql.enrich_timestamp(pg_catalog.jsonb_extract_path(c.payload, 'firstseen')),
        by_sql.enrich_timestamp(pg_catalog.jsonb_extract_path(c.payload, 'date_added'))) AS first_seen,
    CASE WHEN coalesce(by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'spamhaus_dbl')),
            by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'surbl'))) IS NOT NULL
        THEN coalesce(by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'spamhaus_dbl')), 'not listed') <> 'not listed'
            OR coalesce(by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'surbl')), 'not listed') <> 'not listed'
        END AS blacklisted,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'spamhaus_dbl')) AS spamhaus_dbl,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'surbl')) AS surbl,
    by_sql.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'urlhaus_reference')) AS reference,
    c.response_status, c.fetched_at, c.expires_at
FROM enrichment_cache c
WHERE c.service = 'urlhaus';

-- An answer of VirusTotal is large and stored out of line: OFFSET 0 keeps the subquery from being merged, so that it is
-- unpacked once per column and not at each mention of its value.
CREATE VIEW by_sql.enrichment_virustotal AS
SELECT c.cache_key,
    (SELECT coalesce(by_sql.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'sha256')),
            CASE WHEN c.response_status = 'success' AND pg_catalog.length(c.cache_key) = 64 THEN c.cache_key END)
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS sha256,
    (SELECT by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'last_analysis_stats', 'malicious'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS malicious,
    (SELECT by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'last_analysis_stats', 'suspicious'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS suspicious,
    (SELECT by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'last_analysis_stats', 'undetected'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS undetected,
    (SELECT by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'last_analysis_stats', 'harmless'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS harmless,
    (SELECT CASE WHEN t.total BETWEEN '-9223372036854775808'::numeric AND '9223372036854775807'::numeric THEN t.total::bigint END
        FROM (SELECT pg_catalog.sum(by_sql.enrich_bigint(s.value)) AS total FROM pg_catalog.jsonb_each((
            SELECT CASE WHEN pg_catalog.jsonb_typeof(v.stats) = 'object' THEN v.stats END
            FROM (SELECT pg_catalog.jsonb_extract_path(by_sql.enrich_virustotal_attributes(c.payload), 'last_analysis_stats') AS stats OFFSET 0) v)) AS s) t) AS total,
    (SELECT by_sql.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'popular_threat_classification', 'suggested_threat_label'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS label,
    (SELECT by_sql.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'type_description'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS type_description,
    (SELECT by_sql.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'meaningful_name'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS meaningful_name,
    (SELECT by_sql.enrich_text_array(pg_catalog.jsonb_extract_path(v.a, 'names'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS names,
    (SELECT by_sql.enrich_text_array(pg_catalog.jsonb_extract_path(v.a, 'tags'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS tags,
    (SELECT by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'reputation'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS reputation,
    (SELECT by_sql.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'size'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS size,
    (SELECT by_sql.enrich_timestamp(pg_catalog.jsonb_extract_path(v.a, 'first_submission_date'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS first_seen,
    (SELECT by_sql.enrich_timestamp(pg_catalog.jsonb_extract_path(v.a, 'last_submission_date'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS last_seen,
    (SELECT by_sql.enrich_timestamp(pg_catalog.jsonb_extract_path(v.a, 'last_analysis_date'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS last_analysis,
    (SELECT by_sql.enrich_asn(pg_catalog.jsonb_extract_path(v.a, 'asn'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS asn,
    (SELECT by_sql.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'as_owner'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS as_owner,
    (SELECT by_sql.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'country'))
        FROM (SELECT by_sql.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS country,
    c.response_status, c.fetched_at, c.expires_at
FROM enrichment_cache c
WHERE c.service = 'virustotal';
