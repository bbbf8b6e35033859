//! What enrich_diagnose and enrich_explain ask of Rust: the paths a statement reads, whether a secret can be found.

use crate::core::json_reads;
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::store::registry;
use pgrx::prelude::*;

/// The paths of JSON values that a text of SQL reads, and the name each starts at.
#[pg_extern(immutable, strict, parallel_safe, cost = 1000)]
fn enrichment_json_reads(sql: Utf8) -> TableIterator<'static, (name!(root, RawText), name!(path, Vec<RawText>))> {
    TableIterator::new(
        json_reads::reads(&sql)
            .into_iter()
            .map(|read| (RawText::of_utf8(&read.root), read.path.iter().map(|step| RawText::of_utf8(step)).collect())),
    )
}

/// Whether the secret of a service can be found; not the secret.
///
/// # Errors
/// 42704 unknown service.
#[pg_extern(stable, strict, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrichment_has_secret(service: &str) -> Answer<bool> {
    super::admin::has_secret(&*registry::service(service)?)
}
