//! Look-ups in parallel workers: the same answers, row by row, as plain SQL gives.

use super::{agree, Reads};
use crate::support::{one, run, said};
use postgres::Client;

const FORCED: &str = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
    SET min_parallel_index_scan_size = 0; SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off";

/// Has every query of a session that may be run by parallel workers run by them.
pub fn force_workers(client: &mut Client) {
    let name: String =
        one(client, "SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')");
    run(client, &format!("{FORCED}; SET {name} = on"));
}

/// Events of every key, many of each.
fn events(name: &str) -> Reads {
    let reads = Reads::filled(name);
    reads.run(
        "DELETE FROM enrichment_cache WHERE id % 5 = 0;
        UPDATE enrichment_cache SET expires_at = now() - interval '30 minutes' WHERE id % 5 = 1;
        CREATE TABLE events AS SELECT row_number() OVER () AS id, u.n, u.service, u.raw, u.address
            FROM universe u CROSS JOIN generate_series(1, 100) ORDER BY random();
        CREATE FUNCTION got_parallel(service text, raw text) RETURNS jsonb LANGUAGE plpgsql STABLE PARALLEL SAFE AS
            'BEGIN RETURN enrich_get(service, raw); END'",
    );
    reads.run("VACUUM ANALYZE events");
    reads
}

/// How many workers a query was given.
fn launched(client: &mut Client, query: &str) -> i64 {
    let plan = format!("EXPLAIN (ANALYZE, FORMAT JSON) {query}");
    let plan = client.simple_query(&plan).unwrap_or_else(|why| panic!("{plan}: {}", said(&why)));
    let plan = plan.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
        _ => None,
    });
    let plan = plan.unwrap_or_default();
    let launched = plan.split("\"Workers Launched\": ").nth(1).and_then(|rest| rest.split([',', '\n']).next());
    launched.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("no Gather in {plan}"))
}

/// All answers of a query in parallel, against those of plain SQL under the same snapshot.
fn the_same(client: &mut Client, query: &str, plain: &str, within: bool) {
    if !within {
        run(client, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    }
    let explained = launched(client, query);
    assert!(explained > 0, "no worker ran {query}");
    let rows = |client: &mut Client, sql: &str| {
        let sql = format!("{sql} ORDER BY 1");
        let rows = client.query(&sql, &[]).unwrap_or_else(|why| panic!("{sql}: {}", said(&why)));
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(i64, Option<String>)>>()
    };
    let got = rows(client, query);
    run(client, "SET LOCAL max_parallel_workers_per_gather = 0");
    let want = rows(client, plain);
    run(client, "RESET max_parallel_workers_per_gather; SET LOCAL max_parallel_workers_per_gather = 2");
    assert_eq!(got.len(), want.len(), "{query}");
    for (got, want) in got.iter().zip(&want) {
        assert_eq!(got, want, "{query}");
    }
    if !within {
        run(client, "COMMIT");
    }
}

const FRESH: &str = "SELECT e.id, (SELECT c.payload::text FROM enrichment_cache c JOIN universe u ON u.n = e.n
    WHERE c.service = e.service AND c.cache_key = u.cache_key AND c.expires_at > now()) FROM events e";
const ADDRESSES: &str = "SELECT e.id, (SELECT c.payload::text FROM enrichment_cache c JOIN universe u ON u.n = e.n
    WHERE e.address IS NOT NULL AND c.service = e.service AND c.cache_key = u.cache_key AND c.expires_at > now()) FROM events e";
const STALE: &str = "SELECT e.id, (SELECT c.payload::text FROM enrichment_cache c JOIN universe u ON u.n = e.n
    WHERE c.service = e.service AND c.cache_key = u.cache_key AND c.expires_at + interval '1 hour' > now()) FROM events e";
const STORED: &str = "SELECT e.id, (SELECT c.payload::text FROM enrichment_cache c JOIN universe u ON u.n = e.n
    WHERE c.service = e.service AND c.cache_key = u.cache_key) FROM events e";
const MANY: &str = "SELECT e.id, c.payload::text FROM events e JOIN universe u ON u.n = e.n
    JOIN enrichment_cache c ON c.service = e.service AND c.cache_key = u.cache_key AND c.expires_at > now() AND c.payload IS NOT NULL";

const FORMS: [(&str, &str); 6] = [
    ("SELECT id, enrich_get(service, raw)::text FROM events", FRESH),
    ("SELECT id, enrich_get(service, address)::text FROM events", ADDRESSES),
    ("SELECT id, enrich_get(service, raw, '1 hour')::text FROM events", STALE),
    ("SELECT id, got_parallel(service, raw)::text FROM events", FRESH),
    ("SELECT id, l.payload::text FROM events, LATERAL enrich_lookup(service, raw) l", STORED),
    ("SELECT id, m.payload::text FROM events, LATERAL enrich_get_many(service, ARRAY[raw]) m", MANY),
];

