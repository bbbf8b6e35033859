//! Look-ups inside functions, cursors, loops and prepared statements: what has changed is seen as plain SQL sees it.

use super::{agree, agree_in, agreed, comparison, Reads};
use crate::support::{one, run, said};
use postgres::{Client, SimpleQueryMessage};
use std::collections::BTreeMap;

const CHANGES: [&str; 6] = [
    "UPDATE enrichment_cache SET payload = made(3) WHERE service = 'dshield'",
    "DELETE FROM enrichment_cache WHERE id % 3 = 0",
    "SELECT enrich_store(service, raw, made(7)) FROM universe WHERE n IN (2, 5, 8, 11)",
    "SELECT enrich_invalidate('assets')",
    "UPDATE enrichment_cache SET hit_count = hit_count + 1",
    "SELECT enrich_store_many('assets', array_agg(raw), array_agg(made(n))) FROM universe WHERE service = 'assets' AND cache_key IS NOT NULL",
];

#[test]
fn a_prepared_statement_sees_each_change_of_its_own_session_and_of_others() {
    let reads = Reads::filled("nested_prepared");
    let (mut mine, mut other) = (reads.client(), reads.client());
    let text = mine.prepare(&comparison("compared")).expect("a statement");
    let single = mine
        .prepare(
            "SELECT enrich_get('dshield', $1)::text, (SELECT payload::text FROM enrichment_cache
        WHERE service = 'dshield' AND cache_key = $1 AND expires_at > now())",
        )
        .expect("a statement");
    for round in 0..8 {
        for (n, change) in CHANGES.into_iter().enumerate() {
            run(if (round + n) % 2 == 0 { &mut mine } else { &mut other }, change);
            agreed(&mine.query_one(&text, &[]).expect("a comparison"));
            for key in ["8.8.0.1", "8.8.0.2", "8.8.0.3", "8.8.0.2"] {
                let row = mine.query_one(&single, &[&key]).expect("an answer");
                assert_eq!(row.get::<_, Option<String>>(0), row.get::<_, Option<String>>(1), "{key} after {change}");
            }
        }
    }
}

/// What plain SQL answers now, by the number of the key.
fn answers(client: &mut Client) -> BTreeMap<i32, Option<String>> {
    let sql = "SELECT n, fresh[1]::text FROM plain";
    client.query(sql, &[]).expect("answers").iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn a_cursor_answers_as_of_its_opening_whatever_is_changed_while_it_is_read() {
    let reads = Reads::filled("nested_cursor");
    let (mut mine, mut other) = (reads.client(), reads.client());
    for kind in ["NO SCROLL CURSOR WITHOUT HOLD", "SCROLL CURSOR WITHOUT HOLD", "NO SCROLL CURSOR WITH HOLD"] {
        for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
            run(&mut other, "DELETE FROM enrichment_cache");
            reads.fill();
            run(&mut mine, &format!("BEGIN ISOLATION LEVEL {isolation}"));
            run(&mut mine, "UPDATE enrichment_cache SET payload = made(3) WHERE service = 'virustotal'");
            let expected = answers(&mut mine);
            run(&mut mine, &format!("DECLARE look {kind} FOR SELECT n, enrich_get(service, raw)::text FROM universe"));
            let mut seen = BTreeMap::new();
            let mut fetch = |client: &mut Client, sql: &str| {
                for row in client.query(sql, &[]).unwrap_or_else(|why| panic!("{kind}: {sql}: {}", said(&why))) {
                    seen.insert(row.get::<_, i32>(0), row.get::<_, Option<String>>(1));
                }
            };
            // the other session touches what this one leaves alone, so that neither waits nor fails
            for change in [
                "UPDATE enrichment_cache SET payload = made(3) WHERE service = 'dshield'",
                "DELETE FROM enrichment_cache WHERE service = 'dshield' AND id % 2 = 0",
            ] {
                fetch(&mut mine, "FETCH 7 FROM look");
                run(&mut other, change);
            }
            fetch(&mut mine, "FETCH 7 FROM look");
            run(&mut mine, "SAVEPOINT s; DELETE FROM enrichment_cache WHERE service = 'assets'");
            fetch(&mut mine, "FETCH 3 FROM look");
            run(
                &mut mine,
                "ROLLBACK TO SAVEPOINT s; UPDATE enrichment_cache SET payload = made(5) WHERE service = 'assets'",
            );
            fetch(&mut mine, "FETCH 3 FROM look");
            if kind.starts_with("SCROLL") {
                fetch(&mut mine, "FETCH BACKWARD 10 FROM look");
            }
            if kind.ends_with("WITH HOLD") {
                run(&mut mine, "COMMIT");
                run(&mut other, "DELETE FROM enrichment_cache");
                run(&mut other, "VACUUM enrichment_cache");
            }
            fetch(&mut mine, "FETCH ALL FROM look");
            run(&mut mine, "CLOSE look; ROLLBACK; BEGIN; ROLLBACK");
            assert_eq!(seen, expected, "{kind}, {isolation}");
        }
    }
}

