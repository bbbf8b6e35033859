//! What a query may remember of its look-ups: never a wrong answer, and no more memory than allowed.

use super::{agree, anonymous, Reads};
use crate::support::{one, run, said};
use postgres::Client;

/// More distinct keys than a small memory holds, half of them with an answer, and rows that repeat them.
fn many(name: &str) -> Reads {
    let reads = Reads::new(name);
    reads.run(
        "CREATE TABLE events AS SELECT i AS id, ('8.' || 9 + k / 65536 || '.' || k / 256 % 256 || '.' || k % 256)::text AS key
            FROM (SELECT i, (i * 7919) % 20011 AS k FROM generate_series(1, 40000) i) q;
        INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT 'dshield', key, jsonb_build_object('key', key,
                'fill', (SELECT string_agg(md5(key || i), '') FROM generate_series(1, 40) i)), now() + interval '1 hour'
            FROM (SELECT DISTINCT key FROM events) k WHERE hashtext(key) % 2 = 0;
        ANALYZE events; ANALYZE enrichment_cache",
    );
    reads
}

/// The bounds to try: none at all where the setting is not known, as nothing is remembered then.
fn bounds(client: &mut Client) -> Vec<Option<&'static str>> {
    let known = "SELECT count(*) FROM pg_settings WHERE name = 'enrichment_cache.memo_size'";
    match one::<i64>(client, known) {
        0 => vec![None],
        _ => vec![None, Some("0"), Some("64kB"), Some("1MB")],
    }
}

fn set(client: &mut Client, bound: Option<&str>) {
    if let Some(size) = bound {
        run(client, &format!("SET enrichment_cache.memo_size = '{size}'"));
    }
}

#[test]
fn a_query_over_more_keys_than_are_remembered_gives_right_answers() {
    let reads = many("memo_many");
    let mut client = reads.client();
    // the library is loaded by the first call, and its settings with it
    agree(&mut client);
    for bound in bounds(&mut client) {
        set(&mut client, bound);
        for order in ["id", "key, id", "md5(id::text)"] {
            let sql = format!(
                "SELECT count(*), count(q.got), count(*) FILTER (WHERE q.got IS DISTINCT FROM c.payload OR q.inet IS DISTINCT FROM c.payload)
                FROM (SELECT e.key, enrich_get('dshield', e.key) AS got, enrich_get('dshield', e.key::inet) AS inet
                    FROM (SELECT * FROM events ORDER BY {order} OFFSET 0) e OFFSET 0) q
                LEFT JOIN enrichment_cache c ON c.service = 'dshield' AND c.cache_key = q.key AND c.expires_at > now()"
            );
            let row = client.query_one(&sql, &[]).unwrap_or_else(|why| panic!("{bound:?}: {}", said(&why)));
            let (rows, found, differing): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
            assert_eq!((rows, differing), (40_000, 0), "{bound:?}, ordered by {order}");
            assert!((10_000..30_000).contains(&found), "{found}");
        }
        let sql = "SELECT count(*), coalesce(sum((m.payload IS DISTINCT FROM c.payload)::int), 0)
            FROM enrich_get_many('dshield', (SELECT array_agg(key) FROM events)) m
            FULL JOIN (SELECT * FROM enrichment_cache WHERE service = 'dshield') c USING (cache_key)";
        let row = client.query_one(sql, &[]).expect("a comparison");
        assert!(row.get::<_, i64>(0) > 5000);
        assert_eq!(row.get::<_, i64>(1), 0, "{bound:?}");
        agree(&mut client);
    }
}

