-- SSH keys that intruders plant: back-fill of the honeypot's own tables from its events.

ALTER FUNCTION enrich_ssh_keys(text) ROWS 1;

-- The columns of a table, to be written only where they exist.
CREATE FUNCTION enrichment_columns(relation regclass) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT array_agg(a.attname::text) FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '');

-- One batch of events, in the order of their id. A key is known by its hash; a link by session, key and time, so that what
-- was linked before, by whomever, is not linked again. What is counted of a key is counted from its links.
CREATE FUNCTION enrichment_ssh_batch(events regclass, keys regclass, links regclass, after bigint, batch_size int,
    OUT last bigint, OUT seen bigint, OUT planted bigint, OUT new_keys bigint, OUT new_links bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key_columns  text[] := @extschema@.enrichment_columns(keys);
    link_columns text[] := @extschema@.enrichment_columns(links);
    event_columns text[] := @extschema@.enrichment_columns(events);
    links_ip     text := CASE WHEN 'source_ip' = ANY (link_columns) THEN format('nullif(f.source_ip, '''')::%s', (
        SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = links AND a.attname = 'source_ip')) END;
    optional     record;
    columns      text := '';
    values       text := '';
BEGIN
    -- two back-fills of one table take turns
    PERFORM pg_advisory_xact_lock(1701737057, links::oid::int8::bit(32)::int4);
    EXECUTE format('SELECT max(e.id), count(*) FROM (SELECT id FROM %s WHERE id > $1 ORDER BY id LIMIT $2) e', events)
        INTO last, seen USING after, batch_size;
    IF seen = 0 THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TEMPORARY TABLE enrichment_ssh_found ON COMMIT DROP AS
        SELECT DISTINCT ON (e.session_id, k.key_hash, e.event_timestamp) e.session_id::text, e.event_timestamp AS at, e.command, %s AS source_ip, k.*
        FROM (SELECT e.id, e.session_id, e.event_timestamp, e.payload::text AS payload, @extschema@.enrich_event_command(e.payload::text) AS command
            FROM %s e WHERE e.id > $1 AND e.id <= $2 AND e.event_type::text LIKE ''cowrie.command.%%'' AND e.session_id IS NOT NULL
              AND e.event_timestamp IS NOT NULL
              AND e.payload::text ~ ''ssh-|ecdsa-|base64|b64decode'' OFFSET 0) e
        CROSS JOIN LATERAL @extschema@.enrich_ssh_keys(e.command) k
        ORDER BY e.session_id, k.key_hash, e.event_timestamp, e.id',
        CASE WHEN 'source_ip' = ANY (event_columns) THEN 'NULL::text'
            ELSE 'substring(e.payload from ''"src_ip"\s*:\s*"([0-9a-fA-F.:]+)"'')' END, events) USING after, last;
    EXECUTE 'SELECT count(*) FROM pg_temp.enrichment_ssh_found' INTO planted;
    IF planted = 0 THEN
        EXECUTE 'DROP TABLE pg_temp.enrichment_ssh_found';
        new_keys := 0;
        new_links := 0;
        RETURN;
    END IF;

    FOR optional IN SELECT * FROM (VALUES
        ('key_bits', 'n.bits'), ('key_comment', 'n.comment'), ('pattern_type', 'n.method'), ('target_path', 'n.target_path'),
        ('total_attempts', '0'), ('unique_sources', '0'), ('unique_sessions', '0')) v (name, value)
    LOOP
        IF optional.name = ANY (key_columns) THEN
            columns := columns || ', ' || optional.name;
            values := values || ', ' || optional.value;
        END IF;
    END LOOP;
    EXECUTE format('INSERT INTO %1$s (key_type, key_data, key_fingerprint, key_hash, key_full, first_seen, last_seen%2$s)
        SELECT n.key_type, n.key_data, n.fingerprint, n.key_hash, concat_ws('' '', n.key_type, n.key_data, n.comment), n.at, n.at%3$s
        FROM (SELECT DISTINCT ON (f.key_hash) f.* FROM pg_temp.enrichment_ssh_found f
            -- rows made with another digest have the same key
            WHERE NOT EXISTS (SELECT FROM %1$s k WHERE k.key_hash = f.key_hash OR (k.key_type = f.key_type AND k.key_data = f.key_data))
            ORDER BY f.key_hash, f.at) n ORDER BY n.key_hash
        ON CONFLICT DO NOTHING', keys, columns, values);
    GET DIAGNOSTICS new_keys = ROW_COUNT;
    EXECUTE format('CREATE TEMPORARY TABLE enrichment_ssh_keys_found ON COMMIT DROP AS
        SELECT DISTINCT ON (f.key_hash) f.key_hash, k.id FROM pg_temp.enrichment_ssh_found f
        JOIN %s k ON k.key_hash = f.key_hash OR (k.key_type = f.key_type AND k.key_data = f.key_data)
        ORDER BY f.key_hash, k.id', keys);

    columns := '';
    values := '';
    FOR optional IN SELECT * FROM (VALUES
        ('command_text', 'f.command'), ('injection_method', 'f.method'), ('source_ip', links_ip), ('target_path', 'f.target_path')) v (name, value)
    LOOP
        IF optional.name = ANY (link_columns) THEN
            columns := columns || ', ' || optional.name;
            values := values || ', ' || optional.value;
        END IF;
    END LOOP;
    EXECUTE format('INSERT INTO %1$s (session_id, ssh_key_id, "timestamp"%2$s)
        SELECT f.session_id, i.id, f.at%3$s FROM pg_temp.enrichment_ssh_found f JOIN pg_temp.enrichment_ssh_keys_found i ON i.key_hash = f.key_hash
        WHERE NOT EXISTS (SELECT FROM %1$s l WHERE l.session_id = f.session_id AND l.ssh_key_id = i.id AND l."timestamp" = f.at)
        ORDER BY f.at, f.session_id
        ON CONFLICT DO NOTHING', links, columns, values);
    GET DIAGNOSTICS new_links = ROW_COUNT;

    -- counted anew from all links, a link that stands there twice once
    columns := format('first_seen = least(k.first_seen, c.first), last_seen = greatest(k.last_seen, c.last)%s%s%s%s',
        CASE WHEN 'total_attempts' = ANY (key_columns) THEN ', total_attempts = c.attempts' END,
        CASE WHEN 'unique_sessions' = ANY (key_columns) THEN ', unique_sessions = c.sessions' END,
        CASE WHEN 'unique_sources' = ANY (key_columns) AND links_ip IS NOT NULL THEN ', unique_sources = c.sources' END,
        CASE WHEN 'updated_at' = ANY (key_columns) THEN ', updated_at = now()' END);
    values := format('(k.first_seen > c.first OR k.last_seen < c.last%s%s%s)',
        CASE WHEN 'total_attempts' = ANY (key_columns) THEN ' OR k.total_attempts IS DISTINCT FROM c.attempts' END,
        CASE WHEN 'unique_sessions' = ANY (key_columns) THEN ' OR k.unique_sessions IS DISTINCT FROM c.sessions' END,
        CASE WHEN 'unique_sources' = ANY (key_columns) AND links_ip IS NOT NULL THEN ' OR k.unique_sources IS DISTINCT FROM c.sources' END);
    EXECUTE format('UPDATE %s k SET %s FROM (
            SELECT l.ssh_key_id AS id, count(DISTINCT (l.session_id, l."timestamp"))::int AS attempts, count(DISTINCT l.session_id)::int AS sessions,
                %s AS sources, min(l."timestamp") AS first, max(l."timestamp") AS last
            FROM %s l WHERE l.ssh_key_id IN (SELECT i.id FROM pg_temp.enrichment_ssh_keys_found i) GROUP BY 1) c
        WHERE k.id = c.id AND %s', keys, columns,
        CASE WHEN links_ip IS NOT NULL THEN 'count(DISTINCT l.source_ip)::int' ELSE 'NULL::int' END, links, values);
    EXECUTE 'DROP TABLE pg_temp.enrichment_ssh_found, pg_temp.enrichment_ssh_keys_found';
END $$;

CREATE PROCEDURE enrich_ssh_backfill(
    events     regclass DEFAULT NULL,
    keys       regclass DEFAULT NULL,
    links      regclass DEFAULT NULL,
    after_id   bigint DEFAULT 0,
    batch_size int DEFAULT 10000
) LANGUAGE plpgsql AS $$
DECLARE
    events_table regclass := coalesce(events, pg_catalog.to_regclass('raw_events'));
    keys_table   regclass := coalesce(keys, pg_catalog.to_regclass('ssh_key_intelligence'));
    links_table  regclass := coalesce(links, pg_catalog.to_regclass('session_ssh_keys'));
    place        bigint := coalesce(after_id, 0);
    batch        record;
    lacking      text;
    seen         bigint := 0;
    planted      bigint := 0;
    new_keys     bigint := 0;
    new_links    bigint := 0;
    started      timestamptz := pg_catalog.clock_timestamp();
    told         timestamptz := started;
BEGIN
    IF events_table IS NULL OR keys_table IS NULL OR links_table IS NULL THEN
        RAISE EXCEPTION 'table "%" does not exist', CASE WHEN events_table IS NULL THEN 'raw_events'
                WHEN keys_table IS NULL THEN 'ssh_key_intelligence' ELSE 'session_ssh_keys' END USING ERRCODE = '42P01',
            HINT = 'Name the tables: CALL enrich_ssh_backfill(events => ..., keys => ..., links => ...).';
    END IF;
    IF batch_size IS NULL OR batch_size < 1 OR batch_size > 1000000 THEN
        RAISE EXCEPTION 'batch_size must lie between 1 and 1000000' USING ERRCODE = '22023', HINT = 'It is the number of events between two commits.';
    END IF;
    SELECT pg_catalog.format('%s.%I', w.relation, w.name) INTO lacking FROM (
        SELECT events_table AS relation, c.name FROM pg_catalog.unnest('{id,session_id,event_type,event_timestamp,payload}'::text[]) AS c (name)
        UNION ALL SELECT keys_table, c.name FROM pg_catalog.unnest('{id,key_type,key_data,key_fingerprint,key_hash,key_full,first_seen,last_seen}'::text[]) AS c (name)
        UNION ALL SELECT links_table, c.name FROM pg_catalog.unnest('{session_id,ssh_key_id,timestamp}'::text[]) AS c (name)) w
    WHERE w.name <> ALL (@extschema@.enrichment_columns(w.relation)) LIMIT 1;
    IF lacking IS NOT NULL THEN
        RAISE EXCEPTION 'column % does not exist', lacking USING ERRCODE = '42703',
            HINT = 'The back-fill reads raw_events and fills ssh_key_intelligence and session_ssh_keys as Cowrie analytics has them.';
    END IF;
    LOOP
        SELECT b.* INTO batch FROM @extschema@.enrichment_ssh_batch(events_table, keys_table, links_table, place, batch_size) AS b;
        COMMIT;
        EXIT WHEN batch.seen = 0::bigint;
        place := batch.last;
        seen := seen + batch.seen;
        planted := planted + batch.planted;
        new_keys := new_keys + batch.new_keys;
        new_links := new_links + batch.new_links;
        IF pg_catalog.clock_timestamp() >= told + interval '5 seconds' THEN
            RAISE NOTICE 'enrich_ssh_backfill: % events up to id %, % keys in them, % new keys, % new links', seen, place, planted, new_keys, new_links;
            told := pg_catalog.clock_timestamp();
        END IF;
    END LOOP;
    RAISE NOTICE 'enrich_ssh_backfill: done, % events up to id %, % keys in them, % new keys, % new links, in % s', seen, place, planted, new_keys,
        new_links, pg_catalog.round(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - started)::numeric, 1);
END $$;

COMMENT ON FUNCTION @extschema@.enrich_ssh_keys(text) IS
    'The SSH public keys that a command plants, each once: key_type, fingerprint (SHA-256, base64 without padding), key_hash (SHA-256 of type and data, hex), bits (read from the key), comment, method (direct, heredoc, base64), target_path, key_data. Never raises; the first MiB of a text is read.';
COMMENT ON FUNCTION @extschema@.enrich_event_command(text) IS
    'The command line in the JSON of an event (input, else command), zero characters left out. NULL: there is none, or it is not JSON.';
COMMENT ON FUNCTION @extschema@.enrichment_columns(regclass) IS 'Internal: the columns of a table that can be written.';
COMMENT ON FUNCTION @extschema@.enrichment_ssh_batch(regclass, regclass, regclass, bigint, int) IS
    'Internal: one batch of enrich_ssh_backfill, with the caller''s rights on the tables.';
COMMENT ON PROCEDURE @extschema@.enrich_ssh_backfill(regclass, regclass, regclass, bigint, int) IS
    'Fills ssh_key_intelligence and session_ssh_keys from the commands in raw_events (those with a larger id than after_id), batch_size events a commit. Can be run again: a link is made once, and what is counted of a key is counted from its links. Runs with the caller''s rights on these tables.';

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'reader', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY['enrich_ssh_keys(text)', 'enrich_event_command(text)']) AS o;
INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'writer', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY[
    'enrich_ssh_backfill(regclass, regclass, regclass, bigint, integer)', 'enrichment_ssh_batch(regclass, regclass, regclass, bigint, integer)',
    'enrichment_columns(regclass)']) AS o;