#[test]
fn a_value_taken_out_outlives_its_row() {
    let reads = Reads::new("nested_outlive");
    reads.run(
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
        SELECT service, cache_key, made(7), now() + interval '1 hour' FROM universe WHERE cache_key IS NOT NULL
        GROUP BY service, cache_key;
        CREATE TABLE before AS SELECT p.n, p.fresh[1] AS payload FROM plain p;
        CREATE TABLE copied AS SELECT n, enrich_get(service, raw) AS payload FROM universe;
        CREATE TABLE packed AS SELECT array_agg(enrich_get(service, raw) ORDER BY n) AS payloads,
            array_agg(ROW(n, enrich_get(service, raw))::text ORDER BY n) AS rows,
            jsonb_object_agg(n, enrich_get(service, raw)) AS object FROM universe",
    );
    let mut mine = reads.client();
    run(&mut mine, "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT n, enrich_get(service, raw) FROM universe; COMMIT");
    run(
        &mut mine,
        "CREATE PROCEDURE keep(INOUT kept jsonb DEFAULT NULL) LANGUAGE plpgsql AS $$
        BEGIN
            kept := enrich_get('dshield', '8.8.0.3');
            DELETE FROM enrichment_cache;
            COMMIT;
            PERFORM count(*) FROM enrichment_cache;
            kept := kept || jsonb_build_object('size', length(kept ->> 'big'));
        END $$",
    );
    assert_eq!(one::<String>(&mut mine, "SELECT payload ->> 'big' FROM before WHERE n = 8").len(), 9600);
    let kept = mine.simple_query("CALL keep()").expect("a value");
    let kept = kept.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert!(kept.is_some_and(|kept| kept.contains("\"size\": 9600")), "{kept:?}");
    run(&mut reads.client(), "VACUUM enrichment_cache");
    let same: bool = one(
        &mut mine,
        "SELECT bool_and(b.payload IS NOT DISTINCT FROM c.payload
            AND b.payload IS NOT DISTINCT FROM p.payloads[b.n]
            AND coalesce(b.payload, 'null') = p.object -> b.n::text
            AND ROW(b.n, b.payload)::text = p.rows[b.n])
        FROM before b JOIN copied c USING (n) CROSS JOIN packed p",
    );
    assert!(same, "a copy differs from what was answered");
    let held = mine.query("FETCH ALL FROM held", &[]).expect("the held rows");
    assert_eq!(held.len() as i64, one::<i64>(&mut mine, "SELECT count(*) FROM before"));
}

#[test]
fn a_block_that_commits_in_its_loop_sees_each_transaction_anew() {
    let reads = Reads::filled("nested_loop");
    let mut client = reads.client();
    // the worker writes the hits of rows down, and a change of such a row under an older snapshot is a serialization
    // failure, as after anybody's update
    run(&mut client, "SET enrichment_cache.track_lookups = off");
    for isolation in ["read committed", "repeatable read", "serializable"] {
        run(&mut client, &format!("SET default_transaction_isolation = '{isolation}'"));
        run(
            &mut client,
            "DO $$
            DECLARE
                asked universe;
                seen  jsonb;
            BEGIN
                SELECT u.* INTO asked FROM universe u WHERE u.n = 2;
                FOR round IN 1..40 LOOP
                    PERFORM must_agree(asked, enrich_get(asked.service, asked.raw), 'the beginning of a round');
                    IF round % 4 = 0 THEN
                        DELETE FROM enrichment_cache c WHERE c.service = asked.service AND c.cache_key = asked.cache_key;
                    ELSE
                        PERFORM enrich_store(asked.service, asked.raw, made(round));
                    END IF;
                    seen := enrich_get(asked.service, asked.raw);
                    PERFORM must_agree(asked, seen, 'a round');
                    IF round % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
                    PERFORM must_agree(asked, enrich_get(asked.service, asked.raw), 'the end of a round');
                END LOOP;
            END $$",
        );
        run(&mut client, "CALL wander_and_commit(0.5, 30)");
        run(&mut client, "SELECT wander(0.25, 30)");
    }
    agree(&mut client);
}

