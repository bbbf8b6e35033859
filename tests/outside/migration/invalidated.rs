//! Answers that wait under digests when their keys are invalidated: they do not answer in place of what was. The services are
//! disabled: a request takes over what waits, and nobody is asked.

use super::tree::{by_digest, database, hold, parts, report, wait_held, Tree, GO_ON};
use crate::support::{ask, one, run, said, same, wait_served, SOON};
use postgres::{Client, Config, NoTls};
use std::sync::mpsc::channel;
use std::sync::Arc;
use testbed::{wait_until, Cluster};

/// A database with answers of URLhaus about 8.8.8.1 and so on, which wait for their keys.
fn waiting(name: &str, keys: u32) -> (Arc<Cluster>, Client) {
    let (cluster, mut client) = database(name);
    let expected = format!("files {keys}, unknown_key {keys}");
    assert_eq!(parts(&report(&mut client, &tree(keys).import(""))), expected);
    (cluster, client)
}

fn tree(keys: u32) -> Tree {
    let tree = Tree::new();
    for n in 1..=keys {
        tree.file(&by_digest("urlhaus", &format!("8.8.8.{n}")), format!("{{\"tags\":\"of {n}\"}}"), 5);
    }
    tree
}

/// How URLhaus's answer about 8.8.8.n stands, and what it says.
#[track_caller]
fn look(client: &mut Client, n: u32) -> String {
    let sql = "SELECT concat_ws(' ', state, payload ->> 'tags') FROM enrich_lookup('urlhaus', '8.8.8.";
    one(client, &format!("{sql}{n}')"))
}

/// What is known of a service's keys: rows of the cache, and answers that wait.
fn held(client: &mut Client) -> String {
    let sql =
        "SELECT concat_ws(' ', (SELECT count(*) FROM enrichment_cache), (SELECT count(*) FROM enrichment_orphan))";
    one(client, sql)
}

/// Begins a transaction in which the worker takes nothing over, whatever it is told.
const ALONE: &str = "BEGIN; SELECT FROM enrichment_orphan FOR UPDATE";

/// Asks for the key: what waits for it is taken over.
fn request(client: &mut Client, n: u32) {
    let sql = format!("SELECT enrich_request('urlhaus', '8.8.8.{n}')");
    assert_eq!(one::<String>(client, &sql), "disabled");
}

