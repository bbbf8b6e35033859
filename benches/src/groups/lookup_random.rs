//! A look-up for each session: random order over all addresses, so that memory's latency counts.

use super::rivals::{self, CORRELATED, GET, GET_NO_MEMO, MEMO_SIZE, PLPGSQL, SCAN};
use crate::bed::{Bed, MAIN};
use crate::data::Sizes;
use crate::measure::plan::{self, Plan};
use crate::measure::rounds::{in_turns, statement};
use crate::report::findings::{Findings, Target};
use crate::report::numbers::grouped;
use crate::report::table::Table;
use crate::Result;

pub const HASH_JOIN: &str = "hash join with the cache";
const MEMOIZE: &str = "nested loop with Memoize";
const GET_INET: &str = "`enrich_get(service, inet)`";
const MEMO_SIZES: &[&str] = &["64MB", "128MB", "512MB"];
/// The planner may well choose a nested loop with Memoize by itself.
pub const ONLY_HASH_JOINS: &str = "SET enable_nestloop = off; SET enable_mergejoin = off";
const ONLY_NESTED_LOOPS: &str = "SET enable_hashjoin = off; SET enable_mergejoin = off";

/// The same answers by a join.
pub fn join() -> String {
    "SELECT count(c.payload) FROM sessions s LEFT JOIN enrichment_cache c
        ON c.service = 'dshield' AND c.cache_key = s.source_ip AND c.expires_at > now()"
        .to_string()
}

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let sizes = Sizes::of(&bed.settings);
    let mut session = bed.session(MAIN)?;
    rivals::create(&mut session)?;
    let memo = session.has_setting(MEMO_SIZE)?;
    let rows = sizes.sessions;
    let get = rivals::get("s.source_ip", "sessions s");
    let get_inet = rivals::get("s.source_inet", "sessions s");
    let correlated = rivals::correlated("s.source_ip", "sessions s");
    let plpgsql = rivals::function("get_plpgsql", "s.source_ip", "sessions s");
    let join = join();
    plan::must(&mut session, "", &correlated, "one index scan a row", |plan| {
        plan.join() == "no join" && plan.probes(&["enrichment_cache"], "cache_key")
    })?;
    plan::must(&mut session, ONLY_HASH_JOINS, &join, "a hash join", |plan| plan.has("Hash Join"))?;
    session.run(ONLY_NESTED_LOOPS)?;
    let memoize = Plan::of(&mut session, &join)?.has("Memoize");
    session.run("RESET ALL")?;
    let chosen = if Plan::of(&mut session, &join)?.has("Hash Join") { "the hash join" } else { "the nested loop" };
    let all = [
        (GET, get.as_str()),
        (GET_INET, &get_inet),
        (CORRELATED, &correlated),
        (PLPGSQL, &plpgsql),
        (HASH_JOIN, &join),
    ];
    rivals::agree(&mut session, rows as i64, &all)?;

    let mut variants = vec![
        statement(SCAN, "", "SELECT count(s.source_ip) FROM sessions s", rows),
        statement(GET, "", &get, rows),
        statement(GET_INET, "", &get_inet, rows),
        statement(GET_NO_MEMO, &format!("SET {MEMO_SIZE} = 0"), &get, rows).available(memo),
    ];
    for size in MEMO_SIZES {
        let name = format!("`enrich_get(service, text)`, memo_size = {size}");
        variants.push(statement(&name, &format!("SET {MEMO_SIZE} = '{size}'"), &get, rows).available(memo));
    }
    variants.push(statement(CORRELATED, "", &correlated, rows));
    variants.push(statement(PLPGSQL, "", &plpgsql, rows));
    variants.push(rivals::by_spi(&get, rows).available(memo));
    variants.push(statement(MEMOIZE, ONLY_NESTED_LOOPS, &join, rows).available(memoize));
    variants.push(statement(HASH_JOIN, ONLY_HASH_JOINS, &join, rows));
    let measured = in_turns(bed, "all sessions", &mut session, variants)?;

    let mut findings = Findings::default();
    findings.say(format!(
        "{} sessions in random order over {} addresses; an address comes 5.7 times in the mean, a tenth of the sessions comes from 3 % of the \
         addresses. All cached pages are in memory. The join is `sessions s LEFT JOIN enrichment_cache c ON c.service = 'dshield' AND \
         c.cache_key = s.source_ip AND c.expires_at > now()`; each of its two plans was made by \
         forbidding the other, and checked; by itself the planner takes {}. No parallel workers, `work_mem = 256MB`, `hash_mem_multiplier = 2`.",
        grouped(rows as f64),
        grouped(sizes.addresses as f64),
        chosen
    ));
    let bases = [("× subquery", CORRELATED), ("× plpgsql", PLPGSQL), ("× hash join", HASH_JOIN)];
    findings.table(Table::of("", "ns a row", &measured, &bases));
    findings.target(Target::at_most(
        "all sessions: enrich_get, × correlated subquery",
        0.35,
        measured.ratio(GET, CORRELATED),
    ));
    findings.target(Target::at_most("all sessions: enrich_get, × plpgsql function", 0.2, measured.ratio(GET, PLPGSQL)));
    findings.target(Target::at_most("all sessions: enrich_get, × hash join", 1.5, measured.ratio(GET, HASH_JOIN)));
    Ok(findings)
}
