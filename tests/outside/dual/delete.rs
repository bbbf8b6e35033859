//! A hard invalidation and the files of the key: in every layout where they are ours, left and told of where they are not.

use super::support::{base, dshield, dshield_path, store, Tree, DAY, HOUR};
use crate::support::{ask, let_the_worker_look, one, run, same, Base, SOON};
use enrichment_cache::core::disk::{digest, layout};
use std::fs::{set_permissions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::channel;
use testbed::wait_until;

#[test]
fn deleting_an_answer_deletes_its_file_but_not_one_that_came_later() {
    let tree = Tree::new("delete");
    let base = base("dual_delete", &tree, "write_through");
    let mut client = base.client();
    for (key, n) in [("8.2.4.1", 1), ("8.2.4.2", 2)] {
        store(&mut client, key, n);
        tree.wait_for(&dshield_path(key), &dshield(key, n));
    }
    run(&mut client, "BEGIN; SELECT enrich_invalidate('dshield', hard => true)");
    // an older program is faster than the commit
    tree.put(&dshield_path("8.2.4.2"), &dshield("8.2.4.2", 7), 0);
    run(&mut client, "COMMIT");
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
    assert_eq!(tree.files(), [dshield_path("8.2.4.2")]);
    assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.2.4.1') IS NULL"));
}

fn by_digest(folder: &str, key: &str) -> String {
    let name: String = digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{folder}/{}/{name}.json", &name[..2])
}

/// A service, a key, and the files that hold its answer: path and text.
type Laid = (&'static str, String, Vec<(String, String)>);

/// Every place of a key's file, and what it holds there.
fn every_layout(base: &Base) -> Vec<Laid> {
    let at: i64 = base.one(&format!("SELECT extract(epoch FROM now())::bigint - {HOUR}"));
    let (address, sha) = ("8.2.6.1", "ab".repeat(32));
    let said = dshield(address, 7);
    let of_dshield = [
        (dshield_path(address), said.clone()),
        (by_digest("dshield", address), said.clone()),
        (format!("dshield/{address}/{address}.json"), said.clone()),
        (format!("dshield/8_2_6_1/{address}.json"), said.clone()),
        (format!("dshield_{address}.json"), format!(r#"{{"timestamp":{at},"data":{said}}}"#)),
    ];
    let tags = r#"{"query_status":"ok","urls":[{"tags":["elf"]}]}"#.to_string();
    let of_urlhaus = [(by_digest("urlhaus", address), tags.clone()), (format!("uh_{address}"), tags)];
    let vpn = r#"{"ip":"2600::1","infrastructure":"VPN"}"#.to_string();
    let of_spur = [(by_digest("spur", "2600::1"), vpn.clone()), ("spur_2600__1.json".to_string(), vpn)];
    let range = r#"{"0123456789ABCDEF0123456789ABCDEF012":7}"#.to_string();
    let of_hibp = ["hibp/5B/AA/6/5BAA6.json".to_string(), by_digest("hibp", "5BAA6"), "hibp/5B/5BAA6.json".to_string()]
        .map(|path| (path, range.clone()));
    let known = r#"{"data":{"attributes":{"size":1}}}"#.to_string();
    let places = |folder: &str| {
        [format!("{folder}/ab/ab/ab/ab/{sha}.json"), by_digest(folder, &sha), format!("{folder}/ab/{sha}.json")]
    };
    let mut of_virustotal: Vec<(String, String)> = places("virustotal").map(|path| (path, known.clone())).into();
    of_virustotal.extend(places("virustotal_unknown").map(|path| (path, r#"{"response_code":0}"#.to_string())));
    of_virustotal.extend([format!("vt_{sha}.json"), sha.clone()].map(|path| (path, known.clone())));
    vec![
        ("dshield", address.to_string(), of_dshield.into()),
        ("urlhaus", address.to_string(), of_urlhaus.into()),
        ("spur", "2600::1".to_string(), of_spur.into()),
        ("hibp", "5BAA6".to_string(), of_hibp.into()),
        ("virustotal", sha, of_virustotal),
    ]
}

#[test]
fn an_answer_that_is_deleted_does_not_come_back_by_a_file_of_any_layout() {
    let tree = Tree::new("delete_layouts");
    let base = base("dual_delete_layouts", &tree, "write_through");
    let mut client = base.client();
    for (service, key, places) in every_layout(&base) {
        let mut tried = layout::tried(service, &key);
        let mut listed: Vec<String> = places.iter().map(|(path, _)| path.clone()).collect();
        tried.sort();
        listed.sort();
        assert_eq!(listed, tried, "{service}: the places that a look tries");
        for (path, body) in places {
            tree.put(&path, &body, HOUR);
            let state = format!("SELECT state FROM enrich_lookup('{service}', '{key}')");
            assert_ne!(one::<String>(&mut client, &state), "miss", "{path} answers");
            run(&mut client, &format!("SELECT enrich_invalidate('{service}', '{key}', hard => true)"));
            base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
            assert!(!tree.there(&path), "{path} is still there");
            let_the_worker_look(&base);
            assert_eq!(one::<String>(&mut client, &state), "miss", "{path}");
        }
    }
    // of a whole service, those of the keys that the table holds; what is changed later stays in any layout
    store(&mut client, "8.2.6.2", 1);
    tree.wait_for(&dshield_path("8.2.6.2"), &dshield("8.2.6.2", 1));
    tree.put("dshield/8.2.6.2/8.2.6.2.json", &dshield("8.2.6.2", 2), HOUR);
    run(&mut client, "BEGIN; SELECT enrich_invalidate('dshield', hard => true)");
    tree.put("dshield/8_2_6_2/8.2.6.2.json", &dshield("8.2.6.2", 3), 0);
    run(&mut client, "COMMIT");
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
    assert_eq!(tree.files(), ["dshield/8_2_6_2/8.2.6.2.json"]);
    let count = "SELECT enrich_get('dshield', '8.2.6.2') #>> '{ip,count}'";
    assert_eq!(one::<Option<String>>(&mut client, count).as_deref(), Some("3"));
}

#[test]
fn what_is_stored_after_a_deletion_is_written_although_an_older_file_was_newer() {
    let tree = Tree::new("delete_store");
    let base = base("dual_delete_store", &tree, "write_through");
    tree.put(&dshield_path("8.2.7.1"), &dshield("8.2.7.1", 1), HOUR);
    tree.put("dshield_8.2.7.1.json", &dshield("8.2.7.1", 1), HOUR);
    base.run(&format!(
        "BEGIN; SELECT enrich_invalidate('dshield', '8.2.7.1', hard => true);
        SELECT enrich_store('dshield', '8.2.7.1', '{}', fetched_at => now() - interval '1 day'); COMMIT",
        dshield("8.2.7.1", 2)
    ));
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
    assert_eq!(tree.files(), [dshield_path("8.2.7.1")]);
    assert_eq!(tree.body(&dshield_path("8.2.7.1")), Some(dshield("8.2.7.1", 2)));
    assert_eq!(base.one::<String>("SELECT payload #>> '{ip,count}' FROM enrichment_cache"), "2");
}

#[test]
fn a_file_that_is_still_to_be_deleted_is_not_taken_over() {
    let tree = Tree::new("delete_stuck");
    let base = base("dual_delete_stuck", &tree, "write_through");
    let path = "dshield/8.2.8.1/8.2.8.1.json";
    tree.put(path, &dshield("8.2.8.1", 1), HOUR);
    let folder = tree.root.join("dshield/8.2.8.1");
    set_permissions(&folder, Permissions::from_mode(0o555)).expect("permissions");
    base.run("SELECT enrich_invalidate('dshield', '8.2.8.1', hard => true)");
    base.wait_for(
        "SELECT count(*) FROM enrichment_disk_outbox WHERE failures > 0 AND problem LIKE '%8.2.8.1.json%'",
        1i64,
    );
    // a look still finds it, and tells the worker
    base.run("SELECT enrich_get('dshield', '8.2.8.1')");
    let_the_worker_look(&base);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_cache"), 0);
    set_permissions(&folder, Permissions::from_mode(0o777)).expect("permissions");
    base.run("UPDATE enrichment_disk_outbox SET next_try_at = now()");
    base.run("SELECT enrich_wake()");
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
    assert!(!tree.there(path));
}

#[test]
fn files_that_are_only_read_stay_and_the_call_says_so() {
    let tree = Tree::new("delete_read");
    let base = base("dual_delete_read", &tree, "read");
    tree.put(&dshield_path("8.2.9.1"), &dshield("8.2.9.1", 1), DAY);
    let (tell, told) = channel();
    let mut config: postgres::Config = base.cluster.dsn(&base.name).parse().expect("a connection string");
    config.notice_callback(move |notice| {
        let _ = tell.send(format!("{}, {}", notice.message(), notice.hint().unwrap_or_default()));
    });
    let mut client = config.connect(postgres::NoTls).expect("a connection");
    run(&mut client, "SELECT enrich_invalidate('dshield', '8.2.9.1')");
    run(&mut client, "SELECT enrich_invalidate('dshield', '8.2.9.2', hard => true)");
    assert_eq!(told.try_iter().collect::<Vec<_>>(), Vec::<String>::new(), "soft, or without a file");
    run(&mut client, "SELECT enrich_invalidate('dshield', '8.2.9.1', hard => true)");
    run(&mut client, "SELECT enrich_invalidate('dshield', hard => true)");
    let told: Vec<String> = told.try_iter().collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("a file of dshield for 8.2.9.1 may bring back") && told[0].contains("write_through"),
        "{told:?}"
    );
    assert!(told[1].contains("files of dshield may bring back"), "{told:?}");
    assert!(tree.there(&dshield_path("8.2.9.1")));
}

#[test]
fn what_an_import_keeps_of_a_file_goes_with_the_file() {
    let tree = Tree::new("delete_kept");
    let base = base("dual_delete_kept", &tree, "write_through");
    let mut client = base.client();
    for n in [1, 2] {
        tree.put(&by_digest("dshield", &format!("8.2.5.{n}")), &format!(r#"{{"ip":{{"count":{n}}}}}"#), HOUR);
    }
    run(&mut client, &format!("CALL enrich_migrate_disk('{}')", tree.root.display()));
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_orphan"), 2);
    run(&mut client, "SELECT enrich_invalidate('dshield', '8.2.5.1', hard => true)");
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
    assert_eq!(tree.files(), [by_digest("dshield", "8.2.5.2")]);
    let states = "SELECT string_agg(concat_ws(' ', l.state, l.source), ', ' ORDER BY n)
        FROM generate_series(1, 2) n, enrich_lookup('dshield', '8.2.5.' || n) l";
    assert_eq!(one::<String>(&mut client, states), "miss, hit disk");
}

#[test]
fn of_a_service_that_is_deleted_while_an_imported_answer_is_taken_over_the_file_of_that_goes_too() {
    let (tree, other) = (Tree::new("delete_meets"), Tree::new("delete_meets_other"));
    let base = base("dual_delete_meets", &tree, "write_through");
    let (mut taking, mut deleting, mut watch) = (base.client(), base.client(), base.client());
    other.put(&by_digest("dshield", "8.2.5.3"), r#"{"ip":{"count":3}}"#, HOUR);
    run(&mut taking, &format!("CALL enrich_migrate_disk('{}')", other.root.display()));
    tree.put(&dshield_path("8.2.5.3"), &dshield("8.2.5.3", 1), DAY);
    run(&mut taking, "BEGIN");
    assert_eq!(one::<String>(&mut taking, "SELECT enrich_request('dshield', '8.2.5.3')"), "fresh");
    let pid: i32 = one(&mut deleting, "SELECT pg_backend_pid()");
    std::thread::scope(|threads| {
        threads.spawn(|| run(&mut deleting, "SELECT enrich_invalidate('dshield', hard => true)"));
        let waits = format!("SELECT coalesce(wait_event_type = 'Lock', false) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("the deletion to wait", SOON, || same(ask::<bool>(&mut watch, &waits)?, &true));
        run(&mut taking, "COMMIT");
    });
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
    assert_eq!(tree.files(), Vec::<String>::new());
    assert_eq!(base.one::<String>("SELECT state FROM enrich_lookup('dshield', '8.2.5.3')"), "miss");
}
