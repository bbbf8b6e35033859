//! Answers that lie in files of the disk cache are taken over into the table: those of look-ups that found them there, and
//! those of waiting requests, which then need no call.

use super::{fetches, xact};
use crate::core::error::Error;
use crate::core::service::Service;
use crate::io::disk::Lying;
use crate::pg::store::files::{self, FromFile};
use crate::pg::store::{indicators, queue, registry};
use crate::pg::{convert, disk, gucs};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Most keys that are looked for in one round.
const BATCH: usize = 200;
/// Most bytes of answers that are held at one time.
const BYTES: usize = 16 << 20;

/// What this worker knows of keys that files may answer.
#[derive(Default)]
pub struct Adoption {
    /// The last request of which the files were looked at, since the worker began.
    seen: i64,
    /// Keys that were told and not looked at yet.
    told: VecDeque<(String, String)>,
}

/// The services by name.
type Services = BTreeMap<String, Arc<Service>>;

impl Adoption {
    /// Takes over one batch; says whether there may be more.
    ///
    /// # Errors
    /// What the statements raise; the keys of the batch come again with their next look-up or call.
    pub fn round(&mut self) -> Result<bool, Error> {
        self.told.extend(disk::take_told());
        if !gucs::reads_files() {
            self.seen = 0;
            let told: Vec<_> = self.told.drain(..self.told.len().min(BATCH)).collect();
            if !told.is_empty() {
                let services = xact::run(c"enrichment_cache: reading services", registry::all)?;
                adopt_imported(&told, &services)?;
            }
            return Ok(!self.told.is_empty());
        }
        let (services, requests) = xact::run(c"enrichment_cache: reading requests for files", || {
            Ok((registry::all()?, files::requests_after(self.seen, BATCH as i64)?))
        })?;
        let told: Vec<_> = self.told.drain(..self.told.len().min(BATCH)).collect();
        let more = requests.len() == BATCH || !self.told.is_empty();
        let last = requests.last().map(|(id, ..)| *id);
        adopt_imported(&told, &services)?;
        take_over(told, &services)?;
        take_over(requests.into_iter().map(|(_, service, key)| (service, key)), &services)?;
        if let Some(last) = last {
            self.seen = last;
        }
        Ok(more)
    }
}

/// Gives these keys what an import has kept under their digests.
fn adopt_imported(keys: &[(String, String)], services: &Services) -> Result<(), Error> {
    let mut of_service: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (service, key) in keys.iter().filter(|(service, _)| services.contains_key(service)) {
        of_service.entry(service).or_default().push(key);
    }
    for (service, mut keys) in of_service {
        keys.sort_unstable();
        keys.dedup();
        xact::run_briefly(c"enrichment_cache: taking imported answers over", || {
            crate::pg::migration::adopt::adopt(service, keys.iter().copied())
        })?;
        fetches::complete(service, keys.into_iter());
    }
    Ok(())
}

/// Takes over what files say of these keys, each in a transaction of its service.
fn take_over(keys: impl IntoIterator<Item = (String, String)>, services: &Services) -> Result<(), Error> {
    let mut found: BTreeMap<String, Vec<FromFile>> = BTreeMap::new();
    let mut bytes = 0;
    for (service, key) in keys {
        let Some(known) = services.get(&service) else { continue };
        let Some(lying) = disk::of_files(known, &key) else { continue };
        bytes += size(&lying);
        let batch = found.entry(service).or_default();
        if !batch.iter().any(|one| one.key == key) {
            batch.push(from_file(key, lying));
        }
        if bytes > BYTES {
            bytes = 0;
            store_all(std::mem::take(&mut found))?;
        }
    }
    store_all(found)
}

fn store_all(found: BTreeMap<String, Vec<FromFile>>) -> Result<(), Error> {
    for (service, mut batch) in found {
        let answered = xact::run_briefly(c"enrichment_cache: taking answers over from files", || {
            let answered = store(&service, &mut batch)?;
            files::answered(&service, answered.clone())?;
            Ok(answered)
        })?;
        fetches::complete(&service, answered.iter().map(String::as_str));
    }
    Ok(())
}

/// Stores a batch of one service; returns the keys that have a fresh answer by it.
fn store(service: &str, batch: &mut Vec<FromFile>) -> Result<Vec<String>, Error> {
    // a file that is about to be deleted does not bring its answer back
    files::spare_deleted(service, batch)?;
    let adopted = files::adopt(service, batch)?;
    if adopted.is_empty() {
        return Ok(adopted);
    }
    files::count(service, adopted.len() as i64, 0)?;
    indicators::answered(service, adopted.clone())?;
    let now = convert::clock();
    let fresh = |key: &String| batch.iter().any(|one| one.key == *key && one.expires_at > now);
    Ok(adopted.into_iter().filter(fresh).collect())
}

/// What is left of claimed requests when files have answered some of them, and the keys of those. Part of the transaction that
/// claims them: a call goes out only for what no file answers.
///
/// # Errors
/// What the statements raise.
pub fn unless_answered(
    service: &Service,
    claims: Vec<queue::Claim>,
) -> Result<(Vec<queue::Claim>, Vec<String>), Error> {
    if !gucs::reads_files() || claims.is_empty() {
        return Ok((claims, Vec::new()));
    }
    let now = convert::clock();
    let fresh = |claim: &queue::Claim| disk::of_files(service, &claim.key).filter(|lying| lying.expires_at > now);
    let mut found: Vec<FromFile> =
        claims.iter().filter_map(|claim| Some(from_file(claim.key.clone(), fresh(claim)?))).collect();
    if found.is_empty() {
        return Ok((claims, Vec::new()));
    }
    let answered = store(&service.name, &mut found)?;
    let (done, left): (Vec<_>, Vec<_>) = claims.into_iter().partition(|claim| answered.contains(&claim.key));
    queue::answered(done.iter().map(|claim| claim.id).collect())?;
    Ok((left, answered))
}

fn from_file(key: String, lying: Lying) -> FromFile {
    FromFile { key, body: lying.body, fetched_at: lying.fetched_at, expires_at: lying.expires_at }
}

fn size(lying: &Lying) -> usize {
    lying.body.payload.as_ref().map_or(0, String::len) + lying.body.ranges.as_ref().map_or(0, Vec::len)
}
