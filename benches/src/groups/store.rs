//! enrich_store_many against a plain INSERT ... ON CONFLICT into a table with the same columns, checks and indexes.

use crate::bed::{Bed, STORE};
use crate::data::store_load::{clear, staged};
use crate::measure::rounds::{in_turns, Variant};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::grouped;
use crate::report::table::Table;
use crate::Result;
use std::time::Instant;

const SMALL_CALL: u64 = 1_000;
const OURS: &str = "enrichment_cache";
const PLAIN: &str = "bench.plain";

/// Names of the variants: what is stored by whom.
const OURS_FRESH: &str = "new keys: `enrich_store_many`";
const PLAIN_FRESH: &str = "new keys: plain INSERT";
const OURS_AGAIN: &str = "known keys, new payloads: `enrich_store_many`";
const PLAIN_AGAIN: &str = "known keys, new payloads: plain upsert";
const PLAIN_HISTORY: &str = "known keys, new payloads: plain upsert that keeps the earlier payload too";

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let entries = staged(&bed.settings);
    let mut session = bed.session(STORE)?;
    session.run(
        "DROP TABLE IF EXISTS bench.plain_history;
         CREATE TABLE bench.plain_history (LIKE enrichment_history INCLUDING ALL)",
    )?;
    let mut findings = Findings::default();
    findings.say(format!(
        "{} answers of dshield, from arrays of keys and payloads, into a cache that holds three times as many; against `INSERT INTO copy SELECT ... \
         FROM unnest(keys, payloads) ON CONFLICT (service, cache_key) DO UPDATE`, where `copy` is `CREATE TABLE copy (LIKE enrichment_cache INCLUDING \
         ALL)` with the same rows. Each call is a transaction; a checkpoint is made before each measurement. `enrich_store_many` normalises keys, checks \
         sizes, and keeps an earlier payload in `enrichment_history` when a known key gets a new one; the last line does that by hand too.",
        grouped(entries as f64)
    ));
    for size in [SMALL_CALL.min(entries), entries] {
        let ours = |payload: &'static str| move |from: u64, to: u64| store_many(payload, from, to);
        let plain = |payload: &'static str| move |from: u64, to: u64| upsert(payload, from, to);
        let variants = vec![
            variant(OURS_FRESH, Some(OURS), entries, size, ours("p")),
            variant(PLAIN_FRESH, Some(PLAIN), entries, size, plain("p")),
            variant(OURS_AGAIN, None, entries, size, ours("p2")),
            variant(PLAIN_AGAIN, None, entries, size, plain("p2")),
            variant(PLAIN_HISTORY, None, entries, size, |from, to| {
                format!("{}; {}", keep("p", from, to), upsert("p", from, to))
            }),
        ];
        let what = if size == entries { "one call".to_string() } else { format!("calls of {}", grouped(size as f64)) };
        let measured = in_turns(bed, &what, &mut session, variants)?;
        findings.table(Table::of(
            &format!("{what}:"),
            "entries a second",
            &measured,
            &[("× INSERT of new keys", PLAIN_FRESH), ("× upsert of known keys", PLAIN_AGAIN)],
        ));
        for (kind, ours, plain) in [("new keys", OURS_FRESH, PLAIN_FRESH), ("known keys", OURS_AGAIN, PLAIN_AGAIN)] {
            findings.target(Target::at_least(
                &format!("enrich_store_many, {kind}, {what}: × rate of a plain INSERT ... ON CONFLICT"),
                0.8,
                measured.ratio(ours, plain),
            ));
        }
        if size == entries {
            break;
        }
    }
    Ok(findings)
}

/// Stores all that waits, in calls of `size`; before that takes it out of the table `clean`, which is not timed.
fn variant<'a>(
    name: &str,
    clean: Option<&'static str>,
    entries: u64,
    size: u64,
    call: impl Fn(u64, u64) -> String + 'a,
) -> Variant<'a, Session> {
    Variant::new(name, move |session: &mut Session| {
        if let Some(table) = clean {
            clear(session, table)?;
        }
        session.run("CHECKPOINT")?;
        let began = Instant::now();
        for from in (0..entries).step_by(size as usize) {
            session.run(&call(from, (from + size).min(entries)))?;
        }
        Ok(entries as f64 / began.elapsed().as_secs_f64())
    })
}

fn arrays(payload: &str, from: u64, to: u64) -> String {
    format!("(SELECT array_agg(k) AS ks, array_agg({payload}) AS ps FROM bench.stage WHERE n >= {from} AND n < {to}) a")
}

fn store_many(payload: &str, from: u64, to: u64) -> String {
    format!("SELECT enrich_store_many('dshield', a.ks, a.ps) FROM {}", arrays(payload, from, to))
}

fn upsert(payload: &str, from: u64, to: u64) -> String {
    format!(
        "INSERT INTO {PLAIN} AS c (service, cache_key, payload, fetched_at, expires_at)
         SELECT 'dshield', u.k, u.p, now(), now() + interval '7 days' FROM {}, unnest(a.ks, a.ps) AS u (k, p)
         ON CONFLICT (service, cache_key) DO UPDATE SET payload = EXCLUDED.payload, response_status = EXCLUDED.response_status,
            fetched_at = EXCLUDED.fetched_at, expires_at = EXCLUDED.expires_at, version = c.version + 1",
        arrays(payload, from, to)
    )
}

/// The earlier payloads of what is about to be written.
fn keep(payload: &str, from: u64, to: u64) -> String {
    format!(
        "INSERT INTO bench.plain_history (service, cache_key, version, payload, fetched_at)
         SELECT c.service, c.cache_key, c.version, c.payload, c.fetched_at
         FROM {}, unnest(a.ks, a.ps) AS u (k, p) JOIN {PLAIN} c ON c.service = 'dshield' AND c.cache_key = u.k
         WHERE c.payload IS DISTINCT FROM u.p",
        arrays(payload, from, to)
    )
}
