-- Attached tables: their triggers, enrich_attach, enrich_detach.

CREATE FUNCTION enrichment_note_rows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key_column text;
    key_type   oid;
    raw        text;
BEGIN
    -- the column is named by its number, which a rename leaves as it is
    SELECT a.attname, a.atttypid INTO key_column, key_type FROM pg_attribute a
    WHERE a.attrelid = TG_RELID AND a.attnum = TG_ARGV[1]::int2 AND NOT a.attisdropped;
    -- only types whose text form the server makes: a cast of the table's owner must not run with our rights
    IF key_type IS NULL OR key_type NOT IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'inet'::regtype, 'cidr'::regtype) THEN
        RETURN NULL; -- the worker reports the source as broken
    END IF;
    raw := CASE TG_ARGV[2]
        WHEN 'passwords' THEN format('@extschema@.enrich_hibp_prefix(%I::text)', key_column)
        ELSE format('%I::text', key_column) END;
    IF TG_OP = 'INSERT' THEN
        EXECUTE format('INSERT INTO @extschema@.enrichment_arrival (source, raw_key)
            SELECT DISTINCT $1, %1$s FROM new_rows WHERE %2$I IS NOT NULL', raw, key_column) USING TG_ARGV[0];
    ELSE
        EXECUTE format('INSERT INTO @extschema@.enrichment_arrival (source, raw_key)
            SELECT $1, n.raw FROM (SELECT %1$s AS raw FROM new_rows WHERE %2$I IS NOT NULL
                EXCEPT SELECT %1$s FROM old_rows WHERE %2$I IS NOT NULL) n', raw, key_column) USING TG_ARGV[0];
    END IF;
    IF FOUND THEN
        PERFORM @extschema@.enrich_wake();
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION enrich_attach(
    relation    regclass,
    key_column  name,
    services    text[],
    into_column name DEFAULT NULL,
    source_name text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    class    pg_class;
    schema   text;
    wanted   text := source_name;
    key_att  pg_attribute;
    into_att pg_attribute;
    unknown  text;
    layout   text;
    files    CONSTANT text[] := '{vt_classification,vt_description,vt_malicious,vt_positives,vt_total,vt_first_seen,vt_last_analysis,vt_scan_date,enrichment_status}';
    accounts CONSTANT text[] := '{breached,breach_prevalence,last_hibp_check}';
BEGIN
    IF relation IS NULL OR key_column IS NULL OR services IS NULL OR cardinality(services) = 0 THEN
        RAISE EXCEPTION 'relation, key_column and services must be given' USING ERRCODE = '22023',
            HINT = 'For example: SELECT enrich_attach(''session_summaries'', ''source_ip'', ''{dshield,urlhaus,spur}'', ''enrichment'').';
    END IF;
    SELECT c.* INTO class FROM pg_class c WHERE c.oid = relation;
    SELECT n.nspname INTO schema FROM pg_namespace n WHERE n.oid = class.relnamespace;
    IF class.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '"%" is not a table', class.relname USING ERRCODE = '42809',
            DETAIL = format('It is %s.', CASE class.relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view'
                WHEN 'f' THEN 'a foreign table' ELSE format('a relation of kind "%s"', class.relkind) END),
            HINT = 'Attach the table that the rows stand in.';
    END IF;
    IF class.relpersistence = 't' THEN
        RAISE EXCEPTION '"%" is a temporary table', class.relname USING ERRCODE = '42809',
            HINT = 'The worker cannot see other sessions'' temporary tables; attach a permanent one.';
    END IF;
    IF NOT pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, class.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', class.relname USING ERRCODE = '42501',
            HINT = 'Have the owner of the table, or a superuser, attach it.';
    END IF;
    SELECT a.* INTO key_att FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attname = key_column AND a.attnum > 0 AND NOT a.attisdropped;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'column "%" of relation "%" does not exist', key_column, class.relname USING ERRCODE = '42703',
            HINT = format('Its columns are: %s.', (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
                WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped));
    END IF;
    IF key_att.atttypid NOT IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'inet'::regtype, 'cidr'::regtype) THEN
        RAISE EXCEPTION 'column "%" of type % cannot hold keys', key_column, format_type(key_att.atttypid, key_att.atttypmod)
            USING ERRCODE = '42804', HINT = 'Key columns are of type text, varchar, char, inet or cidr.';
    END IF;
    IF into_column IS NOT NULL THEN
        SELECT a.* INTO into_att FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attname = into_column AND a.attnum > 0 AND NOT a.attisdropped;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'column "%" of relation "%" does not exist', into_column, class.relname USING ERRCODE = '42703',
                HINT = format('Add it: ALTER TABLE %s ADD COLUMN %I jsonb.', relation, into_column);
        END IF;
        IF into_att.atttypid NOT IN ('json'::regtype, 'jsonb'::regtype) THEN
            RAISE EXCEPTION 'column "%" of type % cannot hold answers', into_column, format_type(into_att.atttypid, into_att.atttypmod)
                USING ERRCODE = '42804', HINT = 'The target column is of type json or jsonb.';
        END IF;
    END IF;
    SELECT s INTO unknown FROM unnest(services) s
    WHERE NOT EXISTS (SELECT FROM @extschema@.enrichment_service r WHERE r.name = s) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'unknown service "%"', unknown USING ERRCODE = '42704',
            HINT = format('Known services: %s.', (SELECT string_agg(r.name, ', ' ORDER BY r.name) FROM @extschema@.enrichment_service r));
    END IF;
    layout := CASE
        WHEN into_column IS NOT NULL THEN 'json'
        WHEN services = '{virustotal}' AND EXISTS (SELECT FROM pg_attribute a
            WHERE a.attrelid = relation AND NOT a.attisdropped AND a.attname = ANY (files)) THEN 'files'
        WHEN services = '{hibp}' THEN 'passwords'
        ELSE 'none' END;
    IF layout = 'passwords' AND NOT EXISTS (SELECT FROM pg_attribute a
            WHERE a.attrelid = relation AND NOT a.attisdropped AND a.attname = ANY (accounts)) THEN
        RAISE EXCEPTION 'table "%" has no column for what is known of a password', class.relname USING ERRCODE = '42703',
            HINT = 'Give it at least one of: breached boolean, breach_prevalence integer, last_hibp_check timestamptz.';
    END IF;
    IF layout <> 'passwords' AND 'hibp' = ANY (services) THEN
        RAISE EXCEPTION 'hibp cannot share a source with other services or a target column' USING ERRCODE = '22023',
            HINT = 'Attach the table of passwords with ''{hibp}'' alone; passwords are hashed inside.';
    END IF;
    wanted := coalesce(wanted, CASE WHEN schema = 'public' THEN class.relname ELSE schema || '.' || class.relname END);
    IF EXISTS (SELECT FROM @extschema@.enrichment_source s WHERE s.name = wanted) THEN
        RAISE EXCEPTION 'source "%" is attached already', wanted USING ERRCODE = '42710',
            HINT = 'Detach it first with enrich_detach(), or give another source_name.';
    END IF;
    INSERT INTO @extschema@.enrichment_source (name, relation, key_column, services, into_column, shape)
    VALUES (wanted, relation, key_column, services, into_column, layout);
    EXECUTE format('CREATE TRIGGER %I AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
        EXECUTE FUNCTION @extschema@.enrichment_note_rows(%L, %L, %L)',
        'enrichment_insert_' || wanted, relation, wanted, key_att.attnum, layout);
    EXECUTE format('CREATE TRIGGER %I AFTER UPDATE ON %s REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows
        FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.enrichment_note_rows(%L, %L, %L)',
        'enrichment_update_' || wanted, relation, wanted, key_att.attnum, layout);
    PERFORM @extschema@.enrich_wake();
    RETURN wanted;
END $$;

CREATE FUNCTION enrich_detach(source text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known @extschema@.enrichment_source;
    owner oid;
BEGIN
    SELECT s.* INTO known FROM @extschema@.enrichment_source s WHERE s.name = source FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no source "%" is attached', source USING ERRCODE = '42704',
            HINT = format('Attached sources: %s.', coalesce((SELECT string_agg(s.name, ', ' ORDER BY s.name) FROM @extschema@.enrichment_source s), 'none'));
    END IF;
    SELECT c.relowner INTO owner FROM pg_class c WHERE c.oid = known.relation;
    IF FOUND THEN
        IF NOT pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, owner, 'USAGE') THEN
            RAISE EXCEPTION 'must be owner of table %', known.relation USING ERRCODE = '42501',
                HINT = 'Have the owner of the table, or a superuser, detach it.';
        END IF;
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', 'enrichment_insert_' || source, known.relation);
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', 'enrichment_update_' || source, known.relation);
    END IF;
    DELETE FROM @extschema@.enrichment_arrival a WHERE a.source = enrich_detach.source;
    DELETE FROM @extschema@.enrichment_indicator i WHERE i.source = enrich_detach.source;
    DELETE FROM @extschema@.enrichment_source s WHERE s.name = source;
END $$;
