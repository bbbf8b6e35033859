//! Counting hits, on against off.

use super::rivals;
use super::wire;
use crate::bed::{Bed, MAIN};
use crate::data::Sizes;
use crate::measure::processor::OneProcessor;
use crate::measure::rounds::{in_rounds, in_turns, statement, Variant};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::table::Table;
use crate::Result;

const SETTING: &str = "enrichment_cache.track_lookups";

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let sizes = Sizes::of(&bed.settings);
    let mut session = bed.session(MAIN)?;
    let there = session.has_setting(SETTING)?;
    let mut findings = Findings::default();
    findings.say(format!(
        "The same look-ups with `{SETTING}` on and off: over 100,000 rows with 1,000 keys, over all sessions, and one by one over the wire \
         (pgbench, prepared, one client on the processor of its server process). The worker takes over what is counted while this runs; writing it into tables, every \
         `stats_interval`, is not part of it."
    ));
    if !there {
        findings.say("This version of the extension has no such setting: it does not count on the read path.");
    }
    let few = 1_000.min(sizes.addresses / 2);
    let repeats = 100_000 / few;
    session.run(&format!(
        "DROP TABLE IF EXISTS bench.counted;
         CREATE TABLE bench.counted AS
            SELECT k FROM (SELECT DISTINCT source_ip AS k FROM sessions ORDER BY 1 LIMIT {few}) d
            CROSS JOIN generate_series(1, {repeats}) ORDER BY hashtext(k || generate_series), k"
    ))?;
    session.run("VACUUM ANALYZE bench.counted")?;
    let hot = rivals::get("h.k", "bench.counted h");
    let random = rivals::get("s.source_ip", "sessions s");
    for (what, sql, rows) in [("hot set", hot, few * repeats), ("all sessions", random, sizes.sessions)] {
        let both = ["on", "off"].map(|value| {
            let set = if there { format!("SET {SETTING} = {value}") } else { String::new() };
            statement(value, &set, &sql, rows).available(there)
        });
        let before = counted(&mut session)?;
        let measured = in_turns(bed, what, &mut session, both.into())?;
        let least = rows * bed.settings.rounds as u64;
        if there && counted(&mut session)? - before < least as i64 {
            return Err(format!("{what}: fewer than {least} look-ups were counted").into());
        }
        findings.table(Table::of(&format!("{what}:"), "ns a row", &measured, &[("× off", "off")]));
        findings.target(Target::at_most(
            &format!("counting hits, {what}: time, × without"),
            1.05,
            measured.ratio("on", "off"),
        ));
    }
    let script = wire::script(wire::GET_TEXT, &sizes);
    let both = ["on", "off"].map(|value| {
        let (script, seconds, bed) = (&script, wire::seconds(bed), &*bed);
        Variant::new(value, move |_: &mut Session| {
            crate::measure::pgbench::run(bed, MAIN, script, 1, seconds, &format!("-c {SETTING}={value}"))
        })
        .available(there)
    });
    // client and server process take turns: see the group wire
    let together = OneProcessor::of(bed)?;
    let measured = in_rounds(wire::rounds(bed), "over the wire", &mut session, both.into())?;
    drop(together);
    findings.table(Table::of("over the wire:", "transactions a second", &measured, &[("× off", "off")]));
    findings.target(Target::at_most(
        "counting hits, over the wire: time, × without",
        1.05,
        measured.ratio("off", "on"),
    ));
    Ok(findings)
}

/// Look-ups that were counted in this database, written down or not.
fn counted(session: &mut Session) -> Result<i64> {
    session.one("SELECT sum(cache_hits + cache_misses)::bigint FROM enrichment_stat")
}
