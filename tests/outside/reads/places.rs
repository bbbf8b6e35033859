//! Look-ups in statements and objects that keep their expressions longer than a query, or run them at odd moments.

use super::{agree, Reads};
use crate::support::{one, refused, run};
use postgres::Client;
use std::io::Read;

/// A domain's condition is compiled once and kept, in plpgsql for the session.
#[test]
fn a_domain_that_looks_up_judges_by_what_is_stored_now() {
    let reads = Reads::filled("places_domain");
    let mut client = reads.client();
    run(
        &mut client,
        "CREATE DOMAIN unknown_address AS text CHECK (enrich_get('dshield', VALUE) IS NULL);
        CREATE FUNCTION takes(address text) RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE
            taken unknown_address;
        BEGIN
            taken := address;
            RETURN true;
        EXCEPTION WHEN check_violation THEN
            RETURN false;
        END $$;
        CREATE FUNCTION must_be(taken boolean) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            IF takes('8.8.0.1') IS DISTINCT FROM taken THEN
                RAISE EXCEPTION 'an address is judged wrongly, not %', taken USING ERRCODE = 'ZZ001';
            END IF;
        END $$",
    );
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        run(&mut client, "SELECT enrich_store('dshield', '8.8.0.1', made(3))");
        run(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT must_be(false); SAVEPOINT s"));
        run(&mut client, "SELECT enrich_invalidate('dshield', '8.8.0.1', true); SELECT must_be(true), must_be(true)");
        run(&mut client, "ROLLBACK TO SAVEPOINT s; SELECT must_be(false)");
        run(&mut client, "SELECT enrich_invalidate('dshield', '8.8.0.1'); SELECT must_be(true); COMMIT");
        run(&mut client, "SELECT must_be(true)");
        run(
            &mut client,
            "DO $$ BEGIN
            PERFORM must_be(true);
            BEGIN
                PERFORM enrich_store('dshield', '8.8.0.1', made(3));
                PERFORM must_be(false);
                RAISE EXCEPTION 'undo' USING ERRCODE = 'ZZ000';
            EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
                PERFORM must_be(true);
            END;
            PERFORM enrich_store('dshield', '8.8.0.1', made(3));
            COMMIT;
            PERFORM must_be(false);
        END $$",
        );
        reads.run("SELECT enrich_invalidate('dshield', '8.8.0.1')");
        run(&mut client, "SELECT must_be(true)");
        reads.run("TRUNCATE enrichment_cache; ALTER TABLE enrichment_cache ADD COLUMN extra int; ALTER TABLE enrichment_cache DROP COLUMN extra");
        run(
            &mut client,
            "SELECT must_be(true); SELECT enrich_store('dshield', '8.8.0.1', made(3)); SELECT must_be(false)",
        );
    }
}

/// Triggers that fire while a transaction commits, or is prepared.
#[test]
fn a_deferred_trigger_looks_up_at_the_end_of_its_transaction() {
    let reads = Reads::filled("places_deferred");
    let mut client = reads.client();
    // else the worker notes hits in rows that the transaction writes
    run(&mut client, "SET enrichment_cache.track_lookups = off");
    run(
        &mut client,
        "CREATE TABLE late (n int);
        CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            asked universe;
        BEGIN
            SELECT u.* INTO asked FROM universe u WHERE u.n = NEW.n;
            PERFORM must_agree(asked, enrich_get(asked.service, asked.raw), 'a deferred trigger');
            PERFORM change(asked);
            PERFORM must_agree(asked, enrich_get(asked.service, asked.raw), 'a deferred trigger, after its change');
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION late()",
    );
    for (end, afterwards) in [
        ("COMMIT", "SELECT 1"),
        ("PREPARE TRANSACTION 'places'", "COMMIT PREPARED 'places'"),
        ("PREPARE TRANSACTION 'places'", "ROLLBACK PREPARED 'places'"),
        ("SET CONSTRAINTS ALL IMMEDIATE", "ROLLBACK"),
    ] {
        for isolation in ["READ COMMITTED", "SERIALIZABLE"] {
            run(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}"));
            run(&mut client, "SELECT enrich_store('dshield', '8.8.0.2', made(3)); SELECT count(got) FROM glance");
            run(&mut client, "INSERT INTO late SELECT n FROM universe WHERE n <= 39");
            run(
                &mut client,
                "SAVEPOINT s; SELECT count(got) FROM glance; DELETE FROM enrichment_cache; RELEASE SAVEPOINT s",
            );
            run(&mut client, end);
            run(&mut client, afterwards);
            agree(&mut client);
        }
    }
}

