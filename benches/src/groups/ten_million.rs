//! A single look-up among ten million rows, seen by the client.

use crate::bed::{Bed, TEN_MILLION};
use crate::data::copy::Rows;
use crate::data::{answers, keys, main_load};
use crate::measure::latency::{Latencies, Reader, GET};
use crate::measure::rounds::{in_turns, Variant};
use crate::measure::samples::{Ratio, Samples};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::{bytes, grouped, number};
use crate::report::table::Table;
use crate::{screen, Result};
use std::time::Instant;

const LOOK_UPS: u64 = 100_000;
const OURS: &str = "`SELECT enrich_get(service, key)`";
const RAW: &str = "`SELECT payload FROM enrichment_cache WHERE ...`";
const RAW_SQL: &str =
    "SELECT payload FROM enrichment_cache WHERE service = 'dshield' AND cache_key = $1::text AND expires_at > now()";

struct Context {
    ours: Reader,
    raw: Reader,
    /// The rounds' latencies, the warm-up's first.
    latencies: [Vec<Latencies>; 2],
}

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let rows = bed.settings.rows(10_000_000);
    let mut session = bed.create_database(TEN_MILLION)?;
    load(&mut session, rows)?;
    let size: i64 = session.one("SELECT pg_total_relation_size('enrichment_cache')")?;
    let mut context = Context {
        ours: Reader::new(bed.session(TEN_MILLION)?, GET, rows, 1)?,
        raw: Reader::new(bed.session(TEN_MILLION)?, RAW_SQL, rows, 2)?,
        latencies: Default::default(),
    };
    let variants = vec![
        Variant::new(OURS, |context: &mut Context| {
            let latencies = context.ours.times(LOOK_UPS)?;
            context.latencies[0].push(latencies.clone());
            Ok(latencies.p99())
        }),
        Variant::new(RAW, |context: &mut Context| {
            let latencies = context.raw.times(LOOK_UPS)?;
            context.latencies[1].push(latencies.clone());
            Ok(latencies.p99())
        }),
    ];
    let measured = in_turns(bed, "ten million", &mut context, variants)?;

    let mut findings = Findings::default();
    findings.say(format!(
        "{} answers of dshield ({} with its indexes; shared_buffers holds a part of them), random keys, one client over a Unix socket, prepared \
         statements, {} look-ups a round. The GIN index on payloads, which a look-up does not touch, was left out to save time.",
        grouped(rows as f64),
        bytes(size as f64),
        grouped(LOOK_UPS as f64)
    ));
    let mut table =
        Table::new("", &["µs a look-up, medians of the rounds", "p50", "p99", "p99, least to most", "p99.9"]);
    for (name, latencies) in [OURS, RAW].iter().zip(&context.latencies) {
        let of = |figure: fn(&Latencies) -> f64| Samples(latencies.iter().skip(1).map(figure).collect());
        let (p50, p99, p999) = (of(Latencies::p50), of(Latencies::p99), of(Latencies::p999));
        let spread = format!("{} to {}", number(p99.least()), number(p99.most()));
        table.row(&[name, &number(p50.median()), &number(p99.median()), &spread, &number(p999.median())]);
    }
    findings.table(table);
    let p99 = measured.get(OURS).map(|samples| Ratio {
        value: samples.median() / 1_000.0,
        least: samples.least() / 1_000.0,
        most: samples.most() / 1_000.0,
    });
    findings.target(
        Target::at_most(&format!("p99 of a single look-up among {} rows", grouped(rows as f64)), 1.0, p99)
            .in_unit("ms"),
    );
    Ok(findings)
}

/// All but the GIN index.
fn load(session: &mut Session, count: u64) -> Result<()> {
    let began = Instant::now();
    let indexes = main_load::drop_indexes(session)?;
    let piece = count.div_ceil(20);
    for from in (0..count).step_by(piece as usize) {
        let mut rows = Rows::open(session, "enrichment_cache", "service, cache_key, payload, fetched_at, expires_at")?;
        let to = (from + piece).min(count);
        for n in from..to {
            let address = keys::address(n);
            main_load::row(&mut rows, "dshield", &address, &answers::dshield(n, &address, 0), n)?;
        }
        rows.finish()?;
        screen::note(&format!("{to} of {count} rows, {:.0} s", began.elapsed().as_secs_f64()));
    }
    for index in indexes.iter().filter(|index| !index.contains("USING gin")) {
        session.run(index)?;
    }
    session.run("VACUUM ANALYZE enrichment_cache")?;
    session.run("CHECKPOINT")?;
    screen::note(&format!("indexes and statistics, {:.0} s", began.elapsed().as_secs_f64()));
    Ok(())
}