#[test]
fn a_query_over_most_keys_reads_the_table_once_and_counts_every_row() {
    let reads = many("memo_pass");
    let mut client = reads.client();
    agree(&mut client);
    run(
        &mut client,
        "UPDATE enrichment_cache SET expires_at = now() - interval '1 s' WHERE id % 5 = 0;
        UPDATE enrichment_cache SET response_status = 'not_found', payload = NULL WHERE id % 5 = 1;
        CREATE TABLE want AS SELECT cache_key, payload FROM enrichment_cache WHERE service = 'dshield' AND expires_at > now();
        UPDATE events SET key = '::ffff:' || key WHERE id % 3 = 0;
        ANALYZE enrichment_cache; ANALYZE want; ANALYZE events",
    );
    let ask = "SELECT count(*) FILTER (WHERE q.got IS DISTINCT FROM w.payload), count(w.cache_key), count(*)
        FROM (SELECT e.key, enrich_get('dshield', e.key) AS got
            FROM (SELECT key FROM events ORDER BY md5(id::text) OFFSET 0) e OFFSET 0) q
        LEFT JOIN want w ON w.cache_key = replace(q.key, '::ffff:', '')";
    let passes =
        "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'enrichment_cache' AND schemaname = 'public'";
    let counted = "SELECT ARRAY[cache_hits, cache_misses] FROM enrichment_stat WHERE service = 'dshield'";
    for (level, size, expected) in [
        ("READ COMMITTED", "256MB", 1),
        ("REPEATABLE READ", "256MB", 1),
        // a pass would conflict with every writer
        ("SERIALIZABLE", "256MB", 0),
        ("READ COMMITTED", "0", 0),
        // begun, and given up for want of room
        ("READ COMMITTED", "8MB", 1),
    ] {
        let before: Vec<i64> = one(&mut client, counted);
        run(&mut client, &format!("SET enrichment_cache.memo_size = '{size}'; BEGIN ISOLATION LEVEL {level}"));
        let passed: i64 = one(&mut client, passes);
        let row = client.query_one(ask, &[]).expect("look-ups");
        let (wrong, hits, rows): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        assert_eq!((wrong, one::<i64>(&mut client, passes) - passed), (0, expected), "{level}, {size}");
        run(&mut client, "COMMIT");
        let after: Vec<i64> = one(&mut client, counted);
        assert_eq!((after[0] - before[0], after[1] - before[1]), (hits, rows - hits), "{level}, {size}");
    }
}

/// What a session's process holds of its own, and what PostgreSQL's memory contexts in it hold, in bytes.
fn held(client: &mut Client) -> (i64, i64) {
    let contexts = one(client, "SELECT sum(total_bytes)::int8 FROM pg_backend_memory_contexts");
    (anonymous(client), contexts)
}

#[test]
fn a_query_holds_no_more_memory_than_it_may_and_none_when_it_has_ended() {
    let reads = many("memo_held");
    let bounds = {
        let mut client = reads.client();
        agree(&mut client);
        bounds(&mut client)
    };
    for bound in bounds {
        let mut client = reads.client();
        agree(&mut client);
        set(&mut client, bound);
        run(&mut client, "BEGIN; DECLARE idle NO SCROLL CURSOR FOR SELECT key FROM events; FETCH 1 FROM idle");
        let before = held(&mut client);
        run(&mut client, "DECLARE look NO SCROLL CURSOR FOR SELECT enrich_get('dshield', key) FROM events");
        run(&mut client, "MOVE 39000 FROM look");
        let during = held(&mut client);
        let size: i64 = one(&mut client, "SELECT pg_size_bytes(current_setting('enrichment_cache.memo_size'))");
        // all the answers are 13 MB, in blocks of which each is twice as large as the one before
        let allowed = size.min(20 << 20);
        let grown = (during.0 - before.0, during.1 - before.1);
        assert!(grown.1 < allowed + (256 << 10), "{bound:?}: {} bytes more of the server's memory", grown.1);
        assert!(grown.0 < allowed + (512 << 10), "{bound:?}: {} bytes more of the process", grown.0);
        run(&mut client, "CLOSE look");
        let left = held(&mut client).1 - before.1;
        assert!(left < 1 << 20, "{bound:?}: {left} bytes are left of the query");
    }
}

