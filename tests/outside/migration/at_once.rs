//! Imports that others work beside: further importers, and a writer in the tree.

use super::tree::{adds_up, database, dshield, hold, parts, report, wait_held, Tree, GO_ON};
use crate::support::{ask, one, run, same, SOON};
use postgres::Client;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use testbed::{wait_until, Cluster};

const FILES: u32 = 600;

fn address(n: u32) -> String {
    format!("8.8.{}.{}", n / 250, n % 250)
}

fn tree(files: u32, hours: u64) -> Tree {
    let tree = Tree::new();
    for n in 0..files {
        tree.dshield(&address(n), n + 1, hours);
    }
    tree
}

/// Makes these calls in sessions of their own, all at once: each is in its first batch before one goes on.
fn at_once(cluster: &Cluster, database: &str, client: &mut Client, calls: &[String]) -> Vec<serde_json::Value> {
    hold(client, "true");
    let reports = std::thread::scope(|threads| {
        let importers: Vec<_> = calls
            .iter()
            .map(|call| {
                let mut client = cluster.client(database);
                threads.spawn(move || report(&mut client, call))
            })
            .collect();
        wait_held(client, calls.len() as i64);
        run(client, GO_ON);
        importers.into_iter().map(|importer| importer.join().expect("an importer")).collect()
    });
    let overlapped = "SELECT max(resumed_at) < min(finished_at) FROM enrichment_migration";
    assert!(one::<bool>(client, overlapped), "none had ended when the last one began");
    reports
}

#[test]
fn two_importers_at_once_both_finish_and_add_up() {
    let (cluster, mut client) = database("import_twice");
    let tree = tree(FILES, 1);
    let calls = [7, 11].map(|size| tree.import(&format!(", batch_size => {size}")));
    let reports = at_once(&cluster, "import_twice", &mut client, &calls);
    let imported: i64 = reports.iter().map(|report| report["imported"].as_i64().unwrap()).sum();
    assert_eq!(imported, i64::from(FILES), "each answer was brought by one of them");
    for report in &reports {
        adds_up(report);
        assert_eq!(report["files"], FILES);
    }
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), i64::from(FILES));
}

#[test]
fn a_table_and_files_that_come_in_the_opposite_order_meet_a_directory_and_the_newest_of_each_key_stays() {
    let (cluster, mut client) = database("import_opposite");
    let tree = tree(FILES, 10);
    // every second row is newer than its file, every third of the files that were sent is newer still
    run(
        &mut client,
        r#"CREATE TABLE older (service text, cache_key text, cache_value jsonb, created_at timestamptz);
        INSERT INTO older SELECT 'dshield', format('8.8.%s.%s', n / 250, n % 250), '{"ip":{"number":"table","count":1}}',
            now() - CASE n % 2 WHEN 0 THEN interval '5 hours' ELSE interval '20 hours' END FROM generate_series(0, 599) n;
        INSERT INTO enrichment_import (path, mtime, body) SELECT format('dshield/8/8/%s/%s.json', n / 250, n % 250),
            extract(epoch FROM now()) - 3600 * CASE n % 3 WHEN 0 THEN 1 ELSE 30 END, encode('{"ip":{"number":"sent","count":1}}', 'base64')
            FROM generate_series(599, 0, -1) n"#,
    );
    let calls = [
        tree.import(", batch_size => 60"),
        "CALL enrich_migrate_table('older', batch_size => 45)".to_string(),
        "CALL enrich_migrate_sent(batch_size => 70)".to_string(),
    ];
    for report in at_once(&cluster, "import_opposite", &mut client, &calls) {
        adds_up(&report);
        assert_eq!(report["files"], FILES);
    }
    let who = "SELECT string_agg(who || ' ' || n, ', ' ORDER BY who) FROM (SELECT CASE payload #>> '{ip,number}' WHEN 'table' THEN 'table'
        WHEN 'sent' THEN 'sent' ELSE 'file' END AS who, count(*) AS n FROM enrichment_cache GROUP BY 1) w";
    assert_eq!(one::<String>(&mut client, who), "file 200, sent 200, table 200");
    for id in [2, 3, 1] {
        run(&mut client, &format!("CALL enrich_migration_rollback({id})"));
    }
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 0);
}

