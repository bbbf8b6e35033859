//! enrich_ssh_keys: the keys that a command plants, and the command of an event.

use crate::core::ssh_keys;
use crate::pg::encoding::{RawText, Utf8};
use pgrx::prelude::*;

/// The SSH public keys in a command, each once. Whatever the text, it never raises.
#[allow(clippy::type_complexity)] // the columns of the contract
#[pg_extern(immutable, strict, parallel_safe, cost = 1000)]
fn enrich_ssh_keys(
    command: Utf8,
) -> TableIterator<
    'static,
    (
        name!(key_type, String),
        name!(fingerprint, String),
        name!(key_hash, String),
        name!(bits, i32),
        name!(comment, Option<RawText>),
        name!(method, String),
        name!(target_path, Option<RawText>),
        name!(key_data, String),
    ),
> {
    TableIterator::new(ssh_keys::planted(&command).into_iter().map(|found| {
        (
            found.key.kind.to_string(),
            found.key.fingerprint,
            found.key.hash,
            found.key.bits as i32,
            found.comment.as_deref().map(RawText::of_utf8),
            found.way.as_str().to_string(),
            found.target.as_deref().map(RawText::of_utf8),
            found.key.data,
        )
    }))
}

/// The command line in the payload of an event (`input`, else `command`), of text so that what jsonb refuses is read too;
/// zero characters are left out. NULL: there is none.
#[pg_extern(immutable, strict, parallel_safe, cost = 200)]
fn enrich_event_command(payload: Utf8) -> Option<RawText> {
    ssh_keys::command_of(&payload).as_deref().map(RawText::of_utf8)
}
