//! From rows to keys: what triggers reported becomes indicators and requests; a periodic sweep finds what triggers
//! could not see.

use super::{steps::Steps, xact};
use crate::core::error::Error;
use crate::core::worth;
use crate::core::Micros;
use crate::pg::lone::Lone;
use crate::pg::migration::adopt::{adopt_for_source, adopt_written};
use crate::pg::store::arrivals::{self, Arrival};
use crate::pg::store::indicators::{self, Judged};
use crate::pg::store::sources::{self, Source};
use crate::pg::store::{asking, registry, user_tables};
use crate::pg::{backlog, convert, gucs};
use std::collections::BTreeMap;

/// Keys taken off the list in one transaction, about.
const BATCH: i64 = 4000;

/// So many new keys are worth telling the planner of before autovacuum does.
const MANY: usize = 4000;

/// Keys taken since the planner was told of them.
static UNTOLD: Lone<usize> = Lone::new(0);

/// Turns a batch of arrivals into indicators and requests; true when there may be more.
pub fn fold_arrivals() -> Result<bool, Error> {
    let more = fold_batch()?;
    // plans that were made while the table was small would read all of it for each batch that is written back
    if !more && UNTOLD.get() >= MANY {
        UNTOLD.set(0);
        xact::run(c"enrichment_cache: analysing new keys", indicators::analyse)?;
    }
    Ok(more)
}

fn fold_batch() -> Result<bool, Error> {
    xact::run(c"enrichment_cache: taking new keys", || {
        // a full queue takes no more; the arrivals wait where they are
        let room = backlog::room()?.min(BATCH);
        let arrivals = if room > 0 { arrivals::take(room)? } else { Vec::new() };
        if arrivals.is_empty() {
            return Ok(false);
        }
        UNTOLD.set(UNTOLD.get().saturating_add(arrivals.len()));
        let sources = sources::all()?.standing;
        let mut by_source: BTreeMap<(String, bool), Vec<Arrival>> = BTreeMap::new();
        for arrival in arrivals {
            by_source.entry((arrival.source.clone(), arrival.urgent)).or_default().push(arrival);
        }
        for ((name, urgent), arrivals) in by_source {
            if let Some(source) = sources.iter().find(|source| source.name == name) {
                fold(source, arrivals, urgent)?;
            }
        }
        Ok(true)
    })
}

fn fold(source: &Source, arrivals: Vec<Arrival>, urgent: bool) -> Result<(), Error> {
    let now = convert::clock();
    let mut judged = Vec::with_capacity(arrivals.len());
    let mut requests: BTreeMap<String, BTreeMap<String, i32>> = BTreeMap::new();
    let mut written: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for Arrival { key, moved, .. } in arrivals {
        let Some(seen) = key else {
            sources::sweep_soon(&source.name)?;
            continue;
        };
        let takers = judge(source, &seen.raw_key)?;
        if let Ok(takers) = &takers {
            let worth = worth::priority(seen.weight, seen.latest.map(convert::to_micros), now);
            let priority = if urgent { worth::urgent(worth) } else { worth };
            for (service, key) in takers {
                if *key != seen.raw_key {
                    written.entry(service.clone()).or_default().push((key.clone(), seen.raw_key.clone()));
                }
                let asked = requests.entry(service.clone()).or_default();
                let most = asked.entry(key.clone()).or_insert(priority);
                *most = priority.max(*most);
            }
        }
        let verdict = takers.map(|takers| takers.into_iter().next().map(|(_, key)| key).unwrap_or_default());
        judged.push(Judged { seen, verdict, moved });
    }
    indicators::fold(&source.name, judged, urgent)?;
    for (service, keys) in requests {
        let written = written.remove(&service).unwrap_or_default();
        adopt_written(&service, keys.keys().map(String::as_str), &written)?;
        if registry::service(&service)?.enabled {
            asking::ask(&service, keys.into_iter().collect(), urgent)?;
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
        match service.takes(raw) {
            Ok(key) => takers.push((name.clone(), key)),
            Err(why) => problem = why,
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
            found |= steps.run(&format!("sweep of {}", source.name), || {
                sweep_one(source).inspect_err(|error| note_trouble(source, error))
            });
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

/// What kept a table from being searched, such as an expression that fails on one of its rows, stands in enrich_health()
/// until a search succeeds.
fn note_trouble(source: &Source, error: &Error) {
    let problem = format!("the table could not be searched: {error}");
    let noted =
        xact::run(c"enrichment_cache: noting a broken source", || sources::problem(&source.name, Some(&problem)));
    if let Err(second) = noted {
        pgrx::log!("enrichment_cache: source {}: {problem}; this could not be noted: {second}", source.name);
    }
}

fn sweep_one(source: &Source) -> Result<bool, Error> {
    xact::run(c"enrichment_cache: sweeping a table", || {
        // it is read as it was, so it is swept in the next round
        if sources::follow(&source.name)? {
            return Ok(true);
        }
        if !backlog::has_room_for_many()? {
            return Ok(false);
        }
        let found = user_tables::sweep(source)?;
        adopt_for_source(&source.name, &source.services)?;
        let room = backlog::room()?;
        let asked = asking::ask_missing(&source.name, &source.services, room)?;
        asking::revalue(&source.services)?;
        // what the queue had no room for is looked for again when it has
        if (asked as i64) < room {
            sources::swept(&source.name)?;
        }
        sources::problem(&source.name, None)?;
        Ok(found > 0 || asked > 0)
    })
}
