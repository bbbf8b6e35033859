//! Imported answers that lie under the digest of a key nobody had named: they are the key's as soon as somebody does.

use crate::core::disk::digest;
use crate::core::disk::item::{digests, expiry_with_key};
use crate::core::disk::report::Fate;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::store::migration::adopted::{self, Taken, Waiting};
use crate::pg::store::migration::{self as rows, chain, orphans};
use crate::pg::store::registry;
use crate::pg::{backlog, disk};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Keys that are looked for at a time.
const BATCH: i64 = 1000;

/// Gives these keys of a service (in their normal form) the answers that were kept for them.
///
/// # Errors
/// What PostgreSQL says.
pub fn adopt<'a>(service: &str, keys: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    adopt_written(service, keys, &[])
}

/// The same for keys of a table; `written` are those that are written otherwise there, with how they are.
///
/// # Errors
/// As [`adopt`].
pub fn adopt_written<'a>(
    service: &str,
    keys: impl Iterator<Item = &'a str>,
    written: &[(String, String)],
) -> Result<(), Error> {
    if orphans::any(service)? {
        let named = keys.flat_map(|key| digests(key).into_iter().map(move |digest| (key.to_owned(), digest)));
        let written = written.iter().map(|(key, written)| (key.clone(), digest(written)));
        take_over(service, &named.chain(written).collect::<Vec<_>>(), |_| {})?;
    }
    Ok(())
}

/// The same for keys and the digests under which answers wait for them; hands over what became of each answer, and returns how
/// many there were.
///
/// # Errors
/// As [`adopt`].
pub fn take_over(
    service: &str,
    named: &[(String, orphans::Digest)],
    mut each: impl FnMut(&Taken),
) -> Result<u64, Error> {
    let waiting = adopted::waiting(service, named.iter().map(|(_, digest)| digest.as_slice()).collect())?;
    let keys: HashMap<orphans::Digest, &str> = named.iter().map(|(key, digest)| (*digest, key.as_str())).collect();
    let mut of_key: BTreeMap<&str, Vec<&Waiting>> = BTreeMap::new();
    for one in &waiting {
        if let Some(key) = keys.get(&one.digest) {
            of_key.entry(key).or_default().push(one);
        }
    }
    of_key.values_mut().for_each(|answers| answers.sort_by_key(|one| one.fetched_at));
    // several runs may have brought something for a key: one after the other, as if it had been known all the time
    let rounds = of_key.values().map(Vec::len).max().unwrap_or(0);
    if rounds > 0 {
        adopted::lock(service, of_key.keys().copied().collect())?;
    }
    let (mut count, mut stored) = (0, BTreeMap::new());
    for round in 0..rounds {
        let answers: Vec<(&Waiting, &str, Micros)> = of_key
            .iter()
            .filter_map(|(key, answers)| answers.get(round).map(|one| (*one, *key)))
            .map(|(one, key)| (one, key, expiry_with_key(service, key, one.fetched_at, one.expires_at)))
            .collect();
        let mut again: HashSet<String> = HashSet::new();
        let (of_keys, runs) = answers.iter().map(|(one, key, _)| (*key, one.run)).unzip();
        chain::step_aside(service, of_keys, runs, answers.iter().map(|(one, ..)| one.fetched_at), |key| {
            again.insert(key);
        })?;
        adopted::take(service, &answers, |mut taken| {
            if again.contains(&taken.key) {
                taken.fate = Fate::Duplicate;
            }
            each(&taken);
            count += 1;
            if taken.stored {
                stored.insert(taken.key, taken.fresh);
            }
        })?;
    }
    if count > 0 && !orphans::any(service)? {
        registry::announce_orphans()?;
    }
    if !stored.is_empty() {
        disk::note(service, stored.keys().cloned().collect())?;
        let fresh = stored.iter().filter(|(_, fresh)| **fresh).map(|(key, _)| key.as_str());
        backlog::note(-(rows::answered(service, fresh.collect())? as i64));
        if rows::mark(vec![service.to_owned()], stored.keys().map(String::as_str).collect())? > 0 {
            crate::pg::wake::worker_at_commit();
        }
    }
    Ok(count)
}

/// The same for all keys of a source, as they are written there too.
///
/// # Errors
/// As [`adopt`].
pub fn adopt_for_source(source: &str, services: &[String]) -> Result<(), Error> {
    for service in services {
        while orphans::any(service)? {
            let owners = orphans::owners(source, service, BATCH)?;
            let taken = take_over(service, &owners, |_| {})?;
            // what another session has taken meanwhile is not there any more
            if taken == 0 || owners.len() < BATCH as usize {
                break;
            }
        }
    }
    Ok(())
}
