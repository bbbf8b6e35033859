-- What the tests of reading share: a small universe of keys, and views that ask for each of them in every form and in
-- plain SQL, in one statement and so under one snapshot.

CREATE SEQUENCE revision;

CREATE TABLE universe (
    n         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service   text NOT NULL,
    raw       text NOT NULL,
    cache_key text,
    address   inet
);

INSERT INTO enrichment_service (name, key_kind, url) VALUES ('assets', 'ip', 'https://assets.example.net/{key}');
UPDATE enrichment_service SET stale_ttl = '1 hour';

-- several writings of one key, keys that are never stored, and what is no key at all
INSERT INTO universe (service, raw, cache_key, address)
SELECT s.name, k.raw, enrich_normalize_key(s.key_kind, k.raw), k.address
FROM enrichment_service s
JOIN (
    SELECT 'address' AS of, '8.8.0.' || i AS raw, ('8.8.0.' || i)::inet AS address FROM generate_series(1, 9) i
    UNION ALL VALUES ('address', ' ::ffff:8.8.0.1 ', '::ffff:8.8.0.1'::inet), ('address', '8.8.0.2/32', '8.8.0.2/32'),
        ('address', '2606:4700:0:0:0:0:0:0011', '2606:4700::11'), ('address', '2606:4700::12', '2606:4700::12/128'),
        ('address', '10.0.0.0/8', '10.0.0.0/8')
    UNION ALL SELECT 'hash', upper(md5(i::text)), NULL FROM generate_series(1, 5) i
    UNION ALL SELECT 'name', 'Host' || i || '.Example.com', NULL FROM generate_series(1, 5) i
    UNION ALL VALUES ('dirt', 'unknown', NULL::inet), ('dirt', '', NULL)
) k ON (s.name, k.of) IN (('dshield', 'address'), ('assets', 'address'), ('spur', 'dirt'), ('virustotal', 'hash'),
    ('virustotal', 'address'), ('urlhaus', 'name'))
-- tests name rows by their number: 2 is 8.8.0.1 of dshield, the first 39 are addresses that can be stored
ORDER BY array_position('{address,hash,name,dirt}', k.of), k.raw = '10.0.0.0/8', k.address, k.raw,
    array_position('{virustotal,dshield,assets,spur,urlhaus}', s.name);

-- So many keys of one service that a query which asks for all of them brings every row in by a pass over the table (after
-- 64), and answers of a size of which 64 kB hold only some. Each key comes twice in a row, and all of them four times.
CREATE TABLE crowd WITH (fillfactor = 10) AS
SELECT row_number() OVER (ORDER BY r.round, g.i) AS place, 1001 + g.i AS n, 'dshield'::text AS service, CASE WHEN g.i % 9 = 4 THEN '::ffff:' ELSE '' END || '8.8.64.' || g.i AS raw,
    '8.8.64.' || g.i AS cache_key, ('8.8.64.' || g.i)::inet AS address
FROM generate_series(0, 3) AS r (round), generate_series(0, 99) AS g (i), generate_series(1, 2) AS t (times)
ORDER BY place;
ALTER TABLE crowd ADD PRIMARY KEY (place);

-- a payload that no other has; some are stored out of line, those of the crowd are of some size
CREATE FUNCTION made(kind int DEFAULT 1) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT pg_catalog.jsonb_build_object('rev', pg_catalog.nextval('public.revision'))
        || CASE WHEN kind % 7 = 0 THEN pg_catalog.jsonb_build_object('big',
            (SELECT pg_catalog.string_agg(pg_catalog.md5(pg_catalog.random()::text), '') FROM pg_catalog.generate_series(1, 300)))
        WHEN kind > 1000 THEN pg_catalog.jsonb_build_object('fill',
            (SELECT pg_catalog.string_agg(pg_catalog.md5(pg_catalog.random()::text), '') FROM pg_catalog.generate_series(1, 30)))
        ELSE '{}' END
$$;

