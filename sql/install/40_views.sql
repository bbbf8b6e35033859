-- Typed access to answers, and views for analysts and for monitoring.
--
-- Nothing here raises, whatever a provider sent. Functions are pg_catalog's by name; operators have operands of exactly
-- the types pg_catalog declares (or are qualified), so that nothing in another schema can take their place.

-- Safe accessors: NULL instead of an error. Plain expressions, so that the planner inlines them. ------------------

CREATE FUNCTION @extschema@.enrich_bigint(value jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
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

CREATE FUNCTION @extschema@.enrich_text(value jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN pg_catalog.jsonb_typeof(value) IN ('string', 'number', 'boolean')
    THEN nullif(value #>> '{}'::text[], '') END;

CREATE FUNCTION @extschema@.enrich_boolean(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN pg_catalog.jsonb_typeof(value) NOT IN ('string', 'number', 'boolean') THEN NULL
    WHEN pg_catalog.lower((value #>> '{}'::text[]) COLLATE "C") IN ('true', 't', 'yes', 'y', 'on', '1') THEN true
    WHEN pg_catalog.lower((value #>> '{}'::text[]) COLLATE "C") IN ('false', 'f', 'no', 'n', 'off', '0') THEN false
    END;

-- Unix seconds (a number, or a text of 9 to 11 digits), or a date with or without time, UTC unless an offset says
-- otherwise. The casts from text to timestamps depend on settings and raise, hence the taking apart.
CREATE FUNCTION @extschema@.enrich_timestamp(value jsonb) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
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
CREATE FUNCTION @extschema@.enrich_text_array(value jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
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
CREATE FUNCTION @extschema@.enrich_asn(value jsonb) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE pg_catalog.jsonb_typeof(value)
    WHEN 'number' THEN CASE WHEN value::numeric >= '1'::numeric AND value::numeric < '2147483648'::numeric
        THEN pg_catalog.trunc(value::numeric)::int END
    WHEN 'string' THEN CASE
        WHEN pg_catalog.substring(value #>> '{}'::text[], '^(?:AS|as)?0*([1-9][0-9]{0,9})(?:[.]0*)?$'::text)::bigint <= '2147483647'::bigint
            THEN pg_catalog.substring(value #>> '{}'::text[], '[1-9][0-9]*'::text)::int END
    END;

-- What was cached of a VirusTotal answer: all of it, without its wrapper, or some of its attributes.
CREATE FUNCTION @extschema@.enrich_virustotal_attributes(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(pg_catalog.jsonb_extract_path(payload, 'data', 'attributes'),
    pg_catalog.jsonb_extract_path(payload, 'attributes'), payload);

-- A cached list of 18 items, in either of the orders in use, in the shape of Spur's own answer.
CREATE FUNCTION @extschema@.enrich_spur_list(items jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE COST 1
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
                @extschema@.enrich_text(pg_catalog.jsonb_extract_path(items, '17')),
                @extschema@.enrich_text(pg_catalog.jsonb_extract_path(items, '16')),
                @extschema@.enrich_text(pg_catalog.jsonb_extract_path(items, '14'))) IS NOT NULL
            THEN pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
                'anonymous', pg_catalog.jsonb_extract_path(items, '14'),
                'operator', pg_catalog.jsonb_extract_path(items, '16'),
                'type', pg_catalog.jsonb_extract_path(items, '17'))) END)
    END;

-- A Spur answer as it was received, also where a list was cached. The costs of 1 let the accessors be inlined around it.
CREATE FUNCTION @extschema@.enrich_spur_answer(payload jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE COST 1
RETURN CASE
    WHEN pg_catalog.jsonb_typeof(payload) = 'array' THEN @extschema@.enrich_spur_list(payload)
    WHEN pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(payload, 'spur_data')) = 'array'
        THEN @extschema@.enrich_spur_list(pg_catalog.jsonb_extract_path(payload, 'spur_data'))
    ELSE payload END;

-- Typed views: one row per key of the cache, one scan, an expression per column, so that a join is a join of tables and a
-- column that is not asked for is not computed. (A lateral subquery would be memoized by whole payloads.) -------------

CREATE VIEW @extschema@.enrichment_dshield AS
SELECT c.cache_key,
    @extschema@.enrich_asn(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'as')) AS asn,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'asname')) AS as_name,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'ascountry')) AS country,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'network')) AS network,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'asabusecontact')) AS abuse_contact,
    @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'count')) AS reports,
    @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'attacks')) AS attacks,
    (SELECT (@extschema@.enrich_timestamp(v.day) AT TIME ZONE 'UTC')::date
        FROM (SELECT pg_catalog.jsonb_extract_path(c.payload, 'ip', 'mindate') AS day OFFSET 0) v) AS first_seen,
    (SELECT (@extschema@.enrich_timestamp(v.day) AT TIME ZONE 'UTC')::date
        FROM (SELECT pg_catalog.jsonb_extract_path(c.payload, 'ip', 'maxdate') AS day OFFSET 0) v) AS last_seen,
    CASE pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'threatfeeds'))
        WHEN 'object' THEN (
            SELECT coalesce(pg_catalog.array_agg(f.name ORDER BY f.name), '{}'::text[])
            FROM pg_catalog.jsonb_object_keys(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'threatfeeds')) AS f (name))
        ELSE @extschema@.enrich_text_array(pg_catalog.jsonb_extract_path(c.payload, 'ip', 'threatfeeds')) END AS threatfeeds,
    c.response_status, c.fetched_at, c.expires_at
