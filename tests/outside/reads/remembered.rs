//! Look-ups that remember where rows stand: they ask no index, and whatever becomes of the place, the answer is that of plain
//! SQL.

use super::{builder, Reads};
use crate::support::{one, run};
use postgres::Client;
use std::sync::Arc;

const KEYS: i32 = 3_000;

/// An address for each number, in another order than they are stored in.
const SETUP: &str = "CREATE TABLE asked AS SELECT n, '8.9.' || n / 250 || '.' || n % 250 AS key FROM generate_series(0, 2999) n;
    CREATE FUNCTION keep(numbers int4range) RETURNS void LANGUAGE sql AS $$
        SELECT count(enrich_store('dshield', key, jsonb_build_object('ip', jsonb_build_object('number', key, 'count', n), 'pad', repeat(md5(key), 30))))
        FROM asked WHERE n <@ numbers AND n % 3 <> 2 $$;
    CREATE FUNCTION plain(wanted text) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
        RETURN (SELECT payload FROM enrichment_cache WHERE service = 'dshield' AND cache_key = wanted AND expires_at > now());
    END $$;
    -- one answer in a transaction, as a client asks
    CREATE PROCEDURE one_by_one(step int) LANGUAGE plpgsql AS $$
    DECLARE
        wanted text;
    BEGIN
        FOR wanted IN SELECT key FROM asked WHERE n % step = 0 LOOP
            IF enrich_get('dshield', wanted) IS DISTINCT FROM plain(wanted) THEN
                RAISE EXCEPTION 'another answer about %', wanted;
            END IF;
            COMMIT;
        END LOOP;
    END $$";

/// Asks for every key in each way there is and compares with plain SQL.
#[track_caller]
fn agree(client: &mut Client, what: &str) {
    run(client, "CALL one_by_one(7)");
    for memo in ["0", "64MB"] {
        run(client, &format!("SET enrichment_cache.memo_size = '{memo}'"));
        let differ = "SELECT count(*) FROM asked WHERE enrich_get('dshield', key) IS DISTINCT FROM plain(key)";
        assert_eq!(one::<i64>(client, differ), 0, "{what}, one after the other, memo {memo}");
    }
    let differ = "SELECT count(*) FROM asked a LEFT JOIN enrich_get_many('dshield', (SELECT array_agg(key) FROM asked)) m ON m.cache_key = a.key
        WHERE m.payload IS DISTINCT FROM plain(a.key)";
    assert_eq!(one::<i64>(client, differ), 0, "{what}, many at once");
    let differ =
        "SELECT count(*) FROM asked a, enrich_lookup('dshield', a.key) l WHERE l.payload IS DISTINCT FROM plain(a.key)";
    assert_eq!(one::<i64>(client, differ), 0, "{what}, with the reason");
}

fn prepared(name: &str, size: &str) -> Reads {
    let cluster = builder(name).setting("enrichment_cache.lookup_cache_size", size).start();
    let reads = Reads::in_cluster(&Arc::new(cluster.unwrap_or_else(|why| panic!("{why}"))), name);
    reads.run(SETUP);
    reads
}

