//! What becomes of each file of a batch: imported, older than the row, expired, a duplicate, or listed with the reason.

use super::subtransaction::attempt;
use crate::core::disk::item::{shown, Answer, Item, What, Whose};
use crate::core::disk::known::Known;
use crate::core::disk::report::{Fate, Report};
use crate::core::error::Error;
use crate::core::hash::cache_key_hash;
use crate::core::{ttl, Micros};
use crate::pg::backlog;
use crate::pg::store::migration::orphans::{self, Digest};
use crate::pg::store::migration::{self as rows, Batch};
use crate::pg::store::registry;
use crate::pg::{convert, disk};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

/// How far the clock of another machine may be ahead of ours.
const CLOCK_SKEW: Micros = 300 * 1_000_000;

/// How a run takes files.
pub struct Rules {
    /// None: nothing is stored.
    pub run: Option<i64>,
    pub keep_expired: bool,
    /// What reasons call one of them: "file" or "row".
    pub noun: &'static str,
    /// What is stored is noted for the files of the disk cache, which it does not come from.
    pub noted: bool,
}

/// An answer of a batch, and the file it came from.
struct Incoming<'a> {
    path: &'a [u8],
    bytes: u64,
    answer: &'a Answer,
    expires_at: Micros,
}

/// What a run that only tries has found.
#[derive(Default)]
pub struct Seen {
    /// Of each key eight bytes of its hash.
    keys: HashSet<u64>,
    /// Of each service the digests of unknown keys, and when the newest of their answers was observed.
    pub unknown: BTreeMap<String, BTreeMap<Digest, Micros>>,
}

/// Makes answers such as this database takes, whatever its encoding.
pub fn fit(items: &mut [Item]) {
    for item in items {
        if let What::Answer(answer) = &mut item.what {
            disk::fit(&mut answer.body);
        }
    }
}

/// Takes a batch and notes what became of each file.
pub fn take(
    rules: &Rules,
    items: &[Item],
    report: &mut Report,
    seen: &mut Seen,
    known: &mut Known,
) -> Result<(), Error> {
    let now = convert::clock();
    let keys = resolve(items, known);
    let mut problems: Vec<(String, &'static str, String)> = Vec::new();
    let mut keyed: BTreeMap<&str, Vec<(&str, Incoming)>> = BTreeMap::new();
    let mut unknown: BTreeMap<&str, Vec<(&Digest, Incoming)>> = BTreeMap::new();
    for (item, key) in items.iter().zip(&keys) {
        let mut problem = |fate: Fate, outcome: &'static str, why: &str| {
            report.note(None, fate, item.bytes);
            problems.push((shown(&item.path), outcome, format!("the {} {why}", rules.noun)));
        };
        match &item.what {
            What::Malformed(why) => problem(Fate::Malformed, "malformed", why),
            What::Unreadable(why) => problem(Fate::Unreadable, "unreadable", why),
            What::Answer(answer) if answer.fetched_at > now.saturating_add(CLOCK_SKEW) => {
                problem(Fate::Malformed, "malformed", "was changed at a time that is still to come")
            }
            What::Answer(answer) => {
                let incoming = Incoming {
                    path: &item.path,
                    bytes: item.bytes,
                    answer,
                    expires_at: expiry(answer, key.as_deref()),
                };
                let service = answer.service.name.as_str();
                if incoming.expires_at <= now && !rules.keep_expired {
                    report.note(Some(service), Fate::Expired, item.bytes);
                    continue;
                }
                match (key, &answer.key) {
                    (Some(key), _) | (None, Whose::Key(key)) => keyed.entry(service).or_default().push((key, incoming)),
                    (None, Whose::Digest { digest, .. }) => {
                        unknown.entry(service).or_default().push((digest, incoming));
                    }
                }
            }
        }
    }
    // first, because who takes an answer over from its digest locks that before the row of the key
    for (service, mut incoming) in unknown {
        let newest = newest_of_each(&mut incoming, |twice| report.note(Some(service), Fate::Duplicate, twice.bytes));
        let fates = match rules.run {
            Some(run) => store(rules.noun, &newest, &mut problems, |some| keep(run, service, some))?,
            None => try_to_keep(service, &newest, seen)?,
        };
        for ((_, incoming), fate) in newest.iter().zip(fates) {
            report.note((fate != Fate::Malformed).then_some(service), fate, incoming.bytes);
        }
    }
    let mut imported = Imported::default();
    for (service, mut incoming) in keyed {
        let newest = newest_of_each(&mut incoming, |twice| report.note(Some(service), Fate::Duplicate, twice.bytes));
        let fates = match rules.run {
            Some(run) => store(rules.noun, &newest, &mut problems, |some| store_all(run, rules, service, some))?,
            None => {
                let files = newest.iter().map(|(key, incoming)| (*key, incoming.answer.fetched_at));
                try_out(service, &files.collect::<Vec<_>>(), seen)?
            }
        };
        for ((key, incoming), fate) in newest.iter().zip(fates) {
            report.note((fate != Fate::Malformed).then_some(service), fate, incoming.bytes);
            if fate == Fate::Imported {
                imported.note(service, key, incoming.expires_at > now);
            }
        }
    }
    if let Some(run) = rules.run {
        imported.announce()?;
        if !problems.is_empty() {
            rows::problems(run, &problems)?;
        }
    }
    Ok(())
}

