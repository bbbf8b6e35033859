//! CALL enrich_refresh: what it asks, how it tells of it, and that an end in the middle loses nothing.

mod ends;

use crate::sources_support::{load, make_sessions, unfilled, wait_filled, wait_quiet, ATTACH_SESSIONS, SMALL};
use crate::support::{address, one, refused, run, said, Base, SOON};
use postgres::{Client, Config, NoTls};
use std::sync::mpsc::{channel, Receiver};
use std::time::{Duration, Instant};
use testbed::honeypot::Shape;
use testbed::wait_until;

fn base(name: &str) -> Base {
    Base::new("refresh", name)
}

/// A connection, and what the server says on it.
fn listening(base: &Base) -> (Client, Receiver<String>) {
    let (tell, told) = channel();
    let mut config: Config = base.cluster.dsn(&base.name).parse().expect("a connection string");
    config.notice_callback(move |notice| {
        let _ = tell.send(format!("{}: {}", notice.severity(), notice.message()));
    });
    (config.connect(NoTls).unwrap_or_else(|why| panic!("{why}")), told)
}

/// Attached, with every row known, and nothing asked yet.
fn attached_unasked(base: &Base, addresses: &[String]) {
    make_sessions(base, "jsonb", addresses);
    base.run("UPDATE enrichment_service SET enabled = false");
    base.run(ATTACH_SESSIONS);
    wait_quiet(base);
    base.run("UPDATE enrichment_service SET enabled = true");
}

#[test]
fn refresh_returns_when_every_kind_of_table_is_filled() {
    let base = base("completes");
    load(&base, &Shape::default(), &SMALL);
    base.run(ATTACH_SESSIONS);
    base.run("SELECT enrich_attach('files', 'shasum', '{virustotal}'), enrich_attach('password_tracking', 'password_text', '{hibp}')");
    let (mut client, told) = listening(&base);
    run(&mut client, "CALL enrich_refresh()");
    assert_eq!(one::<i64>(&mut client, &unfilled("{dshield,urlhaus,spur}")), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM files WHERE enrichment_status = 'pending'"), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM password_tracking WHERE last_hibp_check IS NULL"), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_queue"), 0);
    drop(client);
    let told: Vec<String> = told.iter().collect();
    let (keys, answered): (i64, i64) = {
        let row =
            base.client().query_one("SELECT sum(eligible)::int8, sum(answered)::int8 FROM enrichment_coverage", &[]);
        row.map(|row| (row.get(0), row.get(1))).expect("a row")
    };
    assert_eq!(keys, answered);
    let last = told.last().expect("a notice");
    assert!(
        last.starts_with(&format!("NOTICE: enrich_refresh: done, {keys} of {keys} keys answered, 0 failed, in ")),
        "{told:?}"
    );
}

#[test]
fn a_long_refresh_tells_how_far_it_is() {
    let base = base("progress");
    make_sessions(&base, "jsonb", &(1..=14).map(address).collect::<Vec<_>>());
    base.run("UPDATE enrichment_service SET limits = '[{\"max\": 2, \"per\": \"second\"}]' WHERE name = 'dshield'");
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')");
    let (mut client, told) = listening(&base);
    let began = Instant::now();
    run(&mut client, "CALL enrich_refresh()");
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    drop(client);
    let told: Vec<String> = told.iter().collect();
    assert!(told.len() >= 2, "{told:?}");
    assert!(told[0].contains(" of 14 keys answered, 0 failed, ") && told[0].contains(" per second"), "{told:?}");
    assert!(
        told[0].contains("dshield: ") && told[0].contains(" to go, done about ") && told[0].contains("2/second"),
        "{told:?}"
    );
}

#[test]
fn refresh_of_n_sessions_asks_for_the_newest_n_and_waits_for_no_more() {
    let base = base("newest");
    let addresses: Vec<String> = (1..=60).map(address).collect();
    attached_unasked(&base, &addresses);
    // all together would take a minute
    base.run("UPDATE enrichment_service SET limits = '[{\"max\": 3, \"per\": \"second\"}]' WHERE name = 'dshield'");
    let began = Instant::now();
    base.run("CALL enrich_refresh(sessions => 6)");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let newest = "SELECT count(*) FROM session_summaries WHERE enrichment -> '_meta' ?& '{dshield,urlhaus,spur}'
        AND session_id IN ('s55', 's56', 's57', 's58', 's59', 's60')";
    assert_eq!(base.one::<i64>(newest), 6);
    for (n, address) in addresses.iter().enumerate() {
        assert_eq!(base.asked_for("dshield", address), i64::from(n >= 54), "s{}", n + 1);
    }
}

