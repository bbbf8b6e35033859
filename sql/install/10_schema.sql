-- First of all: an older table of our name may stand where the extension is to go.
DO $stands$
BEGIN
    IF pg_catalog.to_regclass('@extschema@.enrichment_cache') IS NOT NULL THEN
        RAISE EXCEPTION 'relation "enrichment_cache" already exists in schema %', '@extschema@' USING ERRCODE = '42P07',
            DETAIL = 'An older table of this name stands where the extension would put its own.',
            HINT = 'Keep it and install beside it: CREATE SCHEMA enrichment; CREATE EXTENSION enrichment_cache SCHEMA enrichment;';
    END IF;
END
$stands$;
