//! enrich_get_many against what a client would send with the same array.

use crate::bed::{Bed, MAIN};
use crate::data::dice::Dice;
use crate::data::{keys, Sizes};
use crate::measure::rounds::{in_turns, Variant};
use crate::measure::session::Session;
use crate::report::findings::Findings;
use crate::report::numbers::grouped;
use crate::report::table::Table;
use crate::Result;
use std::time::Instant;

/// Keys asked for in one round, whatever the size of a call.
const KEYS_A_ROUND: u64 = 100_000;

const MANY: &str = "`enrich_get_many`";
const ANY: &str = "`WHERE cache_key = ANY ($1)`";
const UNNEST: &str = "join with `unnest($1)`";

const STATEMENTS: &[(&str, &str)] = &[
    (MANY, "SELECT count(payload) FROM enrich_get_many('dshield', $1::text[])"),
    (ANY, "SELECT count(payload) FROM enrichment_cache WHERE service = 'dshield' AND cache_key = ANY ($1::text[]) AND expires_at > now()"),
    (
        UNNEST,
        "SELECT count(c.payload) FROM unnest($1::text[]) AS u (k)
         JOIN enrichment_cache c ON c.service = 'dshield' AND c.cache_key = u.k AND c.expires_at > now()",
    ),
];

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let sizes = Sizes::of(&bed.settings);
    let mut session = bed.session(MAIN)?;
    let mut findings = Findings::default();
    findings.say(
        "One prepared statement with the keys as its parameter, `text[]`: random addresses, another set at each call; the payloads are counted, not sent.",
    );
    for size in [1_000u64, 10_000] {
        let size = size.min(sizes.addresses);
        let calls = (KEYS_A_ROUND / size).clamp(1, 50);
        let sets: Vec<Vec<String>> = (0..calls).map(|call| keys_of_call(call, size, sizes.addresses)).collect();
        let variants = STATEMENTS.iter().map(|(name, sql)| {
            let (sets, mut prepared) = (&sets, None);
            Variant::new(name, move |session: &mut Session| {
                let statement = match &prepared {
                    Some(statement) => statement,
                    None => prepared.insert(session.prepare(sql)?),
                };
                let began = Instant::now();
                for keys in sets {
                    let found: i64 = session.execute(statement, &[keys])?[0].get(0);
                    if found as usize != keys.len() {
                        return Err(format!("{found} of {} keys were found", keys.len()).into());
                    }
                }
                Ok(began.elapsed().as_nanos() as f64 / (calls * size) as f64)
            })
        });
        let variants = variants.collect();
        let what = format!("{} keys a call", grouped(size as f64));
        let measured = in_turns(bed, &what, &mut session, variants)?;
        findings.table(Table::of(&format!("{what}:"), "ns a key", &measured, &[("× ANY", ANY), ("× unnest", UNNEST)]));
    }
    Ok(findings)
}

/// Distinct addresses, drawn at random.
fn keys_of_call(call: u64, size: u64, addresses: u64) -> Vec<String> {
    let mut dice = Dice::new("many", call);
    let mut numbers: Vec<u64> = (0..addresses).collect();
    for at in 0..size {
        numbers.swap(at as usize, dice.between(at, addresses - 1) as usize);
    }
    numbers[..size as usize].iter().map(|n| keys::address(*n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_keys_of_a_call_are_distinct_and_other_ones_at_each_call() {
        let [one, two] = [1, 2].map(|call| keys_of_call(call, 1_000, 6_000));
        assert_eq!(one.iter().collect::<HashSet<_>>().len(), 1_000);
        assert_ne!(one, two);
        assert_eq!(keys_of_call(1, 50, 50).len(), 50, "all there are");
    }
}
