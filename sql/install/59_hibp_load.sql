-- A downloaded corpus of Pwned Passwords goes into the cache, so that no call is needed.

CREATE TABLE enrichment_hibp_load (
    path        text COLLATE "C" PRIMARY KEY,
    directory   boolean NOT NULL,
    size        bigint NOT NULL,
    modified    timestamptz NOT NULL,
    place       bigint NOT NULL DEFAULT 0,
    ranges      bigint NOT NULL DEFAULT 0,
    hashes      bigint NOT NULL DEFAULT 0,
    padding     bigint NOT NULL DEFAULT 0,
    left_out    bigint NOT NULL DEFAULT 0,
    problems    text[] NOT NULL DEFAULT '{}',
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    finished_at timestamptz
);

-- One step: reads on from where the last one ended, and keeps the place in the same transaction as what it stored. A
-- corpus that was changed since, or was loaded whole, begins anew.
CREATE FUNCTION enrichment_hibp_load_next(path text, fetched_at timestamptz, ttl interval, begin_anew boolean)
RETURNS enrichment_hibp_load LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    corpus record;
    step   record;
    state  @extschema@.enrichment_hibp_load;
BEGIN
    SELECT c.* INTO corpus FROM @extschema@.enrichment_hibp_corpus(enrichment_hibp_load_next.path) c;
    INSERT INTO @extschema@.enrichment_hibp_load AS l (path, directory, size, modified)
    VALUES (enrichment_hibp_load_next.path, corpus.directory, corpus.size, corpus.modified)
    ON CONFLICT ON CONSTRAINT enrichment_hibp_load_pkey DO UPDATE SET directory = EXCLUDED.directory, size = EXCLUDED.size,
        modified = EXCLUDED.modified, place = 0, ranges = 0, hashes = 0, padding = 0, left_out = 0, problems = '{}',
        started_at = clock_timestamp(), finished_at = NULL
        -- a directory's time changes when a file is added to it; what stands in it carries times of its own
        WHERE begin_anew OR l.directory <> EXCLUDED.directory
            OR (NOT l.directory AND (l.size, l.modified) IS DISTINCT FROM (EXCLUDED.size, EXCLUDED.modified));
    SELECT l.* INTO state FROM @extschema@.enrichment_hibp_load l WHERE l.path = enrichment_hibp_load_next.path FOR UPDATE;
    IF state.finished_at IS NOT NULL THEN
        RETURN state;
    END IF;
    SELECT s.* INTO step FROM @extschema@.enrichment_hibp_load_step(state.path, state.place, enrichment_hibp_load_next.fetched_at, enrichment_hibp_load_next.ttl) s;
    UPDATE @extschema@.enrichment_hibp_load l SET place = step.next_place, ranges = l.ranges + step.ranges, hashes = l.hashes + step.hashes,
        padding = l.padding + step.padding, left_out = l.left_out + step.left_out, problems = (l.problems || step.problems)[1:20],
        finished_at = CASE WHEN step.next_place >= l.size THEN clock_timestamp() END
    WHERE l.path = state.path RETURNING l.* INTO state;
    RETURN state;
END $$;

-- How far a path is loaded: none, part, whole.
CREATE FUNCTION enrichment_hibp_loaded(path text) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
RETURN coalesce((SELECT CASE WHEN l.finished_at IS NOT NULL THEN 'whole' WHEN l.place > 0 THEN 'part' ELSE 'none' END
    FROM @extschema@.enrichment_hibp_load l WHERE l.path = enrichment_hibp_loaded.path), 'none');

CREATE PROCEDURE enrich_hibp_load(
    path       text,
    fetched_at timestamptz DEFAULT NULL,
    ttl        interval DEFAULT '1 year',
    begin_anew boolean DEFAULT false
) LANGUAGE plpgsql AS $$
DECLARE
    state   @extschema@.enrichment_hibp_load;
    loaded  text := @extschema@.enrichment_hibp_loaded(path);
    anew    boolean := begin_anew OR loaded = 'whole';
    started timestamptz := pg_catalog.clock_timestamp();
    told    timestamptz := started;
    came    bigint;
    seconds numeric;
