//! Changes of the cache's definition between look-ups: in the same session, transaction, block and function, and from
//! other sessions. Answers stay right.

mod extension;
mod indexes;
mod replaced;

use crate::reads::{agree, agree_in, comparison, Reads};
use crate::support::{run, said};
use postgres::Client;
use std::collections::BTreeMap;

/// A change of the table, what takes it back, and whether it may be part of a transaction.
struct Change {
    sql: &'static str,
    back: &'static str,
    in_transaction: bool,
}

const fn change(sql: &'static str, back: &'static str) -> Change {
    Change { sql, back, in_transaction: true }
}

const fn alone(sql: &'static str) -> Change {
    Change { sql, back: "SELECT 1", in_transaction: false }
}

const CHANGES: [Change; 22] = [
    change("ALTER TABLE enrichment_cache ADD COLUMN extra int DEFAULT 7", "ALTER TABLE enrichment_cache DROP COLUMN extra"),
    change(
        "ALTER TABLE enrichment_cache ADD COLUMN extra text DEFAULT md5(random()::text)",
        "ALTER TABLE enrichment_cache DROP COLUMN extra",
    ),
    change(
        "ALTER TABLE enrichment_cache RENAME COLUMN api_latency_ms TO latency",
        "ALTER TABLE enrichment_cache RENAME COLUMN latency TO api_latency_ms",
    ),
    change("ALTER TABLE enrichment_cache SET (fillfactor = 50)", "ALTER TABLE enrichment_cache SET (fillfactor = 90)"),
    change("ALTER TABLE enrichment_cache SET UNLOGGED", "ALTER TABLE enrichment_cache SET LOGGED"),
    change(
        "ALTER TABLE enrichment_cache ALTER COLUMN payload SET STORAGE EXTERNAL",
        "ALTER TABLE enrichment_cache ALTER COLUMN payload SET STORAGE EXTENDED",
    ),
    change(
        "ALTER TABLE enrichment_cache ALTER COLUMN payload SET COMPRESSION pglz; UPDATE enrichment_cache SET payload = payload || '{}'",
        "ALTER TABLE enrichment_cache ALTER COLUMN payload SET COMPRESSION DEFAULT",
    ),
    change(
        "ALTER TABLE enrichment_cache ALTER COLUMN api_response_code TYPE bigint",
        "ALTER TABLE enrichment_cache ALTER COLUMN api_response_code TYPE int",
    ),
    change(
        "ALTER TABLE enrichment_cache ADD CONSTRAINT known CHECK (version > 0)",
        "ALTER TABLE enrichment_cache DROP CONSTRAINT known",
    ),
    change("CREATE INDEX other ON enrichment_cache (fetched_at)", "DROP INDEX other"),
    change("CREATE STATISTICS pairs ON service, cache_key FROM enrichment_cache", "DROP STATISTICS pairs"),
    change("REINDEX TABLE enrichment_cache", "SELECT 1"),
    change("CLUSTER enrichment_cache USING enrichment_cache_pkey", "SELECT 1"),
    change("ANALYZE enrichment_cache", "SELECT 1"),
    change("TRUNCATE enrichment_cache", "SELECT 1"),
    change("TRUNCATE enrichment_cache; SELECT enrich_store('dshield', '8.8.0.1', made(7))", "SELECT 1"),
    change("ALTER TABLE enrichment_cache DISABLE TRIGGER ALL", "ALTER TABLE enrichment_cache ENABLE TRIGGER ALL"),
    change("REVOKE ALL ON enrichment_cache FROM PUBLIC", "SELECT 1"),
    change(
        "ALTER TABLE enrichment_service ADD COLUMN note text; UPDATE enrichment_service SET note = name",
        "ALTER TABLE enrichment_service DROP COLUMN note",
    ),
    alone("REINDEX TABLE CONCURRENTLY enrichment_cache"),
    alone("VACUUM FULL enrichment_cache"),
    alone("VACUUM (FREEZE, ANALYZE) enrichment_cache"),
];

/// Statements one by one: some may not stand in one message with others.
fn each(client: &mut Client, sql: &str) {
    sql.split(';').for_each(|sql| run(client, sql));
}

/// A session with a statement that it has prepared before anything changes.
struct Looker {
    client: Client,
    prepared: postgres::Statement,
}

impl Looker {
    fn new(reads: &Reads) -> Looker {
        let mut client = reads.client();
        let prepared = client.prepare(&comparison("glance")).unwrap_or_else(|why| panic!("{}", said(&why)));
        Looker { client, prepared }
    }

