-- The registry and the cache: estimates for the planner, changes that are announced, history that is kept.

ALTER FUNCTION enrich_get_many(text, text[]) ROWS 100;
ALTER FUNCTION enrich_lookup(text, text) ROWS 1;
ALTER FUNCTION enrich_password(text) ROWS 1;
ALTER FUNCTION enrich_worker_states() ROWS 10;
ALTER FUNCTION enrich_live_lookups() ROWS 10;

CREATE FUNCTION enrichment_registry_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM @extschema@.enrich_registry_changed(TG_RELID);
    RETURN NULL;
END $$;

CREATE TRIGGER enrichment_registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON enrichment_service
    FOR EACH STATEMENT EXECUTE FUNCTION enrichment_registry_changed();

-- Sessions know from the registry for which services a table is attached. A sweep changes other columns, which tells nobody.
CREATE FUNCTION enrichment_sources_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM @extschema@.enrich_registry_changed('@extschema@.enrichment_service'::regclass);
    RETURN NULL;
END $$;

CREATE TRIGGER enrichment_sources_changed AFTER INSERT OR UPDATE OF services OR DELETE OR TRUNCATE ON enrichment_source
    FOR EACH STATEMENT EXECUTE FUNCTION enrichment_sources_changed();

CREATE FUNCTION enrichment_take_over_builtin() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- a row restored from a dump replaces the untouched one that CREATE EXTENSION has just made
    IF TG_OP = 'INSERT' THEN
        DELETE FROM @extschema@.enrichment_service s WHERE s.name = NEW.name AND s.builtin;
    END IF;
    NEW.builtin := false;
    RETURN NEW;
END $$;

CREATE TRIGGER enrichment_take_over_builtin BEFORE INSERT OR UPDATE ON enrichment_service
    FOR EACH ROW EXECUTE FUNCTION enrichment_take_over_builtin();

CREATE TRIGGER enrichment_keep_history AFTER UPDATE OF payload, ranges ON enrichment_cache
    FOR EACH ROW WHEN (OLD.payload IS NOT NULL)
    EXECUTE FUNCTION enrichment_keep_history();
