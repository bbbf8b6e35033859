-- The disk cache of older programs beside the table: what is to be written into files, how it stands, and the way out.

CREATE TABLE enrichment_disk_outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service     text COLLATE "C" NOT NULL,
    cache_key   text COLLATE "C" NOT NULL,
    noted_at    timestamptz NOT NULL DEFAULT now(),
    next_try_at timestamptz NOT NULL DEFAULT now(),
    failures    int NOT NULL DEFAULT 0,
    problem     text,
    deleted     boolean NOT NULL DEFAULT false
);
CREATE INDEX enrichment_disk_outbox_due ON enrichment_disk_outbox (next_try_at, id);

-- How the disk cache stands: the lines of enrich_health about it.
CREATE FUNCTION enrich_disk_health(OUT severity text, OUT check_name text, OUT detail text, OUT hint text)
RETURNS SETOF record LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    waiting bigint;
    failing bigint;
    example text;
    stands  record;
BEGIN
    FOR stands IN SELECT d.mode, d.directory_set, d.side, d.trouble, d.since FROM @extschema@.enrich_disk_state() d LOOP
        IF stands.mode <> 'off' AND NOT stands.directory_set AND stands.side = 'read' THEN
            RETURN QUERY SELECT 'warning', 'disk cache', format('disk_cache_mode is %s, but disk_cache_dir is not set', stands.mode),
                'Set enrichment_cache.disk_cache_dir, or the mode to off, and reload the configuration.';
        END IF;
        IF stands.trouble IS NOT NULL AND stands.mode <> 'off' THEN
            RETURN QUERY SELECT 'warning', 'disk cache',
                format('it cannot be %s since %s, the database answers alone: %s',
                    CASE stands.side WHEN 'read' THEN 'read' ELSE 'written' END,
                    to_char(stands.since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), stands.trouble),
                'Mend the directory; it goes on by itself within seconds, and what was stored meanwhile is written then.';
        END IF;
    END LOOP;
    SELECT count(*), count(*) FILTER (WHERE o.failures > 0), min(o.problem) INTO waiting, failing, example
    FROM @extschema@.enrichment_disk_outbox o;
    IF failing > 0 THEN
        RETURN QUERY SELECT 'warning', 'disk cache', format('%s of %s files that wait to be written have failed, for example: %s', failing, waiting, example),
            'Mend the files named in enrichment_disk_outbox; each is tried again within ten minutes.';
    ELSIF waiting > 0 THEN
        RETURN QUERY SELECT 'notice', 'disk cache', format('%s files wait to be written', waiting),
            'They are written in write_through mode; in another, they wait, and DELETE FROM enrichment_disk_outbox forgets them.';
    END IF;
END $$;

-- Writes the whole cache, and what an import has kept of unknown keys, into a tree of files in the layout the older programs read.
-- What an earlier call has written stays, so a call that was cancelled goes on where it ended. It commits after each batch, so no
-- snapshot is held for long.
CREATE PROCEDURE enrich_export_disk(directory text, services text[] DEFAULT NULL, batch_size int DEFAULT 1000,
    INOUT files bigint DEFAULT NULL, INOUT report jsonb DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    batch   record;
    last_id bigint := 0;
    named   boolean := true;
    service text := '';
    digest  bytea := '';
    unnamed bigint := 0;
    entries bigint := 0;
    written bigint := 0;
    there   bigint := 0;
    newer   bigint := 0;
    without bigint := 0;
    failed  bigint := 0;
    bytes   bigint := 0;
    begun   timestamptz := pg_catalog.clock_timestamp();
    told    timestamptz := pg_catalog.clock_timestamp();
    problem text;
    whole   bigint;
BEGIN
    SELECT pg_catalog.count(*) INTO whole FROM @extschema@.enrichment_cache c
    WHERE c.response_status IN ('success', 'not_found') AND (services IS NULL OR c.service OPERATOR(pg_catalog.=) ANY (services));
    whole := whole OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM (SELECT DISTINCT o.service, o.digest
        FROM @extschema@.enrichment_orphan o WHERE services IS NULL OR o.service OPERATOR(pg_catalog.=) ANY (services)) d);
    LOOP
        IF named THEN
            SELECT b.* INTO batch FROM @extschema@.enrich_export_batch(directory, services, last_id, batch_size) b;
            last_id := batch.last_id;
            named := last_id IS NOT NULL;
            CONTINUE WHEN NOT named;
        ELSE
            SELECT b.* INTO batch FROM @extschema@.enrich_export_unknown_batch(directory, services, service, digest, batch_size) b;
            EXIT WHEN batch.last_digest IS NULL;
            service := batch.last_service;
            digest := batch.last_digest;
            unnamed := unnamed OPERATOR(pg_catalog.+) batch.rows;
        END IF;
        entries := entries OPERATOR(pg_catalog.+) batch.rows;
        written := written OPERATOR(pg_catalog.+) batch.written;
        there := there OPERATOR(pg_catalog.+) batch.already_there;
        newer := newer OPERATOR(pg_catalog.+) batch.newer_file;
        without := without OPERATOR(pg_catalog.+) batch.no_place;
        failed := failed OPERATOR(pg_catalog.+) batch.failed;
        bytes := bytes OPERATOR(pg_catalog.+) batch.bytes;
        problem := coalesce(problem, batch.problem);
        COMMIT;
        IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) told OPERATOR(pg_catalog.>=) interval '5 seconds' THEN
            told := pg_catalog.clock_timestamp();
            RAISE NOTICE 'export: % of % entries, % files written, % MB, % entries per second', entries, whole, written,
                bytes OPERATOR(pg_catalog./) 1048576,
                pg_catalog.round(entries::numeric OPERATOR(pg_catalog./)
                    greatest(pg_catalog.extract('epoch', told OPERATOR(pg_catalog.-) begun), 0.001));
        END IF;
    END LOOP;
    files := written OPERATOR(pg_catalog.+) there;
    report := pg_catalog.jsonb_build_object('entries', entries, 'written', written, 'already_there', there,
        'newer_file', newer, 'no_place', without, 'failed', failed, 'bytes', bytes, 'problem', problem, 'unknown_key', unnamed);
    RAISE NOTICE 'export: % entries = % written + % there already + % newer files kept + % without a place in the layout + % failed; % of unknown key',
        entries, written, there, newer, without, failed, unnamed;
    IF failed OPERATOR(pg_catalog.>) 0 THEN
        RAISE WARNING 'export: % files could not be written, the first: %', failed, problem;
    END IF;