/// Each of these asks for every key in another part of a query; the number of wrong rows is 0.
const PLACES: [&str; 14] = [
    "SELECT count(*) FROM plain p WHERE enrich_get(p.service, p.raw) IS DISTINCT FROM p.fresh[1]",
    "SELECT count(*) FROM plain p WHERE (enrich_get(p.service, p.raw) IS NULL) <> (p.fresh[1] IS NULL)
        AND enrich_get(p.service, p.raw) IS DISTINCT FROM p.fresh[1]",
    "SELECT count(*) FROM (SELECT p.*, lag(p.fresh[1]) OVER w AS want, lag(enrich_get(p.service, p.raw)) OVER w AS got
        FROM plain p WINDOW w AS (ORDER BY n)) q WHERE got IS DISTINCT FROM want",
    "SELECT count(*) FROM (SELECT enrich_get(service, raw) AS got, count(*) AS n FROM universe GROUP BY 1) a
        FULL JOIN (SELECT fresh[1] AS want, count(*) AS n FROM plain GROUP BY 1) b
        ON a.got IS NOT DISTINCT FROM b.want AND a.n = b.n WHERE a.n IS NULL OR b.n IS NULL",
    "SELECT count(*) FROM (SELECT array_agg(n ORDER BY enrich_get(service, raw), n) AS got FROM universe) a,
        (SELECT array_agg(n ORDER BY fresh[1], n) AS want FROM plain) b WHERE got <> want",
    "SELECT count(*) FROM plain p JOIN LATERAL (SELECT enrich_get(p.service, p.raw) AS got OFFSET 0) l ON true
        WHERE l.got IS DISTINCT FROM p.fresh[1]",
    "SELECT count(*) FROM plain p WHERE EXISTS (SELECT FROM universe u WHERE u.n = p.n
        AND enrich_get(u.service, u.raw) IS DISTINCT FROM p.fresh[1])",
    "SELECT count(*) FROM plain p WHERE (SELECT enrich_get(u.service, u.raw) FROM universe u WHERE u.n >= p.n ORDER BY u.n LIMIT 1)
        IS DISTINCT FROM p.fresh[1]",
    "SELECT count(*) FROM plain p WHERE CASE WHEN p.n % 2 = 0 THEN enrich_get(p.service, p.raw) ELSE p.fresh[1] END
        IS DISTINCT FROM p.fresh[1]",
    "SELECT abs(count(enrich_get(service, raw)) FILTER (WHERE n > 5) - count(fresh[1]) FILTER (WHERE n > 5)) FROM plain",
    "WITH RECURSIVE walk AS (SELECT 1 AS n, enrich_get(service, raw) AS got FROM universe WHERE n = 1
        UNION ALL SELECT u.n, enrich_get(u.service, u.raw) FROM walk w JOIN universe u ON u.n = w.n + 1)
        SELECT count(*) FROM walk JOIN plain USING (n) WHERE got IS DISTINCT FROM fresh[1]",
    "SELECT count(*) FROM plain p, LATERAL (SELECT count(*) AS n FROM enrich_get_many(p.service, ARRAY[p.raw])) m
        WHERE m.n <> (p.fresh[1] IS NOT NULL)::int",
    "SELECT abs((SELECT count(*) FROM plain WHERE fresh[1] = enrich_get('dshield', '8.8.0.1'))
        - (SELECT count(*) FROM plain WHERE fresh[1] = (SELECT fresh[1] FROM plain WHERE n = 2)))",
    "SELECT count(*) FROM plain a JOIN universe b ON enrich_get(b.service, b.raw) = a.fresh[1]
        WHERE NOT EXISTS (SELECT FROM plain c WHERE c.n = b.n AND c.fresh[1] = a.fresh[1])",
];

#[test]
fn look_ups_answer_in_every_part_of_a_query() {
    let reads = Reads::filled("memo_places");
    let mut client = reads.client();
    run(&mut client, "DELETE FROM enrichment_cache WHERE id % 4 = 0");
    for scans in ["", "enable_seqscan", "enable_hashjoin", "enable_memoize", "enable_hashagg", "enable_material"] {
        run(&mut client, "RESET ALL");
        if !scans.is_empty() {
            run(&mut client, &format!("SET {scans} = off"));
        }
        for plans in ["force_custom_plan", "force_generic_plan"] {
            run(&mut client, &format!("SET plan_cache_mode = {plans}"));
            for sql in PLACES {
                assert_eq!(one::<i64>(&mut client, sql), 0, "{sql}");
            }
        }
    }
}