#[test]
fn refresh_of_n_files_or_passwords_asks_for_the_newest_n_of_these() {
    let base = base("newest_kinds");
    base.run(
        "UPDATE enrichment_service SET enabled = false;
        CREATE TABLE files (id int, shasum varchar(64), vt_positives int, enrichment_status varchar(32) DEFAULT 'pending', first_seen timestamptz);
        INSERT INTO files SELECT i, encode(sha256(i::text::bytea), 'hex'), NULL, 'pending', timestamptz '2026-01-01' + i * interval '1 hour' FROM generate_series(1, 30) i;
        CREATE TABLE password_tracking (id int, password_text text, breached bool, breach_prevalence int, last_hibp_check timestamptz, last_seen timestamptz);
        INSERT INTO password_tracking SELECT i, 'word ' || i, NULL, NULL, NULL, timestamptz '2026-01-01' + i * interval '1 hour' FROM generate_series(1, 30) i;
        SELECT enrich_attach('files', 'shasum', '{virustotal}'), enrich_attach('password_tracking', 'password_text', '{hibp}')",
    );
    wait_quiet(&base);
    base.run("UPDATE enrichment_service SET enabled = true, limits = '[{\"max\": 2, \"per\": \"second\"}]' WHERE name IN ('virustotal', 'hibp')");
    base.run("CALL enrich_refresh(sessions => NULL, files => 3, passwords => NULL)");
    let files = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM files WHERE enrichment_status <> 'pending'";
    assert_eq!(base.one::<String>(files), "28 29 30");
    assert_eq!((base.asked("virustotal"), base.asked("hibp")), (3, 0));
    base.run("CALL enrich_refresh(sessions => NULL, files => NULL, passwords => 4)");
    let passwords =
        "SELECT string_agg(id::text, ' ' ORDER BY id) FROM password_tracking WHERE last_hibp_check IS NOT NULL";
    assert_eq!(base.one::<String>(passwords), "27 28 29 30");
    assert_eq!((base.asked("virustotal"), base.asked("hibp")), (3, 4));
}

#[test]
fn the_newest_n_come_before_what_waits_already_and_end_the_refresh() {
    let base = base("first");
    let addresses: Vec<String> = (1..=120).map(address).collect();
    base.run("UPDATE enrichment_service SET limits = '[{\"max\": 4, \"per\": \"second\"}]' WHERE name = 'dshield'");
    make_sessions(&base, "jsonb", &addresses);
    // half a minute of work
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')");
    base.wait_for("SELECT count(*) > 100 FROM enrichment_queue", true);
    let (mut client, told) = listening(&base);
    run(&mut client, "CALL enrich_refresh(sessions => 8)");
    let newest = "SELECT count(*) FROM session_summaries
        WHERE enrichment -> '_meta' ? 'dshield' AND split_part(session_id, 's', 2)::int > 112";
    assert_eq!(one::<i64>(&mut client, newest), 8);
    assert!(one::<bool>(&mut client, "SELECT count(*) > 60 FROM enrichment_queue"), "it waited for the others too");
    drop(client);
    let told: Vec<String> = told.iter().collect();
    assert!(told.last().is_some_and(|line| line.starts_with("NOTICE: enrich_refresh: done, 8 of 8 keys")), "{told:?}");
}