#[test]
fn parallel_workers_answer_row_by_row_what_plain_sql_answers() {
    let reads = events("parallel_rows");
    let mut client = reads.client();
    run(&mut client, FORCED);
    for leader in ["off", "on"] {
        run(&mut client, &format!("SET parallel_leader_participation = {leader}"));
        for (query, plain) in FORMS {
            the_same(&mut client, query, plain, false);
        }
    }
}

#[test]
fn parallel_workers_see_what_their_transaction_has_written_and_no_more() {
    let reads = events("parallel_writes");
    let (mut client, mut other) = (reads.client(), reads.client());
    // else the worker notes hits in rows that the transaction writes
    run(&mut client, "SET enrichment_cache.track_lookups = off");
    run(&mut client, FORCED);
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        run(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}"));
        run(
            &mut client,
            "UPDATE enrichment_cache SET payload = made(3) WHERE service = 'dshield' AND payload IS NOT NULL",
        );
        run(
            &mut other,
            "UPDATE enrichment_cache SET payload = made(3) WHERE service = 'virustotal' AND payload IS NOT NULL",
        );
        the_same(&mut client, FORMS[0].0, FORMS[0].1, true);
        run(
            &mut client,
            "SAVEPOINT s; DELETE FROM enrichment_cache WHERE service = 'assets'; SELECT count(*) FROM events",
        );
        the_same(&mut client, FORMS[1].0, FORMS[1].1, true);
        run(&mut client, "ROLLBACK TO SAVEPOINT s; SAVEPOINT t; SELECT enrich_store('assets', '8.8.0.1', made(3))");
        the_same(&mut client, FORMS[0].0, FORMS[0].1, true);
        run(&mut client, "RELEASE SAVEPOINT t");
        the_same(&mut client, FORMS[3].0, FORMS[3].1, true);
        run(&mut client, "ROLLBACK");
    }
    agree(&mut client);
}

/// A plan forced into one worker, for every comparison of the fixture.
#[test]
fn every_comparison_holds_in_a_forced_worker() {
    let reads = events("parallel_forced");
    reads.fill_crowd();
    let mut client = reads.client();
    let pid = super::pid(&mut client);
    let name: String =
        one(&mut client, "SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')");
    run(&mut client, FORCED);
    for mode in ["on", "regress"] {
        run(&mut client, &format!("SET {name} = {mode}"));
        for view in ["glance", "compared", "wrapped", "crowded"] {
            for isolation in ["READ COMMITTED", "SERIALIZABLE"] {
                run(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}"));
                let row = client.query_one(&super::comparison(view), &[]);
                let row = row.unwrap_or_else(|why| panic!("{view}: {}", said(&why)));
                let seen = super::Seen::of(&row, pid);
                assert!(super::agreed(&row) > 100 && seen.by_workers == 1, "{view}, {isolation}, {mode}");
                let passes = view == "crowded" && isolation == "READ COMMITTED";
                assert_eq!(seen.passes > 0, passes, "{view}, {isolation}, {mode}");
                run(&mut client, "COMMIT");
            }
        }
    }
}

/// The registry's settings and the relation's identity are not the leader's to hand over: a worker finds them itself.
#[test]
fn a_worker_that_looks_up_first_knows_services_and_rights() {
    let reads = events("parallel_first");
    reads.run(
        "CREATE ROLE parallel_reader; SELECT enrich_grant('parallel_reader', 'reader');
        CREATE ROLE parallel_stranger; SELECT enrich_grant('parallel_stranger', 'reader');
        GRANT SELECT ON events, universe TO parallel_reader, parallel_stranger;
        REVOKE SELECT ON enrichment_cache FROM parallel_stranger",
    );
    let query = "SELECT count(enrich_get(service, raw)) FROM events";
    for _ in 0..3 {
        let mut client = reads.client();
        run(&mut client, FORCED);
        run(&mut client, "SET ROLE parallel_reader");
        assert!(launched(&mut client, query) > 0);
        assert!(one::<i64>(&mut client, query) > 1000);
        run(&mut client, "SET ROLE parallel_stranger");
        let refusal = crate::support::refused(&mut client, query, "42501", "");
        assert_eq!(refusal, "permission denied for table enrichment_cache");
        run(&mut client, "RESET ROLE");
        let unknown = query.replace("service,", "service || 'x',");
        crate::support::refused(&mut client, &unknown, "42704", "");
        run(&mut client, "INSERT INTO enrichment_service (name, key_kind, url) VALUES ('late', 'ip', 'https://late.example/{key}');
            INSERT INTO enrichment_cache (service, cache_key, payload, expires_at) VALUES ('late', '8.8.0.1', '7', 'infinity')");
        let late = "SELECT count(enrich_get('late', '8.8.0.' || n)) FROM events";
        assert_eq!(one::<i64>(&mut client, late), one::<i64>(&mut client, "SELECT count(*) FROM events WHERE n = 1"));
        run(
            &mut client,
            "DELETE FROM enrichment_cache WHERE service = 'late'; DELETE FROM enrichment_service WHERE name = 'late'",
        );
    }
}
