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

/// Looks for the files of a key in its normal form.
///
/// # Errors
/// [`Trouble::Tree`]; what is wrong with one file is in the result.
pub fn look(root: &Path, service: &Service, key: &str, now: Micros) -> Result<Look, Trouble> {
    let tree = Tree::open(root)?;
    let mut look = Look::default();
    for path in layout::tried(&service.name, key) {
        match read(&tree, &path, service, key, now) {
            Ok(None) => (),
            Ok(Some(lying)) => {
                if look.newest.as_ref().is_none_or(|known| known.fetched_at < lying.fetched_at) {
                    look.newest = Some(lying);
                }
            }
            Err(Trouble::File(why)) => look.passed_over = Some(why),
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(look)
}

fn read(tree: &Tree, path: &str, service: &Service, key: &str, now: Micros) -> Result<Option<Lying>, Trouble> {
    let Some((bytes, changed)) = tree.read(path, service.max_bytes)? else { return Ok(None) };
    let found = recognise::recognise(path.as_bytes()).map_err(|why| passed_over(path, why))?;
    let body = body::read(service, &found, &bytes).map_err(|why| passed_over(path, &why))?;
    let fetched_at = body.observed_at.unwrap_or(changed);
    if fetched_at > now.saturating_add(CLOCK_SKEW) {
        return Err(passed_over(path, "was observed in the future"));
    }
    let life = if body.payload.is_some() { service.ttl } else { service.not_found_ttl };
    let expires_at = ttl::expires_at(fetched_at, life, &cache_key_hash(&service.name, key));
    Ok(Some(Lying { body, fetched_at, expires_at }))
}

fn passed_over(path: &str, why: &str) -> Trouble {
    Trouble::File(format!("the file \"{path}\" {why}"))
}
