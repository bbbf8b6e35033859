//! One look-up a transaction, by pgbench with prepared statements.

use crate::bed::{Bed, MAIN};
use crate::data::{keys, Sizes};
use crate::measure::processor::OneProcessor;
use crate::measure::rounds::{in_rounds, Measured, Variant};
use crate::measure::session::Session;
use crate::measure::{pgbench, plan};
use crate::report::findings::{Findings, Target};
use crate::report::table::Table;
use crate::Result;

/// `{key}` is an expression that gives a random address.
pub const GET_TEXT: &str = "SELECT enrich_get('dshield', {key});";
const GET_INET: &str = "SELECT enrich_get('dshield', '0.0.0.0'::inet + :a);";
const RAW: &str =
    "SELECT payload FROM enrichment_cache WHERE service = 'dshield' AND cache_key = {key} AND expires_at > now();";

const SELECT_ONE: &str = "`SELECT 1`";
const NOTHING: &str = "an empty function: making the key, `SELECT host(...)`";
const GET_TEXT_NAME: &str = "`SELECT enrich_get(service, text)`";
const GET_INET_NAME: &str = "`SELECT enrich_get(service, inet)`";
const RAW_NAME: &str = "`SELECT payload FROM enrichment_cache WHERE ...`";

/// Length of one run: short, so that the turns follow each other closely.
pub fn seconds(bed: &Bed) -> u32 {
    if bed.settings.scale >= 0.1 {
        2
    } else {
        1
    }
}

/// Runs are short, hence more of them.
pub fn rounds(bed: &Bed) -> usize {
    bed.settings.rounds * 3
}

/// What pgbench runs for a statement.
pub fn script(statement: &str, sizes: &Sizes) -> String {
    let statement = statement.replace("{key}", keys::SQL_ADDRESS);
    let address = keys::PGBENCH_ADDRESS.replace(":addresses", &sizes.addresses.to_string());
    format!("{address}{statement}\n")
}

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let sizes = Sizes::of(&bed.settings);
    let mut session = bed.session(MAIN)?;
    check(&mut session)?;
    let mut findings = Findings::default();
    findings.say(
        "pgbench with prepared statements over a Unix socket, one statement a transaction, a random key each time. pgbench draws numbers \
         only, so the key is made in the statement (`host('0.0.0.0'::inet + :a)`), the same in the raw SELECT and in enrich_get; \
         the second line shows what that alone takes. The raw SELECT is `SELECT payload FROM enrichment_cache WHERE service = 'dshield' AND \
         cache_key = ... AND expires_at > now()`; all send the payload to the client. A client that has one statement under way and its server process take turns. Where the kernel puts \
         them on two processors, each turn waits until a halted one has woken up, in a virtual machine longer than the statement takes (see \
         `SELECT 1`): so one client is measured in both ways: on one processor with its server process, and as the kernel places them.",
    );
    let select = format!("SELECT {};", keys::SQL_ADDRESS);
    for place in [
        Place { clients: 1, together: true },
        Place { clients: 1, together: false },
        Place { clients: 2, together: false },
    ] {
        let measured = with(bed, &mut session, &sizes, &select, place)?;
        let what = place.told();
        findings.table(Table::of(
            &format!("{what}, {} rounds of {} s:", rounds(bed), seconds(bed)),
            "transactions a second",
            &measured,
            &[("× raw SELECT", RAW_NAME)],
        ));
        findings.target(Target::at_least(
            &format!("over the wire, {what}: SELECT enrich_get, × transactions of the raw SELECT"),
            1.1,
            measured.ratio(GET_TEXT_NAME, RAW_NAME),
        ));
    }
    Ok(findings)
}

/// How many clients, and whether they share a processor with their server processes.
#[derive(Clone, Copy)]
struct Place {
    clients: u32,
    together: bool,
}

impl Place {
    fn told(self) -> String {
        match self {
            Place { clients: 1, together: true } => "one client, on the processor of its server process".to_string(),
            Place { clients: 1, together: false } => "one client, wherever the kernel lets both run".to_string(),
            Place { clients, .. } => format!("{clients} clients"),
        }
    }
}

/// The key the statements make is one of the cache, and the raw SELECT uses an index.
fn check(session: &mut Session) -> Result<()> {
    let number = 32u64 << 24;
    let key = keys::SQL_ADDRESS.replace(":a", &number.to_string());
    let hit: bool = session.one(&format!("SELECT enrich_get('dshield', {key}) IS NOT NULL"))?;
    if !hit {
        return Err("the key that pgbench would make is not in the cache".into());
    }
    let raw = RAW.replace("{key}", &key);
    plan::must(session, "", raw.trim_end_matches(';'), "an index scan", |plan| {
        plan.probes(&["enrichment_cache"], "cache_key")
    })
}

fn with(bed: &Bed, session: &mut Session, sizes: &Sizes, select: &str, place: Place) -> Result<Measured> {
    let statements = [
        (SELECT_ONE, "SELECT 1;"),
        (NOTHING, select),
        (GET_TEXT_NAME, GET_TEXT),
        (GET_INET_NAME, GET_INET),
        (RAW_NAME, RAW),
    ];
    let variants = statements.map(|(name, statement)| {
        let script = script(statement, sizes);
        Variant::new(name, move |_: &mut Session| pgbench::run(bed, MAIN, &script, place.clients, seconds(bed), ""))
    });
    let _together = place.together.then(|| OneProcessor::of(bed)).transpose()?;
    in_rounds(rounds(bed), &place.told(), session, variants.into())
}