/// What a query changes while it runs is not for the query, but for the statements of the function that it calls.
#[test]
fn a_function_that_writes_between_the_rows_of_a_query_sees_what_the_query_does_not() {
    let reads = Reads::filled("nested_between");
    let mut client = reads.client();
    run(
        &mut client,
        "CREATE FUNCTION meddle(asked universe) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            IF asked.cache_key IS NULL THEN RETURN NULL; END IF;
            PERFORM enrich_store(asked.service, asked.raw, made(2));
            PERFORM must_agree(asked, enrich_get(asked.service, asked.raw), 'a meddling function');
            RETURN enrich_get(asked.service, asked.raw);
        END $$",
    );
    for _ in 0..5 {
        let row = client
            .query_one(
                "SELECT count(*), count(*) FILTER (WHERE q.got IS DISTINCT FROM q.want OR q.got IS DISTINCT FROM q.again),
                    count(*) FILTER (WHERE q.changed = q.got), count(q.changed)
                FROM (SELECT u.n, round, enrich_get(u.service, u.raw) AS got, meddle(u) AS changed,
                        enrich_get(u.service, u.raw) AS again,
                        (SELECT c.payload FROM enrichment_cache c WHERE c.service = u.service
                            AND c.cache_key = u.cache_key AND c.expires_at > now()) AS want
                    FROM universe u CROSS JOIN generate_series(1, 3) round) q",
                &[],
            )
            .unwrap_or_else(|why| panic!("{}", said(&why)));
        let (rows, differing, unchanged, changed): (i64, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!((differing, unchanged), (0, 0), "of {rows}");
        assert!(changed > 100, "{changed}");
        agree(&mut client);
        agree_in(&mut client, "wrapped");
    }
}

/// Where each side only looks up what the other is about to store, one of them must not commit.
#[test]
fn look_ups_of_serializable_transactions_are_reads_that_conflict() {
    let reads = Reads::filled("nested_serializable");
    let looks = [
        "enrich_get('dshield', KEY) IS NULL",
        "enrich_get('dshield', KEY::inet) IS NULL",
        "enrich_get('dshield', KEY, '1 hour') IS NULL",
        "NOT EXISTS (SELECT FROM enrich_get_many('dshield', ARRAY[KEY]))",
        "(SELECT payload IS NULL FROM enrich_lookup('dshield', KEY))",
    ];
    for look in looks {
        for there in [false, true] {
            reads.run("DELETE FROM enrichment_cache");
            if there {
                reads.run(
                    "SELECT enrich_store('dshield', '8.8.0.1', '1', '0'); SELECT enrich_store('dshield', '8.8.0.2', '2', '0')",
                );
            }
            let mut sessions = ["8.8.0.1", "8.8.0.2"].map(|key| (reads.client(), key));
            for (client, key) in &mut sessions {
                run(client, "BEGIN ISOLATION LEVEL SERIALIZABLE");
                let _: bool = one(client, &format!("SELECT {}", look.replace("KEY", &format!("'{key}'"))));
            }
            let mut failed = 0;
            for ((client, _), key) in sessions.iter_mut().zip(["8.8.0.2", "8.8.0.1"]) {
                let store = format!("SELECT enrich_store('dshield', '{key}', '7', '1 day'); COMMIT");
                for sql in store.split(';') {
                    if let Err(error) = client.batch_execute(sql) {
                        assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{look}: {}", said(&error));
                        failed += 1;
                        break;
                    }
                }
            }
            assert!(failed >= 1, "{look}, rows there: {there}: both have committed");
        }
    }
}

/// Expiry goes by the start of the transaction, as now() does, not by the clock.
#[test]
fn what_expires_while_a_transaction_runs_is_fresh_to_its_end() {
    let reads = Reads::filled("nested_expiry");
    let mut client = reads.client();
    let looks = [
        "SELECT enrich_get('dshield', '9.9.9.9') IS NOT NULL",
        "SELECT enrich_get('dshield', '9.9.9.9'::inet) IS NOT NULL",
        "SELECT bool_and(enrich_get('dshield', key) IS NOT NULL) FROM unnest('{9.9.9.9,9.9.9.9,9.9.9.9}'::text[]) key",
        "SELECT count(*) = 1 FROM enrich_get_many('dshield', '{9.9.9.9}')",
        "SELECT state = 'hit' FROM enrich_lookup('dshield', '9.9.9.9')",
        "SELECT EXISTS (SELECT FROM enrichment_cache WHERE cache_key = '9.9.9.9' AND expires_at > now())",
    ];
    run(
        &mut client,
        "BEGIN; INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            VALUES ('dshield', '9.9.9.9', '{}', now() + interval '1 microsecond')",
    );
    let over = "SELECT clock_timestamp() > expires_at FROM enrichment_cache WHERE cache_key = '9.9.9.9'";
    assert!(one::<bool>(&mut client, over), "it has not expired yet");
    for look in looks {
        assert!(one::<bool>(&mut client, look), "expired too soon: {look}");
    }
    run(&mut client, "COMMIT");
    for look in looks {
        assert!(!one::<bool>(&mut client, look), "fresh too long: {look}");
    }
}
