//! Imported answers that lie under the digest of a key nobody had named: they are the key's as soon as somebody does.

use crate::core::disk::item::digests;
use crate::core::error::Error;
use crate::pg::backlog;
use crate::pg::store::migration::{self as rows, orphans};
use crate::pg::store::registry;

/// Keys that are looked for at a time.
const BATCH: i64 = 1000;

/// Gives these keys of a service (in their normal form) the answers that were kept for them; returns how many that were.
///
/// # Errors
/// What PostgreSQL says.
pub fn adopt<'a>(service: &str, keys: impl Iterator<Item = &'a str>) -> Result<u64, Error> {
    if !orphans::any_orphan(service)? {
        return Ok(0);
    }
    let named: Vec<(&str, [u8; 32])> =
        keys.flat_map(|key| digests(key).into_iter().map(move |digest| (key, digest))).collect();
    let (names, wanted) = (named.iter().map(|(key, _)| *key), named.iter().map(|(_, digest)| digest.as_slice()));
    let (mut fresh, mut adopted) = (Vec::new(), Vec::new());
    orphans::adopt(service, names.collect(), wanted.collect(), |key, is_fresh| {
        if is_fresh {
            fresh.push(key.clone());
        }
        adopted.push(key);
    })?;
    if adopted.is_empty() {
        return Ok(0);
    }
    if !orphans::any_orphan(service)? {
        registry::announce_orphans();
    }
    backlog::note(-(rows::answered(service, fresh.iter().map(String::as_str).collect())? as i64));
    if rows::mark(vec![service.to_owned()], adopted.iter().map(String::as_str).collect())? > 0 {
        crate::pg::wake::worker_at_commit();
    }
    Ok(adopted.len() as u64)
}

/// The same for all keys of a source.
///
/// # Errors
/// As [`adopt`].
pub fn adopt_for_source(source: &str, services: &[String]) -> Result<u64, Error> {
    let mut adopted = 0;
    for service in services {
        while orphans::any_orphan(service)? {
            let owners = orphans::owners(source, service, BATCH)?;
            adopted += adopt(service, owners.iter().map(String::as_str))?;
            if owners.len() < BATCH as usize {
                break;
            }
        }
    }
    Ok(adopted)
}