END $$;

INSERT INTO @extschema@.enrichment_privilege (level, action, object) VALUES
    ('reader', 'EXECUTE', 'enrich_disk_health()'), ('reader', 'EXECUTE', 'enrich_disk_state()'),
    ('admin', 'EXECUTE', 'enrich_export_disk(text, text[], integer, bigint, jsonb)'),
    ('admin', 'EXECUTE', 'enrich_export_batch(text, text[], bigint, integer)'),
    ('admin', 'EXECUTE', 'enrich_export_unknown_batch(text, text[], text, bytea, integer)'),
    ('admin', 'SELECT', 'enrichment_disk_outbox'),
    ('monitor', 'EXECUTE', 'enrich_disk_health()'), ('monitor', 'EXECUTE', 'enrich_disk_state()');

COMMENT ON TABLE @extschema@.enrichment_disk_outbox IS
    'Keys whose files in the disk cache are to be made to say what enrichment_cache says (enrichment_cache.disk_cache_mode = write_through). Written in the transaction that stores; the worker takes a row off when its file is on the disk.';
COMMENT ON COLUMN @extschema@.enrichment_disk_outbox.id IS 'Order of arrival.';
COMMENT ON COLUMN @extschema@.enrichment_disk_outbox.service IS 'A service of enrichment_service.';
COMMENT ON COLUMN @extschema@.enrichment_disk_outbox.cache_key IS 'The key in its normal form.';
COMMENT ON COLUMN @extschema@.enrichment_disk_outbox.noted_at IS 'Start of the transaction that stored or deleted.';
COMMENT ON COLUMN @extschema@.enrichment_disk_outbox.next_try_at IS 'When the file is written at the earliest.';
COMMENT ON COLUMN @extschema@.enrichment_disk_outbox.failures IS 'Tries that failed so far.';
COMMENT ON COLUMN @extschema@.enrichment_disk_outbox.problem IS 'Why the last try failed.';
COMMENT ON COLUMN @extschema@.enrichment_disk_outbox.deleted IS 'true: the answer was deleted (enrich_invalidate, hard), and its files in every layout go.';
COMMENT ON FUNCTION @extschema@.enrich_disk_state() IS
    'Mode of the disk cache, whether its directory is set, and what is wrong with reading and writing it now: the base of enrich_disk_health().';
COMMENT ON FUNCTION @extschema@.enrich_disk_health() IS 'The lines of enrich_health() about the disk cache.';
COMMENT ON FUNCTION @extschema@.enrich_export_batch(text, text[], bigint, int) IS
    'Writes one batch of answers into a tree of files: a step of enrich_export_disk(). Needs pg_write_server_files.';
COMMENT ON FUNCTION @extschema@.enrich_export_unknown_batch(text, text[], text, bytea, int) IS
    'The same for answers that an import has kept under digests of unknown keys. Needs pg_write_server_files.';
COMMENT ON PROCEDURE @extschema@.enrich_export_disk(text, text[], int, bigint, jsonb) IS
    'Writes the cache with what waits for its key, or these services of it, into a directory of the server in the layout of the disk cache, each file with the time of observation. Commits after each batch; a second call goes on where the first ended. Needs pg_write_server_files.';
