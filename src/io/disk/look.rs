//! What the files of a tree say of one key. However many layouts have put one there, the newest observation counts.

use std::path::Path;

use super::tree::{Tree, Trouble};
use crate::core::disk::body::{self, Body};
use crate::core::disk::{layout, recognise};
use crate::core::hash::cache_key_hash;
use crate::core::service::Service;
use crate::core::{ttl, Micros, SECOND};

/// How far the clock that a file was written by may be ahead of ours.
const CLOCK_SKEW: Micros = 300 * SECOND;

/// An answer that lies in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lying {
    pub body: Body,
    /// The moment of observation: what the file says itself, else when it was last changed.
    pub fetched_at: Micros,
    pub expires_at: Micros,
}

/// What a look brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub newest: Option<Lying>,
    /// Why a file was passed over; the last one, where there are several.
    pub passed_over: Option<String>,
}

/// What lies at the places where a key may have a file: the bytes of each and when it was last changed.
pub type Contents = Vec<(String, Result<Option<(Vec<u8>, Micros)>, Trouble>)>;

/// Reads the files of a key in its normal form, larger ones than `most` bytes left out. All that waits for the disk is here.
///
/// # Errors
/// [`Trouble::Tree`]; what is wrong with one file is in the result.
pub fn contents(root: &Path, service: &str, key: &str, most: u64) -> Result<Contents, Trouble> {
    let tree = Tree::open(root)?;
    let mut contents = Contents::new();
    for path in layout::tried(service, key) {
        match tree.read(&path, most) {
            Ok(None) => (),
            Err(Trouble::Tree(why)) => return Err(Trouble::Tree(why)),
            found => contents.push((path, found)),
        }
    }
    Ok(contents)
}

/// What the contents of a key's files say of it.
pub fn judge(contents: Contents, service: &Service, key: &str, now: Micros) -> Look {
    let mut look = Look::default();
    for (path, found) in contents {
        match found.and_then(|found| found.map(|found| said(found, &path, service, key, now)).transpose()) {
            Ok(None) => (),
            Ok(Some(lying)) => {
                if look.newest.as_ref().is_none_or(|known| known.fetched_at < lying.fetched_at) {
                    look.newest = Some(lying);
                }
            }
            Err(why) => look.passed_over = Some(why.to_string()),
        }
    }
    look
}

fn said(
    (bytes, changed): (Vec<u8>, Micros),
    path: &str,
    service: &Service,
    key: &str,
    now: Micros,
) -> Result<Lying, Trouble> {
    let found = recognise::recognise(path.as_bytes()).map_err(|why| passed_over(path, why))?;
    let body = body::read(service, &found, &bytes).map_err(|why| passed_over(path, &why))?;
    let fetched_at = body.observed_at.unwrap_or(changed);
    if fetched_at > now.saturating_add(CLOCK_SKEW) {
        return Err(passed_over(path, "was observed in the future"));
    }
    let life = if body.payload.is_some() { service.ttl } else { service.not_found_ttl };
    let expires_at = ttl::expires_at(fetched_at, life, &cache_key_hash(&service.name, key));
    Ok(Lying { body, fetched_at, expires_at })
}

fn passed_over(path: &str, why: &str) -> Trouble {
    Trouble::File(format!("the file \"{path}\" {why}"))
}