    #[track_caller]
    fn look(&mut self, when: &str) {
        match self.client.query_one(&self.prepared, &[]) {
            Ok(row) => assert_eq!(row.get::<_, &str>(1), "", "{when}"),
            Err(why) => panic!("{when}: {}", said(&why)),
        }
        agree(&mut self.client);
        agree_in(&mut self.client, "wrapped");
    }
}

/// Fills what a change has emptied.
fn refill(reads: &Reads) {
    reads.run("DELETE FROM enrichment_cache");
    reads.fill();
    assert!(agree(&mut reads.client()) > 100);
}

#[test]
fn look_ups_before_and_after_a_change_of_the_same_session_are_right() {
    let reads = Reads::filled("ddl_session");
    let mut looker = Looker::new(&reads);
    for Change { sql, back, .. } in &CHANGES {
        looker.look("before");
        each(&mut looker.client, sql);
        looker.look(sql);
        each(&mut looker.client, back);
        looker.look(back);
        refill(&reads);
    }
}

#[test]
fn a_change_in_a_transaction_that_has_looked_up_is_neither_refused_nor_missed() {
    let reads = Reads::filled("ddl_transaction");
    // else the worker notes hits, of this session or of those that fill, in rows that the transaction writes
    reads.run("ALTER DATABASE ddl_transaction SET enrichment_cache.track_lookups = off");
    let mut looker = Looker::new(&reads);
    for Change { sql, back, .. } in CHANGES.iter().filter(|change| change.in_transaction) {
        for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
            for end in ["ROLLBACK", "ROLLBACK TO SAVEPOINT before; COMMIT", "RELEASE SAVEPOINT before; COMMIT"] {
                run(&mut looker.client, &format!("BEGIN ISOLATION LEVEL {isolation}"));
                looker.look("before");
                run(&mut looker.client, "SAVEPOINT before");
                each(&mut looker.client, sql);
                looker.look(sql);
                for statement in end.split("; ") {
                    run(&mut looker.client, statement);
                    looker.look(&format!("{sql}; {statement}"));
                }
                if end.starts_with("RELEASE") {
                    each(&mut looker.client, back);
                }
            }
        }
        refill(&reads);
    }
}