#[test]
fn a_table_that_is_gone_is_left_out_of_a_refresh_with_a_warning() {
    let base = base("left_out");
    make_sessions(&base, "jsonb", &base.known("dshield", 3));
    base.run(ATTACH_SESSIONS);
    base.run("CREATE TABLE doomed (ip text, answers jsonb); CREATE TABLE renamed (ip text, answers jsonb)");
    for table in ["doomed", "renamed"] {
        base.run(&format!("SELECT enrich_attach('{table}', 'ip', '{{dshield}}', 'answers')"));
    }
    base.run("DROP TABLE doomed");
    base.run("ALTER TABLE renamed RENAME ip TO address");
    let (mut client, told) = listening(&base);
    run(&mut client, "CALL enrich_refresh()");
    drop(client);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM session_summaries WHERE enrichment ? 'dshield'"), 3);
    let told: Vec<String> = told.iter().filter(|line| line.starts_with("WARNING: source ")).collect();
    assert!(
        told.len() == 2 && told[0].contains("\"doomed\" is left out") && told[1].contains("\"renamed\""),
        "{told:?}"
    );
}

#[test]
fn refresh_leaves_out_the_kinds_that_are_null() {
    let base = base("kinds");
    load(&base, &Shape::default(), &SMALL);
    base.run("UPDATE enrichment_service SET enabled = false");
    base.run(ATTACH_SESSIONS);
    base.run("SELECT enrich_attach('files', 'shasum', '{virustotal}')");
    wait_quiet(&base);
    base.run("UPDATE enrichment_service SET enabled = true");
    base.run("CALL enrich_refresh(sessions => NULL)");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM files WHERE enrichment_status = 'pending'"), 0);
    assert_eq!(base.asked("dshield"), 0);
}

#[test]
fn no_commit_writes_more_keys_than_the_interval_says() {
    let base = base("interval");
    let addresses: Vec<String> = (1..=90).map(address).collect();
    attached_unasked(&base, &addresses);
    base.run(
        "CREATE TABLE writes (transaction xid8, session_id text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO public.writes VALUES (pg_current_xact_id(), NEW.session_id); RETURN NEW; END $$;
         CREATE TRIGGER note BEFORE UPDATE ON session_summaries FOR EACH ROW EXECUTE FUNCTION note();
         UPDATE enrichment_service SET max_in_flight = 32",
    );
    base.run("CALL enrich_refresh(commit_interval => 7)");
    wait_filled(&base, "{dshield,urlhaus,spur}");
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM writes GROUP BY transaction) t";
    assert!((1..=7).contains(&base.one::<i64>(most)), "{} rows in one transaction", base.one::<i64>(most));
    assert_eq!(base.one::<i64>("SELECT count(DISTINCT session_id) FROM writes"), 90);
}

#[test]
fn a_refresh_cancelled_in_the_middle_loses_nothing() {
    let base = base("cancelled");
    let addresses: Vec<String> = (1..=80).map(address).collect();
    attached_unasked(&base, &addresses);
    base.sandbox.set_latency("*", 40);
    let mut client = base.client();
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    std::thread::scope(|threads| {
        let calling = threads.spawn(|| client.batch_execute("CALL enrich_refresh()").map_err(|why| said(&why)));
        wait_until("the middle of the refresh", SOON, || Ok((base.asked("dshield") >= 20).then_some(())));
        assert!(base.one::<bool>(&format!("SELECT pg_cancel_backend({pid})")));
        let ended = calling.join().expect("a session").expect_err("a cancelled statement");
        assert!(ended.contains("57014"), "{ended}");
    });
    assert!(base.asked("dshield") < 80, "it was over before the cancel");
    // what was asked for goes on without anybody waiting
    wait_filled(&base, "{dshield,urlhaus,spur}");
    wait_quiet(&base);
    base.run("CALL enrich_refresh()");
    for address in &addresses {
        assert_eq!(base.asked_for("dshield", address), 1, "{address}");
    }
}

#[test]
fn a_service_without_its_secret_ends_a_refresh_with_a_warning() {
    let base = base("secretless");
    make_sessions(&base, "jsonb", &base.known("dshield", 3));
    base.run("SELECT enrich_set_secret('spur', NULL)");
    base.run(ATTACH_SESSIONS);
    let (mut client, told) = listening(&base);
    run(&mut client, "CALL enrich_refresh()");
    drop(client);
    let told: Vec<String> = told.iter().collect();
    assert!(
        told.iter().any(|line| line.starts_with("WARNING: ") && line.contains("spur: 3 to go, paused")),
        "{told:?}"
    );
    assert_eq!(base.one::<i64>("SELECT count(*) FROM session_summaries WHERE enrichment ? 'dshield'"), 3);
}