#[test]
fn whatever_becomes_of_a_remembered_place_the_answer_is_that_of_plain_sql() {
    // also where four keys in a thousand have room, so that places are forgotten all the time
    for size in ["16MB", "1kB", "0"] {
        let reads = prepared(&format!("remembered_{}", size.to_lowercase()), size);
        let mut client = reads.client();
        run(&mut client, &format!("SELECT keep('[0,{KEYS})')"));
        agree(&mut client, "stored");
        agree(&mut client, "remembered");
        // a transaction that began before sees what was there then
        let mut earlier = reads.client();
        run(&mut earlier, "BEGIN ISOLATION LEVEL REPEATABLE READ");
        let sum = "SELECT sum((enrich_get('dshield', key) #>> '{ip,count}')::int) FROM asked";
        let before: i64 = one(&mut earlier, sum);
        for (what, change) in [
            ("updates that leave the index alone", "UPDATE enrichment_cache SET hit_count = hit_count + 1"),
            ("updates that move rows", "UPDATE enrichment_cache SET expires_at = expires_at + interval '1 second', payload = payload || '{\"moved\": true}'"),
            ("keys that change places", "UPDATE enrichment_cache SET cache_key = 'x' || cache_key;
                UPDATE enrichment_cache c SET cache_key = b.key FROM asked a, asked b WHERE c.cache_key = 'x' || a.key AND b.n = (a.n + 1200) % 3000"),
            ("deletes", "DELETE FROM enrichment_cache WHERE id % 5 = 0"),
        ] {
            run(&mut client, change);
            agree(&mut client, what);
            assert_eq!(one::<i64>(&mut earlier, sum), before, "{what}: an earlier snapshot");
        }
        run(&mut earlier, "COMMIT");
        for (what, change) in [
            ("places that are free again", "VACUUM enrichment_cache"),
            ("places that others took", "SELECT keep('[0,3000)')"),
            ("a table that was cut", "DELETE FROM enrichment_cache WHERE ctid >= '(100,0)'"),
            ("a table that was cut", "VACUUM enrichment_cache"),
            ("a table that is packed", "VACUUM FULL enrichment_cache"),
            ("a table in the order of an index", "CLUSTER enrichment_cache USING enrichment_cache_service_key"),
            ("an empty table", "TRUNCATE enrichment_cache"),
            ("another order", "SELECT keep('[1500,3000)'), keep('[0,1500)')"),
            ("an index made anew", "REINDEX TABLE enrichment_cache"),
        ] {
            let pages = |client: &mut Client| one::<i64>(client, "SELECT pg_relation_size('enrichment_cache') / 8192");
            let had = pages(&mut client);
            run(&mut client, change);
            assert!(
                change != "VACUUM enrichment_cache"
                    || what != "a table that was cut"
                    || pages(&mut client) <= 100 && had > 100
            );
            agree(&mut client, what);
        }
        for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
            run(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT keep('[0,100)'); SAVEPOINT s"));
            run(&mut client, "DELETE FROM enrichment_cache WHERE id % 3 = 0; ROLLBACK TO SAVEPOINT s");
            let differ = "SELECT count(*) FROM asked WHERE enrich_get('dshield', key) IS DISTINCT FROM plain(key)";
            assert_eq!(one::<i64>(&mut client, differ), 0, "{isolation}");
            run(&mut client, "ROLLBACK");
        }
        agree(&mut client, "rolled back");
    }
}

#[test]
fn a_look_up_that_remembers_asks_no_index() {
    for (size, asks) in [("16MB", false), ("0", true)] {
        let reads = prepared(&format!("asks_no_index_{}", size.to_lowercase()), size);
        let mut client = reads.client();
        run(&mut client, &format!("SELECT keep('[0,{KEYS})')"));
        run(&mut client, "SET enrichment_cache.memo_size = 0; SET enrichment_cache.track_lookups = off");
        // at a fifth of the room no place makes another one's go
        run(&mut client, "CREATE TABLE few AS SELECT key FROM asked WHERE n < 1000 AND n % 3 <> 2");
        let ways = [
            "SELECT count(enrich_get('dshield', key)) FROM few",
            "SELECT count(*) FROM enrich_get_many('dshield', (SELECT array_agg(key) FROM few))",
            "SELECT count(payload) FROM few, enrich_lookup('dshield', key)",
        ];
        let known: i64 = one(&mut client, "SELECT count(*) FROM few");
        assert_eq!(one::<i64>(&mut client, ways[0]), known);
        for way in ways {
            let asked = asked_blocks(&mut client);
            assert_eq!(one::<i64>(&mut client, way), known);
            assert_eq!(asked_blocks(&mut client) > asked, asks, "{size}: {way}");
        }
        // one in a transaction
        let asked = asked_blocks(&mut client);
        for n in 0..20 {
            let get = format!("SELECT enrich_get('dshield', '8.9.0.{}') IS NOT NULL", n * 3);
            assert!(one::<bool>(&mut client, &get));
        }
        assert_eq!(asked_blocks(&mut client) > asked, asks, "{size}: one by one");
    }
}

/// How many pages of the index by key were read so far.
fn asked_blocks(client: &mut Client) -> i64 {
    run(client, "SELECT pg_stat_force_next_flush()");
    one(
        client,
        "SELECT idx_blks_read + idx_blks_hit FROM pg_statio_user_indexes WHERE indexrelname = 'enrichment_cache_service_key'",
    )
}