-- the process that evaluates a row, of a parallel query often a worker, and its passes over a table in this transaction
CREATE FUNCTION process() RETURNS int LANGUAGE internal STABLE STRICT PARALLEL SAFE AS 'pg_backend_pid';
CREATE FUNCTION passes(oid) RETURNS bigint LANGUAGE internal VOLATILE STRICT PARALLEL SAFE AS 'pg_stat_get_xact_numscans';

-- What an answer must be, given what plain SQL takes from the rows it sees of a key: `rows` from those that answer, `seen`
-- from all. There can be two: where the row that an older snapshot sees has been deleted since, its transaction may insert the
-- key again and then sees both. Each is an answer; one that plain SQL leaves out, expired or without a payload, gives NULL.
CREATE FUNCTION accepted(got jsonb, rows jsonb[], seen jsonb[]) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    'SELECT CASE WHEN cardinality(seen) > 1 AND (array_position(rows, got) IS NOT NULL
        OR got IS NULL AND cardinality(rows) < cardinality(seen)) THEN got ELSE rows[1] END';

-- what a user would write
CREATE VIEW plain AS
SELECT u.n, u.service, u.raw, u.cache_key, u.address,
    ARRAY(SELECT c.payload FROM enrichment_cache c
        WHERE c.service = u.service AND c.cache_key = u.cache_key AND c.expires_at > now()) AS fresh,
    ARRAY(SELECT c.payload FROM enrichment_cache c
        WHERE c.service = u.service AND c.cache_key = u.cache_key AND c.expires_at + interval '1 hour' > now()) AS stale,
    ARRAY(SELECT c.payload FROM enrichment_cache c
        WHERE c.service = u.service AND c.cache_key = u.cache_key) AS stored
FROM universe u;

-- enrich_get twice for each key beside plain SQL; rows come one by one, as a cursor fetches them. The calls stand in a list
-- of their own: in VALUES each row begins anew, and nothing is remembered from one to the next. And they stand apart from
-- plain SQL's subqueries, which no parallel worker may run.
CREATE VIEW glance AS
SELECT a.service, a.raw, f.form, f.got, accepted(f.got, f.rows, p.stored) AS want, a.asked_by
FROM (SELECT u.*, enrich_get(u.service, u.raw) AS by_text, enrich_get(u.service, u.address) AS by_address, process() AS asked_by
    FROM universe u CROSS JOIN generate_series(1, 2) again OFFSET 0) a
CROSS JOIN LATERAL (SELECT fresh, stored FROM plain WHERE n = a.n OFFSET 0) p
CROSS JOIN LATERAL (VALUES
    ('text', a.by_text, p.fresh),
    ('inet', a.by_address, CASE WHEN a.address IS NOT NULL THEN p.fresh END)) AS f (form, got, rows);

-- every reading function
CREATE VIEW compared AS
SELECT g.service, g.raw, g.form, g.got, g.want, g.asked_by FROM glance g
UNION ALL
SELECT a.service, a.raw, f.form, f.got, accepted(f.got, f.rows, p.stored), a.asked_by
FROM (SELECT u.*, enrich_get(u.service, u.raw, '0') AS at_once, enrich_get(u.service, u.raw, '1 hour') AS late,
        l.payload, l.state, process() AS asked_by
    FROM universe u CROSS JOIN LATERAL enrich_lookup(u.service, u.raw) l OFFSET 0) a
CROSS JOIN LATERAL (SELECT fresh, stale, stored FROM plain WHERE n = a.n OFFSET 0) p
CROSS JOIN LATERAL (VALUES
    ('max_stale 0', a.at_once, p.fresh),
    ('max_stale 1 hour', a.late, p.stale),
    ('lookup payload', a.payload, p.stored),
    ('lookup state', to_jsonb(a.state), CASE
        WHEN cardinality(p.stored) > 1 THEN ARRAY[to_jsonb(a.state)]
        WHEN p.fresh[1] IS NOT NULL THEN ARRAY[to_jsonb('hit'::text)]
        WHEN p.stored[1] IS NOT NULL THEN ARRAY[to_jsonb('stale'::text)]
        WHEN a.state NOT IN ('hit', 'stale') THEN ARRAY[to_jsonb(a.state)] END)) AS f (form, got, rows)