/// More than the threads read ahead of a session that is held.
const MANY: u32 = 6000;

#[test]
fn files_that_vanish_shrink_and_are_replaced_meanwhile_do_no_harm() {
    let (cluster, mut client) = database("import_live");
    let tree = tree(MANY, 2);
    hold(&mut client, "total_files IS NOT NULL AND state = 'running'");
    let (stop, cycles) = (AtomicBool::new(false), AtomicU32::new(0));
    let done = std::thread::scope(|threads| {
        let call = tree.import(", batch_size => 25");
        let mut importing = cluster.client("import_live");
        let import = threads.spawn(move || report(&mut importing, &call));
        // the files are found and counted, some of them are read and few are stored
        wait_held(&mut client, 1);
        let _stop = Stop(&stop);
        threads.spawn(|| {
            for n in (0..MANY).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let path = tree.path(&format!("dshield/{}.json", address(n).replace('.', "/")));
                match n % 3 {
                    0 => drop(std::fs::remove_file(&path)),
                    1 => drop(std::fs::write(&path, "{\"ip\"")),
                    _ => drop(tree.dshield(&address(n), version(n, cycles.load(Ordering::Relaxed) + 1), 1)),
                }
                if n == MANY - 1 {
                    cycles.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        wait_until("the writer to have changed every file", SOON, || same(cycles.load(Ordering::Relaxed) > 0, &true));
        run(&mut client, GO_ON);
        import.join().expect("an importer")
    });
    adds_up(&done);
    assert_eq!(done["files"], MANY, "every file that was found, whatever became of it");
    let (imported, unreadable, malformed) = (&done["imported"], &done["unreadable"], &done["malformed"]);
    for (what, number) in [("imported", imported), ("unreadable", unreadable), ("malformed", malformed)] {
        assert!(number.as_i64() > Some(0), "{what} in {}", parts(&done));
    }
    let stored: i64 = one(&mut client, "SELECT count(*) FROM enrichment_cache");
    assert_eq!(*imported, stored);
    let listed: i64 = one(&mut client, "SELECT count(*) FROM enrichment_migration_problem");
    assert_eq!(malformed.as_i64().unwrap() + unreadable.as_i64().unwrap(), listed);
    let gone = "SELECT count(*) > 0 FROM enrichment_migration_problem WHERE reason = 'the file is gone'";
    assert!(one::<bool>(&mut client, gone), "some had vanished when they were read");
    // each payload is one that stood in the file of its own key, whole
    let last = cycles.load(Ordering::Relaxed) + 1;
    let mut later = 0;
    for row in client.query("SELECT cache_key, payload::text FROM enrichment_cache", &[]).expect("rows") {
        let (key, payload): (String, String) = (row.get(0), row.get(1));
        let payload: serde_json::Value = serde_json::from_str(&payload).expect("JSON");
        let octets: Vec<u32> = key.split('.').map(|octet| octet.parse().expect("an octet")).collect();
        let n = octets[2] * 250 + octets[3];
        let attacks = payload["ip"]["attacks"].as_u64().expect("a number") as u32;
        let cycle = (0..=last).find(|cycle| version(n, *cycle) == attacks);
        let cycle = cycle.unwrap_or_else(|| panic!("{key} never had {attacks}"));
        assert_eq!(payload, serde_json::from_str::<serde_json::Value>(&dshield(&key, attacks)).expect("JSON"), "{key}");
        later += u32::from(cycle > 0);
    }
    assert!(later > 0, "some of what the writer wrote was read");
    let running = "SELECT count(*) FROM enrichment_migration WHERE state = 'finished' AND total_files = 6000";
    assert_eq!(ask::<i64>(&mut client, running), Ok(1));
}

/// Ends the writer, however the test goes on.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the writer writes into the n-th file in a cycle; 0 is what stood there before.
fn version(n: u32, cycle: u32) -> u32 {
    n + 1 + cycle * 10_000
}
