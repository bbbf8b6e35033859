//! Requests through the durable queue until all answers are in the table, against a bare client that uses the same HTTP
//! library, pool and providers and throws the answers away.

use super::fetch_bare as bare;
use crate::bed::{Bed, FETCH};
use crate::measure::rounds::{in_turns, Measured, Variant};
use crate::measure::samples::{Ratio, Samples};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::{bytes, grouped};
use crate::report::table::Table;
use crate::{screen, Result};
use std::time::{Duration, Instant};
use testbed::{misfortune, Sandbox};

const OURS: &str = "`enrich_request_many`, until all answers are in the table";
const BARE: &str = "bare client, answers thrown away";
const IDEAL: &str = "calls at once / latency";
/// Between two looks at whether all is done.
const LOOK: Duration = Duration::from_millis(20);
const WITHIN: Duration = Duration::from_secs(300);

/// Delay of each answer in milliseconds, calls at once, requests at scale 1. The last is the most that the setting allows.
const CASES: [(u64, u32, u64); 4] = [(0, 32, 20_000), (50, 64, 10_000), (50, 200, 30_000), (50, 512, 50_000)];
/// Up to so many calls a second the rate is to follow from the calls at once.
const FOLLOWS: f64 = 4_000.0;
/// Requests of which the worker's memory is measured, and the part after which it should have stopped growing.
const MANY: u64 = 500_000;
const PARTS: u64 = 5;
/// Keys asked for in one statement.
const PORTION: u64 = 1_000;
const SINGLE: usize = 200;
/// Requests of which one call in twenty fails.
const MISFORTUNES: u64 = 100_000;
const IDLE: Duration = Duration::from_secs(60);

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let sandbox = Sandbox::try_start(&["--limits", "none"])?;
    let mut session = bed.create_database(FETCH)?;
    point(&mut session, &sandbox)?;
    let mut findings = Findings::default();
    findings.say(
        "Requests for answers of dshield from the sandbox providers, which run on the same two processors. The worker's way is the whole one: the request \
         is stored, claimed with its spend, called, judged, stored with its statistics, and taken off the queue, each step committed (fsync is on). Requests are made 1,000 a statement. The bare \
         client hands ready requests to the same pool of threads and drops what comes back.",
    );
    for (delay, at_once, requests) in CASES {
        let requests = bed.settings.rows(requests);
        case(bed, &mut session, &sandbox, &mut findings, (delay, at_once, requests))?;
    }
    sandbox.set_latency("dshield", 0);
    configure(&mut session, 32)?;
    memory(bed, &mut session, &mut findings)?;
    single(&mut session, &sandbox, &mut findings)?;
    session.run("ALTER SYSTEM RESET ALL")?;
    session.run("SELECT pg_reload_conf()")?;
    Ok(findings)
}

/// What fails, and nothing to do.
pub fn trouble(bed: &mut Bed) -> Result<Findings> {
    let sandbox = Sandbox::try_start(&["--limits", "none"])?;
    let mut session = match bed.session(FETCH) {
        Ok(session) => session,
        Err(_) => bed.create_database(FETCH)?,
    };
    session.run("TRUNCATE enrichment_cache, enrichment_queue")?;
    point(&mut session, &sandbox)?;
    configure(&mut session, 32)?;
    let mut findings = Findings::default();
    misfortunes(bed, &sandbox, &mut findings)?;
    idle(bed, &mut findings)?;
    session.run("ALTER SYSTEM RESET ALL")?;
    session.run("SELECT pg_reload_conf()")?;
    Ok(findings)
}

