//! Imports that are killed or cancelled.

use super::tree::{adds_up, by_digest, cached, database, dshield, parts, report, slow_down, Tree};
use crate::support::{create_database, one, own_cluster, run, said, SOON};
use postgres::Client;
use std::time::{Duration, Instant};
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
            let begun =
                format!("SELECT state = 'active' AND query LIKE 'CALL%' FROM pg_stat_activity WHERE pid = {pid}");
            if files >= after && one::<bool>(&mut watch, &begun) {
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

/// Numbers that look random, the same for the same seed.
struct Chance(u64);

impl Chance {
    /// From ENRICHMENT_TEST_SEED, or another one each time; it is printed, so that a failure can be had again.
    fn new() -> Chance {
        let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
        let seed = std::env::var("ENRICHMENT_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
        println!("the moments of the kills are those of ENRICHMENT_TEST_SEED={seed}");
        Chance(seed)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014)
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// What stood before: answers that the files replace, and some that are newer.
const BEFORE: &str = r#"SELECT count(enrich_store('dshield', format('8.8.%s.%s', n / 250, n % 250), '{"ip": {"number": "before"}}',
        fetched_at => CASE WHEN n % 20 = 0 THEN now() ELSE now() - interval '30 hours' END)) FROM generate_series(0, 590, 10) n"#;

/// Beside the tree: several files of a key, the newer one first or last; digests of known keys and of unknown ones; what is no
/// answer.
fn mixed_tree() -> Tree {
    let tree = tree();
    for n in (0..FILES).step_by(7) {
        let key = format!("8.8.{}.{}", n / 250, n % 250);
        tree.file(&format!("dshield/{key}/{key}.json"), dshield(&key, 10_000 + n), if n % 2 == 0 { 2 } else { 0 });
    }
    for n in 0..40 {
        tree.file(&by_digest("spur", &format!("8.8.0.{n}")), format!(r#"{{"spur_data":["{n}"]}}"#), 1);
        tree.file(&by_digest("urlhaus", &format!("9.9.9.{n}")), format!(r#"{{"tags":"of {n}"}}"#), 1);
        tree.file(&format!("dshield/8/9/9/{n}.json"), "{}", 1);
    }
    tree
}

/// What there is of answers, whoever brought them.
const ANSWERS: &str = "SELECT md5(string_agg(concat_ws(' ', service, cache_key, payload, extract(epoch FROM fetched_at)), ',' ORDER BY service, cache_key))
    || count(*) FROM (SELECT service, cache_key, payload, fetched_at FROM enrichment_cache
        WHERE payload #>> '{ip,number}' IS DISTINCT FROM 'before'
        UNION ALL SELECT service, encode(digest, 'hex'), payload, fetched_at FROM enrichment_orphan) a";

#[test]
fn a_server_killed_twenty_times_at_random_ends_with_the_report_and_the_answers_of_one_that_was_not() {
    let cluster = own_cluster("import_crash");
    let tree = mixed_tree();
    create_database(&cluster, "undisturbed");
    for database in ["undisturbed", "postgres"] {
        let mut client = cluster.client(database);
        run(&mut client, "CREATE EXTENSION enrichment_cache; UPDATE enrichment_service SET enabled = false");
        run(&mut client, BEFORE);
    }
    let mut client = cluster.client("undisturbed");
    let call = tree.import(", batch_size => 3");
    let wanted = report(&mut client, &call);
    for part in ["imported", "older_than_row", "duplicate", "malformed", "unknown_key"] {
        assert!(wanted[part].as_i64() > Some(0), "{part} in {wanted}");
    }
    let answers: String = one(&mut client, ANSWERS);
    let mut client = cluster.client("postgres");
    let before = cached(&mut client);
    slow_down(&mut client, "ROW", 0.005);
    drop(client);
    let all = wanted["files"].as_u64().expect("a number");
    let (mut chance, mut done) = (Chance::new(), 0);
    for round in 1..=20 {
        let after = (done + chance.below(all / 12)).min(all * 4 / 5);
        let then = Duration::from_micros(chance.below(20_000));
        interrupted(&cluster, "postgres", &call, after as i64, |_| {
            // a moment within a batch
            let begun = Instant::now();
            while begun.elapsed() < then {
                std::hint::spin_loop();
            }
            cluster.kill_postmaster_9();
        });
        cluster.start_again().unwrap_or_else(|why| panic!("round {round}: {why}"));
        let sql = "SELECT coalesce(max(files), 0) FROM enrichment_migration_progress";
        let so_far = one::<i64>(&mut cluster.client("postgres"), sql) as u64;
        assert!(so_far >= done, "round {round}: {so_far} files after {done}");
        done = so_far;
    }
    let mut client = cluster.client("postgres");
    let report = report(&mut client, &call);
    adds_up(&report);
    assert_eq!((parts(&report), &report["services"]), (parts(&wanted), &wanted["services"]));
    assert_eq!(one::<String>(&mut client, ANSWERS), answers);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_migration"), 1, "it went on as the same run");
    let listed = "SELECT count(*) FROM enrichment_migration_problem";
    assert_eq!(report["malformed"], one::<i64>(&mut client, listed));
    run(&mut client, "CALL enrich_migration_rollback(1)");
    assert_eq!(cached(&mut client), before);
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
