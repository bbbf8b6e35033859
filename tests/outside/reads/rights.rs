//! Who may look up: whoever may read the table, and of it what row security shows them, at each moment.

use super::{agree_in, Reads};
use crate::support::{one, refused, run, said};
use postgres::{Client, NoTls, Statement};

const LOOKS: [&str; 6] = [
    "SELECT enrich_get('dshield', '8.8.0.1')::text",
    "SELECT enrich_get('dshield', '8.8.0.1'::inet)::text",
    "SELECT enrich_get('dshield', '8.8.0.1', '1 hour')::text",
    "SELECT max(payload::text) FROM enrich_get_many('dshield', '{8.8.0.1}')",
    "SELECT payload::text FROM enrich_lookup('dshield', '8.8.0.1')",
    "SELECT got_volatile('dshield', '8.8.0.1')::text",
];
const PLAIN: &str = "SELECT payload::text FROM enrichment_cache
    WHERE service = 'dshield' AND cache_key = '8.8.0.1' AND expires_at > now()";
const DENIED: &str = "permission denied for table enrichment_cache";

/// Roles are the cluster's, so their names carry the test's.
fn role(reads: &Reads, name: &str) {
    reads.run(&format!(
        "CREATE ROLE {name} LOGIN; SELECT enrich_grant('{name}', 'reader'); GRANT SELECT ON universe, by_name TO {name};
        REVOKE SELECT ON enrichment_cache FROM {name}"
    ));
}

/// A session of a role.
fn session(reads: &Reads, role: &str) -> Client {
    let dsn = reads.cluster.dsn(&reads.name).replace("user=postgres", &format!("user={role}"));
    Client::connect(&dsn, NoTls).unwrap_or_else(|why| panic!("{role}: {why}"))
}

#[track_caller]
fn denied(client: &mut Client) {
    for look in LOOKS.into_iter().chain([PLAIN]) {
        assert_eq!(refused(client, look, "42501", ""), DENIED, "{look}");
    }
}

#[track_caller]
fn served(client: &mut Client) {
    let wanted: String = one(client, PLAIN);
    for look in LOOKS {
        assert_eq!(one::<String>(client, look), wanted, "{look}");
    }
    assert!(agree_in(client, "by_name") > 100);
}

#[test]
fn a_right_that_is_given_or_taken_counts_at_once() {
    let reads = Reads::filled("rights_table");
    role(&reads, "rights_table_reader");
    let mut client = session(&reads, "rights_table_reader");
    denied(&mut client);
    let prepared: Vec<Statement> = {
        reads.run("GRANT SELECT ON enrichment_cache TO rights_table_reader");
        LOOKS.iter().map(|look| client.prepare(look).expect("a statement")).collect()
    };
    for _ in 0..3 {
        served(&mut client);
        for statement in &prepared {
            assert!(client.query_one(statement, &[]).expect("an answer").get::<_, Option<&str>>(0).is_some());
        }
        reads.run("REVOKE SELECT ON enrichment_cache FROM rights_table_reader");
        for (statement, look) in prepared.iter().zip(LOOKS) {
            let error = client.query_one(statement, &[]).expect_err(look);
            assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{look}: {}", said(&error));
        }
        denied(&mut client);
        reads.run("GRANT SELECT ON enrichment_cache TO rights_table_reader");
        // a right that is taken within a transaction
        run(&mut client, "BEGIN ISOLATION LEVEL REPEATABLE READ");
        served(&mut client);
        reads.run("REVOKE SELECT ON enrichment_cache FROM rights_table_reader");
        run(&mut client, "SAVEPOINT s");
        // which a session hears of when it locks something: parsing a SELECT does
        for look in [PLAIN].into_iter().chain(LOOKS) {
            assert_eq!(refused(&mut client, look, "42501", ""), DENIED, "{look}");
            run(&mut client, "ROLLBACK TO SAVEPOINT s");
        }
        run(&mut client, "ROLLBACK");
        reads.run("GRANT SELECT ON enrichment_cache TO PUBLIC");
        served(&mut client);
        reads.run("REVOKE SELECT ON enrichment_cache FROM PUBLIC; GRANT pg_read_all_data TO rights_table_reader");
        served(&mut client);
        reads.run("REVOKE pg_read_all_data FROM rights_table_reader");
        denied(&mut client);
        reads.run("GRANT SELECT ON enrichment_cache TO rights_table_reader");
    }
}

