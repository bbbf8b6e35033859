//! enrich_cleanup against a batched DELETE, each with a reader beside it.

use crate::bed::{Bed, STORE};
use crate::data::store_load::{base, clear, staged};
use crate::measure::latency::{Latencies, Reader, GET};
use crate::measure::rounds::{in_turns, Variant};
use crate::measure::samples::{percentile, Ratio, Samples};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::{grouped, number, ratio};
use crate::report::table::Table;
use crate::Result;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const OURS: &str = "`enrich_cleanup()`";
const PLAIN: &str = "DELETE of 1,000 rows by ctid, each committed";
const PLAIN_ONE: &str = "the same in one transaction";
const IDLE: &str = "nothing else";

/// Look-ups before the reader's times count.
const WARM_UP: u64 = 500;
/// How long the reader runs alone.
const IDLE_FOR: Duration = Duration::from_secs(2);

const DELETE: &str = "DELETE FROM bench.plain WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM bench.plain WHERE expires_at < now() - interval '30 days'
    ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED))";

struct Context {
    session: Session,
    reader: Reader,
    /// Of the reader, by what ran beside it, one for each round (the warm-up too).
    latencies: HashMap<&'static str, Vec<Latencies>>,
}

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let entries = staged(&bed.settings);
    let reader = Reader::new(bed.session(STORE)?, GET, base(&bed.settings), 1)?;
    let mut context = Context { session: bed.session(STORE)?, reader, latencies: HashMap::new() };
    let variants = vec![
        Variant::new(IDLE, |context: &mut Context| {
            let done = AtomicBool::new(false);
            context.beside(IDLE, &done, |_| {
                std::thread::sleep(IDLE_FOR);
                Ok(())
            })?;
            Ok(IDLE_FOR.as_secs_f64())
        }),
        cleaning(OURS, "enrichment_cache", entries, |session| {
            let removed: i64 = session.one("SELECT enrich_cleanup()")?;
            Ok(removed as u64)
        }),
        cleaning(PLAIN, "bench.plain", entries, delete_in_batches),
        cleaning(PLAIN_ONE, "bench.plain", entries, |session| {
            session.run("BEGIN")?;
            let removed = delete_in_batches(session)?;
            session.run("COMMIT")?;
            Ok(removed)
        }),
    ];
    let mut measured = in_turns(bed, "cleanup", &mut context, variants)?;
    measured.0.retain(|(name, _)| name != IDLE);

    let mut findings = Findings::default();
    findings.say(format!(
        "{} expired entries among {} fresh ones are removed, from the cache by `enrich_cleanup()`, from a copy with the same indexes by \
         `DELETE ... WHERE ctid = ANY (ARRAY(SELECT ctid ... WHERE expires_at < ... ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED))` until nothing is \
         left. Meanwhile another session looks up single fresh keys back to back (prepared `SELECT enrich_get('dshield', $1)`).",
        grouped(entries as f64),
        grouped(base(&bed.settings) as f64)
    ));
    findings.table(Table::of("", "entries a second", &measured, &[("× batched DELETE", PLAIN)]));
    findings.table(context.readers());
    findings.target(Target::at_least(
        "enrich_cleanup, × rate of a plain batched DELETE",
        0.9,
        measured.ratio(OURS, PLAIN),
    ));
    findings.target(Target::at_most(
        "p99 of a reader during enrich_cleanup, × its idle value",
        2.0,
        Some(context.slowed(OURS, IDLE)),
    ));
    // a reader alone waits for halted processors to wake up; beside other work it does not
    findings.target(Target::at_most(
        "p99 of a reader during enrich_cleanup, × that beside a plain batched DELETE",
        2.0,
        Some(context.slowed(OURS, PLAIN)),
    ));
    Ok(findings)
}

/// Until nothing is left.
fn delete_in_batches(session: &mut Session) -> Result<u64> {
    let mut removed = 0;
    loop {
        let batch: i64 = session.one(&format!("WITH gone AS ({DELETE} RETURNING 1) SELECT count(*) FROM gone"))?;
        if batch == 0 {
            return Ok(removed);
        }
        removed += batch as u64;
    }
}

