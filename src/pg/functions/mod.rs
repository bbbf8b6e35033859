//! The SQL functions: arguments are checked and normalised here, statements are in `store`.

mod admin;
mod cache;
mod coverage;
mod diagnose;
mod disk;
mod fetch;
mod get;
mod hibp;
mod hibp_load;
mod json;
mod keys;
mod lookup;
mod migrate;
mod migrate_rows;
mod password;
mod request;
mod sources;
mod ssh_keys;
mod table;
mod text;
mod trial;

use crate::core::address;
use crate::core::error::Error;
use crate::core::key::{self, Key};
use crate::core::service::Service;

/// An argument that must not be NULL. (pgrx's own refusal would be an internal error without a hint.)
fn given<T>(value: Option<T>, name: &str) -> Result<T, Error> {
    value.ok_or_else(|| Error::InvalidArgument {
        message: format!("{name} must not be null"),
        hint: format!("Give a value for the argument {name}."),
    })
}

/// The normalised key of a write: what cannot be a key is an error.
fn key_to_write(service: &Service, raw: &str) -> Result<Key, Error> {
    key::normalise(service.key_kind, raw).map_err(|problem| Error::KeyNotValid {
        service: service.name.clone(),
        kind: service.key_kind.as_str(),
        key: key::shown(raw),
        why: problem.why,
    })
}

/// The normalised key of a read: analysts' data is dirty, a query must not die of it.
fn key_to_read(service: &Service, raw: &str) -> Option<Key> {
    key::normalise(service.key_kind, raw).ok()
}

/// A key that may be sent to the provider.
fn eligible(key: &Key) -> bool {
    address::key_eligibility(key).is_ok()
}
