//! What an import tells while it runs: its NOTICEs, and the view of its progress.

use super::tree::{database, hold, parts, report, wait_held, Tree, GO_ON};
use crate::support::{ask, one, run, same, SOON};
use postgres::{Client, Config, NoTls};
use std::sync::mpsc::{channel, Receiver};
use testbed::{wait_until, Cluster};

/// Files of each tree, and rows of each table, of which three make a batch.
const FILES: u32 = 9;

/// A connection, and what the server says on it.
fn listening(cluster: &Cluster, database: &str) -> (Client, Receiver<String>) {
    let (tell, told) = channel();
    let mut config: Config = cluster.dsn(database).parse().expect("a connection string");
    config.notice_callback(move |notice| {
        let _ = tell.send(notice.message().to_string());
    });
    (config.connect(NoTls).unwrap_or_else(|why| panic!("{why}")), told)
}

/// The first batch takes longer than the time between two NOTICEs; the second one is held.
fn slow_first_batch(client: &mut Client) {
    run(
        client,
        "CREATE FUNCTION first_slowly() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
            'BEGIN IF NOT EXISTS (SELECT FROM enrichment_cache) THEN PERFORM pg_sleep(3.1); END IF; RETURN NULL; END';
        CREATE TRIGGER first_slowly BEFORE INSERT ON enrichment_cache FOR EACH STATEMENT EXECUTE FUNCTION first_slowly()",
    );
    hold(client, "(report ->> 'files')::int >= 3");
}

fn tree() -> Tree {
    let tree = Tree::new();
    for n in 1..=FILES {
        tree.dshield(&format!("8.8.8.{n}"), n, 1);
    }
    tree
}

/// The line that is told after the first batch, while the second one is held.
fn told_line(told: &Receiver<String>) -> String {
    told.recv_timeout(SOON).expect("a NOTICE")
}

/// The seconds of "about N s to go" at the end of a line.
fn to_go(line: &str) -> f64 {
    let seconds = line.rsplit_once(", about ").and_then(|(_, rest)| rest.strip_suffix(" s to go"));
    seconds.unwrap_or_else(|| panic!("no time to go: {line}")).parse().expect("a number")
}

/// What the view says of the run, as one line; the rates and the forecast only whether they can be.
const VIEW: &str = "SELECT concat_ws(' ', state, files, coalesce(total_files::text, '?'), coalesce(percent::text, '?'),
    CASE WHEN files_per_second BETWEEN 0 AND 3 AND bytes_per_second BETWEEN 10 * files_per_second AND 1000 * greatest(files_per_second, 1)
        THEN 'slow' ELSE format('%s %s', files_per_second, bytes_per_second) END,
    CASE WHEN eta IS NULL THEN '?' WHEN eta - updated_at BETWEEN '6 s' AND 3 * (updated_at - started_at) THEN 'soon' ELSE format('%s', eta) END)
    FROM enrichment_migration_progress";

