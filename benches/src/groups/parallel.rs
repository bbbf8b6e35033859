//! One and two parallel workers. The leader only collects, so that two workers are compared with one on two cores.

use super::lookup_random::{join, ONLY_HASH_JOINS};
use super::rivals;
use crate::bed::{Bed, MAIN};
use crate::data::Sizes;
use crate::measure::plan;
use crate::measure::rounds::{in_turns, statement};
use crate::report::findings::{Findings, Target};
use crate::report::numbers::ratio;
use crate::report::table::Table;
use crate::Result;

const EXECUTE: &str = "EXECUTE measured";

/// Prepares `sql` with a plan for so many workers. Planned while the leader may take part, as a plan with one worker and an
/// idle leader never looks cheaper; what the leader does is decided anew at each execution (nodeGather.c).
fn workers(count: u64, sql: &str) -> String {
    format!(
        "SET max_parallel_workers_per_gather = {count};
         SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET min_parallel_index_scan_size = 0;
         DEALLOCATE ALL; PREPARE measured AS {sql}; EXPLAIN EXECUTE measured;
         SET parallel_leader_participation = off"
    )
}

/// What is run, with its settings.
struct Query {
    name: &'static str,
    settings: &'static str,
    sql: String,
    available: bool,
}

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let rows = Sizes::of(&bed.settings).sessions;
    let mut session = bed.session(MAIN)?;
    let memo = session.has_setting(rivals::MEMO_SIZE)?;
    let get = rivals::get("s.source_ip", "sessions s");
    let no_memo = "SET enrichment_cache.memo_size = 0;";
    let queries = [
        Query { name: "`enrich_get`", settings: "", sql: get.clone(), available: true },
        Query { name: "`enrich_get`, memo_size = 0", settings: no_memo, sql: get, available: memo },
        Query { name: "hash join with the cache", settings: ONLY_HASH_JOINS, sql: join(), available: true },
    ];
    let mut variants = Vec::new();
    for query in &queries {
        for count in 0..=2 {
            let prepare = format!("{};{}", query.settings, workers(count, &query.sql));
            if query.available {
                let claim = format!("{count} workers");
                plan::must(&mut session, &prepare, EXECUTE, &claim, |plan| plan.workers() == count)?;
            }
            variants.push(statement(&named(query.name, count), &prepare, EXECUTE, rows).available(query.available));
        }
    }
    let measured = in_turns(bed, "parallel", &mut session, variants)?;

    let mut findings = Findings::default();
    findings.say(
        "The queries over all sessions of the section before, with `max_parallel_workers_per_gather` 0, 1 and 2 and \
         `parallel_leader_participation = off`; the number of workers was checked in the plans. Workers remember answers \
         together: what two of them meet, one looks up. With `memo_size = 0` nothing is remembered.",
    );
    let mut table = Table::of("", "ns a row", &measured, &[]);
    table.columns.push("× speed of one worker".to_string());
    for (row, (query, count)) in
        table.rows.iter_mut().zip(queries.iter().flat_map(|query| (0..=2).map(move |count| (query, count))))
    {
        let speed = measured.ratio(&named(query.name, 1), &named(query.name, count));
        row.push(speed.map_or("-".to_string(), |speed| ratio(speed.value)));
    }
    findings.table(table);
    for (query, what) in queries.iter().zip(["enrich_get", "enrich_get with memo_size = 0"]) {
        findings.target(Target::at_least(
            &format!("two parallel workers, × speed of one ({what})"),
            1.8,
            measured.ratio(&named(query.name, 1), &named(query.name, 2)),
        ));
    }
    Ok(findings)
}

fn named(what: &str, workers: u64) -> String {
    match workers {
        0 => format!("{what}, no workers"),
        1 => format!("{what}, one worker"),
        count => format!("{what}, {count} workers"),
    }
}