FROM @extschema@.enrichment_cache c
WHERE c.service = 'dshield';

CREATE VIEW @extschema@.enrichment_spur AS
SELECT c.cache_key,
    @extschema@.enrich_asn(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'as', 'number')) AS asn,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'as', 'organization')) AS as_organization,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'organization')) AS organization,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'infrastructure')) AS infrastructure,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'location', 'city')) AS city,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'location', 'state')) AS state,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'location', 'country')) AS country,
    @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'client', 'count')) AS client_count,
    @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'client', 'countries')) AS client_countries,
    @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'client', 'spread')) AS client_spread,
    @extschema@.enrich_text_array(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'client', 'types')) AS client_types,
    @extschema@.enrich_text_array(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'client', 'behaviors')) AS behaviors,
    @extschema@.enrich_text_array(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'client', 'proxies')) AS proxies,
    @extschema@.enrich_text_array(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'risks')) AS risks,
    @extschema@.enrich_text_array(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'services')) AS services,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'tunnels', '0', 'type')) AS tunnel_type,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'tunnels', '0', 'operator')) AS tunnel_operator,
    @extschema@.enrich_boolean(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'tunnels', '0', 'anonymous')) AS anonymous,
    CASE WHEN pg_catalog.jsonb_typeof(@extschema@.enrich_spur_answer(c.payload)) = 'object' THEN
        coalesce(@extschema@.enrich_text(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'infrastructure')) IN ('DATACENTER', 'VPN'), false)
        OR coalesce(pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(@extschema@.enrich_spur_answer(c.payload), 'tunnels', '0')) = 'object', false) END AS flagged,
    c.response_status, c.fetched_at, c.expires_at
FROM @extschema@.enrichment_cache c
WHERE c.service = 'spur';