UNION ALL
SELECT s.service, m.cache_key, 'many', m.got, accepted(m.got, m.rows, m.seen), process()
FROM (SELECT u.service, array_agg(u.raw) AS keys FROM universe u GROUP BY u.service) s
CROSS JOIN LATERAL (
    SELECT cache_key, a.payload AS got, coalesce(b.rows, '{}') AS rows, b.seen
    FROM enrich_get_many(s.service, s.keys) a
    FULL JOIN (SELECT c.cache_key, array_agg(c.payload) AS seen,
            array_agg(c.payload) FILTER (WHERE c.expires_at > now() AND c.payload IS NOT NULL) AS rows
        FROM enrichment_cache c
        WHERE c.service = s.service
          -- not by a join: there the planner trusts the unique index, and takes one of two rows that this snapshot sees
          AND c.cache_key = ANY (ARRAY(SELECT v.cache_key FROM universe v WHERE v.service = s.service))
        GROUP BY c.cache_key) b USING (cache_key)) m;

-- What plain SQL reads of a key, by an index, so that every pass over the whole table is one of ours. `anew` reads all of
-- the table.
CREATE FUNCTION kept(service text, cache_key text, OUT fresh jsonb[], OUT stored jsonb[])
LANGUAGE plpgsql STABLE PARALLEL SAFE SET enable_seqscan = off AS $$
BEGIN
    SELECT coalesce(array_agg(c.payload) FILTER (WHERE c.expires_at > now()), '{}'), coalesce(array_agg(c.payload), '{}')
        INTO fresh, stored
        FROM enrichment_cache c WHERE c.service = kept.service AND c.cache_key = kept.cache_key;
END $$;

CREATE FUNCTION kept_anew(service text, cache_key text, OUT fresh jsonb[], OUT stored jsonb[])
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    SELECT coalesce(array_agg(c.payload) FILTER (WHERE c.expires_at > now()), '{}'), coalesce(array_agg(c.payload), '{}')
        INTO fresh, stored
        FROM enrichment_cache c WHERE c.service || '' = kept_anew.service AND c.cache_key || '' = kept_anew.cache_key;
END $$;

CREATE VIEW crowded AS
SELECT p.service, p.raw, f.form, f.got, accepted(f.got, p.fresh, p.stored) AS want, p.asked_by, p.passes
FROM (SELECT c.*, k.*, enrich_get(c.service, c.raw) AS by_text, enrich_get(c.service, c.address) AS by_address,
        process() AS asked_by, passes('enrichment_cache'::regclass) AS passes
    FROM crowd c CROSS JOIN LATERAL kept(c.service, c.cache_key) k OFFSET 0) p
CROSS JOIN LATERAL (VALUES ('text', p.by_text), ('inet', p.by_address)) AS f (form, got);

-- On a standby an index that was rebuilt on the primary may lack what an older snapshot still sees, and a pass does not.
CREATE VIEW crowded_there AS
SELECT c.service, c.raw, c.form, c.got, CASE WHEN c.got IS NOT DISTINCT FROM c.want THEN c.want
    ELSE (SELECT accepted(c.got, k.fresh, k.stored)
        FROM kept_anew(c.service, enrich_normalize_key('ip', c.raw)) k) END AS want, c.asked_by, c.passes
FROM crowded c;

-- functions around a look-up: inlined, not inlined, seeing only what the caller sees, seeing all
CREATE FUNCTION got_sql(service text, raw text) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS
    'SELECT enrich_get(service, raw)';
CREATE FUNCTION got_sql_apart(service text, raw text) RETURNS jsonb LANGUAGE sql VOLATILE SECURITY DEFINER PARALLEL SAFE AS
    'SELECT enrich_get(service, raw)';
CREATE FUNCTION got_stable(service text, raw text) RETURNS jsonb LANGUAGE plpgsql STABLE PARALLEL SAFE AS
    'BEGIN RETURN enrich_get(service, raw); END';
CREATE FUNCTION got_volatile(service text, raw text) RETURNS jsonb LANGUAGE plpgsql VOLATILE PARALLEL SAFE AS
    'BEGIN RETURN enrich_get(service, raw); END';

