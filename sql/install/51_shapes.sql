-- What is written into users' rows: a service's answer in the shape that readers of cowrieprocessor expect, and whether it
-- finds fault.

-- NULL when nothing was learnt. dshield: the body as received. urlhaus: the tags as one text, separated by ",". spur: a list
-- of 18 items in the order now in use. What is cached in that shape already is handed on, other services' answers too.
CREATE FUNCTION enrich_cowrieprocessor(service text, payload jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN payload IS NULL THEN NULL
    WHEN service = 'urlhaus'::text THEN
        pg_catalog.to_jsonb(pg_catalog.array_to_string(coalesce(@extschema@.enrich_urlhaus_tags(payload), '{}'::text[]), ','::text))
    WHEN service = 'spur'::text THEN CASE WHEN @extschema@.enrich_spur_flagged(payload) IS NOT NULL THEN pg_catalog.jsonb_build_array(
        coalesce(@extschema@.enrich_spur_value(payload, 'as', 'organization'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'client', 'behaviors'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'client', 'concentration', 'city'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'client', 'concentration', 'country'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'client', 'concentration', 'geohash'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'client', 'countries'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'client', 'count'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'client', 'proxies'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'client', 'spread'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'client', 'types'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'infrastructure'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'location', 'city'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'location', 'country'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'location', 'state'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'organization'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'risks'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'services'), '""'::jsonb),
        coalesce(@extschema@.enrich_spur_value(payload, 'tunnels'), '""'::jsonb)) END
    ELSE payload END;

-- NULL when the answer does not say: a flag is then left as it is.
CREATE FUNCTION enrich_flagged(service text, payload jsonb) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN payload IS NULL THEN NULL
    WHEN service = 'dshield'::text THEN coalesce(@extschema@.enrich_bigint(payload, 'ip', 'count'), 0::bigint) > 0::bigint
        OR coalesce(@extschema@.enrich_bigint(payload, 'ip', 'attacks'), 0::bigint) > 0::bigint
    WHEN service = 'virustotal'::text THEN
        @extschema@.enrich_bigint(@extschema@.enrich_virustotal_value(payload, 'last_analysis_stats', 'malicious')) > 0::bigint
    WHEN service = 'urlhaus'::text THEN coalesce(pg_catalog.cardinality(@extschema@.enrich_urlhaus_tags(payload)), 0) > 0
    WHEN service = 'spur'::text THEN @extschema@.enrich_spur_flagged(payload) END;

COMMENT ON FUNCTION enrich_cowrieprocessor(text, jsonb) IS
    'A service''s answer in the shape that readers of cowrieprocessor expect: tags of urlhaus as one text, spur as 18 items.';
COMMENT ON FUNCTION enrich_flagged(text, jsonb) IS
    'Whether a service''s answer finds fault: the rule behind dshield_flagged, vt_flagged and their kin. NULL: it does not say.';