fn point(session: &mut Session, sandbox: &Sandbox) -> Result<()> {
    // a thread is kept for each enabled service, so these calls would be fewer at once than is said
    session.run("UPDATE enrichment_service SET enabled = false WHERE name <> 'dshield'")?;
    session.run(&format!(
        "UPDATE enrichment_service SET url = '{}/dshield/api/ip/{{key}}?json', limits = '[]', max_in_flight = 1000 WHERE name = 'dshield'",
        sandbox.base_url()
    ))?;
    for setting in ["enabled = on", "allow_private_hosts = on"] {
        session.run(&format!("ALTER SYSTEM SET enrichment_cache.{setting}"))?;
    }
    session.run("SELECT pg_reload_conf()")
}

fn configure(session: &mut Session, at_once: u32) -> Result<()> {
    session.run(&format!("ALTER SYSTEM SET enrichment_cache.concurrency = {at_once}"))?;
    session.run("SELECT pg_reload_conf()")
}

fn case(
    bed: &Bed,
    session: &mut Session,
    sandbox: &Sandbox,
    findings: &mut Findings,
    (delay, at_once, requests): (u64, u32, u64),
) -> Result<()> {
    sandbox.set_latency("dshield", delay);
    configure(session, at_once)?;
    let mut client = bare::Client::start(sandbox.base_url(), at_once as usize)?;
    let ideal = f64::from(at_once) * 1_000.0 / delay as f64;
    let what = match delay {
        0 => format!("no delay, {at_once} calls at once, {} requests", grouped(requests as f64)),
        _ => format!("answers after {delay} ms, {at_once} calls at once, {} requests", grouped(requests as f64)),
    };
    let variants = vec![
        Variant::new(OURS, |session: &mut Session| ours(session, requests)),
        Variant::new(BARE, |_: &mut Session| client.run(requests)),
        Variant::new(IDEAL, |_: &mut Session| Ok(ideal)).available(delay > 0),
    ];
    let measured: Measured = in_turns(bed, &what, session, variants)?;
    let bases: &[(&str, &str)] =
        if delay > 0 { &[("× bare", BARE), ("× ideal", IDEAL)] } else { &[("× bare", BARE)] };
    findings.table(Table::of(&format!("{what}:"), "requests a second", &measured, bases));
    if delay == 0 {
        let claim = format!("fetches, {what}: × rate of a bare client");
        findings.target(Target::at_least(&claim, 0.6, measured.ratio(OURS, BARE)));
    } else if ideal <= FOLLOWS {
        let claim = format!("fetches, {what}: × calls at once / latency");
        findings.target(Target::at_least(&claim, 0.9, measured.ratio(OURS, IDEAL)));
    }
    Ok(())
}

/// Empties the cache, asks for so many keys, and waits until all answers are there; the rate.
fn ours(session: &mut Session, requests: u64) -> Result<f64> {
    session.run("TRUNCATE enrichment_cache, enrichment_queue")?;
    let began = Instant::now();
    ask(session, 0, requests)?;
    wait(session)?;
    let rate = requests as f64 / began.elapsed().as_secs_f64();
    let answers: i64 =
        session.one("SELECT count(*) FROM enrichment_cache WHERE response_status IN ('success', 'not_found')")?;
    match answers as u64 == requests {
        true => Ok(rate),
        false => Err(format!("{answers} answers to {requests} requests").into()),
    }
}

/// In portions, each committed: calls begin with the first.
fn ask(session: &mut Session, from: u64, requests: u64) -> Result<()> {
    let end = from + requests;
    (from..end).step_by(PORTION as usize).try_for_each(|from| {
        session.run(&format!(
            "SELECT enrich_request_many('dshield', array_agg(host('8.8.0.0'::inet + n))) FROM generate_series({from}, {}) n",
            end.min(from + PORTION) - 1
        ))
    })
}

