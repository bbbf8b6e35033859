//! What the cache takes on disk while entries come and go.

use crate::support::{one, own_cluster, run, Base};
use postgres::Client;
use std::sync::Arc;

const ENTRIES: u32 = 12_000;

/// Stores what is missing.
fn fill(client: &mut Client, round: usize) {
    run(
        client,
        &format!(
            "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT 'dshield', '9.' || i / 65536 || '.' || i / 256 % 256 || '.' || i % 256, jsonb_build_object('v', {round}),
                now() + interval '1 day' FROM generate_series(1, {ENTRIES}) i ON CONFLICT DO NOTHING"
        ),
    );
    run(client, "VACUUM enrichment_cache");
}

/// A row that stays would hold its page of an index in the order of rows' coming, and each new row take a new page.
#[test]
fn the_index_of_row_numbers_keeps_its_size_while_rows_come_and_go() {
    let base = Base::in_cluster(&Arc::new(own_cluster("growth")), "growth", &["--limits", "none"]);
    let mut client = base.client();
    let size = "SELECT pg_relation_size('enrichment_cache_pkey')";
    fill(&mut client, 0);
    let first: i64 = one(&mut client, size);
    for round in 1..=8 {
        let half = format!("hashtextextended(cache_key, {round}) % 2 = 0");
        run(&mut client, &format!("DELETE FROM enrichment_cache WHERE {half}"));
        run(&mut client, "VACUUM enrichment_cache");
        fill(&mut client, round);
        let now: i64 = one(&mut client, size);
        assert!(now * 10 <= first * 13, "{now} bytes after round {round}, {first} at first");
    }
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), i64::from(ENTRIES));
}
