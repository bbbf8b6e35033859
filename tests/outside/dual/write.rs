//! What is stored is written into files, after the commit and durably.

use super::support::{base, dshield, dshield_path, store, Tree, DAY, HOUR};
use crate::support::{let_the_worker_look, one, run, wait_served};
use std::fs;
use testbed::wait_until;

#[test]
fn what_is_stored_and_what_is_fetched_is_written_where_the_older_programs_read_it() {
    let tree = Tree::new("write");
    let base = base("dual_write", &tree, "write_through");
    let mut client = base.client();
    store(&mut client, "8.2.0.1", 5);
    run(&mut client, "SELECT enrich_store_many('dshield', '{8.2.0.2,8.2.0.3}', ARRAY['{\"ip\":{\"number\":\"8.2.0.2\",\"count\":2}}', '{\"ip\":{\"number\":\"8.2.0.3\",\"count\":3}}']::jsonb[])");
    tree.wait_for(&dshield_path("8.2.0.1"), &dshield("8.2.0.1", 5));
    tree.wait_for(&dshield_path("8.2.0.2"), &dshield("8.2.0.2", 2));
    tree.wait_for(&dshield_path("8.2.0.3"), &dshield("8.2.0.3", 3));
    let key = &base.known("dshield", 1)[0];
    run(&mut client, &format!("SELECT enrich_request('dshield', '{key}')"));
    wait_until("the fetched answer's file", crate::support::SOON, || Ok(tree.there(&dshield_path(key)).then_some(())));
    for row in client
        .query(
            "SELECT cache_key, (extract(epoch FROM fetched_at) * 1000000)::bigint, payload::text FROM enrichment_cache",
            &[],
        )
        .expect("rows")
    {
        let (key, fetched_at, payload): (String, i64, String) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(tree.changed(&dshield_path(&key)), Some(fetched_at), "{key}");
        let body: serde_json::Value =
            serde_json::from_str(&tree.body(&dshield_path(&key)).expect("a file")).expect("JSON");
        assert_eq!(body, serde_json::from_str::<serde_json::Value>(&payload).expect("JSON"), "{key}");
    }
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
    assert_eq!(one::<i64>(&mut client, "SELECT disk_written FROM enrichment_stat WHERE service = 'dshield'"), 4);
    assert!(!tree.files().iter().any(|path| path.ends_with(".tmp")), "{:?}", tree.files());
}

#[test]
fn that_virustotal_knows_nothing_has_its_own_folder_and_an_answer_takes_it_away() {
    let tree = Tree::new("unknown");
    let base = base("dual_unknown", &tree, "write_through");
    let hash = "ab".repeat(32);
    let (known, unknown) =
        (format!("virustotal/ab/ab/ab/ab/{hash}.json"), format!("virustotal_unknown/ab/ab/ab/ab/{hash}.json"));
    base.run(&format!("SELECT enrich_store('virustotal', '{hash}', NULL, response_status => 'not_found', fetched_at => now() - interval '1 hour')"));
    wait_until("the marker", crate::support::SOON, || Ok(tree.there(&unknown).then_some(())));
    assert!(!tree.there(&known));
    base.run(&format!("SELECT enrich_store('virustotal', '{hash}', '{{\"data\":{{\"attributes\":{{\"size\":1}}}}}}')"));
    tree.wait_for(&known, r#"{"data":{"attributes":{"size":1}}}"#);
    wait_until("the marker to go", crate::support::SOON, || Ok((!tree.there(&unknown)).then_some(())));
    // a failure writes nothing and takes nothing away
    base.run(&format!("SELECT enrich_store('virustotal', '{hash}', NULL, response_status => 'error')"));
    let_the_worker_look(&base);
    assert!(tree.there(&known) && !tree.there(&unknown));
}

#[test]
fn a_rolled_back_store_leaves_no_file() {
    let tree = Tree::new("rollback");
    let base = base("dual_rollback", &tree, "write_through");
    let mut client = base.client();
    run(&mut client, "BEGIN");
    store(&mut client, "8.2.1.1", 1);
    let_the_worker_look(&base);
    run(&mut client, "ROLLBACK");
    // the next one's file shows that the worker is past it
    store(&mut client, "8.2.1.2", 2);
    tree.wait_for(&dshield_path("8.2.1.2"), &dshield("8.2.1.2", 2));
    assert_eq!(tree.files(), [dshield_path("8.2.1.2")]);
}

#[test]
fn what_was_committed_before_a_kill_9_is_written_after_the_restart() {
    let tree = Tree::new("kill");
    let base = base("dual_kill", &tree, "write_through");
    // no directory: nothing can be written before the crash
    fs::rename(&tree.root, tree.root.with_extension("away")).expect("a rename");
    let mut client = base.client();
    for n in 1..=20 {
        store(&mut client, &format!("8.2.2.{n}"), n);
    }
    drop(client);
    base.cluster.kill_postmaster_9();
    fs::rename(tree.root.with_extension("away"), &tree.root).expect("a rename");
    assert_eq!(tree.files(), Vec::<String>::new());
    base.cluster.start_again().unwrap_or_else(|why| panic!("{why}"));
    wait_served(&base.cluster, &base.name);
    for n in 1..=20 {
        tree.wait_for(&dshield_path(&format!("8.2.2.{n}")), &dshield(&format!("8.2.2.{n}"), n));
    }
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
}

#[test]
fn a_newer_file_of_an_older_program_stays_and_is_taken_over() {
    let tree = Tree::new("newer");
    let base = base("dual_newer", &tree, "write_through");
    let (key, path) = ("8.2.3.1", dshield_path("8.2.3.1"));
    tree.put(&path, &dshield(key, 9), HOUR);
    base.run(&format!(
        "SELECT enrich_store('dshield', '{key}', '{}', fetched_at => now() - interval '1 day')",
        dshield(key, 1)
    ));
    base.wait_for("SELECT payload #>> '{ip,count}' FROM enrichment_cache", "9".to_string());
    assert_eq!(tree.body(&path), Some(dshield(key, 9)));
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
}

#[test]
fn in_read_mode_nothing_is_written() {
    let tree = Tree::new("only_read");
    let base = base("dual_only_read", &tree, "read");
    let mut client = base.client();
    store(&mut client, "8.2.5.1", 1);
    tree.put(&dshield_path("8.2.5.2"), &dshield("8.2.5.2", 1), DAY);
    assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.2.5.2') IS NOT NULL"));
    base.wait_for("SELECT count(*) FROM enrichment_cache", 2i64);
    assert_eq!(tree.files(), [dshield_path("8.2.5.2")]);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_disk_outbox"), 0);
}