#[test]
fn a_key_that_is_deleted_does_not_come_back_by_what_waits_under_any_of_its_digests() {
    let (_cluster, mut client) = database("invalid_digests");
    let (sha, other) = ("ab".repeat(32), "cd".repeat(32));
    let tree = Tree::new();
    for (key, size) in [(&sha, 1), (&other, 2)] {
        let body = format!(r#"{{"data":{{"attributes":{{"size":{size}}}}}}}"#);
        // under its digest, and as a file that may be named by the hash itself or by the digest of something
        tree.file(&by_digest("virustotal", key), &body, 5);
        tree.file(&format!("virustotal/{}/{key}.json", &key[..2]), &body, 6);
    }
    assert_eq!(parts(&report(&mut client, &tree.import(""))), "files 4, unknown_key 4");
    let state = |key: &str| format!("SELECT state FROM enrich_lookup('virustotal', '{key}')");
    run(&mut client, ALONE);
    assert_eq!(one::<String>(&mut client, &state(&sha)), "hit");
    assert_eq!(one::<i64>(&mut client, &format!("SELECT enrich_invalidate('virustotal', '{sha}', hard => true)")), 2);
    run(&mut client, "COMMIT");
    assert_eq!(one::<String>(&mut client, &state(&sha)), "miss");
    run(&mut client, &format!("SELECT enrich_request('virustotal', '{sha}')"));
    assert_eq!(held(&mut client), "0 2");
    assert_eq!(one::<String>(&mut client, &state(&other)), "hit", "another key keeps its answers");
}

#[test]
fn a_key_that_is_deleted_does_not_come_back_by_what_waits_under_the_digest_of_how_it_is_written() {
    let (_cluster, mut client) = database("invalid_written");
    let tree = Tree::new();
    for n in 1..=3 {
        tree.file(&by_digest("urlhaus", &format!("2600:ABCD::{n}")), "{\"tags\":\"x\"}", 5);
    }
    assert_eq!(parts(&report(&mut client, &tree.import(""))), "files 3, unknown_key 3");
    run(
        &mut client,
        "BEGIN; INSERT INTO enrichment_source (name, relation, key_column, key_type, services, shape)
        VALUES ('s', 'pg_class', 'relname', 'text', '{urlhaus}', 'none');
        INSERT INTO enrichment_indicator (source, raw_key, cache_key) VALUES ('s', '2600:ABCD::1', '2600:abcd::1')",
    );
    let deleted = |client: &mut Client, key: &str| -> i64 {
        one(client, &format!("SELECT enrich_invalidate('urlhaus', '{key}', hard => true)"))
    };
    assert_eq!(deleted(&mut client, "2600:abcd::1"), 1, "as an attached table writes it");
    assert_eq!(deleted(&mut client, "2600:ABCD::2"), 1, "as the caller writes it");
    run(&mut client, "COMMIT");
    assert_eq!(held(&mut client), "0 1");
}

#[test]
fn a_service_that_is_deleted_takes_along_what_waits_and_every_session_hears_of_it() {
    let (cluster, mut client) = waiting("invalid_service", 3);
    let more = Tree::new();
    more.file(&by_digest("spur", "8.8.9.2"), r#"{"spur_data":["ORG","","","VPN"]}"#, 5);
    more.file("uh_8.8.9.1", r#"{"query_status":"ok","urls":[{"tags":["x"]}]}"#, 5);
    assert_eq!(parts(&report(&mut client, &more.import(""))), "files 2, imported 1, unknown_key 1");
    let mut other = cluster.client("invalid_service");
    assert_eq!(look(&mut other, 1), "hit of 1");
    let delete = "SELECT enrich_invalidate('urlhaus', hard => true)";
    run(&mut client, "BEGIN");
    assert_eq!(one::<i64>(&mut client, delete), 4);
    assert_eq!(look(&mut client, 2), "miss");
    assert_eq!(look(&mut other, 2), "hit of 2", "until it is committed");
    run(&mut client, "ROLLBACK");
    assert_eq!((look(&mut client, 2), look(&mut other, 2)), ("hit of 2".into(), "hit of 2".into()));
    run(&mut client, delete);
    for session in [&mut client, &mut other] {
        // how often a miss looks for what waits, once the registry has been read
        let mut looks = |service: &str| -> i64 {
            let scans =
                "SELECT (seq_scan + idx_scan)::bigint FROM pg_stat_xact_user_tables WHERE relname = 'enrichment_orphan'";
            run(session, &format!("BEGIN; SELECT enrich_get('{service}', '8.8.7.7')"));
            let first: i64 = one(session, scans);
            run(session, &format!("SELECT enrich_get('{service}', '8.8.7.8')"));
            let looks = one::<i64>(session, scans) - first;
            run(session, "COMMIT");
            looks
        };
        assert_eq!((looks("urlhaus"), looks("spur")), (0, 1));
        assert!((1..=3).all(|n| look(session, n) == "miss"));
    }
    (1..=3).for_each(|n| request(&mut client, n));
    assert_eq!(held(&mut client), "0 1");
    assert_eq!(one::<String>(&mut other, "SELECT state FROM enrich_lookup('spur', '8.8.9.2')"), "hit");
    assert_eq!(parts(&report(&mut client, &tree(3).import(""))), "files 3, unknown_key 3");
    assert_eq!(look(&mut other, 1), "hit of 1", "what is imported again answers again");
}

#[test]
fn what_an_import_keeps_while_the_last_that_waited_is_deleted_is_found_by_every_session() {
    let (cluster, mut client) = database("invalid_meanwhile");
    // an import knows by the third batch that every session looks, and is held before that stores an answer of VirusTotal
    hold(&mut client, "batches = 2 AND state = 'running'");
    let tree = tree(4);
    tree.file("README", "x", 5);
    tree.file(&format!("vt_{}", "ab".repeat(32)), r#"{"data":{"attributes":{"size":1}}}"#, 5);
    let mut paths = [1, 2, 3, 4].map(|n| (by_digest("urlhaus", &format!("8.8.8.{n}")), n));
    paths.sort();
    let [first, second, third, last] = paths.map(|(_, n)| n);
    let call = tree.import(", batch_size => 2");
    let mut other = cluster.client("invalid_meanwhile");
    assert_eq!(look(&mut other, first), "miss");
    std::thread::scope(|threads| {
        let mut importing = cluster.client("invalid_meanwhile");
        let import = threads.spawn(move || parts(&report(&mut importing, &call)));
        wait_held(&mut client, 1);
        run(&mut client, ALONE);
        assert_eq!(look(&mut other, first), format!("hit of {first}"));
        for n in [first, second, third] {
            let delete = format!("SELECT enrich_invalidate('urlhaus', '8.8.8.{n}', hard => true)");
            assert_eq!(one::<i64>(&mut client, &delete), 1);
        }
        run(&mut client, "COMMIT");
        assert_eq!((look(&mut other, first), look(&mut other, last)), ("miss".into(), "miss".into()));
        run(&mut client, GO_ON);
        assert_eq!(import.join().expect("an import"), "files 6, imported 1, malformed 1, unknown_key 4");
    });
    assert_eq!((look(&mut other, first), look(&mut other, last)), ("miss".into(), format!("hit of {last}")));
}

#[test]
fn a_run_of_which_something_was_deleted_is_taken_back_and_counts_what_was_left() {
    let (cluster, mut client) = database("invalid_back");
    let (tell, told) = channel();
    let mut config: Config = cluster.dsn("invalid_back").parse().expect("a connection string");
    config.notice_callback(move |notice| {
        let _ = tell.send(notice.message().to_string());
    });
    let mut listening = config.connect(NoTls).expect("a connection");
    let mut take_back = |id: i64| -> Vec<String> {
        run(&mut listening, &format!("CALL enrich_migration_rollback({id})"));
        told.try_iter().collect()
    };
    let files = tree(4);
    for n in 1..=2 {
        files.dshield(&format!("8.8.8.{n}"), n, 5);
    }
    let import = |client: &mut Client| {
        // the addresses that DShield's files name are no secret any more
        assert_eq!(parts(&report(client, &files.import(""))), "files 6, imported 4, unknown_key 2");
    };
    import(&mut client);
    // one that was taken over, one that stands under its key, one that waits
    request(&mut client, 3);
    for (service, key) in [("urlhaus", "8.8.8.3"), ("dshield", "8.8.8.1"), ("urlhaus", "8.8.8.4")] {
        let delete = format!("SELECT enrich_invalidate('{service}', '{key}', hard => true)");
        assert_eq!(one::<i64>(&mut client, &delete), 1, "{key} of {service}");
    }
    assert_eq!(held(&mut client), "3 0");
    assert_eq!(take_back(1), ["enrich_migration_rollback: 3 answers of run 1 were taken back"]);
    assert_eq!(held(&mut client), "0 0");
    import(&mut client);
    run(&mut client, "SELECT enrich_invalidate('urlhaus', hard => true), enrich_invalidate('dshield', hard => true)");
    assert_eq!(take_back(2), ["enrich_migration_rollback: 0 answers of run 2 were taken back"]);
    let rests = "SELECT concat_ws(' ', (SELECT count(*) FROM enrichment_migration_row), (SELECT count(*) FROM enrichment_history),
        string_agg(DISTINCT state, ',')) FROM enrichment_migration";
    assert_eq!(one::<String>(&mut client, rests), "0 0 rolled_back");
    import(&mut client);
    assert_eq!(held(&mut client), "4 2");
}

#[test]
fn an_answer_that_expires_by_invalidation_does_not_come_back_by_what_waits_whatever_its_age() {
    let (_cluster, mut client) = waiting("invalid_softly", 4);
    run(
        &mut client,
        r#"SELECT enrich_store('urlhaus', '8.8.8.1', '{"tags":"newer"}', fetched_at => now() - interval '1 hour');
        SELECT enrich_store('urlhaus', '8.8.8.2', '{"tags":"as old"}', fetched_at =>
            (SELECT fetched_at FROM enrichment_orphan WHERE digest = sha256('8.8.8.2')));
        SELECT enrich_store('urlhaus', '8.8.8.3', '{"tags":"older"}', fetched_at => now() - interval '9 hours')"#,
    );
    let before = ["hit newer", "hit as old", "hit older", "hit of 4"];
    assert_eq!([1, 2, 3, 4].map(|n| look(&mut client, n)), before);
    for (n, changed) in [(1, 2), (2, 2), (3, 2), (4, 1)] {
        let expire = format!("SELECT enrich_invalidate('urlhaus', '8.8.8.{n}')");
        assert_eq!(one::<i64>(&mut client, &expire), changed, "8.8.8.{n}");
        assert_eq!(one::<i64>(&mut client, &expire), 0, "8.8.8.{n} again");
    }
    let expired = ["stale newer", "stale as old", "stale of 3", "stale of 4"];
    assert_eq!([1, 2, 3, 4].map(|n| look(&mut client, n)), expired);
    (1..=4).for_each(|n| request(&mut client, n));
    assert_eq!(held(&mut client), "4 0");
    assert_eq!([1, 2, 3, 4].map(|n| look(&mut client, n)), expired, "taken over");
}

#[test]
fn all_that_waits_for_keys_of_a_service_expires_with_it_however_the_keys_spread_its_life() {
    const KEYS: i64 = 40;
    let (_cluster, mut client) = database("invalid_all_softly");
    run(&mut client, "UPDATE enrichment_service SET ttl = '10 hours', stale_ttl = '10 days' WHERE name = 'urlhaus'");
    let tree = Tree::new();
    for n in 1..=KEYS {
        // half of the older ones have expired under their keys, and none of the younger ones
        tree.file(&by_digest("urlhaus", &format!("8.8.8.{n}")), "{\"tags\":\"x\"}", if n % 2 == 0 { 10 } else { 1 });
    }
    assert_eq!(parts(&report(&mut client, &tree.import(", keep_expired => true"))), "files 40, unknown_key 40");
    let hits = "SELECT count(*) FILTER (WHERE l.state = 'hit'), count(*) FILTER (WHERE l.state = 'stale')
        FROM generate_series(1, 40) n, enrich_lookup('urlhaus', '8.8.8.' || n) l";
    let states = |client: &mut Client| -> (i64, i64) {
        let row = client.query_one(hits, &[]).unwrap_or_else(|why| panic!("{}", said(&why)));
        (row.get(0), row.get(1))
    };
    run(&mut client, ALONE);
    let (fresh, stale) = states(&mut client);
    assert!(fresh > KEYS / 2 && stale > 0 && fresh + stale == KEYS, "{fresh} {stale}");
    let expired: i64 = one(&mut client, "SELECT enrich_invalidate('urlhaus')");
    assert!(expired >= fresh, "{expired} of {fresh}");
    assert_eq!(states(&mut client), (0, KEYS));
    run(&mut client, "COMMIT");
    run(&mut client, "SELECT enrich_request_many('urlhaus', array_agg('8.8.8.' || n)) FROM generate_series(1, 40) n");
    assert_eq!((states(&mut client), held(&mut client)), ((0, KEYS), "40 0".into()), "taken over");
}

/// Has `first` done in a transaction, and `then` in another session, which has to wait; ends the transaction like this and gives
/// what `then` gave.
fn meet(cluster: &Cluster, database: &str, first: &str, then: &str, end: &str) -> Result<String, String> {
    let (mut one_session, mut other) = (cluster.client(database), cluster.client(database));
    run(&mut one_session, &format!("BEGIN; {first}"));
    let pid: i32 = one(&mut other, "SELECT pg_backend_pid()");
    std::thread::scope(|threads| {
        let meets = threads.spawn(move || ask::<String>(&mut other, then));
        let mut watch = cluster.client(database);
        let waits = format!("SELECT coalesce(wait_event_type = 'Lock', false) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("one to wait for the other", SOON, || same(ask::<bool>(&mut watch, &waits)?, &true));
        run(&mut one_session, end);
        meets.join().expect("a session")
    })
}

#[test]
fn of_a_deletion_and_a_taking_over_that_meet_nothing_is_left() {
    const NAME: &str = "invalid_meets";
    let (cluster, mut client) = waiting(NAME, 6);
    let meet = |first: &str, then: &str, end: &str| meet(&cluster, NAME, first, then, end);
    let delete = |n: u32| format!("SELECT enrich_invalidate('urlhaus', '8.8.8.{n}', hard => true)::text");
    let request = |n: u32| format!("SELECT enrich_request('urlhaus', '8.8.8.{n}')");
    assert_eq!(meet(&request(1), &delete(1), "COMMIT").as_deref(), Ok("1"), "the row that it had become");
    assert_eq!(held(&mut client), "0 5");
    assert_eq!(meet(&delete(2), &request(2), "COMMIT").as_deref(), Ok("disabled"));
    assert_eq!(held(&mut client), "0 4");
    assert_eq!(meet(&delete(3), &request(3), "ROLLBACK").as_deref(), Ok("disabled"));
    assert_eq!((held(&mut client), look(&mut client, 3)), ("1 3".into(), "hit of 3".into()), "it was not deleted");
    assert_eq!(meet(&request(4), &delete(4), "ROLLBACK").as_deref(), Ok("1"), "what waits on");
    assert_eq!(held(&mut client), "1 2");
    // one that expires is taken over as expired
    let expire = "SELECT enrich_invalidate('urlhaus', '8.8.8.5')::text";
    assert_eq!(meet(expire, &request(5), "COMMIT").as_deref(), Ok("disabled"));
    assert_eq!((held(&mut client), look(&mut client, 5)), ("2 1".into(), "stale of 5".into()));
    let all = "SELECT enrich_invalidate('urlhaus', hard => true)::text";
    assert_eq!(meet(&request(6), all, "COMMIT").as_deref(), Ok("3"));
    assert_eq!(held(&mut client), "0 0");
}

#[test]
fn a_deletion_that_cannot_see_what_was_taken_over_meanwhile_fails() {
    const NAME: &str = "invalid_repeatable";
    let (cluster, mut client) = waiting(NAME, 1);
    run(&mut client, "ALTER DATABASE invalid_repeatable SET default_transaction_isolation = 'repeatable read'");
    let delete = "SELECT enrich_invalidate('urlhaus', hard => true)::text";
    let error = meet(&cluster, NAME, "SELECT enrich_request('urlhaus', '8.8.8.1')", delete, "COMMIT");
    assert!(error.as_ref().is_err_and(|why| why.contains("(40001)")), "{error:?}");
    assert_eq!(one::<String>(&mut client, delete), "1");
    assert_eq!(held(&mut client), "0 0");
}

#[test]
fn a_key_that_is_read_while_it_is_deleted_is_not_given_back_by_the_worker() {
    const NAME: &str = "invalid_worker";
    let (cluster, mut client) = waiting(NAME, 2);
    wait_served(&cluster, NAME);
    let mut reading = cluster.client(NAME);
    run(&mut client, "BEGIN; SELECT enrich_invalidate('urlhaus', '8.8.8.1', hard => true)");
    assert_eq!(look(&mut reading, 1), "hit of 1", "the worker is told");
    let waits =
        "SELECT count(*) FROM enrich_health() WHERE check_name = 'worker step' AND detail LIKE '%answers of files%'";
    wait_until("the worker to be kept from it", SOON, || same(ask::<i64>(&mut reading, waits)?, &1));
    run(&mut client, "COMMIT");
    assert_eq!(look(&mut reading, 1), "miss");
    assert_eq!(look(&mut reading, 2), "hit of 2", "the worker is told again");
    wait_until("the worker to take over what is left", SOON, || same(held(&mut reading), &"1 0".to_string()));
    assert_eq!((look(&mut reading, 1), look(&mut reading, 2)), ("miss".into(), "hit of 2".into()));
}