fn wait(session: &mut Session) -> Result<()> {
    let began = Instant::now();
    // the number in shared memory costs those who work nothing, the table has the last word
    while session.one::<i64>("SELECT requests FROM enrich_queue_length()")? > 0
        || session.one::<bool>("SELECT EXISTS (SELECT FROM enrichment_queue)")?
    {
        if began.elapsed() > WITHIN {
            return Err("the queue does not empty".into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// What the worker's process holds of its own, in bytes.
fn held(session: &mut Session) -> Result<u64> {
    let pid: i32 = session.one(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'enrichment_cache worker' AND datname = current_database()",
    )?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon in /proc")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

fn memory(bed: &Bed, session: &mut Session, findings: &mut Findings) -> Result<()> {
    let part = bed.settings.rows(MANY) / PARTS;
    let mut sizes = Vec::new();
    for n in 0..PARTS {
        session.run("TRUNCATE enrichment_cache, enrichment_queue")?;
        ask(session, n * part, part)?;
        wait(session)?;
        sizes.push(held(session)?);
        screen::note(&format!("memory after {} fetches: {}", (n + 1) * part, bytes(sizes[n as usize] as f64)));
    }
    let (first, last) = (sizes[0] as f64, sizes[sizes.len() - 1] as f64);
    findings.say(format!(
        "The worker's own memory (RssAnon) after {} fetches: {}; after {}: {}.",
        grouped(part as f64),
        bytes(first),
        grouped((part * PARTS) as f64),
        bytes(last)
    ));
    let claim = format!("worker's memory after {} fetches, × after a fifth of them", grouped((part * PARTS) as f64));
    findings.target(Target::at_most(&claim, 1.05, Some(Ratio::once(last / first))));
    Ok(())
}

/// From the commit of one request, as the session learns of it, to the arrival of the call at the provider.
fn single(session: &mut Session, sandbox: &Sandbox, findings: &mut Findings) -> Result<()> {
    session.run("TRUNCATE enrichment_cache, enrichment_queue")?;
    sandbox.reset();
    let mut committed = Vec::with_capacity(SINGLE);
    for n in 0..SINGLE {
        session.run(&format!("SELECT enrich_request('dshield', host('8.9.0.0'::inet + {n}))"))?;
        committed.push(now());
        wait(session)?;
    }
    let arrived = sandbox.calls("dshield");
    if arrived.len() != SINGLE {
        return Err(format!("{} calls for {SINGLE} requests", arrived.len()).into());
    }
    // the call may arrive before the session has heard of its commit
    let delays = committed.iter().zip(&arrived).map(|(committed, (at, _))| (at - committed).max(0) as f64 / 1_000.0);
    let samples = Samples(delays.collect());
    let ratio = Ratio { value: samples.median(), least: samples.least(), most: samples.most() };
    let claim = format!("median from the commit of a request to the arrival of its call ({SINGLE} requests)");
    findings.target(Target::at_most(&claim, 5.0, Some(ratio)).in_unit("ms"));
    Ok(())
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

/// The same as the test that loses none of a hundred thousand requests, timed.
fn misfortunes(bed: &Bed, sandbox: &Sandbox, findings: &mut Findings) -> Result<()> {
    let requests = bed.settings.rows(MISFORTUNES) as u32;
    let survived = misfortune::survive(&mut bed.client(FETCH)?, sandbox, requests)?;
    findings.say(format!(
        "Of {} requests none was lost while {} of {} calls failed at random, in five ways.",
        grouped(f64::from(requests)),
        grouped(survived.failed as f64),
        grouped(survived.calls as f64)
    ));
    Ok(())
}

/// Transactions of the database while nothing is to be done and nobody looks.
fn idle(bed: &Bed, findings: &mut Findings) -> Result<()> {
    let mut apart = bed.session("postgres")?;
    let sql = format!("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{FETCH}'");
    // what it has to finish, and the report of its own statements, come first
    std::thread::sleep(Duration::from_secs(5));
    let before: i64 = apart.one(&sql)?;
    std::thread::sleep(IDLE);
    let after: i64 = apart.one(&sql)?;
    findings.target(
        Target::at_most("transactions of an idle worker in 60 s", 0.0, Some(Ratio::once((after - before) as f64)))
            .in_unit("transactions"),
    );
    Ok(())
}
