//! What another session does to services is seen by sessions that have looked up before.

use super::{force_workers, Reads};
use crate::support::{one, run, said};
use postgres::Client;

/// How a key is asked for: by itself, many times in one statement, by a function that keeps its call site.
const WAYS: [&str; 3] = [
    "SELECT enrich_get('late', KEY)",
    "SELECT min(enrich_get('late', KEY || left(n::text, 0))::text)::jsonb FROM many",
    "SELECT late(KEY)",
];

struct Looker {
    client: Client,
    in_transaction: bool,
}

impl Looker {
    fn new(reads: &Reads, workers: bool, in_transaction: bool) -> Looker {
        let mut client = reads.client();
        if workers {
            force_workers(&mut client);
        }
        if in_transaction {
            run(&mut client, "BEGIN");
        }
        Looker { client, in_transaction }
    }

    /// What every way answers, as text; the SQLSTATE of a refusal.
    #[track_caller]
    fn asks(&mut self, key: &str) -> String {
        let mut answers = WAYS.map(|way| {
            let sql = way.replace("KEY", &format!("'{key}'"));
            if self.in_transaction {
                run(&mut self.client, "SAVEPOINT s");
            }
            match self.client.query_one(&format!("SELECT coalesce(({sql})::text, 'NULL')"), &[]) {
                Ok(row) => row.get::<_, String>(0),
                Err(error) => {
                    if self.in_transaction {
                        run(&mut self.client, "ROLLBACK TO SAVEPOINT s");
                    }
                    error.code().map_or_else(|| panic!("{}", said(&error)), |code| code.code().to_string())
                }
            }
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{key}: {answers:?}");
        std::mem::take(&mut answers[0])
    }
}

#[test]
fn a_session_sees_what_another_does_to_services() {
    let reads = Reads::new("registry_seen");
    reads.run(
        "CREATE TABLE many AS SELECT generate_series(1, 1000) AS n;
        CREATE FUNCTION late(key text) RETURNS jsonb LANGUAGE plpgsql STABLE PARALLEL SAFE AS
            'BEGIN PERFORM enrich_get(''dshield'', ''8.8.0.1''); RETURN enrich_get(''late'', key); END'",
    );
    let mut other = reads.client();
    let mut lookers = [(false, false), (true, false), (false, true)]
        .map(|(workers, in_transaction)| Looker::new(&reads, workers, in_transaction));
    let mut all_say = |key: &str, what: &str| {
        for looker in &mut lookers {
            assert_eq!(looker.asks(key), what, "{key}");
        }
    };
    all_say("8.8.0.1", "42704");
    run(
        &mut other,
        "INSERT INTO enrichment_service (name, key_kind, url) VALUES ('late', 'text', 'https://late.example/{key}');
        INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT 'late', key, to_jsonb(key), 'infinity' FROM unnest('{Some.Example,some.example,no host}'::text[]) key",
    );
    all_say("Some.Example", "\"Some.Example\"");
    all_say("no host", "\"no host\"");
    run(&mut other, "UPDATE enrichment_service SET key_kind = 'host' WHERE name = 'late'");
    all_say("Some.Example", "\"some.example\"");
    all_say("no host", "NULL");
    run(&mut other, "BEGIN; UPDATE enrichment_service SET key_kind = 'text' WHERE name = 'late'");
    all_say("no host", "NULL");
    run(&mut other, "ROLLBACK");
    all_say("no host", "NULL");
    run(
        &mut other,
        "DELETE FROM enrichment_cache WHERE service = 'late'; DELETE FROM enrichment_service WHERE name = 'late'",
    );
    all_say("Some.Example", "42704");
    assert_eq!(one::<i64>(&mut other, "SELECT count(*) FROM enrichment_service WHERE name = 'late'"), 0);
}
