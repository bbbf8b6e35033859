//! Every password against the cached ranges, in one statement; and what the ranges take on disk.

use crate::bed::{Bed, MAIN};
use crate::data::Sizes;
use crate::measure::plan::Plan;
use crate::measure::rounds::{in_turns, statement};
use crate::measure::session::Session;
use crate::report::findings::Findings;
use crate::report::numbers::{bytes, grouped, ratio};
use crate::report::table::Table;
use crate::{screen, Result};

const OURS: &str = "`enrichment_hibp`";
const OURS_BY_PAYLOAD: &str = "the cache's payloads, `payload ? suffix`";
const HAND_MADE: &str = "hand-made table, `payload ? suffix`";

const BY_RANGES: &str =
    "SELECT count(*) FILTER (WHERE enrich_hibp_count(h.ranges, enrich_hibp_suffix(p.password_text)) > 0)
    FROM password_tracking p JOIN enrichment_hibp h ON h.prefix = enrich_hibp_prefix(p.password_text)";
const BY_PAYLOAD: &str = "SELECT count(*) FILTER (WHERE c.payload ? enrich_hibp_suffix(p.password_text))
    FROM password_tracking p
    JOIN enrichment_cache c ON c.service = 'hibp' AND c.cache_key = enrich_hibp_prefix(p.password_text)";
const BY_HAND: &str = "SELECT count(*) FILTER (WHERE h.payload ? enrich_hibp_suffix(p.password_text))
    FROM password_tracking p JOIN bench.hand_hibp h ON h.prefix = enrich_hibp_prefix(p.password_text)";

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let sizes = Sizes::of(&bed.settings);
    let mut session = bed.session(MAIN)?;
    let packed: bool = session.one("SELECT EXISTS (SELECT FROM pg_proc WHERE proname = 'enrich_hibp_count')")?;
    hand_made(&mut session)?;
    let ours = if packed { BY_RANGES } else { BY_PAYLOAD };
    let (found, expected): (i64, i64) = (session.one(ours)?, session.one(BY_HAND)?);
    if found != expected || found == 0 {
        return Err(
            format!("{found} passwords are breached by our statement, {expected} by the hand-made table").into()
        );
    }
    session.run("RESET ALL")?;
    let shapes = [ours, BY_HAND].map(|sql| Plan::of(&mut session, sql).map(|plan| plan.join()));
    let [shape, shape_by_hand] = shapes;
    let known: i64 = session.one(
        "SELECT count(*) FROM password_tracking p
        WHERE EXISTS (SELECT FROM bench.hand_hibp h WHERE h.prefix = enrich_hibp_prefix(p.password_text))",
    )?;

    let mut findings = Findings::default();
    findings.say(format!(
        "{} passwords; the ranges of {} of them are cached, {} of these are breached. One statement each: {}, against a table \
         `(prefix text PRIMARY KEY, payload jsonb)` with the ranges as JSON objects. Plans: {}; by hand {}. No parallel workers.",
        grouped(sizes.passwords as f64),
        grouped(known as f64),
        grouped(found as f64),
        if packed { "`enrich_hibp_count(h.ranges, enrich_hibp_suffix(password_text))` over `enrichment_hibp`" } else { "`payload ? enrich_hibp_suffix(password_text)` over the cache" },
        shape?,
        shape_by_hand?,
    ));
    let name = if packed { OURS } else { OURS_BY_PAYLOAD };
    let variants = vec![statement(name, "", ours, sizes.passwords), statement(HAND_MADE, "", BY_HAND, sizes.passwords)];
    let measured = in_turns(bed, "passwords", &mut session, variants)?;
    findings.table(Table::of("", "ns a password", &measured, &[("× hand-made table", HAND_MADE)]));
    findings.table(disk(&mut session)?);
    Ok(findings)
}

fn hand_made(session: &mut Session) -> Result<()> {
    if session.one("SELECT to_regclass('bench.hand_hibp') IS NOT NULL")? {
        return Ok(());
    }
    screen::note("a table with the ranges of hibp alone, as JSON");
    session.run(
        "CREATE TABLE bench.hand_hibp (prefix text PRIMARY KEY, payload jsonb NOT NULL);
         INSERT INTO bench.hand_hibp SELECT cache_key, enrich_get('hibp', cache_key)::text::jsonb
         FROM enrichment_cache WHERE service = 'hibp'",
    )?;
    session.run("VACUUM ANALYZE bench.hand_hibp")
}

/// Bytes of a range: ours are copied into a table like the cache, as the cache holds other services too.
fn disk(session: &mut Session) -> Result<Table> {
    session.run("DROP TABLE IF EXISTS bench.hibp_alone")?;
    super::size::like_the_cache(session, "bench.hibp_alone", "service = 'hibp'")?;
    let mut table = Table::new(
        "On disk, with all indexes:",
        &["", "ranges", "table and TOAST", "indexes", "bytes a range", "× hand-made"],
    );
    let mut measured = Vec::new();
    for (name, relation) in [("the cache", "bench.hibp_alone"), ("hand-made table", "bench.hand_hibp")] {
        let row = session.rows(&format!(
            "SELECT (SELECT count(*) FROM {relation}), pg_table_size('{relation}'), pg_indexes_size('{relation}')"
        ))?;
        let [rows, heap, indexes] = [0, 1, 2].map(|at| row[0].get::<_, i64>(at) as f64);
        measured.push((name, rows, heap, indexes));
    }
    let (_, rows, heap, indexes) = measured[1];
    let by_hand = (heap + indexes) / rows;
    for (name, rows, heap, indexes) in measured {
        let each = (heap + indexes) / rows;
        table.row(&[name, &grouped(rows), &bytes(heap), &bytes(indexes), &grouped(each), &ratio(each / by_hand)]);
    }
    session.run("DROP TABLE bench.hibp_alone")?;
    Ok(table)
}