/// The keys of a batch, where they are known. The names of its files make more of them known, in the order of the walk,
/// so that the same tree always gives the same report.
pub fn resolve(items: &[Item], known: &mut Known) -> Vec<Option<String>> {
    let key = |item: &Item| match &item.what {
        What::Answer(answer) => {
            if let Whose::Key(key) = &answer.key {
                known.add(key);
            }
            answer.key.resolve(&answer.service, known).map(Cow::into_owned)
        }
        What::Malformed(_) | What::Unreadable(_) => None,
    };
    items.iter().map(key).collect()
}

/// When an answer expires, counted from its observation.
pub fn expiry(answer: &Answer, key: Option<&str>) -> Micros {
    let service = &answer.service;
    let length = if answer.body.payload.is_some() { service.ttl } else { service.not_found_ttl };
    match key {
        Some(key) => ttl::expires_at(answer.fetched_at, length, &cache_key_hash(&service.name, key)),
        None => answer.fetched_at.saturating_add(length),
    }
}

/// Of several files of one key the one observed last, in the order of the keys.
fn newest_of_each<'a, K: Ord + Copy>(
    incoming: &mut Vec<(K, Incoming<'a>)>,
    mut twice: impl FnMut(&Incoming),
) -> Vec<(K, Incoming<'a>)> {
    incoming.sort_by(|(one, a), (other, b)| one.cmp(other).then(b.answer.fetched_at.cmp(&a.answer.fetched_at)));
    let mut newest: Vec<(K, Incoming)> = Vec::with_capacity(incoming.len());
    for (key, next) in incoming.drain(..) {
        match newest.last() {
            Some((last, _)) if *last == key => twice(&next),
            _ => newest.push((key, next)),
        }
    }
    newest
}