/// The call sites of `look` are the same before the change, after it, and when it is undone.
const THROUGH: &str = "
CREATE FUNCTION look(place text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    asked universe;
    got   jsonb;
BEGIN
    FOR asked IN SELECT u.* FROM universe u WHERE u.n % 5 = 2 AND u.cache_key IS NOT NULL LOOP
        got := enrich_get(asked.service, asked.raw);
        PERFORM must_agree(asked, got, place);
        IF asked.address IS NOT NULL THEN
            PERFORM must_agree(asked, enrich_get(asked.service, asked.address), place);
        END IF;
        PERFORM must_agree(asked, enrich_get(asked.service, asked.raw, '0'), place);
        PERFORM must_agree(asked, (SELECT payload FROM enrich_get_many(asked.service, ARRAY[asked.raw])), place);
    END LOOP;
END $$;

CREATE FUNCTION through(ddl text, undo boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM look('before');
    BEGIN
        EXECUTE ddl;
        PERFORM look('after');
        IF undo THEN RAISE EXCEPTION 'undo' USING ERRCODE = 'ZZ000'; END IF;
    EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
        PERFORM look('when undone');
    END;
    PERFORM look('at the end');
END $$";

#[test]
fn a_change_inside_a_function_or_a_block_is_seen_by_its_next_look_up() {
    let reads = Reads::filled("ddl_function");
    let mut looker = Looker::new(&reads);
    run(&mut looker.client, THROUGH);
    for Change { sql, back, .. } in CHANGES.iter().filter(|change| change.in_transaction) {
        for undo in [true, false] {
            run(&mut looker.client, &format!("SELECT through($ddl${sql}$ddl$, {undo})"));
            looker.look(sql);
        }
        each(&mut looker.client, back);
        refill(&reads);
        // with a commit between the looks
        let block = format!(
            "DO $$ BEGIN
                PERFORM look('a block'); EXECUTE $ddl${sql}$ddl$; PERFORM look('a block, after'); COMMIT;
                PERFORM look('a block, committed'); EXECUTE $ddl${back}$ddl$; PERFORM look('a block, back'); ROLLBACK;
                PERFORM look('a block, rolled back');
            END $$"
        );
        run(&mut looker.client, &block);
        each(&mut looker.client, back);
        looker.look(sql);
        refill(&reads);
    }
}

#[test]
fn a_change_of_another_session_is_seen_by_sessions_that_have_looked_up() {
    let reads = Reads::filled("ddl_other");
    let mut lookers = [Looker::new(&reads), Looker::new(&reads)];
    let mut other = reads.client();
    run(&mut other, THROUGH);
    for Change { sql, back, .. } in &CHANGES {
        for statement in [sql, back] {
            for looker in &mut lookers {
                looker.look("before");
                run(&mut looker.client, "SELECT look('before')");
            }
            each(&mut other, statement);
            for looker in &mut lookers {
                looker.look(statement);
                run(&mut looker.client, "SELECT look('after')");
            }
        }
        refill(&reads);
    }
}

/// A SELECT keeps others from changing what its transaction has read; a look-up is one.
#[test]
fn a_table_that_was_looked_up_in_is_not_taken_away_before_the_transaction_ends() {
    let reads = Reads::filled("ddl_lock");
    let (mut mine, mut other) = (reads.client(), reads.client());
    run(&mut other, "SET lock_timeout = '50ms'");
    let looks = [
        "SELECT count(payload) FROM enrichment_cache",
        "SELECT enrich_get('dshield', '8.8.0.1')",
        "SELECT enrich_get('dshield', '8.8.0.1'::inet)",
        "SELECT enrich_get('dshield', '8.8.0.1', '1 hour')",
        "SELECT * FROM enrich_get_many('dshield', '{8.8.0.1}')",
        "SELECT * FROM enrich_lookup('dshield', '8.8.0.1')",
        "DO $$ BEGIN PERFORM enrich_get('dshield', '8.8.0.1'); END $$",
    ];
    for look in looks {
        run(&mut mine, "BEGIN ISOLATION LEVEL REPEATABLE READ");
        run(&mut mine, look);
        for sql in ["TRUNCATE enrichment_cache", "ALTER TABLE enrichment_cache ADD COLUMN extra int"] {
            let error = other.batch_execute(sql).err().unwrap_or_else(|| panic!("{sql} did not wait for {look}"));
            assert_eq!(error.code().map(|code| code.code()), Some("55P03"), "{}", said(&error));
        }
        assert!(agree(&mut mine) > 100);
        run(&mut mine, "COMMIT");
    }
}

/// An open cursor over the table itself refuses such changes (55006). One over look-ups may do so too; if it lets them
/// through, it goes on with right answers or ends with an error that says why.
#[test]
fn a_change_under_an_open_cursor_works_or_is_refused_as_for_a_cursor_over_the_table() {
    let reads = Reads::filled("ddl_cursor");
    let mut client = reads.client();
    // the same by hand; a reference to the table in the cursor's own query would have the change refused
    run(
        &mut client,
        "CREATE FUNCTION by_hand(asked universe) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
        BEGIN
            RETURN (SELECT c.payload FROM enrichment_cache c
                WHERE c.service = asked.service AND c.cache_key = asked.cache_key AND c.expires_at > now());
        END $$",
    );
    let mut went_through: BTreeMap<&str, usize> = BTreeMap::new();
    for Change { sql, .. } in CHANGES.iter().filter(|change| change.in_transaction) {
        for look in ["enrich_get(service, raw)", "got_stable(service, raw)", "enrich_get(service, raw, '0')"] {
            run(&mut client, "BEGIN");
            let opening = client.query("SELECT n, fresh[1]::text FROM plain", &[]).expect("answers");
            let opening: BTreeMap<i32, Option<String>> = opening.iter().map(|row| (row.get(0), row.get(1))).collect();
            let cursor = format!("SELECT n, {look}::text, by_hand(u)::text FROM universe u");
            run(&mut client, &format!("DECLARE look NO SCROLL CURSOR FOR {cursor}"));
            let first = client.query("FETCH 20 FROM look", &[]).expect("the first rows");
            match sql.split(';').try_for_each(|sql| client.batch_execute(sql)) {
                Err(error) => {
                    assert_eq!(error.code().map(|code| code.code()), Some("55006"), "{sql}: {}", said(&error));
                }
                Ok(()) => {
                    *went_through.entry(look).or_default() += 1;
                    let rest = client.query("FETCH ALL FROM look", &[]);
                    let rest = rest.unwrap_or_else(|error| panic!("FETCH after {sql}: {}", said(&error)));
                    for row in first.iter().chain(&rest) {
                        let [got, want] = [1, 2].map(|column| row.get::<_, Option<String>>(column));
                        // a rewrite takes rows from older snapshots; an answer of before, kept, is right as well
                        assert!(got == want || got == opening[&row.get(0)], "{look}, {sql}: {got:?} for {want:?}");
                    }
                }
            }
            run(&mut client, "ROLLBACK");
            assert!(agree(&mut client) > 100, "{sql}");
        }
    }
    // as it is by PostgreSQL 15, all of them do
    assert!(went_through.len() == 3 && went_through.values().all(|changes| *changes > 5), "{went_through:?}");
}
