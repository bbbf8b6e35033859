//! A helper of a long import: it takes into the index of payloads what the import's session has put on the index's list of
//! pending entries, beside it. That was a third of the session's time (docs/adr/0027).

use super::helper::Helper;
use super::{signals, write_back::is_locked, xact};
use crate::pg::store::migration as rows;
use crate::pg::{store, wake};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::prelude::*;
use std::time::Duration;

/// Between two looks at the list.
const REST: Duration = Duration::from_millis(100);
/// A portion: each value of the payloads is looked for in the index once a portion, however many files have it. A session that
/// searches by payload reads the list from its beginning to its end.
const PORTION: i64 = 32 << 20;

/// The helper of this session's import; it ends when this is dropped, or with the session.
pub struct Merger(#[allow(dead_code, reason = "held for its end")] Helper);

impl Merger {
    /// Starts it. Nothing when no background worker slot is free: the session then does all itself.
    pub fn start() -> Option<Self> {
        Helper::start("enrichment_cache import helper", "enrichment_merge_main", &wake::my_pid().to_string())
            .map(Merger)
    }
}

#[pg_guard]
#[no_mangle]
pub extern "C-unwind" fn enrichment_merge_main(database: pg_sys::Datum) {
    signals::install();
    let oid = database.value() as u32;
    let session: i32 = BackgroundWorker::get_extra().parse().unwrap_or(0);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(oid)), None);
    signals::configure_session();
    store::registry::in_worker();
    while !signals::terminating() && wake::alive(session) {
        let settled = xact::run(c"enrichment_cache: payload index, for an import", || match rows::unsettled()? {
            bytes if bytes < PORTION => Ok(()),
            _ => rows::settle(),
        });
        match settled {
            Err(error) if !signals::terminating() && !is_locked(&error) => {
                pgrx::warning!("enrichment_cache: the helper of an import ends, the import goes on by itself: {error}");
                return;
            }
            _ => signals::wait(REST, None),
        };
    }
}