#[test]
fn an_import_tells_how_far_it_is_and_when_it_will_have_ended() {
    let (cluster, mut client) = database("told");
    slow_first_batch(&mut client);
    let tree = tree();
    let call = tree.import(", batch_size => 3");
    let (mut importing, told) = listening(&cluster, "told");
    let pid: i32 = one(&mut importing, "SELECT pg_backend_pid()");
    std::thread::scope(|threads| {
        let import = threads.spawn(|| importing.simple_query(&call).expect_err("an import that is ended"));
        let line = told_line(&told);
        assert!(line.starts_with("enrich_migrate_disk: 3 of 9 files, ") && line.contains(" files/s, "), "{line}");
        // twice as much as was done is left, and that took three seconds at least
        assert!((6.0..600.0).contains(&to_go(&line)), "{line}");
        wait_held(&mut client, 1);
        assert_eq!(one::<String>(&mut client, VIEW), "running 3 9 33.3 slow soon");
        run(&mut client, &format!("SELECT pg_terminate_backend({pid})"));
        import.join().expect("a session");
    });
    let ended = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ";
    wait_until("the session to end", SOON, || same(ask::<bool>(&mut client, &format!("{ended}{pid}"))?, &true));
    assert_eq!(one::<String>(&mut client, VIEW), "running 3 9 33.3 slow ?", "nobody runs it");
    run(&mut client, GO_ON);
    // what was taken before is not in the rates of the session that goes on
    let (mut importing, told) = listening(&cluster, "told");
    assert_eq!(parts(&report(&mut importing, &call)), "files 9, imported 9");
    let lines: Vec<String> = told.try_iter().collect();
    assert!(lines[0].contains("run 1 of") && lines[1].starts_with("enrich_migrate_disk: 9 files in "), "{lines:?}");
    let done = "SELECT concat_ws(' ', state, percent, coalesce(eta::text, '?'), files_per_second > 0, bytes_per_second > files_per_second)
        FROM enrichment_migration_progress";
    assert_eq!(one::<String>(&mut client, done), "finished 100.0 ? t t");
    let rate = "SELECT files_per_second::text FROM enrichment_migration_progress";
    let before: String = one(&mut client, rate);
    run(&mut client, "CALL enrich_migration_rollback(1)");
    assert_eq!(one::<String>(&mut client, rate), before, "the time of a rollback is none of the import");
    run(&mut client, "UPDATE enrichment_migration SET total_files = 4");
    let more = "SELECT percent::text FROM enrichment_migration_progress";
    assert_eq!(one::<String>(&mut client, more), "100.0", "files that came while it ran");
}

#[test]
fn while_the_files_are_not_counted_nothing_is_said_of_what_is_left() {
    let (cluster, mut client) = database("told_unknown");
    slow_first_batch(&mut client);
    // a tree so large that it is not counted for long
    run(
        &mut client,
        "ALTER FUNCTION enrichment_migration_step RENAME TO real_step;
        CREATE FUNCTION enrichment_migration_step(run bigint, directory text, services text[], batch_size int, keep_expired boolean,
            OUT finished boolean, OUT total bigint, OUT report text) RETURNS SETOF record LANGUAGE sql AS
            'SELECT s.finished, NULL::bigint, s.report FROM real_step($1, $2, $3, $4, $5) s';
        CREATE FUNCTION uncounted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.total_files := NULL; RETURN NEW; END';
        CREATE TRIGGER uncounted BEFORE UPDATE ON enrichment_migration FOR EACH ROW EXECUTE FUNCTION uncounted()",
    );
    let tree = tree();
    let call = tree.import(", batch_size => 3");
    let (mut importing, told) = listening(&cluster, "told_unknown");
    std::thread::scope(|threads| {
        let import = threads.spawn(|| report(&mut importing, &call));
        let line = told_line(&told);
        assert!(line.starts_with("enrich_migrate_disk: 3 of an unknown number of files, "), "{line}");
        assert!(line.ends_with(" files/s"), "{line}");
        wait_held(&mut client, 1);
        assert_eq!(one::<String>(&mut client, VIEW), "running 3 ? ? slow ?");
        run(&mut client, GO_ON);
        assert_eq!(parts(&import.join().expect("a session")), "files 9, imported 9");
    });
}

#[test]
fn an_import_of_rows_tells_the_same() {
    let (cluster, mut client) = database("told_rows");
    slow_first_batch(&mut client);
    run(
        &mut client,
        r#"CREATE TABLE older (service text, cache_key text, cache_value jsonb, created_at timestamptz);
        INSERT INTO older SELECT 'dshield', '8.8.9.' || n, format('{"ip":{"number":"%s","count":1}}', n)::jsonb, now() FROM generate_series(1, 9) n"#,
    );
    let (mut importing, told) = listening(&cluster, "told_rows");
    std::thread::scope(|threads| {
        let import = threads.spawn(|| report(&mut importing, "CALL enrich_migrate_table('older', batch_size => 3)"));
        let line = told_line(&told);
        assert!(line.starts_with("enrich_migrate_table: 3 of 9 rows, ") && line.contains(" rows/s, "), "{line}");
        assert!((6.0..600.0).contains(&to_go(&line)), "{line}");
        wait_held(&mut client, 1);
        assert_eq!(one::<String>(&mut client, VIEW), "running 3 9 33.3 slow soon");
        run(&mut client, GO_ON);
        assert_eq!(parts(&import.join().expect("a session")), "files 9, imported 9");
    });
}
