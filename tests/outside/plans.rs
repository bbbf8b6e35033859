//! Plans that were made while the tables were empty, and are kept: they must stay good when the tables have grown and nobody has
//! analysed them yet.

use crate::support::{one, own_cluster, run, Base};
use std::sync::Arc;
use testbed::Cluster;

/// Rows of the cache that were read in passes over all of it, and through its index.
const READ: &str = "SELECT (t.seq_tup_read + i.idx_tup_read)::int8 FROM pg_stat_user_tables t JOIN pg_stat_user_indexes i USING (relid)
    WHERE i.indexrelname = 'enrichment_cache_service_key'";

#[test]
fn a_session_that_asks_again_and_again_does_not_read_the_whole_cache() {
    let base = Base::in_cluster(&Arc::new(own_cluster("asks_again")), "asks_again", &["--limits", "none"]);
    let mut client = base.client();
    let ask = |client: &mut _, n: i32| {
        run(client, &format!("SELECT enrich_request_many('dshield', ARRAY[host('8.8.0.0'::inet + {n})])"));
    };
    // the sixth time a plan is kept
    (0..8).for_each(|n| ask(&mut client, n));
    base.run(
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
         SELECT 'dshield', host('9.9.0.0'::inet + n), '{}', now() + interval '1 day' FROM generate_series(1, 4000) n",
    );
    let before = base.one::<i64>(READ);
    (100..120).for_each(|n| ask(&mut client, n));
    one::<bool>(&mut client, "SELECT pg_stat_force_next_flush() IS NOT NULL");
    // the worker may count the entries meanwhile
    let passes = (base.one::<i64>(READ) - before) / 4000;
    assert!(passes < 5, "{passes} passes over the cache for 20 requests");
}

/// The worker's own statements, as `auto_explain` tells of them.
#[test]
fn what_is_read_in_the_order_of_an_index_is_never_sorted_and_what_has_a_key_is_found_by_it() {
    let cluster = Cluster::builder("unsorted")
        .preload(true)
        .setting("shared_preload_libraries", "enrichment_cache,auto_explain")
        .setting("auto_explain.log_min_duration", "0")
        .setting("auto_explain.log_nested_statements", "on")
        .setting("autovacuum", "off")
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    let base = Base::in_cluster(&Arc::new(cluster), "unsorted", &["--limits", "none"]);
    // the sixth time a plan is kept, and a queue of one request is read whole more cheaply than by an index
    for n in 0..8 {
        base.run(&format!("SELECT enrich_request('dshield', host('8.7.0.0'::inet + {n}))"));
        base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    }
    base.run(
        "SELECT enrich_request_many('dshield', array_agg(host('8.8.0.0'::inet + n))) FROM generate_series(1, 3000) n",
    );
    base.wait_for("SELECT count(*) FROM enrichment_cache", 3008i64);
    base.run(
        "CREATE TABLE visits AS SELECT host('8.8.0.0'::inet + n) AS ip, NULL::jsonb AS answers FROM generate_series(1, 3000) n;
         CREATE INDEX ON visits (ip);
         SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers')",
    );
    base.wait_for("SELECT count(*) FROM visits WHERE answers ? '_meta'", 3000i64);
    let log = base.cluster.log();
    let plans: Vec<&str> = log.split("Query Text: ").filter_map(|plan| plan.split("LOG:").next()).collect();
    for (says, index) in [
        ("ORDER BY d.rank DESC, d.next_attempt_at, d.id LIMIT", "enrichment_queue_due"),
        ("ORDER BY d.rank DESC, d.next_attempt_at, d.id LIMIT", "Tid Scan on enrichment_queue"),
        ("ORDER BY d.next_attempt_at LIMIT", "enrichment_queue_next"),
        ("ORDER BY d.next_attempt_at LIMIT", "Tid Scan on enrichment_queue"),
        ("enrichment_queue WHERE id = ANY ($1)", "enrichment_queue_pkey"),
        ("SELECT d.raw_key", "enrichment_indicator_dirty"),
        ("SELECT d.raw_key", "enrichment_queue_service_cache_key_key"),
    ] {
        let plans: Vec<&&str> = plans.iter().filter(|plan| plan.contains(says)).collect();
        assert!(plans.len() > 5, "{} plans of {says}", plans.len());
        for plan in plans {
            assert!(plan.contains(index) && !plan.contains("Sort Key"), "{plan}");
            assert!(!plan.contains("Seq Scan on enrichment_queue"), "{plan}");
        }
    }
}

/// After an import nothing has counted the rows yet, and the planner may take a service for one without any.
#[test]
fn a_key_that_an_import_may_have_kept_something_for_is_looked_for_by_its_digests() {
    let base = Base::in_cluster(&Arc::new(own_cluster("unknown_keys")), "unknown_keys", &["--limits", "none"]);
    base.cluster.set("enrichment_cache.enabled", "off");
    // by the session that is watched: another one's pages are counted when it ends, which may be later
    let mut client = base.client();
    for (service, rows) in [("spur", 3_000), ("dshield", 40_000)] {
        let insert = format!(
            "INSERT INTO enrichment_orphan (service, digest, payload, response_status, fetched_at, expires_at)
             SELECT '{service}', sha256(n::text::bytea), jsonb_build_object('pad', repeat('x', 500)), 'success', now(), now() + interval '1 day'
             FROM generate_series(1, {rows}) n"
        );
        run(&mut client, &insert);
        if service == "spur" {
            run(&mut client, "ANALYZE enrichment_orphan");
        }
    }
    let pages = "SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'enrichment_orphan'";
    for ask in ["SELECT enrich_get('dshield', '9.9.9.9')", "SELECT enrich_request('dshield', '9.9.9.10')"] {
        run(&mut client, "SELECT pg_stat_force_next_flush()");
        let before: i64 = one(&mut client, pages);
        run(&mut client, ask);
        run(&mut client, "SELECT pg_stat_force_next_flush()");
        let read = one::<i64>(&mut client, pages) - before;
        assert!(read < 100, "{ask} read {read} pages");
    }
}
