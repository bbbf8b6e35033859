//! A provider of which one call in twenty fails, in five ways: tests and benchmarks ask it for much and count what is lost.

use crate::sandbox::Sandbox;
use crate::wait::try_wait_until;
use postgres::Client;
use serde_json::json;
use std::time::Duration;

/// The service that is asked; it has no limits here.
const SERVICE: &str = "dshield";
/// Of all calls, each.
const SHARE: f64 = 0.01;
const WITHIN: Duration = Duration::from_secs(900);

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survived {
    /// Calls that failed.
    pub failed: u64,
    pub calls: u64,
}

/// Requests `n` addresses while one call in twenty fails at random, and waits until all are answered. What rests after a
/// failure is brought forward as soon as nothing else is left to do: its waiting is not what is looked at.
///
/// # Errors
/// When a request or an answer is lost, one rests for good, or an answer is stored twice.
pub fn survive(client: &mut Client, sandbox: &Sandbox, n: u32) -> Result<Survived, String> {
    let kinds = [
        json!({"kind": "status", "status": 503}),
        json!({"kind": "reset"}),
        json!({"kind": "eof"}),
        json!({"kind": "truncated_json"}),
        json!({"kind": "html_200"}),
    ];
    for mut fault in kinds {
        fault["service"] = json!(SERVICE);
        fault["share"] = json!(SHARE);
        sandbox.fault(&fault);
    }
    let before = sandbox.stats()[SERVICE].clone();
    run(
        client,
        &format!(
            "SELECT enrich_request_many('{SERVICE}', array_agg(host('8.16.0.0'::inet + n))) FROM generate_series(1, {n}) n"
        ),
    )?;
    try_wait_until("all answers", WITHIN, || {
        let left = "SELECT count(*) FILTER (WHERE state <> 'dead'), count(*) FILTER (WHERE state = 'dead'),
            count(*) FILTER (WHERE state = 'in_flight' OR next_attempt_at <= clock_timestamp()) FROM enrichment_queue";
        let row = client.query_one(left, &[]).map_err(|why| why.to_string())?;
        let (left, dead, busy): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        if left > 0 && busy == 0 {
            run(
                client,
                "UPDATE enrichment_queue SET next_attempt_at = now() WHERE state = 'waiting'; SELECT enrich_wake()",
            )?;
        }
        match left {
            0 => Ok(Some(())),
            _ => Err(format!("{left} to go, {dead} given up")),
        }
    })?;
    sandbox.clear_faults();
    let answered = format!(
        "SELECT count(*), (SELECT count(*) FROM enrichment_queue)
         FROM enrichment_cache WHERE service = '{SERVICE}' AND response_status IN ('success', 'not_found')
           AND cache_key::inet <<= '8.16.0.0/12'"
    );
    let row = client.query_one(&answered, &[]).map_err(|why| why.to_string())?;
    let (answers, queued): (i64, i64) = (row.get(0), row.get(1));
    let after = sandbox.stats()[SERVICE].clone();
    let grown = |name: &str| after[name].as_u64().unwrap_or(0) - before[name].as_u64().unwrap_or(0);
    let survived = Survived { failed: grown("faulted"), calls: grown("requests") };
    match answers == i64::from(n) && queued == 0 && survived.calls == u64::from(n) + survived.failed {
        true => Ok(survived),
        false => Err(format!("{answers} answers to {n} requests, {queued} still queued, {survived:?}")),
    }
}

fn run(client: &mut Client, sql: &str) -> Result<(), String> {
    client.batch_execute(sql).map_err(|why| format!("{sql}: {why}"))
}