/// Puts expired entries into the table, then takes the time of removing them.
fn cleaning(
    name: &'static str,
    table: &'static str,
    entries: u64,
    remove: impl Fn(&mut Session) -> Result<u64> + Send + Sync + 'static,
) -> Variant<'static, Context> {
    Variant::new(name, move |context: &mut Context| {
        clear(&mut context.session, table)?;
        context.session.run(&format!(
            "INSERT INTO {table} (service, cache_key, payload, fetched_at, expires_at)
             SELECT 'dshield', k, p, now() - interval '400 days', now() - interval '390 days' + n * interval '1 s' FROM bench.stage"
        ))?;
        context.session.run(&format!("VACUUM ANALYZE {table}"))?;
        context.session.run("CHECKPOINT")?;
        let done = AtomicBool::new(false);
        let began = Instant::now();
        let mut took = Duration::ZERO;
        let mut removed = 0;
        context.beside(name, &done, |session| {
            removed = remove(session)?;
            took = began.elapsed();
            Ok(())
        })?;
        if removed != entries {
            return Err(format!("{removed} of {entries} expired entries were removed").into());
        }
        Ok(entries as f64 / took.as_secs_f64())
    })
}

impl Context {
    /// Does something while the reader reads, and keeps the reader's times.
    fn beside(
        &mut self,
        name: &'static str,
        done: &AtomicBool,
        work: impl FnOnce(&mut Session) -> Result<()>,
    ) -> Result<()> {
        let (session, reader) = (&mut self.session, &mut self.reader);
        // what VACUUM and the load before have made the reader's session forget is not what is measured
        reader.times(WARM_UP)?;
        let (worked, read) = std::thread::scope(|scope| {
            let reading = scope.spawn(|| reader.until(done));
            let worked = work(session);
            done.store(true, Ordering::Release);
            (worked, reading.join())
        });
        worked?;
        let latencies = read.map_err(|_| "the reader panicked")??;
        self.latencies.entry(name).or_default().push(latencies);
        Ok(())
    }

    fn of(&self, name: &str, figure: fn(&Latencies) -> f64) -> Samples {
        let rounds = self.latencies.get(name).map(Vec::as_slice).unwrap_or_default();
        Samples(rounds.iter().skip(1).map(figure).collect())
    }

    fn p99(&self, name: &str) -> Samples {
        self.of(name, Latencies::p99)
    }

    /// Over all look-ups of the rounds that count, as one round may be short.
    fn pooled(&self, name: &str, share: f64) -> f64 {
        let rounds = self.latencies.get(name).map(Vec::as_slice).unwrap_or_default();
        let all: Vec<f64> = rounds.iter().skip(1).flat_map(|round| round.0.iter().copied()).collect();
        percentile(&all, share)
    }

    /// p99 beside something, in relation to that beside something else.
    fn slowed(&self, name: &str, than: &str) -> Ratio {
        Ratio { value: self.pooled(name, 0.99) / self.pooled(than, 0.99), ..self.p99(name).over(&self.p99(than)) }
    }

    fn readers(&self) -> Table {
        let mut table = Table::new(
            "The reader, µs a look-up over all rounds, by what ran beside it:",
            &["", "p50", "p99", "p99 of a round, least to most", "p99 × idle", "look-ups a round"],
        );
        for name in [IDLE, OURS, PLAIN, PLAIN_ONE] {
            let p99 = self.p99(name);
            table.row(&[
                name,
                &number(self.pooled(name, 0.5)),
                &number(self.pooled(name, 0.99)),
                &format!("{} to {}", number(p99.least()), number(p99.most())),
                &ratio(self.slowed(name, IDLE).value),
                &grouped(self.of(name, |latencies| latencies.0.len() as f64).median()),
            ]);
        }
        table
    }
}
