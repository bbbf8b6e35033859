//! A read only reads: no WAL, no dirty page, no transaction id, no lock that holds others up.

use super::{builder, Reads};
use crate::support::{one, run, said};
use postgres::{Client, SimpleQueryMessage};
use std::sync::Arc;

/// A cluster in which nothing else writes: no standby to tell of running transactions, no checkpoint but ours.
fn quiet(name: &str) -> Reads {
    let cluster = builder(name)
        .setting("enrichment_cache.stats_interval", "86400")
        .setting("wal_level", "minimal")
        .setting("max_wal_senders", "0")
        .setting("checkpoint_timeout", "1h")
        .setting("shared_buffers", "64MB")
        .start();
    let reads = Reads::in_cluster(&Arc::new(cluster.unwrap_or_else(|why| panic!("{why}"))), name);
    reads.run(
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
        SELECT 'dshield', '9.9.' || i / 256 || '.' || i % 256, made(i), now() + interval '1 hour' FROM generate_series(0, 4095) i",
    );
    reads.run("VACUUM (FREEZE, ANALYZE) enrichment_cache");
    reads.run("VACUUM (FREEZE)");
    reads
}

const KEY: &str = "'9.9.' || i % 4096 / 256 || '.' || i % 256";

/// What a statement wrote: WAL records, pages made dirty, pages written.
fn written(client: &mut Client, query: &str) -> (i64, i64, i64) {
    let explain = format!("EXPLAIN (ANALYZE, WAL, BUFFERS, FORMAT JSON) {query}");
    let plan = client.simple_query(&explain).unwrap_or_else(|why| panic!("{query}: {}", said(&why)));
    let plan = plan.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
        _ => None,
    });
    let plan = plan.unwrap_or_default();
    // the first node is the whole plan; what planning did has its own entry after it
    let number = |name: &str| {
        let after = plan.split(&format!("\"{name}\": ")).nth(1).unwrap_or_else(|| panic!("no {name} in {plan}"));
        after.split([',', '\n']).next().and_then(|number| number.trim().parse().ok()).unwrap_or(-1)
    };
    (number("WAL Records"), number("Shared Dirtied Blocks"), number("Shared Written Blocks"))
}

fn wal(client: &mut Client) -> String {
    one(client, "SELECT pg_current_wal_insert_lsn()::text")
}

/// The worker has looked around and rests.
fn settle(reads: &Reads) {
    let mut client = reads.client();
    crate::support::wait_served(&reads.cluster, &reads.name);
    let mut before = String::new();
    testbed::wait_until("nobody to write any more", crate::support::SOON, || {
        run(&mut client, "CHECKPOINT");
        let busy: i64 = one(
            &mut client,
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'enrichment_cache worker' AND state <> 'idle'",
        );
        run(&mut client, "SELECT pg_stat_clear_snapshot()");
        let now = wal(&mut client);
        let rests = busy == 0 && !before.is_empty();
        before = now;
        Ok(rests.then_some(()))
    });
}