fn batch_of<'a>(service: &'a str, incoming: impl Iterator<Item = (&'a str, &'a Incoming<'a>)>) -> Batch<'a> {
    let mut batch = Batch::of(service);
    for (key, incoming) in incoming {
        let body = &incoming.answer.body;
        batch.keys.push(key);
        batch.payloads.push(rows::Payload::of(incoming.answer));
        batch.ranges.push(body.ranges.as_deref());
        batch.fetched_at.push(incoming.answer.fetched_at);
        batch.expires_at.push(incoming.expires_at);
        batch.altered.push(body.altered);
    }
    batch
}

/// Stores what is new or newer, all of it by `work`. A batch that PostgreSQL does not take is stored one by one, so that one odd file is listed
/// and the others are in.
fn store<'a, K>(
    noun: &str,
    incoming: &[(K, Incoming<'a>)],
    problems: &mut Vec<(String, &'static str, String)>,
    work: impl Fn(&[(K, Incoming<'a>)]) -> Result<Vec<Fate>, Error>,
) -> Result<Vec<Fate>, Error> {
    if let Ok(fates) = attempt(|| work(incoming))? {
        return Ok(fates);
    }
    let mut fates = Vec::with_capacity(incoming.len());
    for one in incoming {
        pgrx::check_for_interrupts!();
        match attempt(|| work(std::slice::from_ref(one)))? {
            Ok(stored) => fates.extend(stored),
            Err(message) => {
                problems.push((shown(one.1.path), "malformed", format!("the {noun} cannot be stored: {message}")));
                fates.push(Fate::Malformed);
            }
        }
    }
    Ok(fates)
}

fn store_all(run: i64, rules: &Rules, service: &str, incoming: &[(&str, Incoming)]) -> Result<Vec<Fate>, Error> {
    let mut fates: HashMap<String, Fate> = HashMap::with_capacity(incoming.len());
    rows::insert(run, &batch_of(service, incoming.iter().map(|(key, one)| (*key, one))), |key| {
        fates.insert(key, Fate::Imported);
    })?;
    let mut stored: Vec<String> = if rules.noted { fates.keys().cloned().collect() } else { Vec::new() };
    if fates.len() < incoming.len() {
        let others: Vec<&(&str, Incoming)> = incoming.iter().filter(|(key, _)| !fates.contains_key(*key)).collect();
        let standing = rows::standing(Some(run), service, others.iter().map(|(key, _)| *key).collect())?;
        let mut replacing = Vec::new();
        for row in standing {
            let Ok(at) = others.binary_search_by(|(key, _)| (*key).cmp(row.key.as_str())) else { continue };
            let (fate, replaces) = beside(&row, others[at].1.answer.fetched_at);
            if replaces {
                replacing.push(others[at]);
            }
            fates.insert(row.key, fate);
        }
        if !replacing.is_empty() {
            replacing.sort_by_key(|(key, _)| *key);
            rows::replace(run, &batch_of(service, replacing.iter().map(|(key, one)| (*key, one))))?;
            if rules.noted {
                stored.extend(replacing.iter().map(|(key, _)| (*key).to_owned()));
            }
        }
    }
    disk::note(service, stored)?;
    // what vanished between the two statements was deleted by somebody after it was newer
    Ok(incoming.iter().map(|(key, _)| fates.get(*key).copied().unwrap_or(Fate::OlderThanRow)).collect())
}

/// What becomes of a file beside the row of its key, and whether it takes the row's place.
fn beside(row: &rows::Standing, fetched_at: Micros) -> (Fate, bool) {
    match fetched_at.cmp(&row.fetched_at) {
        std::cmp::Ordering::Greater if row.ours => (Fate::Duplicate, true),
        _ if row.ours => (Fate::Duplicate, false),
        _ if !row.answer => (Fate::Imported, true),
        std::cmp::Ordering::Greater => (Fate::Imported, true),
        std::cmp::Ordering::Equal => (Fate::Duplicate, false),
        std::cmp::Ordering::Less => (Fate::OlderThanRow, false),
    }
}

/// The same without storing anything, of keys with the observations of their files.
pub fn try_out(service: &str, files: &[(&str, Micros)], seen: &mut Seen) -> Result<Vec<Fate>, Error> {
    let standing = rows::standing(None, service, files.iter().map(|(key, _)| *key).collect())?;
    let standing: HashMap<&str, &rows::Standing> = standing.iter().map(|row| (row.key.as_str(), row)).collect();
    let fates = files.iter().map(|(key, fetched_at)| {
        let mut head = [0; 8];
        head.copy_from_slice(&cache_key_hash(service, key)[..8]);
        let head = u64::from_ne_bytes(head);
        if seen.keys.contains(&head) {
            return Fate::Duplicate;
        }
        let fate = standing.get(key).map_or(Fate::Imported, |row| beside(row, *fetched_at).0);
        if fate == Fate::Imported {
            seen.keys.insert(head);
        }
        fate
    });
    Ok(fates.collect())
}

/// Keeps answers under the digests of keys that nobody has named.
fn keep(run: i64, service: &str, incoming: &[(&Digest, Incoming)]) -> Result<Vec<Fate>, Error> {
    let batch = batch_of(service, incoming.iter().map(|(_, incoming)| ("", incoming)));
    let fates = orphans::keep(run, &batch, incoming.iter().map(|(digest, _)| digest.as_slice()).collect())?;
    let fates: Vec<Fate> =
        incoming.iter().map(|(digest, _)| fates.get(*digest).copied().unwrap_or(Fate::Duplicate)).collect();
    if fates.contains(&Fate::UnknownKey) && !registry::has_orphans(service) {
        registry::announce_orphans()?;
    }
    Ok(fates)
}

/// The same without storing anything.
fn try_to_keep(service: &str, incoming: &[(&Digest, Incoming)], seen: &mut Seen) -> Result<Vec<Fate>, Error> {
    let standing = orphans::standing(service, incoming.iter().map(|(digest, _)| digest.as_slice()).collect())?;
    let unknown = seen.unknown.entry(service.to_owned()).or_default();
    let fates = incoming.iter().map(|(digest, incoming)| {
        let fetched_at = incoming.answer.fetched_at;
        if let Some(observed) = unknown.get_mut(*digest) {
            *observed = fetched_at.max(*observed);
            return Fate::Duplicate;
        }
        match standing.get(*digest) {
            Some(at) if fetched_at < *at => Fate::OlderThanRow,
            Some(at) if fetched_at == *at => Fate::Duplicate,
            _ => {
                unknown.insert(**digest, fetched_at);
                Fate::UnknownKey
            }
        }
    });
    Ok(fates.collect())
}

/// What a batch brought, for those who wait for it.
#[derive(Default)]
struct Imported<'a> {
    fresh: BTreeMap<&'a str, Vec<&'a str>>,
    keys: Vec<&'a str>,
}

impl<'a> Imported<'a> {
    fn note(&mut self, service: &'a str, key: &'a str, fresh: bool) {
        if fresh {
            self.fresh.entry(service).or_default().push(key);
        }
        self.keys.push(key);
    }

    fn announce(mut self) -> Result<(), Error> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let services: Vec<String> = self.fresh.keys().map(|service| (*service).to_string()).collect();
        for (service, keys) in self.fresh {
            backlog::note(-(rows::answered(service, keys)? as i64));
        }
        self.keys.sort_unstable();
        self.keys.dedup();
        if rows::mark(services, self.keys)? > 0 {
            crate::pg::wake::worker_at_commit();
        }
        Ok(())
    }
}