BEGIN
    LOOP
        state := @extschema@.enrichment_hibp_load_next(path, fetched_at, ttl, anew);
        COMMIT;
        IF came IS NULL AND NOT anew AND loaded = 'part' AND state.hashes > 0::bigint THEN
            RAISE NOTICE 'enrich_hibp_load: goes on where the last call ended';
        END IF;
        anew := false;
        loaded := 'none';
        came := coalesce(came, state.hashes);
        EXIT WHEN state.finished_at IS NOT NULL;
        IF pg_catalog.clock_timestamp() >= told + interval '5 seconds' THEN
            seconds := greatest(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - started), 0.1);
            RAISE NOTICE 'enrich_hibp_load: % %%, % ranges, % hashes, % hashes a second',
                pg_catalog.trunc(100::numeric * state.place::numeric / greatest(state.size, 1::bigint)::numeric, 1), state.ranges, state.hashes,
                pg_catalog.round((state.hashes - came)::numeric / seconds);
            told := pg_catalog.clock_timestamp();
        END IF;
    END LOOP;
    RAISE NOTICE 'enrich_hibp_load: done, % ranges, % hashes, % rows of padding dropped, in % s', state.ranges, state.hashes, state.padding,
        pg_catalog.round(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - started)::numeric, 1);
    IF state.left_out > 0::bigint THEN
        RAISE WARNING 'enrich_hibp_load: % ranges were left out', state.left_out
            USING DETAIL = pg_catalog.concat(pg_catalog.array_to_string(state.problems, '; '), '.'),
                HINT = 'What was cached of them stays; the others are asked for when they are needed.';
    END IF;
    IF state.ranges = 0::bigint THEN
        RAISE WARNING 'enrich_hibp_load: no range was found'
            USING HINT = 'A directory holds files 00000.txt to FFFFF.txt, or 00000 to FFFFF.';
    ELSIF coalesce(fetched_at, CASE WHEN NOT state.directory THEN state.modified END) + ttl < pg_catalog.now() THEN
        RAISE WARNING 'enrich_hibp_load: what was loaded has expired already'
            USING HINT = 'Give a longer ttl to use it in place of calls; age counts from the time of the file.';
    END IF;
END $$;

COMMENT ON TABLE @extschema@.enrichment_hibp_load IS
    'How far each corpus of Pwned Passwords is loaded (enrich_hibp_load), one row a path.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.path IS 'Where the corpus stands on the server.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.directory IS 'true: a file a range; false: the single file.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.size IS 'Bytes of the file; of a directory how many prefixes there are.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.modified IS 'When it was last changed.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.place IS 'Where the next step begins, in the unit of size.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.ranges IS 'Ranges that were stored, or found older than the cached ones.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.hashes IS 'Hashes in them.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.padding IS 'Rows of count 0 that were dropped (of the single file).';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.left_out IS 'Ranges that were not stored because something in them could not be read.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.problems IS 'Why, of the first twenty: the prefix and the reason, never a hash.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.started_at IS 'When the load began.';
COMMENT ON COLUMN @extschema@.enrichment_hibp_load.finished_at IS 'When it came to the end. NULL: the next call goes on from place.';
COMMENT ON FUNCTION @extschema@.enrichment_hibp_corpus(text) IS
    'Internal: what stands at a path of the server. For superusers and members of pg_read_server_files.';
COMMENT ON FUNCTION @extschema@.enrichment_hibp_load_step(text, bigint, timestamptz, interval) IS
    'Internal: stores one step of a corpus and says where the next begins. For superusers and members of pg_read_server_files.';
COMMENT ON FUNCTION @extschema@.enrichment_hibp_load_next(text, timestamptz, interval, boolean) IS
    'Internal: one step of enrich_hibp_load, with its place kept.';
COMMENT ON FUNCTION @extschema@.enrichment_hibp_loaded(text) IS
    'Internal: how far a corpus is loaded: none, part or whole.';
COMMENT ON PROCEDURE @extschema@.enrich_hibp_load(text, timestamptz, interval, boolean) IS
    'Loads a downloaded corpus of Pwned Passwords, a directory of ranges or the file ordered by hash, into the cache, so that no call is needed. Observed at fetched_at (NULL: when the file was changed), fresh for ttl. Commits every 200 ranges, goes on where a cancelled call ended. For superusers and members of pg_read_server_files.';

INSERT INTO @extschema@.enrichment_privilege (level, action, object)
SELECT 'admin', 'EXECUTE', o FROM pg_catalog.unnest(ARRAY[
    'enrich_hibp_load(text, timestamp with time zone, interval, boolean)', 'enrichment_hibp_load_next(text, timestamp with time zone, interval, boolean)',
    'enrichment_hibp_loaded(text)']) AS o;
INSERT INTO @extschema@.enrichment_privilege (level, action, object) VALUES ('reader', 'SELECT', 'enrichment_hibp_load');