#[test]
fn a_hundred_thousand_hits_of_a_read_only_transaction_write_nothing() {
    let reads = quiet("read_only");
    let mut client = reads.client();
    let forms = [
        format!("SELECT count(enrich_get('dshield', {KEY})) FROM generate_series(1, 100000) i"),
        format!("SELECT count(enrich_get('dshield', ({KEY})::inet)) FROM generate_series(1, 100000) i"),
        format!("SELECT count(enrich_get('dshield', {KEY}, '1 hour')) FROM generate_series(1, 20000) i"),
        format!(
            "SELECT count(m.payload) FROM generate_series(1, 100) j, enrich_get_many('dshield',
            (SELECT array_agg({KEY}) FROM generate_series(1, 1000) i)) m"
        ),
        format!("SELECT count(l.payload) FROM generate_series(1, 20000) i, enrich_lookup('dshield', {KEY}) l"),
    ];
    // what a first look leaves behind, as any SELECT does: hint bits, catalogues read
    for form in &forms {
        run(&mut client, form);
    }
    settle(&reads);
    run(&mut client, "BEGIN READ ONLY");
    let hits: i64 = one(&mut client, &forms[0]);
    assert_eq!(hits, 100_000);
    let before = wal(&mut client);
    for form in &forms {
        assert_eq!(written(&mut client, form), (0, 0, 0), "{form}");
    }
    let single = client.prepare("SELECT enrich_get('dshield', $1) IS NOT NULL").expect("a statement");
    for i in 0..3000 {
        let key = format!("9.9.{}.{}", i / 256 % 16, i % 256);
        assert!(client.query_one(&single, &[&key]).expect("an answer").get::<_, bool>(0), "{key}");
    }
    run(
        &mut client,
        "DO $$
        DECLARE
            hits int := 0;
        BEGIN
            FOR i IN 1..20000 LOOP
                IF enrich_get('dshield', '9.9.' || i % 4096 / 256 || '.' || i % 256) IS NOT NULL THEN hits := hits + 1; END IF;
            END LOOP;
            IF hits <> 20000 THEN RAISE EXCEPTION '% hits', hits; END IF;
        END $$",
    );
    assert_eq!(wal(&mut client), before, "WAL was written");
    assert_eq!(one::<Option<String>>(&mut client, "SELECT pg_current_xact_id_if_assigned()::text"), None);
    run(&mut client, "COMMIT");
    assert_eq!(wal(&mut client), before, "WAL was written at the end of the transaction");
    // outside a transaction block as well, and by misses
    let misses = "SELECT count(*) FROM generate_series(1, 20000) i WHERE enrich_get('spur', '7.7.' || i % 4096 / 256 || '.' || i % 256) IS NULL";
    assert_eq!(one::<i64>(&mut client, misses), 20_000);
    assert_eq!(written(&mut client, misses), (0, 0, 0));
    assert_eq!(wal(&mut client), before);
}

/// The measure itself sees a write.
#[test]
fn a_write_is_seen_where_reads_write_nothing() {
    let reads = quiet("read_only_not");
    let mut client = reads.client();
    settle(&reads);
    let before = wal(&mut client);
    let (records, dirtied, _) =
        written(&mut client, "UPDATE enrichment_cache SET hit_count = hit_count + 1 WHERE cache_key = '9.9.0.1'");
    assert!(records > 0 && dirtied > 0, "{records} records, {dirtied} pages");
    assert_ne!(wal(&mut client), before);
}

/// VACUUM waits for whoever holds a page, and would wait for ever here.
#[test]
fn a_transaction_that_has_looked_up_holds_no_page() {
    let reads = Reads::filled("read_only_pins");
    let (mut reader, mut other) = (reads.client(), reads.client());
    run(&mut other, "SET statement_timeout = '20s'");
    for (isolation, kind) in [
        ("READ COMMITTED", "LOGGED"),
        ("REPEATABLE READ", "LOGGED"),
        ("SERIALIZABLE", "LOGGED"),
        // its indexes give up their pages otherwise
        ("READ COMMITTED", "UNLOGGED"),
        ("REPEATABLE READ", "UNLOGGED"),
    ] {
        run(&mut other, &format!("ALTER TABLE enrichment_cache SET {kind}"));
        run(&mut reader, &format!("BEGIN ISOLATION LEVEL {isolation}"));
        super::agree(&mut reader);
        super::agree_in(&mut reader, "wrapped");
        run(
            &mut reader,
            "DO $$ DECLARE got jsonb; BEGIN FOR i IN 1..9 LOOP got := enrich_get('dshield', '8.8.0.' || i); END LOOP; END $$",
        );
        run(&mut other, "UPDATE enrichment_cache SET payload = made(3)");
        run(&mut other, "VACUUM (FREEZE, DISABLE_PAGE_SKIPPING, INDEX_CLEANUP ON) enrichment_cache");
        super::agree(&mut reader);
        run(&mut reader, "COMMIT");
    }
}
