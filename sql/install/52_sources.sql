-- Attached tables: their triggers, enrich_attach, enrich_detach.

-- Reads transition tables as the owner of the table, writes enrichment_arrival as the owner of the extension.
CREATE FUNCTION enrichment_note_rows() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'enrichment_note_rows_wrapper';

-- A column that holds when a row came or was last seen: the one that was named, else the first that is there.
CREATE FUNCTION enrichment_time_column(relation regclass, wanted name) RETURNS name LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    times CONSTANT oid[] := ARRAY['timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype];
    found_type oid;
BEGIN
    IF wanted IS NULL THEN
        RETURN @extschema@.enrichment_time_of(relation, NULL);
    END IF;
    SELECT a.atttypid INTO found_type FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = wanted;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'column "%" of relation "%" does not exist', wanted, (SELECT c.relname FROM pg_class c WHERE c.oid = relation)
            USING ERRCODE = '42703', HINT = 'Name a column that holds when a row came or was last seen.';
    END IF;
    IF found_type <> ALL (times) THEN
        RAISE EXCEPTION 'column "%" of type % cannot tell when a row came', wanted, format_type(found_type, NULL)
            USING ERRCODE = '42804', HINT = 'The time column is of type timestamptz, timestamp or date.';
    END IF;
    RETURN wanted;
END $$;

-- What a row adds to the worth of its key in the tables we know by name, from the columns that are there. NULL: 1 a row.
CREATE FUNCTION enrichment_usual_weight(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT '1' || string_agg(w.term, '' ORDER BY w.at) FROM pg_class c
    JOIN (VALUES
        (1, 'session_summaries', 'command_count', ' + least(greatest(coalesce(command_count, 0), 0), 50)'),
        (2, 'session_summaries', 'file_downloads', ' + 10 * least(greatest(coalesce(file_downloads, 0), 0), 10)'),
        (3, 'session_summaries', 'vt_flagged', ' + CASE WHEN vt_flagged THEN 20 ELSE 0 END'),
        (4, 'session_summaries', 'dshield_flagged', ' + CASE WHEN dshield_flagged THEN 5 ELSE 0 END'),
        (5, 'password_tracking', 'times_seen', ' + greatest(coalesce(times_seen, 0), 0)')) w (at, relname, attname, term)
        ON w.relname = c.relname
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = w.attname AND NOT a.attisdropped
    WHERE c.oid = relation
      AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'bool'::regtype)
      AND (a.atttypid = 'bool'::regtype) = (a.attname LIKE '%flagged')
    HAVING count(*) > 0
$$;

CREATE FUNCTION enrich_attach(
    relation        regclass,
    key_column      name DEFAULT NULL,
    services        text[] DEFAULT NULL,
    into_column     name DEFAULT NULL,
    source_name     text DEFAULT NULL,
    key_expression  text DEFAULT NULL,
    eligible        text DEFAULT NULL,
    shape           text DEFAULT NULL,
    flag_columns    jsonb DEFAULT NULL,
    time_column     name DEFAULT NULL,
    weight          text DEFAULT NULL,
    commit_interval int DEFAULT 500
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    class    pg_class;
    schema   text;
    wanted   text := source_name;
    key_att  pg_attribute;
    key_type regtype;
    into_att pg_attribute;
    unknown  text;
    layout   text;
    usual    boolean;
    flag     record;
    event    record;
    files    CONSTANT text[] := '{vt_classification,vt_description,vt_malicious,vt_positives,vt_total,vt_first_seen,vt_last_analysis,vt_scan_date,enrichment_status}';
    accounts CONSTANT text[] := '{breached,breach_prevalence,last_hibp_check}';
BEGIN
    SELECT c.* INTO class FROM pg_class c WHERE c.oid = relation;
    -- tables that are known by name need no more than that
    IF key_column IS NULL AND key_expression IS NULL AND services IS NULL THEN
        SELECT p.key_column, p.services INTO key_column, services FROM (VALUES
            ('session_summaries', 'source_ip', '{dshield,urlhaus,spur}'::text[]),
            ('files', 'shasum', '{virustotal}'),
            ('password_tracking', 'password_text', '{hibp}')) p (relname, key_column, services) WHERE p.relname = class.relname;
        IF class.relname = 'session_summaries' AND into_column IS NULL THEN
            SELECT a.attname INTO into_column FROM pg_attribute a
            WHERE a.attrelid = relation AND a.attname = 'enrichment' AND NOT a.attisdropped;
        END IF;
        -- what the readers of that table take from it (docs/adr/0006)
        shape := coalesce(shape, CASE WHEN class.relname = 'session_summaries' AND into_column IS NOT NULL THEN 'cowrieprocessor' END);
    END IF;
    IF relation IS NULL OR (key_column IS NULL AND key_expression IS NULL) OR coalesce(cardinality(services), 0) = 0 THEN
        RAISE EXCEPTION 'relation, key_column and services must be given' USING ERRCODE = '22023',
            HINT = 'For example: SELECT enrich_attach(''session_summaries'', ''source_ip'', ''{dshield,urlhaus,spur}'', ''enrichment'').';
    END IF;
    IF key_column IS NOT NULL AND key_expression IS NOT NULL THEN
        RAISE EXCEPTION 'key_column and key_expression cannot both be given' USING ERRCODE = '22023',
            HINT = 'Give the column that holds the keys, or NULL for it and an expression that makes them.';
    END IF;
    IF commit_interval IS NULL OR commit_interval NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION 'commit_interval must lie between 1 and 100000' USING ERRCODE = '22023', HINT = 'It is a number of rows; 500 is usual.';
    END IF;
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
    IF class.relispartition THEN
        RAISE EXCEPTION '"%" is a partition', class.relname USING ERRCODE = '42809',
            HINT = format('Attach %s, the table it is a part of.', pg_partition_root(relation));
    END IF;
    SELECT n.nspname INTO schema FROM pg_namespace n WHERE n.oid = class.relnamespace;
    IF NOT pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, class.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', class.relname USING ERRCODE = '42501',
            HINT = 'Have the owner of the table, or a superuser, attach it.';
    END IF;
    IF key_column IS NOT NULL THEN
        SELECT a.* INTO key_att FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attname = key_column AND a.attnum > 0 AND NOT a.attisdropped;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'column "%" of relation "%" does not exist', key_column, class.relname USING ERRCODE = '42703',
                HINT = format('Its columns are: %s.', (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
                    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped));
        END IF;
        key_type := key_att.atttypid;
    ELSE
        key_type := @extschema@.enrichment_check_expression(relation, key_expression, 'key');
    END IF;
    IF key_type NOT IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'inet'::regtype, 'cidr'::regtype) THEN
        IF key_column IS NULL THEN
            RAISE EXCEPTION 'an expression of type % cannot give keys', key_type
                USING ERRCODE = '42804', HINT = 'Cast it to text, or to inet.';
        END IF;
        RAISE EXCEPTION 'column "%" of type % cannot hold keys', key_column, format_type(key_att.atttypid, key_att.atttypmod)
            USING ERRCODE = '42804', HINT = 'Key columns are of type text, varchar, char, inet or cidr.';
    END IF;
    IF eligible IS NOT NULL THEN
        PERFORM @extschema@.enrichment_check_expression(relation, eligible, 'condition');
    END IF;
    usual  := weight IS NULL;
    weight := coalesce(weight, @extschema@.enrichment_usual_weight(relation));
    IF weight IS NOT NULL THEN
        PERFORM @extschema@.enrichment_check_expression(relation, weight, 'weight');
    END IF;
    time_column := @extschema@.enrichment_time_column(relation, time_column);
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
        WHEN into_column IS NOT NULL THEN coalesce(shape, 'raw')
        WHEN services = '{virustotal}' AND EXISTS (SELECT FROM pg_attribute a
            WHERE a.attrelid = relation AND NOT a.attisdropped AND a.attname = ANY (files)) THEN 'files'
        WHEN services = '{hibp}' THEN 'passwords'
        ELSE 'none' END;
    IF shape IS NOT NULL AND (shape NOT IN ('raw', 'cowrieprocessor') OR into_column IS NULL) THEN
        RAISE EXCEPTION 'shape "%" does not fit', shape USING ERRCODE = '22023',
            HINT = 'With an into_column, shape is raw (answers as received) or cowrieprocessor (as its readers expect them); without one leave it out.';
    END IF;
    IF layout = 'passwords' AND NOT EXISTS (SELECT FROM pg_attribute a
            WHERE a.attrelid = relation AND NOT a.attisdropped AND a.attname = ANY (accounts)) THEN
        RAISE EXCEPTION 'table "%" has no column for what is known of a password', class.relname USING ERRCODE = '42703',
            HINT = 'Give it at least one of: breached boolean, breach_prevalence integer, last_hibp_check timestamptz.';
    END IF;
    IF layout = 'passwords' AND key_column IS NULL THEN
        RAISE EXCEPTION 'passwords are attached by a column, not by an expression' USING ERRCODE = '22023',
            HINT = 'Name the column that holds them, or add a generated column.';
    END IF;
    IF layout <> 'passwords' AND 'hibp' = ANY (services) THEN
        RAISE EXCEPTION 'hibp cannot share a source with other services or a target column' USING ERRCODE = '22023',
            HINT = 'Attach the table of passwords with ''{hibp}'' alone; passwords are hashed inside.';
    END IF;
    IF flag_columns IS NOT NULL THEN
        IF into_column IS NULL OR jsonb_typeof(flag_columns) <> 'object' THEN
            RAISE EXCEPTION 'flag_columns must be an object, and needs an into_column' USING ERRCODE = '22023',
                HINT = 'For example: ''{"dshield_flagged": "dshield"}''; {} for none.';
        END IF;
        FOR flag IN SELECT f.key, f.value, a.atttypid FROM jsonb_each_text(flag_columns) f
            LEFT JOIN pg_attribute a ON a.attrelid = relation AND a.attname = f.key AND a.attnum > 0 AND NOT a.attisdropped
        LOOP
            IF flag.atttypid IS DISTINCT FROM 'bool'::regtype OR flag.value IS NULL OR flag.value <> ALL (services) THEN
                RAISE EXCEPTION 'flag column "%" of service "%" does not fit', flag.key, flag.value USING ERRCODE = '22023',
                    HINT = 'Each is a boolean column of the table, with one of the services of the source.';
            END IF;
        END LOOP;
    END IF;
    wanted := coalesce(wanted, CASE WHEN schema = 'public' THEN class.relname ELSE schema || '.' || class.relname END);
    IF EXISTS (SELECT FROM @extschema@.enrichment_source s WHERE s.name = wanted) THEN
        RAISE EXCEPTION 'source "%" is attached already', wanted USING ERRCODE = '42710',
            HINT = 'Detach it first with enrich_detach(), or give another source_name.';
    END IF;
    INSERT INTO @extschema@.enrichment_source (name, relation, key_column, key_expression, key_type, eligible, services, into_column,
        shape, flag_columns, time_column, weight, usual_weight, commit_interval)
    VALUES (wanted, relation, key_column, key_expression, key_type, eligible, services, into_column,
        layout, flag_columns, time_column, weight, usual, commit_interval);
    FOR event IN SELECT * FROM (VALUES
        ('insert', 'AFTER INSERT', 'REFERENCING NEW TABLE AS new_rows'),
        ('update', 'AFTER UPDATE', 'REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows'),
        ('truncate', 'AFTER TRUNCATE', '')) e (name, moment, tables)
    LOOP
        EXECUTE format('CREATE TRIGGER %I %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.enrichment_note_rows(%L, %L)',
            'enrichment_' || event.name || '_' || wanted, event.moment, relation, event.tables, wanted, coalesce(key_att.attnum, 0));
    END LOOP;
    PERFORM @extschema@.enrich_wake();
    RETURN wanted;
END $$;

CREATE FUNCTION enrich_detach(source text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known  @extschema@.enrichment_source;
    owner  oid;
    found_trigger name;
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
        -- by what they call and for whom: their names may have been changed, or cut to the length of a name
        FOR found_trigger IN
            SELECT t.tgname FROM pg_trigger t WHERE t.tgrelid = known.relation AND NOT t.tgisinternal
              AND t.tgfoid = '@extschema@.enrichment_note_rows()'::regprocedure
              AND split_part(encode(t.tgargs, 'escape'), '\000', 1) = encode(convert_to(source, getdatabaseencoding()), 'escape')
        LOOP
            EXECUTE format('DROP TRIGGER %I ON %s', found_trigger, known.relation);
        END LOOP;
    END IF;
    DELETE FROM @extschema@.enrichment_arrival a WHERE a.source = enrich_detach.source;
    DELETE FROM @extschema@.enrichment_indicator i WHERE i.source = enrich_detach.source;
    DELETE FROM @extschema@.enrichment_source s WHERE s.name = source;
    -- what nobody asked for by name (below 0) and no other table waits for is not asked any more
    DELETE FROM @extschema@.enrichment_queue q
    WHERE q.service = ANY (known.services) AND q.state = 'waiting' AND q.priority < 0
      AND NOT EXISTS (SELECT FROM @extschema@.enrichment_indicator i JOIN @extschema@.enrichment_source s ON s.name = i.source
        WHERE i.cache_key = q.cache_key AND q.service = ANY (s.services));
END $$;

INSERT INTO @extschema@.enrichment_privilege (level, action, object) VALUES
    ('admin', 'EXECUTE', 'enrich_attach(regclass, name, text[], name, text, text, text, text, jsonb, name, text, integer)'),
    ('admin', 'EXECUTE', 'enrich_detach(text)');

COMMENT ON FUNCTION enrichment_note_rows() IS
    'Trigger of attached tables: writes the distinct keys of new and changed rows to enrichment_arrival, one row a statement.';
COMMENT ON FUNCTION enrichment_time_column(regclass, name) IS
    'Part of enrich_attach: the column that tells when a row came or was last seen.';
COMMENT ON FUNCTION enrichment_usual_weight(regclass) IS
    'Part of enrich_attach: what a row of session_summaries or password_tracking adds to the worth of its key.';
COMMENT ON FUNCTION enrich_attach(regclass, name, text[], name, text, text, text, text, jsonb, name, text, integer) IS
    'Attaches a table: its keys are asked about and answers written into its rows, from now on and for the rows that stand. Returns the source''s name. into_column NULL: known columns are filled, else the table is only joined.';
COMMENT ON FUNCTION enrich_detach(text) IS 'Detaches a source: its triggers go, what was written stays.';
COMMENT ON FUNCTION enrichment_check_expression(oid, text, text) IS
    'Part of enrich_attach: checks an expression over a table''s rows, as the owner of the table. Returns the type of a key.';
COMMENT ON FUNCTION enrichment_worth(float8, timestamptz) IS
    'What a key is worth as the priority of its request, -1000 to -1: by the weight of its rows, and how long ago the last came.';
COMMENT ON FUNCTION enrichment_ask_source(text, int) IS
    'Part of enrich_refresh: asks for the keys of a source, all of them or those of its newest rows; returns the latter.';
COMMENT ON FUNCTION enrichment_cost(text, int, bigint[]) IS
    'Part of enrich_refresh: per service the eligible keys of a source, all or those of its newest rows, and how many calls they need.';
