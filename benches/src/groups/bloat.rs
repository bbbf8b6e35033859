//! Twenty cycles of expiry, cleanup, VACUUM and refill: what the cache and its indexes grow to.

use crate::bed::{Bed, STORE};
use crate::data::store_load::staged;
use crate::measure::samples::Ratio;
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::{bytes, grouped, ratio};
use crate::report::table::Table;
use crate::{screen, Result};

const CYCLES: usize = 20;
const SHOWN: &[usize] = &[0, 1, 5, 10, 20];

/// Table with TOAST, and all indexes.
#[derive(Clone, Copy)]
struct Size {
    table: f64,
    indexes: f64,
}

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    // each cycle writes all of it anew
    let entries = (staged(&bed.settings) / 2).max(100);
    let mut session = bed.session(STORE)?;
    let mut findings = Findings::default();
    findings.say(format!(
        "{} answers of dshield; in each of {CYCLES} cycles entries expire, `enrich_cleanup()` removes them, VACUUM runs, `enrich_store_many` \
         fills in the same keys with other payloads, and VACUUM runs again, as autovacuum would. Once all entries expire each time, by their time to live; once a random half is invalidated \
         (`enrich_invalidate`) and the other half stays. Sizes are in relation to those of the first fill.",
        grouped(entries as f64)
    ));
    for (what, half) in [("all expire", false), ("a random half is invalidated", true)] {
        let sizes = cycles(&mut session, entries, half)?;
        let mut table = Table::new(&format!("{what}:"), &["after cycle", "table", "× first", "indexes", "× first"]);
        let first = sizes[0];
        for &cycle in SHOWN {
            let size = sizes[cycle];
            let name = if cycle == 0 { "first fill".to_string() } else { cycle.to_string() };
            let (of_table, of_indexes) = (ratio(size.table / first.table), ratio(size.indexes / first.indexes));
            table.row(&[&name, &bytes(size.table), &of_table, &bytes(size.indexes), &of_indexes]);
        }
        findings.table(table);
        for (part, pick) in
            [("the table", (|size| size.table) as fn(&Size) -> f64), ("its indexes", |size| size.indexes)]
        {
            let most = sizes.iter().map(pick).fold(0.0, f64::max) / pick(&first);
            findings.target(Target::at_most(
                &format!("{part} over {CYCLES} cycles ({what}), largest × first fill"),
                1.3,
                Some(Ratio::once(most)),
            ));
        }
    }
    Ok(findings)
}

/// Sizes after the first fill and after each cycle.
fn cycles(session: &mut Session, entries: u64, half: bool) -> Result<Vec<Size>> {
    session.run("TRUNCATE enrichment_cache, enrichment_history")?;
    // what is expired goes with the next cleanup
    session.run("UPDATE enrichment_service SET stale_ttl = '0' WHERE name = 'dshield'")?;
    let ttl = if half { "30 days" } else { "1 ms" };
    let all = format!("n < {entries}");
    refill(session, &all, "p", ttl)?;
    let mut sizes = vec![size(session)?];
    for cycle in 1..=CYCLES {
        let which = if half { format!("{all} AND hashint8extended(n, {cycle}) % 2 = 0") } else { all.clone() };
        if half {
            session.run(&format!("SELECT sum(enrich_invalidate('dshield', k)) FROM bench.stage WHERE {which}"))?;
        }
        let expected: i64 = session.one(&format!("SELECT count(*) FROM bench.stage WHERE {which}"))?;
        let removed: i64 = session.one("SELECT enrich_cleanup()")?;
        if removed != expected {
            return Err(format!("enrich_cleanup removed {removed} of {expected} entries").into());
        }
        session.run("VACUUM enrichment_cache")?;
        refill(session, &which, if cycle % 2 == 0 { "p" } else { "p2" }, ttl)?;
        sizes.push(size(session)?);
        if cycle % 5 == 0 {
            screen::note(&format!("cycle {cycle} of {CYCLES}"));
        }
    }
    Ok(sizes)
}

/// In calls of a thousand, and vacuums.
fn refill(session: &mut Session, which: &str, payload: &str, ttl: &str) -> Result<()> {
    session.run(&format!(
        "SELECT enrich_store_many('dshield', array_agg(k), array_agg({payload}), '{ttl}') FROM bench.stage WHERE {which} GROUP BY n / 1000"
    ))?;
    // merges what the GIN index keeps for later
    session.run("VACUUM enrichment_cache")
}

fn size(session: &mut Session) -> Result<Size> {
    let row = session.rows("SELECT pg_table_size('enrichment_cache'), pg_indexes_size('enrichment_cache')")?;
    let [table, indexes] = [0, 1].map(|at| row[0].get::<_, i64>(at) as f64);
    Ok(Size { table, indexes })
}
