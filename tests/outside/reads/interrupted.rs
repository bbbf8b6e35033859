//! Look-ups that end in the middle: by an error, a timeout, a cancel, a signal, a cursor that is not read to its end.
//! What they held is given back, and nothing is said in the log but the error itself.

use super::{agree, agree_in, anonymous, pid, Reads};
use crate::support::{self, one, run, said, SOON};
use postgres::Client;
use std::fmt::Write;
use testbed::wait_until;

/// A query that nobody waits for to end.
const LONG: [&str; 4] = [
    "SELECT count(enrich_get('dshield', '8.8.0.' || i % 99)) FROM generate_series(1, 100000000) i",
    "SELECT count(enrich_get('dshield', ('8.8.0.' || i % 99)::inet)) FROM generate_series(1, 100000000) i",
    "SELECT count(m.payload) FROM generate_series(1, 10000000) i, enrich_get_many('dshield', ARRAY['8.8.0.1', '8.8.0.' || i % 99]) m",
    "DO $$ DECLARE got jsonb; BEGIN FOR i IN 1..100000000 LOOP got := enrich_get('dshield', '8.8.0.' || i % 99); END LOOP; END $$",
];

/// Asserts that the log holds nothing of a session but errors of these codes, and that no process has crashed.
#[track_caller]
fn quiet(reads: &Reads, pid: i32, codes: &[&str]) {
    for line in reads.log_of(pid) {
        let harmless = ["LOG:", "STATEMENT:", "CONTEXT:", "DETAIL:", "HINT:"].iter().any(|kind| line.contains(kind));
        let expected = codes
            .iter()
            .any(|code| line.contains(&format!("{code} ERROR:")) || line.contains(&format!("{code} FATAL:")));
        assert!((harmless || expected) && !line.contains("leak"), "{line}");
    }
    assert!(!reads.cluster.log().contains("was terminated by signal"), "a process has crashed");
}

fn expect(client: &mut Client, sql: &str, code: &str) {
    let error = client.batch_execute(sql).expect_err(sql);
    assert_eq!(error.code().map(|code| code.code()), Some(code), "{sql}: {}", said(&error));
}

#[test]
fn a_timeout_in_the_middle_of_look_ups_leaves_the_session_as_it_was() {
    let reads = Reads::filled("interrupted_timeout");
    let mut client = reads.client();
    for (n, sql) in LONG.iter().cycle().take(16).enumerate() {
        run(&mut client, &format!("SET statement_timeout = '{}ms'", 5 + n * 2));
        expect(&mut client, sql, "57014");
        run(&mut client, "RESET statement_timeout");
        assert!(agree(&mut client) > 100);
        run(&mut client, &format!("BEGIN; SAVEPOINT s; SET LOCAL statement_timeout = '{}ms'", 5 + n));
        expect(&mut client, sql, "57014");
        run(&mut client, "ROLLBACK TO SAVEPOINT s; UPDATE enrichment_cache SET payload = made(3)");
        agree(&mut client);
        agree_in(&mut client, "wrapped");
        run(&mut client, "COMMIT");
    }
    let pid = pid(&mut client);
    quiet(&reads, pid, &["57014"]);
}

/// Waits until a session runs a statement.
fn wait_busy(client: &mut Client, pid: i32) {
    wait_until("the session to look up", SOON, || {
        let sql = format!("SELECT coalesce(state, '') FROM pg_stat_activity WHERE pid = {pid}");
        support::same(support::ask::<String>(client, &sql)?, &"active".to_string())
    });
}

#[test]
fn a_cancelled_or_terminated_session_takes_nothing_along() {
    let reads = Reads::filled("interrupted_signal");
    let mut watcher = reads.client();
    for terminate in [false, true] {
        for sql in LONG {
            for parallel in [false, true] {
                let mut client = reads.client();
                if parallel {
                    run(
                        &mut client,
                        "SELECT set_config(name, 'on', false) FROM pg_settings
                        WHERE name IN ('force_parallel_mode', 'debug_parallel_query')",
                    );
                }
                run(&mut client, "BEGIN; DECLARE open NO SCROLL CURSOR FOR SELECT enrich_get(service, raw) FROM universe; FETCH 5 FROM open; SAVEPOINT s");
                let pid = pid(&mut client);
                let busy = std::thread::spawn(move || {
                    let ended = client.batch_execute(sql);
                    (client, ended)
                });
                wait_busy(&mut watcher, pid);
                let how = if terminate { "terminate" } else { "cancel" };
                assert!(one::<bool>(&mut watcher, &format!("SELECT pg_{how}_backend({pid})")));
                let (mut client, ended) = busy.join().expect("the session's thread");
                let error = ended.expect_err(sql);
                let code = error.code().map(|code| code.code());
                // a client may find its connection closed before it has read why
                let as_expected =
                    if terminate { error.is_closed() || code == Some("57P01") } else { code == Some("57014") };
                assert!(as_expected, "{sql}: {}", said(&error));
                if !terminate {
                    run(&mut client, "ROLLBACK TO SAVEPOINT s; FETCH 5 FROM open");
                    agree(&mut client);
                    run(&mut client, "ROLLBACK");
                }
                quiet(&reads, pid, &["57014", "57P01"]);
                assert!(agree(&mut watcher) > 100);
            }
        }
    }
}

