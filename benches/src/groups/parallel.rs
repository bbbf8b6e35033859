//! One and two parallel workers. The leader only collects, so that two workers are compared with one on two cores.

use super::lookup_random::join;
use super::rivals;
use crate::bed::{Bed, MAIN};
use crate::data::Sizes;
use crate::measure::plan;
use crate::measure::rounds::{in_turns, statement};
use crate::report::findings::{Findings, Target};
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

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let rows = Sizes::of(&bed.settings).sessions;
    let mut session = bed.session(MAIN)?;
    let queries = [
        ("`enrich_get(service, text)`", rivals::get("s.source_ip", "sessions s")),
        ("hash join with the cache", join()),
    ];
    let mut variants = Vec::new();
    for (name, sql) in &queries {
        for count in 0..=2 {
            let prepare = workers(count, sql);
            plan::must(&mut session, &prepare, EXECUTE, &format!("{count} workers"), |plan| plan.workers() == count)?;
            variants.push(statement(&named(name, count), &prepare, EXECUTE, rows));
        }
    }
    let measured = in_turns(bed, "parallel", &mut session, variants)?;

    let mut findings = Findings::default();
    findings.say(
        "The queries over all sessions of the section before, with `max_parallel_workers_per_gather` 0, 1 and 2 and \
         `parallel_leader_participation = off`; the number of workers was checked in the plans.",
    );
    let [get, join] = [0, 1].map(|at| queries[at].0);
    let (one, join_one) = (named(get, 1), named(join, 1));
    findings.table(Table::of(
        "",
        "ns a row",
        &measured,
        &[("× enrich_get, one worker", &one), ("× join, one worker", &join_one)],
    ));
    findings.target(Target::at_least(
        "two parallel workers, × speed of one (enrich_get)",
        1.8,
        measured.ratio(&one, &named(get, 2)),
    ));
    Ok(findings)
}

fn named(what: &str, workers: u64) -> String {
    match workers {
        0 => format!("{what}, no workers"),
        1 => format!("{what}, one worker"),
        count => format!("{what}, {count} workers"),
    }
}
