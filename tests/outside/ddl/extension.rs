//! DROP EXTENSION and CREATE EXTENSION under sessions that have looked up: right answers, or the error of a function
//! that is not there.

use crate::reads::builder;
use crate::support::{create_database, one, run, said};
use postgres::{Client, Statement};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use testbed::Cluster;

/// What a look-up says when the extension has gone: no function, no table, no schema of its name, not installed.
const GONE: [&str; 4] = ["42883", "42P01", "3F000", "42704"];

/// Ways to ask for one key; `SCHEMA` stands for the extension's.
const LOOKS: [&str; 6] = [
    "SELECT SCHEMA.enrich_get('dshield', '8.8.0.1')::text",
    "SELECT SCHEMA.enrich_get('dshield', '8.8.0.1'::inet)::text",
    "SELECT SCHEMA.enrich_get('dshield', '8.8.0.1', '1 hour')::text",
    "SELECT max(payload::text) FROM SCHEMA.enrich_get_many('dshield', '{8.8.0.1}')",
    "SELECT payload::text FROM SCHEMA.enrich_lookup('dshield', '8.8.0.1')",
    "SELECT ask('SCHEMA')",
];

/// A cluster whose databases no worker serves: DROP EXTENSION may have to wait for one, and this is about sessions.
fn cluster() -> Arc<Cluster> {
    static RUNNING: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = running.upgrade() {
        return cluster;
    }
    let cluster = builder("ddl-extension").setting("enrichment_cache.databases", "nobody").start();
    let cluster = Arc::new(cluster.unwrap_or_else(|why| panic!("{why}")));
    *running = Arc::downgrade(&cluster);
    cluster
}

/// A session in a database that may have the extension or not, with functions that look up.
fn session(cluster: &Cluster, name: &str) -> Client {
    let mut client = cluster.client(name);
    run(
        &mut client,
        "CREATE OR REPLACE FUNCTION ask(place text) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            IF place = 'public' THEN
                RETURN public.enrich_get('dshield', '8.8.0.1')::text;
            ELSIF place = 'threat' THEN
                RETURN threat.enrich_get('dshield', '8.8.0.1')::text;
            ELSE
                RETURN intel.enrich_get('dshield', '8.8.0.1')::text;
            END IF;
        END $$",
    );
    client
}

#[track_caller]
fn answers(client: &mut Client, schema: &str, wanted: Option<&str>) {
    for look in LOOKS {
        let sql = look.replace("SCHEMA", schema);
        assert_eq!(one::<Option<String>>(client, &sql).as_deref(), wanted, "{sql}");
    }
}

fn is_gone(error: &postgres::Error) -> bool {
    error.code().is_some_and(|code| GONE.contains(&code.code()))
}

/// Each way to ask is refused as a function that is not there, and the session lives on.
#[track_caller]
fn gone(client: &mut Client, schema: &str) {
    for look in LOOKS {
        let sql = look.replace("SCHEMA", schema);
        run(client, "SAVEPOINT asked");
        match client.simple_query(&sql) {
            Ok(rows) => panic!("{sql} answers {rows:?} without the extension"),
            Err(error) => assert!(is_gone(&error), "{sql}: {}", said(&error)),
        }
        run(client, "ROLLBACK TO SAVEPOINT asked");
    }
}

#[track_caller]
fn gone_outside(client: &mut Client, schema: &str) {
    run(client, "BEGIN");
    gone(client, schema);
    run(client, "COMMIT");
}

#[track_caller]
fn store(client: &mut Client, schema: &str, value: u32) {
    run(client, &format!("SELECT {schema}.enrich_store('dshield', '8.8.0.1', '{value}')"));
}

fn prepared(client: &mut Client, schema: &str) -> Vec<Statement> {
    LOOKS.iter().map(|look| client.prepare(&look.replace("SCHEMA", schema)).expect("a statement")).collect()
}

/// What statements prepared long ago say now.
#[track_caller]
fn prepared_answer(client: &mut Client, statements: &[Statement], wanted: Result<Option<&str>, ()>) {
    for (statement, look) in statements.iter().zip(LOOKS) {
        match (client.query_one(statement, &[]), wanted) {
            (Ok(row), Ok(wanted)) => assert_eq!(row.get::<_, Option<&str>>(0), wanted, "{look}"),
            (Err(error), Err(())) => assert!(is_gone(&error), "{look}: {}", said(&error)),
            (Ok(_), Err(())) => panic!("{look} is answered without the extension"),
            (Err(error), Ok(_)) => panic!("{look}: {}", said(&error)),
        }
    }
}

