//! What a call site remembers together with those of the query's other processes: when it looks for their memo, and how they
//! bring all rows in, each some pages.

mod arena;
pub mod group;
mod segment;
pub mod shared;

use super::{preload, target};
use crate::core::error::Error;
use crate::core::service::Service;
use crate::pg::lone;
use group::{Asked, Joined, Seen};
use shared::SharedMemo;
use std::cell::Cell;
use std::rc::Rc;

/// Look-ups before a memo is looked for: fewer are not worth it. Between two attempts as many are made as before.
const FEW: u64 = 64;

/// The memo of one service, if there is one.
pub struct Together {
    memo: Option<Rc<SharedMemo>>,
    /// After how many look-ups it is looked for.
    look_after: u64,
    /// What this one's look-ups have cost, and of that what the others do not know.
    own: Cell<u64>,
    untold: Cell<u64>,
}

impl Default for Together {
    fn default() -> Self {
        Together { memo: None, look_after: FEW, own: Cell::new(0), untold: Cell::new(0) }
    }
}

impl Together {
    /// Looks for the memo when it is time to: after so many look-ups of this process.
    ///
    /// # Errors
    /// As [`target::current`].
    #[inline]
    pub fn look_after(&mut self, looked_up: u64, seen: &Seen, service: &str, limit: usize) -> Result<(), Error> {
        if self.memo.is_none() && looked_up >= self.look_after {
            self.look(seen, service, limit)?;
        }
        Ok(())
    }

    /// The memo, where there is one.
    #[inline]
    pub fn memo(&self) -> Option<&SharedMemo> {
        self.memo.as_deref()
    }

    /// What all processes have spent on look-ups, if this one has spent `own`, also before it found the others.
    pub fn spent(&self, own: u64) -> u64 {
        self.untold.set(self.untold.get() + own - self.own.replace(own));
        self.memo.as_ref().map_or(own, |memo| memo.spent(&self.untold))
    }

    #[cold]
    fn look(&mut self, seen: &Seen, service: &str, limit: usize) -> Result<(), Error> {
        self.look_after *= 2;
        let (Some(target), Some(extent)) = (target::current()?, preload::extent()?) else { return Ok(()) };
        let times = (lone::transaction_start(), lone::statement_start());
        let asked = Asked { seen: *seen, times, user: lone::user(), table: target.heap };
        match group::join(asked, service, extent.rows, limit) {
            Joined::Memo(memo) => self.memo = Some(memo),
            Joined::NotYet => (),
            Joined::Never => self.look_after = u64::MAX,
        }
        Ok(())
    }
}

/// Brings all rows of a service into the memo, as far as there is room: some pages at a time, until others have the rest.
///
/// # Errors
/// What reading the table raises.
pub fn bring_all_in(memo: &SharedMemo, service: &Service) -> Result<(), Error> {
    let Some(extent) = preload::extent()? else { return Ok(()) };
    while let Some(pages) = memo.next_pages(extent.pages) {
        let all = preload::each_answer(&service.name, Some(pages.clone()), |key, payload, row| {
            memo.bring_in(key, payload, row)
        })?;
        if !all {
            memo.give_up();
            break;
        }
        memo.have_read(pages);
    }
    Ok(())
}