fn copied(client: &mut Client, sql: &str) -> String {
    let mut text = String::new();
    let mut reader = client.copy_out(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
    reader.read_to_string(&mut text).expect("rows");
    text
}

#[test]
fn statements_that_write_elsewhere_write_what_plain_sql_gives() {
    let reads = Reads::filled("places_statements");
    let mut client = reads.client();
    run(
        &mut client,
        "CREATE TABLE target (n int PRIMARY KEY, service text, raw text, got jsonb,
            preset jsonb DEFAULT enrich_get('dshield', '8.8.0.1'), CHECK (enrich_get('dshield', '8.8.0.9') IS NOT NULL));
        CREATE MATERIALIZED VIEW kept AS SELECT n, enrich_get(service, raw) AS got FROM universe;
        CREATE UNIQUE INDEX ON kept (n);
        CREATE FUNCTION fixed(service text, raw text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS
            'BEGIN RETURN public.enrich_get(service, raw); END';
        PREPARE into_target (int, jsonb) AS INSERT INTO target (n, got) VALUES ($1, $2)",
    );
    let wrong = |client: &mut Client, what: &str| {
        let differing: i64 =
            one(client, "SELECT count(*) FROM target t JOIN plain p USING (n) WHERE t.got IS DISTINCT FROM p.fresh[1]");
        let missing: i64 = one(client, "SELECT count(*) - (SELECT count(*) FROM target) FROM universe");
        assert_eq!((differing, missing), (0, 0), "{what}");
    };
    for _ in 0..3 {
        run(&mut client, "UPDATE enrichment_cache SET payload = made((id % 1000)::int) WHERE id % 2 = 0");
        run(&mut client, "DELETE FROM enrichment_cache WHERE id % 11 = 0");
        run(
            &mut client,
            "TRUNCATE target; INSERT INTO target SELECT n, service, raw, enrich_get(service, raw) FROM universe",
        );
        wrong(&mut client, "INSERT");
        let preset = "SELECT count(DISTINCT preset) = 1 AND min(preset::text) = enrich_get('dshield', '8.8.0.1')::text FROM target";
        assert!(one::<bool>(&mut client, preset));
        run(&mut client, "UPDATE enrichment_cache SET payload = made((id % 1000)::int)");
        run(&mut client, "UPDATE target SET got = enrich_get(service, raw)");
        wrong(&mut client, "UPDATE");
        run(&mut client, "UPDATE enrichment_cache SET payload = made((id % 1000)::int)");
        run(
            &mut client,
            "MERGE INTO target t USING universe u ON t.n = u.n WHEN MATCHED THEN UPDATE SET got = enrich_get(u.service, u.raw)",
        );
        wrong(&mut client, "MERGE");
        run(&mut client, "UPDATE enrichment_cache SET payload = made((id % 1000)::int)");
        run(
            &mut client,
            "INSERT INTO target (n, service, raw) SELECT n, service, raw FROM universe
            ON CONFLICT (n) DO UPDATE SET got = enrich_get(EXCLUDED.service, EXCLUDED.raw)",
        );
        wrong(&mut client, "ON CONFLICT");
        for refresh in ["REFRESH MATERIALIZED VIEW kept", "REFRESH MATERIALIZED VIEW CONCURRENTLY kept"] {
            run(&mut client, "UPDATE enrichment_cache SET payload = made((id % 1000)::int)");
            run(&mut client, refresh);
            let differing =
                "SELECT count(*) FROM kept k JOIN plain p USING (n) WHERE k.got IS DISTINCT FROM p.fresh[1]";
            assert_eq!(one::<i64>(&mut client, differing), 0, "{refresh}");
        }
        run(&mut client, "CREATE INDEX indexed ON target ((fixed(service, raw) -> 'rev'))");
        run(&mut client, "ANALYZE target");
        run(&mut client, "SET enable_seqscan = off");
        let indexed = "SELECT count(*) FROM target t 
            WHERE fixed(t.service, t.raw) -> 'rev' = enrich_get('dshield', '8.8.0.1') -> 'rev'";
        let wanted = "SELECT count(*) FROM plain WHERE fresh[1] = (SELECT fresh[1] FROM plain WHERE n = 2)";
        assert_eq!(one::<i64>(&mut client, indexed), one::<i64>(&mut client, wanted));
        run(&mut client, "RESET enable_seqscan; DROP INDEX indexed");
        assert_eq!(
            copied(&mut client, "COPY (SELECT n, enrich_get(service, raw) FROM universe ORDER BY n) TO STDOUT"),
            copied(&mut client, "COPY (SELECT n, fresh[1] FROM plain ORDER BY n) TO STDOUT")
        );
        run(&mut client, "DELETE FROM target WHERE n = 2");
        run(&mut client, "EXECUTE into_target (2, enrich_get('dshield', '8.8.0.1'))");
        let same = "SELECT (SELECT got FROM target WHERE n = 2) = (SELECT fresh[1] FROM plain WHERE n = 2)";
        assert!(one::<bool>(&mut client, same), "EXECUTE");
    }
    run(&mut client, "SELECT enrich_invalidate('dshield', '8.8.0.9')");
    refused(&mut client, "UPDATE target SET got = NULL", "23514", "");
    run(&mut client, "DISCARD ALL");
    agree(&mut client);
}

/// A session that takes over another's snapshot sees what that one sees.
#[test]
fn an_imported_snapshot_is_looked_up_under() {
    let reads = Reads::filled("places_snapshot");
    let (mut first, mut second, mut other) = (reads.client(), reads.client(), reads.client());
    let answers = "SELECT md5(string_agg(coalesce(enrich_get(service, raw)::text, ''), ',' ORDER BY n)) FROM universe";
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        agree(&mut second);
        run(&mut first, &format!("BEGIN ISOLATION LEVEL {isolation}"));
        let seen: String = one(&mut first, answers);
        let snapshot: String = one(&mut first, "SELECT pg_export_snapshot()");
        run(&mut other, "UPDATE enrichment_cache SET payload = made((id % 1000)::int)");
        run(&mut other, "DELETE FROM enrichment_cache WHERE id % 7 = 0");
        assert_ne!(one::<String>(&mut second, answers), seen);
        run(&mut second, &format!("BEGIN ISOLATION LEVEL {isolation}; SET TRANSACTION SNAPSHOT '{snapshot}'"));
        assert_eq!(one::<String>(&mut second, answers), seen);
        agree(&mut second);
        run(&mut second, "COMMIT");
        agree(&mut first);
        run(&mut first, "COMMIT");
        assert_ne!(one::<String>(&mut second, answers), seen);
    }
}