/// Ends of look-ups, each with the code of its error; none where there is no error.
const ENDS: [(&str, &str); 9] = [
    ("division_by_zero", "SELECT enrich_get(service, raw), 1 / (20 - n) FROM universe"),
    ("division_by_zero", "SELECT 1 / (20 - n) FROM universe, enrich_get_many(service, ARRAY[raw, '8.8.0.1']) m"),
    ("division_by_zero", "SELECT got_volatile(service, raw), got_sql_apart(service, raw), 1 / (20 - n) FROM universe"),
    ("undefined_object", "SELECT enrich_get(CASE WHEN n = 20 THEN 'nobody' ELSE service END, raw) FROM universe"),
    ("invalid_parameter_value", "SELECT enrich_get(service, raw, make_interval(days => 20 - n)) FROM universe"),
    ("", "SELECT enrich_get(service, raw) FROM universe LIMIT 3"),
    ("", "SELECT 1 WHERE EXISTS (SELECT FROM universe WHERE enrich_get(service, raw) IS NOT NULL)"),
    ("", "SELECT u.n, (SELECT enrich_get(v.service, v.raw) FROM universe v WHERE v.n >= u.n LIMIT 1) FROM universe u LIMIT 20"),
    ("", "SELECT m.payload FROM universe u, enrich_get_many(u.service, ARRAY[u.raw, '8.8.0.1', '8.8.0.2']) m LIMIT 3"),
];

/// A function that ends look-ups in every way, catches what is raised and looks up again.
fn ends() -> String {
    let mut body = String::new();
    for (condition, sql) in ENDS {
        let rows = format!("FOR seen IN {sql} LOOP NULL; END LOOP;");
        let _ = match condition {
            "" => writeln!(body, "{rows}"),
            _ => writeln!(
                body,
                "BEGIN {rows} RAISE EXCEPTION 'nothing was raised'; EXCEPTION WHEN {condition} THEN NULL; END;"
            ),
        };
    }
    format!(
        "CREATE FUNCTION ends(times int) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            seen  record;
            look  refcursor;
            asked universe;
        BEGIN
            SELECT u.* INTO asked FROM universe u WHERE n = 2;
            FOR i IN 1..times LOOP
                {body}
                OPEN look FOR SELECT enrich_get(service, raw) FROM universe;
                FETCH look INTO seen;
                CLOSE look;
                BEGIN
                    OPEN look FOR SELECT enrich_get(service, raw) FROM universe;
                    FETCH look INTO seen;
                    RAISE EXCEPTION 'undo' USING ERRCODE = 'ZZ000';
                EXCEPTION WHEN SQLSTATE 'ZZ000' THEN NULL;
                END;
                PERFORM must_agree(asked, enrich_get(asked.service, asked.raw), 'the end of a round');
            END LOOP;
        END $$"
    )
}

#[test]
fn a_thousand_look_ups_that_end_in_the_middle_leave_nothing_behind() {
    let reads = Reads::filled("interrupted_errors");
    let mut client = reads.client();
    run(&mut client, &ends());
    let contexts = "SELECT sum(total_bytes)::int8 FROM pg_backend_memory_contexts";
    run(&mut client, "SELECT ends(100)");
    let _: i64 = one(&mut client, contexts);
    let before = (anonymous(&mut client), one::<i64>(&mut client, contexts));
    // in one transaction, in many, and over many statements
    run(&mut client, "SELECT ends(300)");
    for _ in 0..60 {
        run(&mut client, "SELECT ends(5)");
    }
    run(&mut client, "BEGIN");
    for n in 0..60 {
        run(&mut client, "SAVEPOINT s; SELECT ends(5)");
        for (condition, sql) in ENDS {
            if condition.is_empty() {
                run(&mut client, sql);
            } else {
                client.batch_execute(sql).expect_err(sql);
                run(&mut client, "ROLLBACK TO SAVEPOINT s");
            }
        }
        run(&mut client, &format!("DECLARE look{n} NO SCROLL CURSOR FOR SELECT enrich_get(service, raw) FROM universe; FETCH 3 FROM look{n}"));
        run(&mut client, if n % 2 == 0 { "ROLLBACK TO SAVEPOINT s" } else { "RELEASE SAVEPOINT s" });
    }
    run(&mut client, "COMMIT");
    let after = (anonymous(&mut client), one::<i64>(&mut client, contexts));
    let grown = (after.0 - before.0, after.1 - before.1);
    assert!(grown.0 < 4 << 20 && grown.1 < 1 << 20, "{grown:?} bytes more after 1000 rounds than after 100");
    assert!(agree(&mut client) > 100);
    let pid = pid(&mut client);
    drop(client);
    quiet(&reads, pid, &["22012", "42704", "22023"]);
}