/// Plain SQL reads four columns, and a right on each of them is enough for it.
#[test]
fn rights_on_the_columns_that_plain_sql_reads_are_enough_and_needed() {
    let reads = Reads::filled("rights_columns");
    role(&reads, "rights_columns_reader");
    let mut client = session(&reads, "rights_columns_reader");
    let columns = ["service", "cache_key", "payload", "expires_at"];
    // read beside the payload: what it stands for, where it is a packed range
    reads.run("GRANT SELECT (ranges) ON enrichment_cache TO rights_columns_reader");
    for column in columns {
        denied(&mut client);
        reads.run(&format!("GRANT SELECT ({column}) ON enrichment_cache TO rights_columns_reader"));
    }
    let wanted: String = one(&mut client, PLAIN);
    for look in LOOKS.into_iter().filter(|look| !look.contains("enrich_lookup")) {
        assert_eq!(one::<String>(&mut client, look), wanted, "{look}");
    }
    for column in columns {
        reads.run(&format!("REVOKE SELECT ({column}) ON enrichment_cache FROM rights_columns_reader"));
        denied(&mut client);
        reads.run(&format!("GRANT SELECT ({column}) ON enrichment_cache TO rights_columns_reader"));
    }
    reads.run("REVOKE SELECT (payload) ON enrichment_cache FROM rights_columns_reader; GRANT SELECT ON enrichment_cache TO rights_columns_reader");
    served(&mut client);
}

#[test]
fn a_role_that_changes_within_a_session_counts_at_each_call() {
    let reads = Reads::filled("rights_role");
    role(&reads, "rights_role_reader");
    role(&reads, "rights_role_stranger");
    reads.run("GRANT SELECT ON enrichment_cache TO rights_role_reader");
    let mut client = reads.client();
    for _ in 0..2 {
        served(&mut client);
        for sql in ["SET ROLE rights_role_stranger", "SET SESSION AUTHORIZATION rights_role_stranger"] {
            run(&mut client, sql);
            denied(&mut client);
            run(&mut client, "RESET ROLE; RESET SESSION AUTHORIZATION; SET ROLE rights_role_reader");
            served(&mut client);
            run(&mut client, "RESET ROLE");
        }
    }
    // one call site, under one role after the other, with the answer just given
    run(
        &mut client,
        "CREATE FUNCTION under(roles text[]) RETURNS text[] LANGUAGE plpgsql AS $$
        DECLARE
            heard text[];
            role  text;
        BEGIN
            FOREACH role IN ARRAY roles LOOP
                EXECUTE 'SET LOCAL ROLE ' || role;
                BEGIN
                    heard := heard || CASE WHEN enrich_get('dshield', '8.8.0.1') IS NOT NULL THEN 'served' ELSE 'nothing' END;
                EXCEPTION WHEN insufficient_privilege THEN
                    heard := heard || 'denied'::text;
                END;
            END LOOP;
            RETURN heard;
        END $$",
    );
    let heard: Vec<String> = one(
        &mut client,
        "SELECT under('{postgres,rights_role_stranger,rights_role_reader,rights_role_stranger,postgres,rights_role_stranger}')",
    );
    assert_eq!(heard, ["served", "denied", "served", "denied", "served", "denied"]);
}

#[test]
fn a_function_with_its_owners_rights_looks_up_with_these() {
    let reads = Reads::filled("rights_definer");
    role(&reads, "rights_definer_reader");
    role(&reads, "rights_definer_stranger");
    reads.run(
        "GRANT SELECT ON enrichment_cache TO rights_definer_reader;
        CREATE FUNCTION of_reader() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
            $$ BEGIN RETURN enrich_get('dshield', '8.8.0.1')::text; END $$;
        CREATE FUNCTION of_stranger() RETURNS text LANGUAGE sql SECURITY DEFINER AS
            $$ SELECT enrich_get('dshield', '8.8.0.1')::text $$;
        ALTER FUNCTION of_reader() OWNER TO rights_definer_reader;
        ALTER FUNCTION of_stranger() OWNER TO rights_definer_stranger;
        CREATE VIEW of_view AS SELECT enrich_get('dshield', '8.8.0.1')::text AS answer;
        GRANT SELECT ON of_view TO rights_definer_stranger",
    );
    for role in ["postgres", "rights_definer_stranger", "rights_definer_reader"] {
        let mut client = session(&reads, role);
        for _ in 0..3 {
            assert!(one::<Option<String>>(&mut client, "SELECT of_reader()").is_some(), "{role}");
            assert_eq!(refused(&mut client, "SELECT of_stranger()", "42501", ""), DENIED, "{role}");
        }
        // both in one query: each row under the rights of its function
        let both = "SELECT of_reader(), of_stranger() FROM generate_series(1, 3)";
        assert_eq!(refused(&mut client, both, "42501", ""), DENIED, "{role}");
    }
    // the functions of a view run with the caller's rights
    let mut client = session(&reads, "rights_definer_stranger");
    assert_eq!(refused(&mut client, "SELECT answer FROM of_view", "42501", ""), DENIED);
}