#[test]
fn a_dry_run_says_what_it_would_cost_and_asks_nothing() {
    let base = base("dry_run");
    let addresses: Vec<String> = (1..=40).map(address).collect();
    attached_unasked(&base, &addresses);
    base.run(&format!(
        "UPDATE enrichment_service SET enabled = false;
         UPDATE enrichment_service SET limits = '[{{\"max\": 4, \"per\": \"day\"}}]' WHERE name = 'spur';
         UPDATE enrichment_service SET limits = '[{{\"max\": 1, \"per\": \"second\"}}]' WHERE name IN ('dshield', 'urlhaus');
         SELECT enrich_store('dshield', '{}', '{{}}');
         INSERT INTO session_summaries (session_id, source_ip) VALUES ('private', '10.0.0.1'), ('again', '{}')",
        addresses[39], addresses[0]
    ));
    let (mut client, told) = listening(&base);
    run(&mut client, "CALL enrich_refresh(dry_run => true)");
    run(&mut client, "CALL enrich_refresh(sessions => 10, files => NULL, passwords => NULL, dry_run => true)");
    drop(client);
    let told: Vec<String> = told.iter().filter(|line| !line.contains("the request is queued")).collect();
    assert!(
        told.contains(&"NOTICE: enrich_refresh: session_summaries: 39 of 40 keys need a call to dshield".to_string()),
        "{told:?}"
    );
    assert!(
        told.contains(
            &"NOTICE: enrich_refresh: dry run: 119 calls, 9 days at spur's 4/day, 39 s for the rest".to_string()
        ),
        "{told:?}"
    );
    let last = told.last().expect("a notice");
    assert!(last.starts_with("NOTICE: enrich_refresh: dry run: 29 calls, 2 days at spur's 4/day, "), "{told:?}");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue"), 0);
    assert_eq!(base.asked("dshield"), 0);
}

#[test]
fn a_refresh_that_runs_is_seen_in_the_progress_view_and_one_that_was_cut_short_is_not() {
    let base = base("progress_view");
    make_sessions(&base, "jsonb", &(1..=60).map(address).collect::<Vec<_>>());
    base.run("UPDATE enrichment_service SET limits = '[{\"max\": 2, \"per\": \"second\"}]' WHERE name = 'dshield'");
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')");
    wait_until("keys", SOON, || Ok((base.one::<i64>("SELECT count(*) FROM enrichment_indicator") == 60).then_some(())));
    let mut client = base.client();
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    std::thread::scope(|threads| {
        let calling = threads.spawn(move || {
            let _ = client.batch_execute("CALL enrich_refresh()");
            client
        });
        base.wait_for(
            &format!(
                "SELECT count(*) FROM enrichment_refresh_progress WHERE pid = {pid} AND datname = current_database() AND phase = 'fetching'
                    AND keys_total = 60 AND keys_done BETWEEN 1 AND 59 AND percent BETWEEN 1 AND 99 AND sources = '{{session_summaries}}'
                    AND per_second > 0 AND eta > now() AND waiting_for LIKE 'dshield: %'"
            ),
            1i64,
        );
        assert!(base.one::<bool>(&format!("SELECT pg_cancel_backend({pid})")));
        let mut client = calling.join().expect("a session");
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_refresh_progress"), 0);
    });
}

#[test]
fn bad_arguments_and_nothing_attached_are_refused_with_a_hint() {
    let base = base("refused");
    let mut client = base.client();
    refused(&mut client, "CALL enrich_refresh()", "55000", "enrich_attach(");
    make_sessions(&base, "jsonb", &[]);
    run(&mut client, ATTACH_SESSIONS);
    for arguments in
        ["sessions => -1", "files => -1", "passwords => -5", "commit_interval => 0", "commit_interval => 100001"]
    {
        let message = refused(&mut client, &format!("CALL enrich_refresh({arguments})"), "22023", "0 means all");
        assert!(message.contains("must"), "{message}");
    }
    refused(&mut client, "CALL enrich_refresh(sessions => NULL)", "55000", "");
    run(&mut client, "CALL enrich_refresh()");
}
