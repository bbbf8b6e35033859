-- Which level of enrich_grant may do what, as rows: a file that brings an object of its own adds its rows itself. A view
-- reads its tables with its owner's rights, but the functions in it with the caller's, inlined ones too. So a level needs,
-- beside what it calls itself:
--   reader   for enrichment_dshield, _urlhaus, _virustotal, _spur, _hibp: the accessors at the top of 40_views.sql
--            for enrichment_worker: enrich_worker_states(); for enrichment_quota_status: enrich_lane_waits(), enrich_quota_live();
--            for enrichment_stat: enrich_live_lookups(); for enrichment_changes: enrich_hibp_range
--   writer   what a reader needs; its functions run with the owner's rights
--   admin    the same, and to write enrichment_service: enrich_check_service (the CHECK constraint calls it as the caller)
--   monitor  for pg_monitor, at CREATE EXTENSION (90_grants.sql)

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'reader', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY[
    'enrich_get(text, text)', 'enrich_get(text, inet)', 'enrich_get(text, text, interval)',
    'enrich_get_many(text, text[])', 'enrich_get_text(text, text)', 'enrich_lookup(text, text)',
    'enrich_explain(text, text)', 'enrich_health()', 'enrich_preloaded()', 'enrich_key_hash(text, text)',
    'enrich_normalize_key(text, text)', 'enrich_ineligible(text, text)', 'enrich_hibp_prefix(text)',
    'enrich_hibp_suffix(text)', 'enrich_hibp_count(bytea, text)', 'enrich_hibp_range(bytea)',
    'enrich_worker_states()', 'enrich_lane_waits()', 'enrich_quota_live()', 'enrich_live_lookups()',
    'enrich_text(jsonb)', 'enrich_text(jsonb, text[])', 'enrich_bigint(jsonb)', 'enrich_bigint(jsonb, text[])',
    'enrich_asn(jsonb)', 'enrich_asn(jsonb, text[])', 'enrich_boolean(jsonb)', 'enrich_boolean(jsonb, text[])',
    'enrich_timestamp(jsonb)', 'enrich_timestamp(jsonb, text[])', 'enrich_date(jsonb)', 'enrich_date(jsonb, text[])',
    'enrich_text_array(jsonb)', 'enrich_text_array(jsonb, text[])', 'enrich_names(jsonb, text[])',
    'enrich_sum(jsonb)', 'enrich_virustotal_value(jsonb, text[])', 'enrich_virustotal_attributes(jsonb)',
    'enrich_spur_value(jsonb, text[])', 'enrich_spur_flagged(jsonb)', 'enrich_spur_answer(jsonb)',
    'enrich_spur_list(jsonb)', 'enrich_urlhaus_tags(jsonb)', 'enrich_urlhaus_online(jsonb)']) AS o;

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'reader', 'SELECT', o FROM pg_catalog.unnest(ARRAY[
    'enrichment_cache', 'enrichment_service', 'enrichment_queue', 'enrichment_lane', 'enrichment_source',
    'enrichment_history', 'enrichment_dshield', 'enrichment_urlhaus', 'enrichment_spur', 'enrichment_virustotal',
    'enrichment_hibp', 'enrichment_queue_status', 'enrichment_quota_status',
    'enrichment_stat', 'enrichment_worker', 'enrichment_changes']) AS o;

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'writer', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY[
    'enrich_store(text, text, jsonb, interval, text, integer, integer, text, timestamp with time zone)',
    'enrich_store_many(text, text[], jsonb[], interval)', 'enrich_store_text(text, text, text, interval)',
    'enrich_compare_and_store(text, text, bigint, jsonb, interval)', 'enrich_request(text, text, integer)',
    'enrich_request_many(text, text[], integer)', 'enrich_fetch(text, text, interval)', 'enrich_password(text)']) AS o;

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'admin', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY[
    'enrich_invalidate(text, text, boolean)', 'enrich_cleanup(bigint)', 'enrich_set_secret(text, text)',
    'enrich_wake()',
    'enrich_check_service(text, text, text, text, text, text, text, text, text)', 'enrich_registry_changed(oid)']) AS o;

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'admin', 'INSERT, UPDATE, DELETE', o FROM pg_catalog.unnest(ARRAY[
    'enrichment_service']) AS o;

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'monitor', 'SELECT', o FROM pg_catalog.unnest(ARRAY[
    'enrichment_queue_status', 'enrichment_quota_status', 'enrichment_stat', 'enrichment_worker']) AS o;

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'monitor', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY[
    'enrich_worker_states()', 'enrich_lane_waits()', 'enrich_quota_live()', 'enrich_live_lookups()']) AS o;

CREATE FUNCTION enrich_grant(role regrole, level text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    levels  CONSTANT text[] := '{reader,writer,admin}';
    allowed record;
BEGIN
    IF level IS NULL OR level <> ALL (levels) THEN
        RAISE EXCEPTION 'unknown level "%"', level USING ERRCODE = '22023', HINT = 'Use reader, writer or admin.';
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA @extschema@ TO %s', role);
    FOR allowed IN
        SELECT p.action, CASE p.action WHEN 'EXECUTE' THEN 'ROUTINE' ELSE 'TABLE' END AS kind, p.object
        FROM @extschema@.enrichment_privilege p
        WHERE array_position(levels, p.level) <= array_position(levels, enrich_grant.level)
        ORDER BY p.action, p.object
    LOOP
        EXECUTE format('GRANT %s ON %s @extschema@.%s TO %s', allowed.action, allowed.kind, allowed.object, role);
    END LOOP;
END $$;

-- the launcher learns of this database when CREATE EXTENSION commits
SELECT enrich_wake_launcher();