CREATE VIEW @extschema@.enrichment_urlhaus AS
SELECT c.cache_key,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'host')) AS host,
    @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(c.payload, 'url_count')) AS url_count,
    CASE WHEN pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(c.payload, 'urls')) = 'array' THEN (
        SELECT pg_catalog.count(*) FROM pg_catalog.jsonb_array_elements(pg_catalog.jsonb_extract_path(c.payload, 'urls')) AS u (url)
        WHERE pg_catalog.jsonb_extract_path_text(u.url, 'url_status') = 'online') END AS urls_online,
    CASE WHEN pg_catalog.jsonb_typeof(pg_catalog.jsonb_extract_path(c.payload, 'urls')) = 'array' THEN (
            SELECT coalesce(pg_catalog.array_agg(DISTINCT t.tag ORDER BY t.tag), '{}'::text[])
            FROM pg_catalog.jsonb_array_elements(pg_catalog.jsonb_extract_path(c.payload, 'urls')) AS u (url)
            CROSS JOIN LATERAL pg_catalog.unnest(
                @extschema@.enrich_text_array(pg_catalog.jsonb_extract_path(u.url, 'tags'))) AS t (tag))
        ELSE (
            SELECT pg_catalog.array_agg(DISTINCT t.tag ORDER BY t.tag) FROM pg_catalog.unnest(@extschema@.enrich_text_array(
                CASE pg_catalog.jsonb_typeof(c.payload) WHEN 'string' THEN c.payload
                    ELSE pg_catalog.jsonb_extract_path(c.payload, 'tags') END)) AS t (tag))
        END AS tags,
    coalesce(@extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'threat')),
        @extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'urls', '0', 'threat'))) AS threat,
    coalesce(@extschema@.enrich_timestamp(pg_catalog.jsonb_extract_path(c.payload, 'firstseen')),
        @extschema@.enrich_timestamp(pg_catalog.jsonb_extract_path(c.payload, 'date_added'))) AS first_seen,
    CASE WHEN coalesce(@extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'spamhaus_dbl')),
            @extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'surbl'))) IS NOT NULL
        THEN coalesce(@extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'spamhaus_dbl')), 'not listed') <> 'not listed'
            OR coalesce(@extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'surbl')), 'not listed') <> 'not listed'
        END AS blacklisted,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'spamhaus_dbl')) AS spamhaus_dbl,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'blacklists', 'surbl')) AS surbl,
    @extschema@.enrich_text(pg_catalog.jsonb_extract_path(c.payload, 'urlhaus_reference')) AS reference,
    c.response_status, c.fetched_at, c.expires_at
FROM @extschema@.enrichment_cache c
WHERE c.service = 'urlhaus';

