//! Imports that are killed, cancelled, run twice at once, or read a tree that changes.

use super::tree::{adds_up, database, parts, report, slow_down, Tree};
use crate::support::{one, own_cluster, run, said, SOON};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::{wait_until, Cluster};

const FILES: u32 = 600;

fn tree() -> Tree {
    let tree = Tree::new();
    for n in 0..FILES {
        tree.dshield(&format!("8.8.{}.{}", n / 250, n % 250), n + 1, 1);
    }
    tree.file("README", "x", 1);
    tree
}

/// Begins an import in a session of its own and calls `harm` when so many files are in.
fn interrupted(cluster: &Cluster, database: &str, call: &str, after: i64, harm: impl FnOnce(i32)) -> postgres::Error {
    let mut client = cluster.client(database);
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    std::thread::scope(|threads| {
        let importing = threads.spawn(move || client.simple_query(call).expect_err("an import that is harmed"));
        let mut watch = cluster.client(database);
        wait_until("the middle of the import", SOON, || {
            let sql = "SELECT coalesce(max(files), 0) FROM enrichment_migration_progress WHERE state = 'running'";
            let files: i64 = one(&mut watch, sql);
            if files >= after {
                Ok(Some(()))
            } else {
                Err(files.to_string())
            }
        });
        harm(pid);
        importing.join().expect("a session")
    })
}

fn is_whole(client: &mut Client, report: &serde_json::Value) {
    adds_up(report);
    assert_eq!(parts(report), format!("files {}, imported {FILES}, malformed 1", FILES + 1));
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM enrichment_cache"), i64::from(FILES));
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM enrichment_migration_row"), i64::from(FILES));
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM enrichment_migration_problem"), 1);
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM enrichment_migration"), 1, "it went on as the same run");
}

#[test]
fn a_server_killed_twenty_times_ends_with_a_report_that_adds_up() {
    let cluster = own_cluster("import_crash");
    run(&mut cluster.client("postgres"), "CREATE EXTENSION enrichment_cache");
    slow_down(&mut cluster.client("postgres"), "ROW", 0.005);
    let tree = tree();
    let call = tree.import(", batch_size => 3");
    for round in 1..=20_u32 {
        let after = i64::from(FILES) * i64::from(round) / 24;
        interrupted(&cluster, "postgres", &call, after, |_| cluster.kill_postmaster_9());
        cluster.start_again().unwrap_or_else(|why| panic!("round {round}: {why}"));
    }
    let mut client = cluster.client("postgres");
    let report = report(&mut client, &call);
    is_whole(&mut client, &report);
}

#[test]
fn a_cancelled_import_goes_on_where_it_was_in_the_same_session_and_in_another() {
    let (cluster, mut client) = database("import_cancel");
    slow_down(&mut client, "ROW", 0.005);
    let tree = tree();
    let call = tree.import(", batch_size => 2");
    for after in [10, 200] {
        let error = interrupted(&cluster, "import_cancel", &call, after, |pid| {
            run(&mut cluster.client("postgres"), &format!("SELECT pg_cancel_backend({pid})"));
        });
        assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{}", said(&error));
    }
    run(&mut client, "SET statement_timeout = '30ms'");
    let _cut_short = client.simple_query(&call);
    run(&mut client, "RESET statement_timeout");
    let report = report(&mut client, &call);
    is_whole(&mut client, &report);
}

#[test]
fn two_importers_at_once_both_finish_and_add_up() {
    let (cluster, mut client) = database("import_twice");
    let tree = tree();
    let reports: Vec<serde_json::Value> = std::thread::scope(|threads| {
        let importers: Vec<_> = [7, 11]
            .map(|size| {
                let call = tree.import(&format!(", batch_size => {size}"));
                let mut client = cluster.client("import_twice");
                threads.spawn(move || report(&mut client, &call))
            })
            .into_iter()
            .collect();
        importers.into_iter().map(|importer| importer.join().expect("an importer")).collect()
    });
    let imported: i64 = reports.iter().map(|report| report["imported"].as_i64().unwrap()).sum();
    assert_eq!(imported, i64::from(FILES), "each answer was brought by one of them");
    for report in &reports {
        adds_up(report);
        assert_eq!(report["files"], FILES + 1);
    }
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), i64::from(FILES));
}

#[test]
fn files_that_vanish_shrink_and_are_replaced_meanwhile_do_no_harm() {
    let (cluster, mut client) = database("import_live");
    let tree = tree();
    let stop = AtomicBool::new(false);
    let done = std::thread::scope(|threads| {
        threads.spawn(|| {
            for n in (0..FILES).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let address = format!("8.8.{}.{}", n / 250, n % 250);
                let path = tree.path(&format!("dshield/{}.json", address.replace('.', "/")));
                match n % 3 {
                    0 => drop(std::fs::remove_file(&path)),
                    1 => drop(std::fs::write(&path, "{\"ip\"")),
                    _ => drop(tree.dshield(&address, n + 1000, 1)),
                }
            }
        });
        let call = tree.import(", batch_size => 5");
        let mut client = cluster.client("import_live");
        let importing = threads.spawn(move || report(&mut client, &call)).join();
        stop.store(true, Ordering::Relaxed);
        importing.expect("an importer")
    });
    adds_up(&done);
    let stored: i64 = one(&mut client, "SELECT count(*) FROM enrichment_cache");
    assert_eq!(done["imported"], stored);
    let listed: i64 = one(&mut client, "SELECT count(*) FROM enrichment_migration_problem");
    assert_eq!(done["malformed"].as_i64().unwrap() + done["unreadable"].as_i64().unwrap(), listed);
}
