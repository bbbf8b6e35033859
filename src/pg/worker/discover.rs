//! From rows to keys: what triggers reported becomes indicators and requests; a periodic sweep finds what triggers
//! could not see.

use super::{steps::Steps, xact};
use crate::core::address;
use crate::core::error::Error;
use crate::core::key;
use crate::core::Micros;
use crate::pg::store::indicators::{self, Judged};
use crate::pg::store::sources::{self, Source};
use crate::pg::store::{queue, registry, user_tables};
use crate::pg::{backlog, convert, gucs};
use std::collections::BTreeMap;

const BATCH: i64 = 2000;
/// The priority of keys an interactive refresh asks for.
const URGENT: i32 = 1_000;

/// Turns a batch of arrivals into indicators and requests; true when there may be more.
pub fn fold_arrivals() -> Result<bool, Error> {
    xact::run(c"enrichment_cache: taking new keys", || {
        // a full queue takes no more; the arrivals wait where they are
        let room = backlog::room()?.min(BATCH);
        let arrivals = if room > 0 { indicators::take_arrivals(room)? } else { Vec::new() };
        if arrivals.is_empty() {
            return Ok(false);
        }
        let sources = sources::all()?.standing;
        let mut by_source: BTreeMap<&str, Vec<(&str, bool)>> = BTreeMap::new();
        for arrival in &arrivals {
            by_source.entry(&arrival.source).or_default().push((&arrival.raw_key, arrival.urgent));
        }
        for (name, keys) in by_source {
            if let Some(source) = sources.iter().find(|source| source.name == name) {
                fold(source, &keys)?;
            }
        }
        Ok(true)
    })
}

fn fold(source: &Source, keys: &[(&str, bool)]) -> Result<(), Error> {
    let mut judged = Vec::with_capacity(keys.len());
    let mut requests: BTreeMap<(String, i32), Vec<String>> = BTreeMap::new();
    for (raw, urgent) in keys {
        let verdict = judge(source, raw)?;
        if let Ok(takers) = &verdict {
            for (service, key) in takers {
                let priority = if *urgent { URGENT } else { 0 };
                requests.entry((service.clone(), priority)).or_default().push(key.clone());
            }
        }
        judged.push(match verdict {
            Ok(takers) => Judged {
                raw_key: raw.to_string(),
                cache_key: takers.into_iter().next().map(|(_, key)| key),
                problem: None,
            },
            Err(problem) => Judged { raw_key: raw.to_string(), cache_key: None, problem: Some(problem) },
        });
    }
    indicators::fold(&source.name, &judged)?;
    for ((service, priority), mut keys) in requests {
        keys.sort_unstable();
        keys.dedup();
        if registry::service(&service)?.enabled {
            queue::request(&service, keys, priority, priority == URGENT)?;
        }
    }
    Ok(())
}

/// The services of the source that can be asked for this key with its form for each, or why none can.
fn judge(source: &Source, raw: &str) -> Result<Result<Vec<(String, String)>, String>, Error> {
    let mut takers = Vec::new();
    let mut problem = "no service of the source".to_string();
    for name in &source.services {
        let service = match registry::service(name) {
            Ok(service) => service,
            Err(Error::UnknownService { .. }) => {
                problem = format!("unknown service {name}");
                continue;
            }
            Err(error) => return Err(error),
        };
        match key::normalise(service.key_kind, raw) {
            Err(bad) => problem = format!("no key, it {}", bad.why),
            Ok(key) => match address::key_eligibility(&key) {
                Err(why) => problem = format!("ineligible: {}", why.words()),
                Ok(()) => takers.push((name.clone(), key.text)),
            },
        }
    }
    Ok(if takers.is_empty() { Err(problem) } else { Ok(takers) })
}

/// Sweeps each source that is due; true when something new was found.
pub fn sweep(standing: &[Source], steps: &mut Steps) -> bool {
    let now = convert::clock();
    let every = gucs::sweep_interval().map(|every| every.as_micros() as Micros);
    let mut found = false;
    for source in standing {
        if next_sweep(source, every).is_some_and(|due| due <= now) {
            found |= steps.run(&format!("sweep of {}", source.name), || sweep_one(source));
        }
    }
    found
}

/// When the next of these sources is to be swept.
pub fn next_event(standing: &[Source]) -> Option<Micros> {
    let every = gucs::sweep_interval().map(|every| every.as_micros() as Micros);
    standing.iter().filter_map(|source| next_sweep(source, every)).min()
}

// a table that was just attached is swept even where periodic sweeps are off
fn next_sweep(source: &Source, every: Option<Micros>) -> Option<Micros> {
    match source.swept_at {
        None => Some(Micros::MIN),
        Some(at) => every.map(|every| at.saturating_add(every)),
    }
}

/// Notes what is wrong with the sources that no longer stand as attached.
pub fn note_broken(broken: &[(String, String)], steps: &mut Steps) {
    for (name, why) in broken {
        steps.run(&format!("source {name}"), || {
            xact::run(c"enrichment_cache: noting a broken source", || sources::problem(name, Some(why))).map(|()| false)
        });
    }
}

fn sweep_one(source: &Source) -> Result<bool, Error> {
    xact::run(c"enrichment_cache: sweeping a table", || {
        if !backlog::has_room_for_many()? {
            return Ok(false);
        }
        let found = user_tables::sweep(source)?;
        let room = backlog::room()?;
        let asked = indicators::ask_missing(&source.name, &source.services, room)?;
        // what the queue had no room for is looked for again when it has
        if (asked as i64) < room {
            sources::swept(&source.name)?;
        }
        sources::problem(&source.name, None)?;
        Ok(found + asked > 0)
    })
}