#[test]
fn the_extension_may_go_and_come_back_in_another_schema_within_a_session() {
    let cluster = cluster();
    create_database(&cluster, "ddl_extension");
    let mut client = session(&cluster, "ddl_extension");
    let mut other = session(&cluster, "ddl_extension");
    run(&mut client, "CREATE SCHEMA threat; CREATE SCHEMA intel");
    gone_outside(&mut client, "public");
    for (round, schema) in ["public", "threat", "intel", "public", "public"].into_iter().enumerate() {
        run(&mut client, &format!("CREATE EXTENSION enrichment_cache SCHEMA {schema}"));
        answers(&mut client, schema, None);
        answers(&mut other, schema, None);
        let value = (100 + round).to_string();
        store(&mut client, schema, 100 + round as u32);
        answers(&mut client, schema, Some(&value));
        answers(&mut other, schema, Some(&value));
        let (mine, others) = (prepared(&mut client, schema), prepared(&mut other, schema));
        prepared_answer(&mut client, &mine, Ok(Some(&value)));
        prepared_answer(&mut other, &others, Ok(Some(&value)));
        run(&mut client, "DROP EXTENSION enrichment_cache");
        gone_outside(&mut client, schema);
        gone_outside(&mut other, schema);
        prepared_answer(&mut client, &mine, Err(()));
        prepared_answer(&mut other, &others, Err(()));
        run(&mut other, &format!("CREATE EXTENSION enrichment_cache SCHEMA {schema}"));
        prepared_answer(&mut client, &mine, Ok(None));
        prepared_answer(&mut other, &others, Ok(None));
        run(&mut other, "DROP EXTENSION enrichment_cache");
    }
}

#[test]
fn the_extension_may_go_and_come_back_within_a_transaction() {
    let cluster = cluster();
    create_database(&cluster, "ddl_extension_transaction");
    let mut client = session(&cluster, "ddl_extension_transaction");
    run(&mut client, "CREATE SCHEMA threat; CREATE EXTENSION enrichment_cache SCHEMA public");
    store(&mut client, "public", 1);
    for end in ["ROLLBACK", "COMMIT"] {
        for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
            run(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}"));
            answers(&mut client, "public", Some("1"));
            run(&mut client, "SAVEPOINT before; DROP EXTENSION enrichment_cache");
            gone(&mut client, "public");
            run(&mut client, "CREATE EXTENSION enrichment_cache SCHEMA threat");
            answers(&mut client, "threat", None);
            store(&mut client, "threat", 2);
            answers(&mut client, "threat", Some("2"));
            gone(&mut client, "public");
            run(&mut client, "ROLLBACK TO SAVEPOINT before");
            answers(&mut client, "public", Some("1"));
            gone(&mut client, "threat");
            run(&mut client, "DROP EXTENSION enrichment_cache; CREATE EXTENSION enrichment_cache SCHEMA public");
            answers(&mut client, "public", None);
            store(&mut client, "public", 1);
            answers(&mut client, "public", Some("1"));
            run(&mut client, end);
            answers(&mut client, "public", Some("1"));
        }
    }
    run(&mut client, "DROP EXTENSION enrichment_cache");
    // an extension that never was
    for place in ["threat", "public"] {
        run(&mut client, &format!("BEGIN; CREATE EXTENSION enrichment_cache SCHEMA {place}"));
        store(&mut client, place, 3);
        answers(&mut client, place, Some("3"));
        run(&mut client, "ROLLBACK");
        gone_outside(&mut client, place);
    }
    run(&mut client, "CREATE EXTENSION enrichment_cache SCHEMA public");
    answers(&mut client, "public", None);
}

