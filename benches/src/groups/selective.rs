//! One session, and fifty, joined with a typed view: an index must be used.

use super::joins::hand_made;
use crate::bed::{Bed, MAIN};
use crate::data::dice::Dice;
use crate::data::user_tables::session_id;
use crate::data::Sizes;
use crate::measure::plan::Plan;
use crate::measure::rounds::{in_turns, Variant};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::table::Table;
use crate::Result;
use std::time::Instant;

const CALLS: u64 = 200;
const VIEW: &str = "view";
const HAND_MADE: &str = "hand-made table";

const OF_VIEW: &str = "SELECT s.session_id, v.asn, v.country, v.attacks
    FROM sessions s JOIN enrichment_dshield v ON v.cache_key = s.source_ip WHERE s.session_id = ";
const OF_HAND_MADE: &str =
    "SELECT s.session_id, (h.payload -> 'ip' ->> 'as')::bigint, h.payload -> 'ip' ->> 'ascountry',
    (h.payload -> 'ip' ->> 'attacks')::bigint
    FROM sessions s JOIN bench.hand_dshield h ON h.cache_key = s.source_ip WHERE s.session_id = ";

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let sizes = Sizes::of(&bed.settings);
    let mut session = bed.session(MAIN)?;
    hand_made(&mut session, "dshield")?;
    let mut findings = Findings::default();
    findings.say(
        "A prepared statement that joins sessions given by their ids with `enrichment_dshield` and takes three columns, other ids at each call; \
         against the same with the hand-made table of the section before. Times are those of whole statements, seen by the client.",
    );
    for count in [1u64, 50] {
        let what = if count == 1 { "one session".to_string() } else { format!("{count} sessions") };
        let plan =
            Plan::of(&mut session, &format!("{OF_VIEW}ANY ('{{{}}}'::text[])", ids(0, count, &sizes).join(",")))?;
        findings.target(Target::holds(
            &format!("{what} through a typed view: an index of the cache is used"),
            plan.probes(&["enrichment_cache"], "cache_key"),
        ));
        let variants = [(VIEW, OF_VIEW), (HAND_MADE, OF_HAND_MADE)].map(|(name, sql)| {
            let (sizes, mut prepared) = (&sizes, None);
            Variant::new(name, move |session: &mut Session| {
                let statement = match &prepared {
                    Some(statement) => statement,
                    None => prepared.insert(session.prepare(&format!("{sql}ANY ($1::text[])"))?),
                };
                let calls: Vec<Vec<String>> = (0..CALLS).map(|call| ids(call, count, sizes)).collect();
                let began = Instant::now();
                for ids in &calls {
                    let found = session.execute(statement, &[ids])?.len();
                    if found != ids.len() {
                        return Err(format!("{found} of {} sessions were found", ids.len()).into());
                    }
                }
                Ok(began.elapsed().as_nanos() as f64 / 1_000.0 / CALLS as f64)
            })
        });
        let measured = in_turns(bed, &what, &mut session, variants.into())?;
        findings.table(Table::of(
            &format!(
                "{what}; the view's plan: {}, cache by {}:",
                plan.join(),
                plan.access(&["enrichment_cache"]).join(", ")
            ),
            "µs a statement",
            &measured,
            &[("× hand-made table", HAND_MADE)],
        ));
    }
    Ok(findings)
}

/// Ids of sessions, drawn at random, each once.
fn ids(call: u64, count: u64, sizes: &Sizes) -> Vec<String> {
    let mut dice = Dice::new("selective", call);
    let start = dice.below(sizes.sessions);
    // neighbours in number have nothing else in common
    (0..count).map(|n| session_id((start + n * 997) % sizes.sessions)).collect()
}
