//! What the table lacks is answered from files.

use super::support::{base, dshield, dshield_path, Tree, DAY, HOUR};
use crate::support::{address, let_the_worker_look, one, run};
use testbed::Cluster;

/// A path in the layout by digest.
fn digested(service: &str, digest: &str) -> String {
    format!("{service}/{}/{digest}.json", &digest[..2])
}

#[test]
fn a_miss_is_answered_from_every_layout_with_its_true_age_and_taken_over_without_a_call() {
    let tree = Tree::new("layouts");
    let base = base("dual_layouts", &tree, "read");
    let digest: String = base.one("SELECT encode(sha256('8.1.0.2'), 'hex')");
    let keys = ["8.1.0.1", "8.1.0.2", "8.1.0.3", "8.1.0.4"];
    let paths =
        [dshield_path(keys[0]), digested("dshield", &digest), format!("dshield/{0}/{0}.json", keys[2]), String::new()];
    for (key, path) in keys.iter().zip(&paths).filter(|(_, path)| !path.is_empty()) {
        tree.put(path, &dshield(key, 7), 5 * HOUR);
    }
    // the oldest layout has the time inside, and the file's own does not count
    let at: i64 = base.one(&format!("SELECT extract(epoch FROM now())::bigint - {}", 5 * HOUR));
    tree.put("dshield_8.1.0.4.json", &format!(r#"{{"timestamp":{at},"data":{}}}"#, dshield(keys[3], 7)), 10);
    let mut client = base.client();
    // what the worker takes over meanwhile is not seen by this block's snapshot
    run(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM enrichment_cache");
    for key in keys {
        let (state, source, age): (String, String, f64) = {
            let sql =
                format!("SELECT state, source, extract(epoch FROM age)::float8 FROM enrich_lookup('dshield', '{key}')");
            let row = client.query_one(&sql, &[]).expect("a row");
            (row.get(0), row.get(1), row.get(2))
        };
        assert_eq!((state.as_str(), source.as_str()), ("hit", "disk"), "{key}");
        assert!((age - 5.0 * HOUR as f64).abs() < 120.0, "{key} is {age} s old");
        assert_eq!(
            one::<Option<i64>>(
                &mut client,
                &format!("SELECT (enrich_get('dshield', '{key}') #>> '{{ip,count}}')::bigint")
            ),
            Some(7)
        );
    }
    run(&mut client, "COMMIT");
    base.wait_for(
        "SELECT count(*) FROM enrichment_cache WHERE service = 'dshield' AND response_status = 'success'
            AND payload #>> '{ip,count}' = '7' AND now() - fetched_at BETWEEN '5 hours' AND '5 hours 2 minutes'
            AND expires_at - fetched_at BETWEEN '6 days' AND '8 days'",
        4i64,
    );
    assert_eq!(one::<String>(&mut client, "SELECT source FROM enrich_lookup('dshield', '8.1.0.1')"), "database");
    let counted =
        "SELECT disk_hits || ' ' || disk_adopted || ' ' || api_calls FROM enrichment_stat WHERE service = 'dshield'";
    base.wait_for(counted, "4 4 0".to_string());
    assert_eq!(base.asked("dshield"), 0);
}

#[test]
fn a_query_over_many_rows_reads_each_file_and_counts_each_answer() {
    let tree = Tree::new("rows");
    let base = base("dual_rows", &tree, "read");
    for n in 1..=50 {
        tree.put(&dshield_path(&address(n)), &dshield(&address(n), n), HOUR);
    }
    let mut client = base.client();
    // each address comes four times, fifty of a hundred have a file
    let sql = "SELECT count(enrich_get('dshield', host('8.8.0.0'::inet + n))) FROM generate_series(1, 100) n, generate_series(1, 4)";
    assert_eq!(one::<i64>(&mut client, sql), 200);
    let many = "SELECT count(*) FROM enrich_get_many('dshield', ARRAY(SELECT host('8.8.0.0'::inet + n) FROM generate_series(1, 100) n))";
    assert_eq!(one::<i64>(&mut client, many), 50);
    drop(client);
    base.wait_for("SELECT count(*) FROM enrichment_cache", 50i64);
    base.wait_for(
        "SELECT cache_misses > 0 AND disk_hits BETWEEN 50 AND 250 FROM enrichment_stat WHERE service = 'dshield'",
        true,
    );
}

#[test]
fn an_expired_file_is_stale_and_never_fresh() {
    let tree = Tree::new("expired");
    let base = base("dual_expired", &tree, "read");
    tree.put(&dshield_path("8.1.1.1"), &dshield("8.1.1.1", 1), 9 * DAY);
    let mut client = base.client();
    assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.1.1.1') IS NULL"));
    assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.1.1.1', '1 day') IS NULL"));
    assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.1.1.1', '30 days') IS NOT NULL"));
    let state = "SELECT state || ' ' || source FROM enrich_lookup('dshield', '8.1.1.1')";
    base.wait_for(state, "stale database".to_string());
    assert!(one::<bool>(&mut client, "SELECT now() - fetched_at > '8 days 23 hours' FROM enrichment_cache"));
}

#[test]
fn files_answer_on_a_standby_in_read_only_transactions_and_in_parallel_workers() {
    let tree = Tree::new("standby");
    let base = base("dual_standby", &tree, "read");
    for n in 1..=20 {
        tree.put(&dshield_path(&address(n)), &dshield(&address(n), n), HOUR);
    }
    let standby = Cluster::builder("dual_standby_2")
        .preload(true)
        .setting("max_worker_processes", "40")
        .setting("enrichment_cache.disk_cache_dir", &tree.root.display().to_string())
        .setting("enrichment_cache.disk_cache_mode", "read")
        .standby_of(&base.cluster)
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    standby.wait_replayed(&base.cluster);
    let get = "SELECT count(enrich_get('dshield', host('8.8.0.0'::inet + n))) FROM generate_series(1, 20) n";
    assert_eq!(one::<i64>(&mut standby.client("dual"), get), 20);
    let mut client = base.client();
    run(&mut client, "BEGIN READ ONLY");
    assert_eq!(one::<i64>(&mut client, get), 20);
    assert_eq!(one::<String>(&mut client, "SELECT state FROM enrich_lookup('dshield', '8.8.0.1')"), "hit");
    run(&mut client, "COMMIT");
    run(
        &mut client,
        "CREATE TABLE events AS SELECT host('8.8.0.0'::inet + 1 + n % 20) AS ip FROM generate_series(1, 2000) n;
         ANALYZE events; SET force_parallel_mode = on; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
         SET min_parallel_table_scan_size = 0; DELETE FROM enrichment_cache",
    );
    let sql = "SELECT count(enrich_get('dshield', ip)) FROM events";
    let plan: Vec<String> =
        client.query(&format!("EXPLAIN {sql}"), &[]).expect("a plan").iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Parallel Seq Scan")), "{plan:?}");
    assert_eq!(one::<i64>(&mut client, sql), 2000);
}

#[test]
fn ranges_of_passwords_texts_and_waiting_fetches_are_answered_from_files_without_a_call() {
    let tree = Tree::new("kinds");
    let base = base("dual_kinds", &tree, "read");
    // SHA-1 of "password" is 5BAA6 1E4C9...
    let range = r#"{"1E4C9B93F3F0682250B6CF8331B7EE68FD8":3861493,"0000000000000000000000000000000000A":2}"#;
    tree.put("hibp/5B/AA/6/5BAA6.json", range, DAY);
    tree.put(&dshield_path("8.1.2.1"), &dshield("8.1.2.1", 4), HOUR);
    let mut client = base.client();
    let row =
        client.query_one("SELECT breached, prevalence, status FROM enrich_password('password')", &[]).expect("a row");
    assert_eq!((row.get::<_, Option<bool>>(0), row.get::<_, Option<i64>>(1)), (Some(true), Some(3_861_493)));
    assert_eq!(row.get::<_, String>(2), "fresh");
    let fetched: Option<String> =
        one(&mut client, "SELECT enrich_fetch('dshield', '8.1.2.1', '20 s') #>> '{ip,count}'");
    assert_eq!(fetched.as_deref(), Some("4"));
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE ranges IS NOT NULL OR service = 'dshield'", 2i64);
    let again = client.query_one("SELECT breached, prevalence FROM enrich_password('password')", &[]).expect("a row");
    assert_eq!((again.get::<_, Option<bool>>(0), again.get::<_, Option<i64>>(1)), (Some(true), Some(3_861_493)));
    assert_eq!(base.asked("hibp") + base.asked("dshield"), 0);
}

#[test]
fn a_request_that_a_file_answers_costs_no_call_also_where_none_may_be_made() {
    let tree = Tree::new("requests");
    let base = base("dual_requests", &tree, "read");
    let hashes: Vec<String> = (0..30u32).map(|n| format!("{n:064x}")).collect();
    let body = r#"{"data":{"attributes":{"last_analysis_stats":{"malicious":3}}}}"#;
    for hash in &hashes[..20] {
        tree.put(
            &format!("virustotal/{}/{}/{}/{}/{hash}.json", &hash[..2], &hash[2..4], &hash[4..6], &hash[6..8]),
            body,
            DAY,
        );
    }
    for hash in &hashes[20..] {
        tree.put(
            &format!("virustotal_unknown/{}/{}/{}/{}/{hash}.json", &hash[..2], &hash[2..4], &hash[4..6], &hash[6..8]),
            r#"{"error":"not found"}"#,
            HOUR,
        );
    }
    // a quota of one call a month, and it is spent
    base.run(r#"UPDATE enrichment_service SET limits = '[{"max": 1, "per": "month"}]' WHERE name = 'virustotal'"#);
    base.run(&format!("SELECT enrich_request('virustotal', '{}')", "f".repeat(64)));
    base.wait_for("SELECT count(*) FROM enrichment_quota WHERE service = 'virustotal' AND spent = 1", 1i64);
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    let asked = base.asked("virustotal");
    base.run(&format!("SELECT enrich_request_many('virustotal', ARRAY['{}'])", hashes.join("','")));
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    let known = "SELECT count(*) FILTER (WHERE response_status = 'success') || ' ' || count(*) FILTER (WHERE response_status = 'not_found')
        FROM enrichment_cache WHERE cache_key < 'f'";
    assert_eq!(base.one::<String>(known), "20 10");
    assert_eq!(base.asked("virustotal"), asked);
}

#[test]
fn a_file_that_comes_while_its_request_waits_is_found_before_the_call_goes_out() {
    let tree = Tree::new("while_waiting");
    let base = base("dual_while_waiting", &tree, "read");
    let keys = base.known("dshield", 3);
    base.run(r#"UPDATE enrichment_service SET limits = '[{"max": 1, "per": "month"}]' WHERE name = 'dshield'"#);
    base.run(&format!("SELECT enrich_request('dshield', '{}')", keys[0]));
    base.wait_for("SELECT count(*) FROM enrichment_cache", 1i64);
    base.run(&format!("SELECT enrich_request_many('dshield', ARRAY['{}', '{}'])", keys[1], keys[2]));
    // both are looked for in files now, and wait for the limit
    let_the_worker_look(&base);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue WHERE state = 'waiting'"), 2);
    tree.put(&dshield_path(&keys[1]), &dshield(&keys[1], 8), HOUR);
    base.run("UPDATE enrichment_service SET limits = '[]' WHERE name = 'dshield'");
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    assert_eq!(base.asked_for("dshield", &keys[1]), 0, "the file answered");
    assert_eq!(base.asked_for("dshield", &keys[2]), 1);
    let spent = "SELECT max(spent)::bigint FROM enrichment_quota WHERE service = 'dshield' AND per = 'month'";
    assert_eq!(base.one::<i64>(spent), 1, "what no call was made for is not spent");
}

#[test]
fn an_older_file_replaces_nothing_and_an_invalidated_answer_does_not_come_back() {
    let tree = Tree::new("older");
    let base = base("dual_older", &tree, "read");
    let mut client = base.client();
    let (key, path) = ("8.1.3.1", dshield_path("8.1.3.1"));
    tree.put(&path, &dshield(key, 1), 2 * DAY);
    run(
        &mut client,
        &format!(
            "SELECT enrich_store('dshield', '{key}', '{}', fetched_at => now() - interval '1 day')",
            dshield(key, 2)
        ),
    );
    let count = format!("SELECT enrich_get('dshield', '{key}') #>> '{{ip,count}}'");
    assert_eq!(one::<Option<String>>(&mut client, &count).as_deref(), Some("2"));
    run(&mut client, &format!("SELECT enrich_invalidate('dshield', '{key}')"));
    assert_eq!(one::<Option<String>>(&mut client, &count), None, "the file is older than what was invalidated");
    let_the_worker_look(&base);
    assert_eq!(one::<Option<String>>(&mut client, &count), None);
    run(&mut client, "UPDATE enrichment_cache SET altered = true, etag = '\"x\"', last_modified = 'y'");
    // what an older program learns after that counts
    tree.put(&path, &dshield(key, 3), HOUR);
    assert_eq!(one::<Option<String>>(&mut client, &count).as_deref(), Some("3"));
    base.wait_for("SELECT payload #>> '{ip,count}' FROM enrichment_cache", "3".to_string());
    let of_former =
        "SELECT count(*) FROM enrichment_cache WHERE altered OR etag IS NOT NULL OR last_modified IS NOT NULL";
    assert_eq!(one::<i64>(&mut client, of_former), 0, "nothing of the former answer stays");
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM enrichment_history WHERE payload #>> '{ip,count}' = '2'"),
        1
    );
}

#[test]
fn without_a_mode_no_file_is_read_and_a_reload_changes_that() {
    let tree = Tree::new("off");
    let base = base("dual_off", &tree, "off");
    tree.put(&dshield_path("8.1.4.1"), &dshield("8.1.4.1", 1), HOUR);
    assert!(base.one::<bool>("SELECT enrich_get('dshield', '8.1.4.1') IS NULL"));
    base.cluster.set("enrichment_cache.disk_cache_mode", "read");
    base.wait_for("SELECT enrich_get('dshield', '8.1.4.1') IS NOT NULL", true);
}

#[test]
fn links_broken_files_and_row_security_give_no_answer_away() {
    let tree = Tree::new("hostile");
    let outside = Tree::new("hostile_outside");
    let base = base("dual_hostile", &tree, "read");
    outside.put("4.json", &dshield("8.1.5.4", 1), HOUR);
    tree.put("dshield/8/1/5/1.json", "{\"ip\": {", HOUR);
    tree.put("dshield/8/1/5/2.json", "{}", HOUR);
    tree.put("dshield/8/1/5/3.json", &dshield("8.1.5.3", 1), HOUR);
    std::os::unix::fs::symlink(outside.root.join("4.json"), tree.root.join("dshield/8/1/5/4.json")).expect("a link");
    let got = "SELECT count(enrich_get('dshield', host('8.1.5.0'::inet + n))) FROM generate_series(1, 4) n";
    assert_eq!(base.one::<i64>(got), 1, "only the third is a file that says something");
    base.wait_for("SELECT count(*) FROM enrichment_cache", 1i64);
    base.run(
        "DELETE FROM enrichment_cache; CREATE ROLE watched LOGIN; SELECT enrich_grant('watched', 'reader');
        ALTER TABLE enrichment_cache ENABLE ROW LEVEL SECURITY",
    );
    let mut client = base.client();
    run(&mut client, "SET ROLE watched");
    assert_eq!(one::<i64>(&mut client, got), 0, "rows are hidden from this role, so files are too");
    assert!(base.cluster.log().contains("is passed over"));
}

#[test]
fn without_preloading_files_are_read_as_well() {
    let tree = Tree::new("alone");
    tree.put(&dshield_path("8.1.6.1"), &dshield("8.1.6.1", 1), HOUR);
    let cluster = Cluster::builder("dual_alone")
        .setting("enrichment_cache.disk_cache_dir", &tree.root.display().to_string())
        .setting("enrichment_cache.disk_cache_mode", "read")
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    let mut client = cluster.client("postgres");
    run(&mut client, "CREATE EXTENSION enrichment_cache");
    assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.1.6.1') IS NOT NULL"));
}