#[test]
fn the_extension_may_go_and_come_back_within_a_block() {
    let cluster = cluster();
    create_database(&cluster, "ddl_extension_block");
    let mut client = session(&cluster, "ddl_extension_block");
    run(&mut client, "CREATE EXTENSION enrichment_cache SCHEMA public");
    store(&mut client, "public", 1);
    run(
        &mut client,
        "DO $$
        BEGIN
            FOR round IN 1..4 LOOP
                ASSERT ask('public') = '1', 'before';
                BEGIN
                    EXECUTE 'DROP EXTENSION enrichment_cache';
                    BEGIN
                        PERFORM ask('public');
                        ASSERT false, 'a function that is not there answers';
                    EXCEPTION WHEN undefined_function OR undefined_table OR undefined_object THEN NULL;
                    END;
                    EXECUTE 'CREATE EXTENSION enrichment_cache SCHEMA public';
                    ASSERT ask('public') IS NULL, 'a new extension holds an answer';
                    EXECUTE $q$SELECT public.enrich_store('dshield', '8.8.0.1', '2')$q$;
                    ASSERT ask('public') = '2', 'after';
                    IF round % 2 = 1 THEN RAISE EXCEPTION 'undo' USING ERRCODE = 'ZZ000'; END IF;
                EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
                    ASSERT ask('public') = '1', 'when undone';
                END;
                EXECUTE $q$SELECT public.enrich_store('dshield', '8.8.0.1', '1')$q$;
                IF round = 3 THEN COMMIT; END IF;
            END LOOP;
        END $$",
    );
    answers(&mut client, "public", Some("1"));
}

/// Who has looked up keeps the extension where it is until its transaction ends; a cursor of its own session that goes
/// on after the extension has gone ends with an error.
#[test]
fn the_extension_does_not_go_from_under_a_transaction_that_looks_up() {
    let cluster = cluster();
    create_database(&cluster, "ddl_extension_used");
    let (mut client, mut other) = (session(&cluster, "ddl_extension_used"), session(&cluster, "ddl_extension_used"));
    run(&mut client, "CREATE EXTENSION enrichment_cache SCHEMA public");
    store(&mut client, "public", 1);
    run(&mut other, "SET lock_timeout = '50ms'");
    run(&mut client, "BEGIN");
    answers(&mut client, "public", Some("1"));
    let error = other.batch_execute("DROP EXTENSION enrichment_cache").expect_err("somebody reads");
    assert_eq!(error.code().map(|code| code.code()), Some("55P03"), "{}", said(&error));
    answers(&mut client, "public", Some("1"));
    run(&mut client, "COMMIT");

    for look in ["public.enrich_get('dshield', '8.8.0.' || i)", "public.enrich_get('dshield', '8.8.0.1')"] {
        run(
            &mut client,
            &format!("BEGIN; DECLARE look NO SCROLL CURSOR FOR SELECT {look} FROM generate_series(1, 50) i"),
        );
        run(&mut client, "FETCH 5 FROM look");
        match client.batch_execute("DROP EXTENSION enrichment_cache") {
            Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("55006"), "{}", said(&error)),
            Ok(()) => match client.batch_execute("FETCH 5 FROM look") {
                Ok(()) => panic!("{look} answers without the extension"),
                Err(error) => assert!(is_gone(&error), "{look}: {}", said(&error)),
            },
        }
        run(&mut client, "ROLLBACK");
        answers(&mut client, "public", Some("1"));
    }
}

#[test]
fn a_schema_that_gets_another_name_takes_the_extension_along() {
    let cluster = cluster();
    create_database(&cluster, "ddl_extension_renamed");
    let (mut client, mut other) =
        (session(&cluster, "ddl_extension_renamed"), session(&cluster, "ddl_extension_renamed"));
    run(&mut client, "CREATE SCHEMA threat; CREATE EXTENSION enrichment_cache SCHEMA threat");
    store(&mut client, "threat", 1);
    answers(&mut client, "threat", Some("1"));
    answers(&mut other, "threat", Some("1"));
    run(&mut client, "ALTER SCHEMA threat RENAME TO intel");
    answers(&mut client, "intel", Some("1"));
    answers(&mut other, "intel", Some("1"));
    // a table of the old name is not the extension's
    run(
        &mut client,
        "CREATE SCHEMA threat; CREATE TABLE threat.enrichment_cache (LIKE intel.enrichment_cache INCLUDING ALL);
        INSERT INTO threat.enrichment_cache (service, cache_key, payload, expires_at) VALUES ('dshield', '8.8.0.1', '666', 'infinity')",
    );
    answers(&mut client, "intel", Some("1"));
    answers(&mut other, "intel", Some("1"));
}
