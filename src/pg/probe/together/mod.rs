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
use std::rc::Rc;

/// Look-ups before a memo is looked for: fewer are not worth it. Between two attempts as many are made as before.
const FEW: u64 = 64;

/// The memo of one service, if there is one.
pub struct Together {
    memo: Option<Rc<SharedMemo>>,
    /// After how many look-ups it is looked for.
    look_after: u64,
}

impl Default for Together {
    fn default() -> Self {
        Together { memo: None, look_after: FEW }
    }
}

impl Together {
    /// The memo, looked for when it is time to: after so many look-ups of this process.
    ///
    /// # Errors
    /// As [`target::current`].
    #[inline]
    pub fn memo(
        &mut self,
        seen: &Seen,
        service: &str,
        looked_up: u64,
        limit: usize,
    ) -> Result<Option<&SharedMemo>, Error> {
        if self.memo.is_none() && looked_up >= self.look_after {
            self.look(seen, service, looked_up, limit)?;
        }
        Ok(self.memo.as_deref())
    }

    #[cold]
    fn look(&mut self, seen: &Seen, service: &str, looked_up: u64, limit: usize) -> Result<(), Error> {
        self.look_after *= 2;
        let (Some(target), Some(extent)) = (target::current()?, preload::extent()?) else { return Ok(()) };
        let times = (lone::transaction_start(), lone::statement_start());
        let asked = Asked { seen: *seen, times, user: lone::user(), table: target.heap };
        match group::join(asked, service, extent.rows, limit) {
            Joined::Memo(memo) => {
                // what it looked up alone counts too
                memo.looked_up(looked_up);
                self.memo = Some(memo);
            }
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