#[test]
fn row_security_shows_a_look_up_what_it_shows_a_select() {
    let reads = Reads::filled("rights_rows");
    for name in ["rights_rows_reader", "rights_rows_owner", "rights_rows_above"] {
        role(&reads, name);
        reads.run(&format!("GRANT SELECT ON enrichment_cache TO {name}"));
    }
    reads.run("ALTER ROLE rights_rows_above BYPASSRLS");
    let mut clients =
        ["postgres", "rights_rows_reader", "rights_rows_owner", "rights_rows_above"].map(|r| session(&reads, r));
    let mut look = |wanted: [i64; 4], when: &str| {
        for (client, wanted) in clients.iter_mut().zip(wanted) {
            assert_eq!(agree_in(client, "by_name"), wanted, "{when}");
        }
    };
    let all: i64 = agree_in(&mut reads.client(), "by_name");
    look([all; 4], "before");
    reads.run("ALTER TABLE enrichment_cache ENABLE ROW LEVEL SECURITY");
    look([all, 0, 0, all], "enabled, without a policy");
    reads.run("CREATE POLICY shown ON enrichment_cache FOR SELECT TO rights_rows_reader USING (service = 'dshield')");
    let dshield: i64 = one(&mut reads.client(), "SELECT count(got) FROM by_name WHERE service = 'dshield'");
    assert!(dshield > 20 && dshield < all);
    look([all, dshield, 0, all], "with a policy for one");
    reads.run("ALTER TABLE enrichment_cache OWNER TO rights_rows_owner");
    look([all, dshield, all, all], "with another owner");
    reads.run("ALTER TABLE enrichment_cache FORCE ROW LEVEL SECURITY");
    look([all, dshield, 0, all], "forced upon the owner");
    reads.run("ALTER TABLE enrichment_cache NO FORCE ROW LEVEL SECURITY");
    reads.run("ALTER POLICY shown ON enrichment_cache USING (expires_at > now() + interval '1 day')");
    look([all, 0, all, all], "with a policy over time");
    reads.run("ALTER POLICY shown ON enrichment_cache USING (true)");
    look([all, all, all, all], "with a policy that shows all");
    reads.run("ALTER TABLE enrichment_cache DISABLE ROW LEVEL SECURITY");
    look([all; 4], "disabled again");
    reads.run("ALTER TABLE enrichment_cache OWNER TO postgres");
}

#[test]
fn row_security_that_is_off_for_a_session_refuses_look_ups_as_it_does_selects() {
    let reads = Reads::filled("rights_off");
    role(&reads, "rights_off_reader");
    reads.run(
        "GRANT SELECT ON enrichment_cache TO rights_off_reader; ALTER TABLE enrichment_cache ENABLE ROW LEVEL SECURITY;
        CREATE POLICY shown ON enrichment_cache TO rights_off_reader USING (service = 'dshield')",
    );
    let mut client = session(&reads, "rights_off_reader");
    for _ in 0..2 {
        served_some(&mut client);
        run(&mut client, "SET row_security = off");
        for look in LOOKS.into_iter().chain([PLAIN]) {
            let said = refused(&mut client, look, "42501", "");
            assert_eq!(
                said, "query would be affected by row-level security policy for table \"enrichment_cache\"",
                "{look}"
            );
        }
        run(&mut client, "SET row_security = on");
    }
    // nobody is above it who is merely superuser for a moment
    let mut above = reads.client();
    run(&mut above, "SET row_security = off");
    assert!(agree_in(&mut above, "by_name") > 100);
}

#[track_caller]
fn served_some(client: &mut Client) {
    assert!(agree_in(client, "by_name") > 20);
}

/// A policy may look at more than the row: what it looks at changes between two look-ups of one call site.
#[test]
fn a_policy_that_depends_on_a_setting_is_asked_at_each_look_up() {
    let reads = Reads::filled("rights_setting");
    role(&reads, "rights_setting_reader");
    reads.run(
        "GRANT SELECT ON enrichment_cache TO rights_setting_reader; ALTER TABLE enrichment_cache ENABLE ROW LEVEL SECURITY;
        CREATE POLICY shown ON enrichment_cache TO rights_setting_reader USING (service = current_setting('app.service', true));
        CREATE FUNCTION over_settings(isolation text) RETURNS int LANGUAGE plpgsql AS $$
        DECLARE
            asked universe;
            hits  int := 0;
        BEGIN
            FOR round IN 1..3 LOOP
                FOR asked IN SELECT u.* FROM universe u WHERE u.cache_key IS NOT NULL AND u.n % 3 = 0 LOOP
                    PERFORM set_config('app.service', CASE WHEN asked.n % 2 = round % 2 THEN asked.service ELSE 'none' END, true);
                    IF enrich_get(asked.service, asked.raw) IS DISTINCT FROM by_name(asked, '0') THEN
                        RAISE EXCEPTION '% differs in round %', asked, round;
                    END IF;
                    hits := hits + (enrich_get(asked.service, asked.raw) IS NOT NULL)::int;
                END LOOP;
            END LOOP;
            RETURN hits;
        END $$",
    );
    let mut client = session(&reads, "rights_setting_reader");
    for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
        run(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}"));
        assert!(one::<i32>(&mut client, "SELECT over_settings('')") > 10);
        run(&mut client, "SET LOCAL app.service = 'assets'");
        let assets = agree_in(&mut client, "by_name");
        run(&mut client, "SET LOCAL app.service = 'nobody'");
        assert!(assets > 20 && agree_in(&mut client, "by_name") == 0);
        run(&mut client, "COMMIT");
    }
}