-- An answer of VirusTotal is large and stored out of line: OFFSET 0 keeps the subquery from being merged, so that it is
-- unpacked once per column and not at each mention of its value.
CREATE VIEW @extschema@.enrichment_virustotal AS
SELECT c.cache_key,
    (SELECT coalesce(@extschema@.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'sha256')),
            CASE WHEN c.response_status = 'success' AND pg_catalog.length(c.cache_key) = 64 THEN c.cache_key END)
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS sha256,
    (SELECT @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'last_analysis_stats', 'malicious'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS malicious,
    (SELECT @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'last_analysis_stats', 'suspicious'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS suspicious,
    (SELECT @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'last_analysis_stats', 'undetected'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS undetected,
    (SELECT @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'last_analysis_stats', 'harmless'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS harmless,
    (SELECT CASE WHEN t.total BETWEEN '-9223372036854775808'::numeric AND '9223372036854775807'::numeric THEN t.total::bigint END
        FROM (SELECT pg_catalog.sum(@extschema@.enrich_bigint(s.value)) AS total FROM pg_catalog.jsonb_each((
            SELECT CASE WHEN pg_catalog.jsonb_typeof(v.stats) = 'object' THEN v.stats END
            FROM (SELECT pg_catalog.jsonb_extract_path(@extschema@.enrich_virustotal_attributes(c.payload), 'last_analysis_stats') AS stats OFFSET 0) v)) AS s) t) AS total,
    (SELECT @extschema@.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'popular_threat_classification', 'suggested_threat_label'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS label,
    (SELECT @extschema@.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'type_description'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS type_description,
    (SELECT @extschema@.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'meaningful_name'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS meaningful_name,
    (SELECT @extschema@.enrich_text_array(pg_catalog.jsonb_extract_path(v.a, 'names'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS names,
    (SELECT @extschema@.enrich_text_array(pg_catalog.jsonb_extract_path(v.a, 'tags'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS tags,
    (SELECT @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'reputation'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS reputation,
    (SELECT @extschema@.enrich_bigint(pg_catalog.jsonb_extract_path(v.a, 'size'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS size,
    (SELECT @extschema@.enrich_timestamp(pg_catalog.jsonb_extract_path(v.a, 'first_submission_date'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS first_seen,
    (SELECT @extschema@.enrich_timestamp(pg_catalog.jsonb_extract_path(v.a, 'last_submission_date'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS last_seen,
    (SELECT @extschema@.enrich_timestamp(pg_catalog.jsonb_extract_path(v.a, 'last_analysis_date'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS last_analysis,
    (SELECT @extschema@.enrich_asn(pg_catalog.jsonb_extract_path(v.a, 'asn'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS asn,
    (SELECT @extschema@.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'as_owner'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS as_owner,
    (SELECT @extschema@.enrich_text(pg_catalog.jsonb_extract_path(v.a, 'country'))
        FROM (SELECT @extschema@.enrich_virustotal_attributes(c.payload) AS a OFFSET 0) v) AS country,
    c.response_status, c.fetched_at, c.expires_at
FROM @extschema@.enrichment_cache c
WHERE c.service = 'virustotal';

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
WHERE c.service = 'hibp';

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

-- Monitoring: pg_monitor reads these, so they call nothing but pg_catalog, enrich_worker_states,
-- enrich_lane_waits and enrich_live_lookups.

CREATE VIEW @extschema@.enrichment_coverage AS
WITH keys AS (
    SELECT i.source, i.cache_key FROM @extschema@.enrichment_indicator i
    WHERE i.cache_key IS NOT NULL GROUP BY i.source, i.cache_key),
ineligible AS (
    SELECT i.source, pg_catalog.count(*) AS keys FROM @extschema@.enrichment_indicator i
    WHERE i.cache_key IS NULL GROUP BY i.source),
counted AS (
    SELECT s.name AS source, a.service,
        pg_catalog.count(k.cache_key) AS eligible,
        pg_catalog.count(*) FILTER (WHERE c.response_status = 'success') AS success,
        pg_catalog.count(*) FILTER (WHERE c.response_status = 'not_found') AS not_found,
        pg_catalog.count(*) FILTER (WHERE coalesce(c.response_status, 'error') NOT IN ('success', 'not_found')
            AND (c.response_status IS NOT NULL OR q.state = 'dead' OR q.last_outcome IS NOT NULL)) AS failed,
        pg_catalog.count(*) FILTER (WHERE c.response_status IS NULL
            AND q.state IN ('waiting', 'in_flight') AND q.last_outcome IS NULL) AS queued
    FROM @extschema@.enrichment_source s
    CROSS JOIN LATERAL (SELECT DISTINCT u.service FROM pg_catalog.unnest(s.services) AS u (service)) a
    LEFT JOIN keys k ON k.source = s.name
    LEFT JOIN @extschema@.enrichment_cache c ON c.service = a.service AND c.cache_key = k.cache_key
    LEFT JOIN @extschema@.enrichment_queue q ON q.service = a.service AND q.cache_key = k.cache_key
    GROUP BY s.name, a.service)
SELECT t.source, t.service,
    t.eligible + coalesce(i.keys, 0::bigint) AS total,
    t.eligible,
    t.success + t.not_found AS answered,
    t.success, t.not_found, t.failed, t.queued,
    t.eligible - t.success - t.not_found - t.failed - t.queued AS never_asked,
    coalesce(i.keys, 0::bigint) AS ineligible,
    -- rounded down: 100 means all
    pg_catalog.trunc((t.success + t.not_found)::numeric * 100::numeric / nullif(t.eligible, 0::bigint)::numeric, 2)::numeric(5, 2) AS percent
FROM counted t LEFT JOIN ineligible i ON i.source = t.source;

CREATE VIEW @extschema@.enrichment_queue_status AS
SELECT coalesce(s.name, q.service) AS service,
    coalesce(q.waiting, 0::bigint) AS waiting,
    coalesce(q.in_flight, 0::bigint) AS in_flight,
    coalesce(q.dead, 0::bigint) AS dead,
    q.next_attempt_at, q.oldest
FROM @extschema@.enrichment_service s
FULL JOIN (
    SELECT r.service,
        pg_catalog.count(*) FILTER (WHERE r.state = 'waiting') AS waiting,
        pg_catalog.count(*) FILTER (WHERE r.state = 'in_flight') AS in_flight,
        pg_catalog.count(*) FILTER (WHERE r.state = 'dead') AS dead,
        pg_catalog.min(r.next_attempt_at) FILTER (WHERE r.state = 'waiting') AS next_attempt_at,
        pg_catalog.min(r.requested_at) FILTER (WHERE r.state <> 'dead') AS oldest
    FROM @extschema@.enrichment_queue r GROUP BY r.service) q ON q.service = s.name;

CREATE VIEW @extschema@.enrichment_quota_status AS
SELECT s.name AS service, w.per,
    CASE WHEN w.per IS NOT NULL THEN least(w.max, 2147483647::bigint)::int END AS max,
    -- a second and a minute slide: what holds the lane up now, the worker knows better than the ledger's fixed windows
    CASE WHEN h.service IS NOT NULL THEN greatest(w.max, coalesce(q.spent, 0::bigint))
        WHEN w.per IS NOT NULL THEN coalesce(q.spent, 0::bigint) END AS spent,
    CASE WHEN h.service IS NOT NULL THEN 0::bigint
        WHEN w.per IS NOT NULL THEN greatest(w.max - coalesce(q.spent, 0::bigint), 0::bigint) END AS remaining,
    w.window_start, coalesce(h.next_call_at, w.resets_at) AS resets_at,
    l.paused_until, l.cause AS pause_cause, l.reason AS pause_reason
FROM @extschema@.enrichment_service s
LEFT JOIN LATERAL (
    SELECT j.max, j.per,
        pg_catalog.date_trunc(j.per, pg_catalog.now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS window_start,
        (pg_catalog.date_trunc(j.per, pg_catalog.now() AT TIME ZONE 'UTC') + CASE j.per WHEN 'second' THEN interval '1 second'
            WHEN 'minute' THEN interval '1 minute' WHEN 'hour' THEN interval '1 hour' WHEN 'day' THEN interval '1 day'
            ELSE interval '1 month' END) AT TIME ZONE 'UTC' AS resets_at
    FROM pg_catalog.jsonb_to_recordset(s.limits) AS j (max bigint, per text)) w ON true
LEFT JOIN @extschema@.enrichment_quota q ON q.service = s.name AND q.per = w.per AND q.window_start = w.window_start
LEFT JOIN @extschema@.enrich_lane_waits() h
    ON h.service = s.name AND h.per = w.per AND h.next_call_at > pg_catalog.now()
LEFT JOIN @extschema@.enrichment_lane l ON l.service = s.name AND l.paused_until > pg_catalog.now();

-- When what waits now will have been asked: for each limit the rest of the current window, then whole windows; the
-- latest of them binds. Calls in flight have their permit. How many calls run at once binds too, by the latency seen.
CREATE VIEW @extschema@.enrichment_eta AS
WITH pending AS (
    SELECT s.name AS service, s.enabled, s.limits, s.max_in_flight,
        coalesce(q.waiting, 0::bigint) AS waiting, coalesce(q.pending, 0::bigint) AS pending, q.last_attempt_at,
        greatest(pg_catalog.now(), l.paused_until) AS start
    FROM @extschema@.enrichment_service s
    LEFT JOIN (
        SELECT r.service, pg_catalog.count(*) AS pending,
            pg_catalog.count(*) FILTER (WHERE r.state = 'waiting') AS waiting,
            pg_catalog.max(r.next_attempt_at) FILTER (WHERE r.state = 'waiting') AS last_attempt_at
        FROM @extschema@.enrichment_queue r WHERE r.state <> 'dead' GROUP BY r.service) q ON q.service = s.name
    LEFT JOIN @extschema@.enrichment_lane l ON l.service = s.name),
windows AS (
    SELECT p.service, j.max, j.per, p.waiting, p.start,
        CASE j.per WHEN 'second' THEN 1::numeric WHEN 'minute' THEN 60::numeric WHEN 'hour' THEN 3600::numeric
            WHEN 'day' THEN 86400::numeric ELSE 2629746::numeric END AS seconds,
        pg_catalog.date_trunc(j.per, p.start AT TIME ZONE 'UTC') AS opens,
        -- whole windows needed after the one that is open at the start
        pg_catalog.ceil(greatest(p.waiting - greatest(j.max - coalesce(q.spent, 0::bigint), 0::bigint), 0::bigint)::numeric
            / nullif(j.max, 0::bigint)::numeric) AS more
    FROM pending p
    CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(p.limits) AS j (max bigint, per text)
    LEFT JOIN @extschema@.enrichment_quota q ON q.service = p.service AND q.per = j.per
        AND q.window_start = pg_catalog.date_trunc(j.per, p.start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'),
bounds AS (
    SELECT w.service, pg_catalog.concat(w.max, '/', w.per) AS name,
        w.max::numeric * 3600::numeric / w.seconds AS calls_per_hour,
        CASE WHEN w.more = 0::numeric THEN w.start
            -- past the year 9999 is never
            WHEN w.more * w.seconds > '250000000000'::numeric THEN NULL
            WHEN w.per = 'month' THEN (w.opens + pg_catalog.make_interval(months => w.more::int)) AT TIME ZONE 'UTC'
            ELSE (w.opens + pg_catalog.make_interval(secs => (w.more * w.seconds)::double precision)) AT TIME ZONE 'UTC'
            END AS done
    FROM windows w
    UNION ALL
    SELECT p.service, pg_catalog.concat(p.max_in_flight, ' at once'),
        p.max_in_flight::numeric * '3600000'::numeric / t.latency,
        CASE WHEN p.waiting::numeric * t.latency <= '250000000000000'::numeric
            THEN p.start + pg_catalog.make_interval(
                secs => (p.waiting::numeric * t.latency / (p.max_in_flight::numeric * 1000::numeric))::double precision) END
    FROM pending p
    JOIN LATERAL (
        SELECT greatest(d.avg_api_latency_ms, 1::double precision)::numeric AS latency
        FROM @extschema@.enrichment_cache_stats d
        WHERE d.service = p.service AND d.avg_api_latency_ms < '1e9'::double precision
        ORDER BY d.day DESC LIMIT 1) t ON true)
SELECT p.service, p.pending, b.name AS binding_limit, pg_catalog.round(b.calls_per_hour, 2) AS calls_per_hour,
    CASE WHEN p.pending > 0::bigint AND p.enabled AND pg_catalog.isfinite(b.done) THEN greatest(b.done, p.last_attempt_at) END AS eta
FROM pending p
LEFT JOIN LATERAL (
    SELECT x.name, x.calls_per_hour, x.done FROM bounds x WHERE x.service = p.service
    ORDER BY x.done DESC NULLS FIRST, x.calls_per_hour, x.name LIMIT 1) b ON true;

CREATE VIEW @extschema@.enrichment_worker AS
SELECT w.pid, w.database, w.state, w.in_flight, w.last_error FROM @extschema@.enrich_worker_states() AS w;

CREATE VIEW @extschema@.enrichment_stat AS
SELECT coalesce(s.name, d.service) AS service,
    coalesce(d.cache_hits, 0::bigint) + coalesce(l.cache_hits, 0::bigint) AS cache_hits,
    coalesce(d.cache_misses, 0::bigint) + coalesce(l.cache_misses, 0::bigint) AS cache_misses,
    coalesce(d.cache_stores, 0::bigint) AS cache_stores,
    coalesce(d.api_calls, 0::bigint) AS api_calls,
    coalesce(d.api_failures, 0::bigint) AS api_failures,
    d.avg_api_latency_ms, d.max_api_latency_ms,
    n.total_entries, n.expired_entries,
    coalesce(d.touches_dropped, 0::bigint) + coalesce(l.touches_dropped, 0::bigint) AS touches_dropped
FROM @extschema@.enrichment_service s
FULL JOIN (
    SELECT t.service,
        pg_catalog.sum(t.cache_hits)::bigint AS cache_hits,
        pg_catalog.sum(t.cache_misses)::bigint AS cache_misses,
        pg_catalog.sum(t.touches_dropped)::bigint AS touches_dropped,
        pg_catalog.sum(t.cache_stores)::bigint AS cache_stores,
        pg_catalog.sum(t.api_calls)::bigint AS api_calls,
        pg_catalog.sum(t.api_failures)::bigint AS api_failures,
        pg_catalog.sum(t.avg_api_latency_ms * t.api_calls::double precision)
            / nullif(pg_catalog.sum(t.api_calls) FILTER (WHERE t.avg_api_latency_ms IS NOT NULL), 0::numeric)::double precision
            AS avg_api_latency_ms,
        pg_catalog.max(t.max_api_latency_ms) AS max_api_latency_ms
    FROM @extschema@.enrichment_cache_stats t GROUP BY t.service) d ON d.service = s.name
-- what shared memory holds beside it
LEFT JOIN @extschema@.enrich_live_lookups() l ON l.service = coalesce(s.name, d.service)
LEFT JOIN LATERAL (
    SELECT t.total_entries, t.expired_entries FROM @extschema@.enrichment_cache_stats t
    WHERE t.service = coalesce(s.name, d.service) AND t.total_entries IS NOT NULL
    ORDER BY t.day DESC LIMIT 1) n ON true;