-- One statement of a function that writes and looks up in turn: the same call site sees what has changed, as plain SQL
-- sees it. What differs is raised as ZZ001.
CREATE FUNCTION must_agree(asked universe, got jsonb, place text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    want jsonb;
BEGIN
    SELECT accepted(got, p.fresh, p.stored) INTO want FROM plain p WHERE p.n = asked.n;
    IF got IS DISTINCT FROM want THEN
        RAISE EXCEPTION 'in %: enrich_get(%, %) gives %, plain SQL %', place, asked.service, asked.raw,
            left(got::text, 60), left(want::text, 60) USING ERRCODE = 'ZZ001';
    END IF;
END $$;

CREATE FUNCTION change(asked universe) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CASE floor(random() * 7)::int
        WHEN 0 THEN PERFORM enrich_store(asked.service, asked.raw, made());
        WHEN 1 THEN PERFORM enrich_store_many(asked.service, ARRAY[asked.raw], ARRAY[made(7)]);
        WHEN 2 THEN UPDATE enrichment_cache c SET payload = made(), response_status = 'success', expires_at = now() + interval '1 hour'
            WHERE c.service = asked.service AND c.cache_key = asked.cache_key;
        WHEN 3 THEN DELETE FROM enrichment_cache c WHERE c.service = asked.service AND c.cache_key = asked.cache_key;
        WHEN 4 THEN PERFORM enrich_invalidate(asked.service, asked.raw);
        WHEN 5 THEN UPDATE enrichment_cache c SET hit_count = hit_count + 1 WHERE c.service = asked.service;
        ELSE INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            VALUES (asked.service, asked.cache_key, made(), now() + interval '1 hour') ON CONFLICT DO NOTHING;
    END CASE;
END $$;

CREATE FUNCTION some_keys() RETURNS universe[] LANGUAGE sql VOLATILE AS $$
    SELECT array_agg(u) FROM (SELECT u FROM universe u WHERE u.cache_key IS NOT NULL ORDER BY random() LIMIT 4) q
$$;

CREATE FUNCTION wander(seed float8, steps int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    chosen  universe[];
    asked   universe;
    got     jsonb;
    undone  int := 0;
BEGIN
    PERFORM setseed(seed);
    chosen := some_keys();
    FOR step IN 1..steps LOOP
        FOREACH asked IN ARRAY chosen LOOP
            got := enrich_get(asked.service, asked.raw);
            PERFORM must_agree(asked, got, 'an assignment');
        END LOOP;
        BEGIN
            FOR again IN 1..2 LOOP
                asked := chosen[1 + floor(random() * 4)::int];
                PERFORM change(asked);
                IF asked.address IS NOT NULL THEN
                    PERFORM must_agree(asked, enrich_get(asked.service, asked.address), 'a block, as inet');
                END IF;
                SELECT enrich_get(asked.service, asked.raw) INTO got;
                PERFORM must_agree(asked, got, 'a block');
                -- one call site for what the block sees and what is left when it is undone, with no command in between
                PERFORM must_agree(asked, got_volatile(asked.service, asked.raw), 'a function within a block');
                PERFORM must_agree(asked, got_sql_apart(asked.service, asked.raw), 'an SQL function within a block');
            END LOOP;
            IF random() < 0.4 THEN
                RAISE EXCEPTION 'undo' USING ERRCODE = 'ZZ000';
            ELSIF random() < 0.2 THEN
                PERFORM 1 / (enrich_get(asked.service, asked.raw) IS NULL AND false)::int;
            END IF;
        EXCEPTION WHEN SQLSTATE 'ZZ000' OR division_by_zero THEN
            undone := undone + 1;
        END;
        PERFORM must_agree(asked, got_volatile(asked.service, asked.raw), 'a function after a block');
        PERFORM must_agree(asked, got_sql_apart(asked.service, asked.raw), 'an SQL function after a block');
        PERFORM must_agree(asked, enrich_get(asked.service, asked.raw), 'an argument');
    END LOOP;
    RETURN undone;
END $$;

-- the same over transactions of its own, from a loop over a query that looks up as well
CREATE PROCEDURE wander_and_commit(seed float8, steps int) LANGUAGE plpgsql AS $$
DECLARE
    chosen universe[];
    asked  universe;
    kept   jsonb;
    row    record;
BEGIN
    PERFORM setseed(seed);
    chosen := some_keys();
    FOR row IN SELECT g.got, g.want, g.raw FROM generate_series(1, steps) step
        JOIN glance g ON g.raw = (chosen[1 + step % 4]).raw AND g.service = (chosen[1 + step % 4]).service AND g.form = 'text' LOOP
        IF row.got IS DISTINCT FROM row.want THEN
            RAISE EXCEPTION 'in a loop over a query: % gives %, plain SQL %', row.raw, left(row.got::text, 60),
                left(row.want::text, 60) USING ERRCODE = 'ZZ001';
        END IF;
        asked := chosen[1 + floor(random() * 4)::int];
        kept := enrich_get(asked.service, asked.raw);
        PERFORM must_agree(asked, kept, 'a procedure');
        PERFORM change(asked);
        PERFORM must_agree(asked, enrich_get(asked.service, asked.raw), 'a procedure after its change');
        IF random() < 0.6 THEN COMMIT; ELSE ROLLBACK; END IF;
        PERFORM must_agree(asked, enrich_get(asked.service, asked.raw), 'a procedure after its transaction');
        IF kept::text IS NOT NULL AND (kept ->> 'rev') IS NULL THEN
            RAISE EXCEPTION 'a value kept over a commit is damaged: %', left(kept::text, 60) USING ERRCODE = 'ZZ001';
        END IF;
    END LOOP;
END $$;

-- a trigger that looks up and writes for each row
CREATE TABLE noted (n int, got jsonb, want jsonb);

CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    asked universe;
BEGIN
    SELECT u.* INTO asked FROM universe u WHERE u.n = NEW.n;
    PERFORM change(asked);
    NEW.got := enrich_get(asked.service, asked.raw);
    PERFORM must_agree(asked, NEW.got, 'a trigger');
    RETURN NEW;
END $$;

CREATE TRIGGER note BEFORE INSERT ON noted FOR EACH ROW EXECUTE FUNCTION note();

CREATE VIEW wrapped AS
SELECT a.service, a.raw, f.form, f.got, accepted(f.got, p.fresh, p.stored) AS want, a.asked_by
FROM (SELECT u.*, got_sql(u.service, u.raw) AS inlined, got_sql_apart(u.service, u.raw) AS apart,
        got_stable(u.service, u.raw) AS stable, got_volatile(u.service, u.raw) AS volatile, process() AS asked_by
    FROM universe u CROSS JOIN generate_series(1, 2) again OFFSET 0) a
CROSS JOIN LATERAL (SELECT fresh, stored FROM plain WHERE n = a.n OFFSET 0) p
CROSS JOIN LATERAL (VALUES
    ('inlined', a.inlined),
    ('not inlined', a.apart),
    ('stable', a.stable),
    ('volatile', a.volatile)) AS f (form, got);

-- Plain SQL with the caller's rights, which finds the relation by its name each time it may have changed.
CREATE FUNCTION by_name(asked universe, grace interval, OUT got jsonb) LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT c.payload INTO got FROM enrichment_cache c
    WHERE c.service = asked.service AND c.cache_key = asked.cache_key AND c.expires_at + grace > now();
END $$;

CREATE VIEW by_name AS
SELECT u.service, u.raw, f.form, f.got, f.want, process() AS asked_by
FROM universe u CROSS JOIN LATERAL enrich_lookup(u.service, u.raw) l
CROSS JOIN LATERAL (VALUES
    ('text', enrich_get(u.service, u.raw), by_name(u, '0')),
    ('inet', enrich_get(u.service, u.address), CASE WHEN u.address IS NOT NULL THEN by_name(u, '0') END),
    ('max_stale', enrich_get(u.service, u.raw, '1 hour'), by_name(u, '1 hour')),
    ('many', (SELECT m.payload FROM enrich_get_many(u.service, ARRAY[u.raw]) m), by_name(u, '0')),
    ('lookup', l.payload, by_name(u, '1 century'))) AS f (form, got, want);
