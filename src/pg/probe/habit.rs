//! What a call site has seen of its keys: whether they come again, and when it pays to bring all rows in.

use super::preload;
use crate::core::error::Error;

/// What a call site has seen of its keys so far: whether they come again, and how many there are.
#[derive(Default)]
pub struct Habit {
    remembered: u64,
    looked_up: u64,
    /// What these have cost.
    spent: u64,
    /// How many of each since the last look at them.
    window: (u32, u32),
    /// Look-ups that are not worth remembering.
    pass_over: u32,
    /// When look-ups have cost so much all rows are brought in at once; not known before the first are made.
    bring_in_after: Option<u64>,
}

/// Look-ups between two looks at how often keys come again.
const WINDOW: u32 = 4096;
/// Before so many different keys, rare repeats say little.
const MANY: u64 = 8 * 1024;
/// Look-ups that are then not remembered, before that is tried again.
const PASS_OVER: u32 = 4 * WINDOW;
/// Look-ups before the size of the table is asked for.
const FEW: u64 = 64;

impl Habit {
    /// Whether answers are not worth remembering at the moment.
    pub fn passes_over(&self) -> bool {
        self.pass_over > 0
    }

    /// Look-ups that found nothing remembered.
    pub fn looked_up(&self) -> u64 {
        self.looked_up
    }

    #[inline]
    pub fn came_again(&mut self) {
        self.remembered += 1;
        self.window.0 += 1;
    }

    /// One more key that was not remembered; says whether it is worth it.
    pub fn is_new(&mut self) -> bool {
        self.looked_up += 1;
        if self.pass_over > 0 {
            self.pass_over -= 1;
            return false;
        }
        self.window.1 += 1;
        if self.window.1 >= WINDOW {
            let (again, new) = std::mem::take(&mut self.window);
            if self.looked_up > MANY && again < new / 50 {
                self.pass_over = PASS_OVER;
            }
        }
        true
    }

    /// What a look-up has cost.
    pub fn has_spent(&mut self, cost: u64) {
        self.spent += cost;
    }

    /// What all of them have cost.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// Whether it is time to bring all rows in: keys come again, and those who would do it together have spent enough on looking keys up
    /// one by one.
    pub fn wants_all(&mut self, spent: u64) -> Result<bool, Error> {
        if self.looked_up < FEW || self.remembered < self.looked_up / 20 {
            return Ok(false);
        }
        let after = match self.bring_in_after {
            Some(after) => after,
            None => preload::worth_it_after()?.unwrap_or(u64::MAX),
        };
        self.bring_in_after = Some(after);
        if spent < after {
            return Ok(false);
        }
        // once, whatever comes of it
        self.bring_in_after = Some(u64::MAX);
        Ok(true)
    }
}
