//! The indexes that look-ups may use: without them answers are slower and the same, with false friends as well.

use crate::reads::{agree, agree_in, Reads};
use crate::support::{ask, one, run, said};
use postgres::Client;

/// The definitions of the cache's indexes without its primary key.
fn definitions(client: &mut Client) -> Vec<(String, String)> {
    let sql = "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
        WHERE i.indrelid = 'enrichment_cache'::regclass AND NOT i.indisprimary ORDER BY 1";
    let rows = client.query(sql, &[]).unwrap_or_else(|why| panic!("{}", said(&why)));
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn drop_all(client: &mut Client, indexes: &[(String, String)]) {
    indexes.iter().for_each(|(name, _)| run(client, &format!("DROP INDEX {name}")));
}

/// Looks as sessions do that have looked before.
#[track_caller]
fn look(client: &mut Client) {
    assert!(agree(client) > 100);
    agree_in(client, "wrapped");
}

#[test]
fn without_indexes_answers_are_the_same_only_slower() {
    let reads = Reads::filled("ddl_no_index");
    let (mut client, mut other) = (reads.client(), reads.client());
    let indexes = definitions(&mut client);
    assert!(indexes.len() > 1);
    look(&mut client);
    look(&mut other);
    run(&mut client, "BEGIN");
    look(&mut client);
    drop_all(&mut client, &indexes);
    look(&mut client);
    run(&mut client, "UPDATE enrichment_cache SET payload = made(3)");
    look(&mut client);
    run(&mut client, "ROLLBACK");
    look(&mut client);
    look(&mut other);
    drop_all(&mut client, &indexes);
    look(&mut client);
    look(&mut other);
    run(&mut client, "UPDATE enrichment_cache SET payload = made(3) WHERE id % 2 = 0");
    look(&mut other);
    // also without the primary key
    run(&mut client, "BEGIN; ALTER TABLE enrichment_cache DROP CONSTRAINT enrichment_cache_pkey");
    look(&mut client);
    run(&mut client, "ROLLBACK");
    for (_, definition) in &indexes {
        run(&mut client, definition);
        look(&mut client);
        look(&mut other);
    }
    let many = "SELECT enrich_store_many('dshield', array_agg('7.7.' || i / 256 || '.' || i % 256), array_agg(made(i)))
        FROM generate_series(1, 5000) i";
    assert_eq!(one::<i64>(&mut client, many), 5000);
    look(&mut other);
}

/// Indexes that look like the one a probe wants, and hold less, hold it in another order or compare differently.
const FALSE_FRIENDS: [&str; 16] = [
    "CREATE UNIQUE INDEX friend ON enrichment_cache (service, cache_key) WHERE service = 'spur'",
    "CREATE UNIQUE INDEX friend ON enrichment_cache (cache_key, service) WHERE expires_at > '2100-01-01'",
    "CREATE INDEX friend ON enrichment_cache (service, cache_key)",
    "CREATE INDEX friend ON enrichment_cache (cache_key, service)",
    "CREATE UNIQUE INDEX friend ON enrichment_cache (service DESC, cache_key DESC)",
    "CREATE UNIQUE INDEX friend ON enrichment_cache (cache_key DESC NULLS LAST, service)",
    "CREATE UNIQUE INDEX friend ON enrichment_cache (service text_pattern_ops, cache_key text_pattern_ops)",
    "CREATE UNIQUE INDEX friend ON enrichment_cache (service COLLATE \"und-x-icu\", cache_key COLLATE \"und-x-icu\")",
    "CREATE UNIQUE INDEX friend ON enrichment_cache (cache_key COLLATE \"default\", service COLLATE \"default\")",
    "CREATE UNIQUE INDEX friend ON enrichment_cache (service, upper(cache_key))",
    "CREATE UNIQUE INDEX friend ON enrichment_cache (service, cache_key) INCLUDE (expires_at)",
    "CREATE UNIQUE INDEX friend ON enrichment_cache (service, cache_key, id)",
    "CREATE INDEX friend ON enrichment_cache USING hash (cache_key)",
    "CREATE INDEX friend ON enrichment_cache USING hash (cache_key_hash)",
    "ALTER TABLE enrichment_cache ADD CONSTRAINT friend UNIQUE (service, cache_key) DEFERRABLE INITIALLY DEFERRED",
    "CREATE UNIQUE INDEX friend ON enrichment_cache (cache_key_hash)",
];

#[test]
fn an_index_that_only_looks_like_the_right_one_misleads_nobody() {
    let reads = Reads::filled("ddl_friends");
    let (mut client, mut other) = (reads.client(), reads.client());
    // keys that collations order otherwise than bytes do
    run(
        &mut client,
        "INSERT INTO universe (service, raw, cache_key)
        SELECT 'urlhaus', k, enrich_normalize_key('network_indicator', k)
        FROM unnest('{a-b.example.com,ab.example.com,a.b.example.com,zz.example.com,0a.example.com}'::text[]) k;
        DELETE FROM enrichment_cache",
    );
    reads.fill();
    look(&mut other);
    let indexes = definitions(&mut client);
    for friend in FALSE_FRIENDS {
        for alone in [false, true] {
            run(&mut client, friend);
            if alone {
                drop_all(&mut client, &indexes);
            }
            look(&mut client);
            look(&mut other);
            if alone && friend.contains("DEFERRED") {
                // until the end of the transaction there may be two rows of a key
                run(
                    &mut client,
                    "BEGIN; INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
                    SELECT service, cache_key, made(3), expires_at FROM enrichment_cache WHERE service = 'dshield'",
                );
                look(&mut client);
                run(&mut client, "ROLLBACK");
            }
            run(&mut client, "UPDATE enrichment_cache SET payload = made(3), version = version + 1 WHERE id % 3 = 0");
            look(&mut other);
            if friend.starts_with("ALTER") {
                run(&mut client, "ALTER TABLE enrichment_cache DROP CONSTRAINT friend");
            } else {
                run(&mut client, "DROP INDEX friend");
            }
            look(&mut client);
            if alone {
                indexes.iter().for_each(|(_, definition)| run(&mut client, definition));
            }
        }
    }
}

/// A concurrent build that has failed leaves an index that is not valid and does not hold every row.
#[test]
fn an_index_whose_build_has_failed_is_not_used() {
    let reads = Reads::filled("ddl_invalid");
    let (mut client, mut other, mut blocker) = (reads.client(), reads.client(), reads.client());
    look(&mut other);
    let indexes = definitions(&mut client);
    for ready in [false, true] {
        run(&mut blocker, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM enrichment_cache; UPDATE enrichment_cache SET version = version WHERE id = (SELECT min(id) FROM enrichment_cache)");
        run(&mut client, "SET lock_timeout = '50ms'");
        let build = "CREATE UNIQUE INDEX CONCURRENTLY friend ON enrichment_cache (cache_key, service)";
        let error = client.batch_execute(build).expect_err("somebody writes");
        assert_eq!(error.code().map(|code| code.code()), Some("55P03"), "{}", said(&error));
        run(&mut blocker, "COMMIT");
        run(&mut client, "RESET lock_timeout");
        let valid: Result<bool, _> =
            ask(&mut client, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'friend'::regclass");
        assert_eq!(valid, Ok(false));
        if ready {
            drop_all(&mut client, &indexes);
        }
        look(&mut client);
        look(&mut other);
        run(&mut client, "UPDATE enrichment_cache SET payload = made(3), version = version + 1");
        look(&mut other);
        run(&mut client, "DROP INDEX friend");
        look(&mut client);
    }
}
