//! The second look, at the end of an import: a file named by a digest may come before the file, or the request, that names its
//! key. What a run has kept and can be named by now is the key's before the run is finished, and counts as what it is.

use super::adopt::take_over;
use super::take::{try_out, Seen};
use crate::core::disk::item::key_of;
use crate::core::disk::known::Known;
use crate::core::disk::report::Report;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::store::migration::orphans::{self, Digest};
use crate::pg::store::migration::{self as rows};
use crate::pg::store::registry;
use std::collections::BTreeMap;

/// Digests that are looked at with one statement, at most.
const PAGE: usize = 1000;

/// How far the look has come. It begins anew after an interruption: what was named is not among the unknown any more.
#[derive(Default)]
pub struct SecondLook {
    begun: bool,
    behind: (String, Vec<u8>),
}

impl SecondLook {
    /// Goes on until about so many answers were named, or, of what is only tried (no run), to the end; says whether it is there.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn go_on(
        &mut self,
        run: Option<i64>,
        most: usize,
        known: &mut Known,
        seen: &mut Seen,
        report: &mut Report,
    ) -> Result<bool, Error> {
        let Some(run) = run else { return try_all(known, seen, report).map(|()| true) };
        let mut named = 0;
        while named < most {
            pgrx::check_for_interrupts!();
            let page = orphans::of_run(run, &self.behind, most.min(PAGE) as i64)?;
            let Some((service, digest)) = page.last() else {
                // also where this session takes it for known: what was known of may have gone while a batch was not committed yet
                if report.all.unknown_key > 0 {
                    registry::announce_orphans()?;
                }
                return Ok(true);
            };
            self.behind = (service.clone(), digest.to_vec());
            if !std::mem::replace(&mut self.begun, true) {
                rows::known_keys(|key| known.add(key))?;
            }
            let mut of_service: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
            for (service, digest) in page {
                of_service.entry(service).or_default().push(digest);
            }
            for (service, digests) in of_service {
                let keys = name(&service, digests.into_iter().map(|digest| (digest, ())), known)?;
                let keys: Vec<(String, Digest)> = keys.into_iter().map(|(key, digest, ())| (key, digest)).collect();
                if keys.is_empty() {
                    continue;
                }
                take_over(&service, &keys, |taken| {
                    if taken.run == Some(run) {
                        report.was_named(&service, taken.fate);
                        named += 1;
                    }
                })?;
            }
        }
        Ok(false)
    }
}

/// The same without storing anything.
fn try_all(known: &mut Known, seen: &mut Seen, report: &mut Report) -> Result<(), Error> {
    let unknown = std::mem::take(&mut seen.unknown);
    if unknown.values().all(BTreeMap::is_empty) {
        return Ok(());
    }
    rows::known_keys(|key| known.add(key))?;
    for (service, digests) in unknown {
        let mut named: Vec<(String, Micros)> =
            name(&service, digests.into_iter(), known)?.into_iter().map(|(key, _, at)| (key, at)).collect();
        named.sort();
        for page in named.chunks(PAGE) {
            pgrx::check_for_interrupts!();
            let files: Vec<(&str, Micros)> = page.iter().map(|(key, at)| (key.as_str(), *at)).collect();
            try_out(&service, &files, seen)?.into_iter().for_each(|fate| report.was_named(&service, fate));
        }
    }
    Ok(())
}

/// Those digests whose keys are known, with the keys.
fn name<T>(
    service: &str,
    digests: impl Iterator<Item = (Digest, T)>,
    known: &Known,
) -> Result<Vec<(String, Digest, T)>, Error> {
    let Some(service) = registry::all()?.get(service).cloned() else { return Ok(Vec::new()) };
    Ok(digests.filter_map(|(digest, what)| Some((key_of(&service, &digest, known)?, digest, what))).collect())
}
