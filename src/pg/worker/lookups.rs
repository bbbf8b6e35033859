//! Folding what look-ups counted into tables: hits and misses per service, hits and last use per row.
//!
//! Rows are gathered first, each once however often it was looked up, and written in batches at most one row of a page
//! each: a second new version in the same page within one transaction would often find no room beside the old ones and
//! have to be entered into every index. With a transaction for each batch the page is tidied up in between.

use super::steps::Steps;
use super::xact;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::{self, micros_of};
use crate::pg::store::lookups::{self, Hits};
use crate::pg::{gucs, tally};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Most rows of one transaction.
const BATCH: usize = 500;
/// Most distinct rows that are gathered; more are counted as dropped.
const GATHERED: usize = 100_000;
/// Most batches that are still written when the worker ends: about half a second's work.
const LAST_BATCHES: usize = 40;

/// What this worker has gathered and not written.
#[derive(Default)]
pub struct Lookups {
    rows: HashMap<i64, (Hits, u32)>,
    batches: VecDeque<Vec<Hits>>,
    next: Micros,
}

impl Lookups {
    /// Takes over what sessions have put into shared memory.
    pub fn gather(&mut self) {
        for touch in tally::touched(usize::MAX) {
            let at = micros_of(touch.at);
            if let Some((known, block)) = self.rows.get_mut(&touch.row) {
                known.hits += i64::from(touch.hits);
                known.at = known.at.max(at);
                *block = touch.block;
            } else if self.rows.len() < GATHERED {
                let hits = Hits { id: touch.row, hits: i64::from(touch.hits), at };
                self.rows.insert(touch.row, (hits, touch.block));
            } else {
                tally::dropped(1);
            }
        }
    }

    /// Writes the counters and begins with the rows when it is time, else one batch of rows; says whether there is more.
    pub fn fold(&mut self, steps: &mut Steps) -> bool {
        let now = convert::clock();
        if now >= self.next {
            self.next = now + gucs::stats_interval().as_micros() as Micros;
            steps.run("counters of look-ups", || write_counters().map(|()| false));
            if self.batches.is_empty() {
                self.batches = batches(std::mem::take(&mut self.rows).into_values());
            }
        }
        steps.run("hits of rows", || self.write_batch());
        !self.batches.is_empty()
    }

    fn write_batch(&mut self) -> Result<bool, Error> {
        let Some(batch) = self.batches.front() else { return Ok(false) };
        let written = xact::run_briefly(c"enrichment_cache: counting hits of rows", || lookups::touch(batch))?;
        tally::dropped((batch.len() as u64).saturating_sub(written));
        self.batches.pop_front();
        Ok(!self.batches.is_empty())
    }

    /// When there is something to do next.
    pub fn next_event(&self) -> Micros {
        self.next
    }

    /// Writes what can be written before the worker ends.
    pub fn finish(mut self) -> Result<(), Error> {
        self.gather();
        write_counters()?;
        self.batches.extend(batches(std::mem::take(&mut self.rows).into_values()));
        for _ in 0..LAST_BATCHES {
            self.write_batch()?;
        }
        self.batches.iter().for_each(|batch| tally::dropped(batch.len() as u64));
        Ok(())
    }
}

fn write_counters() -> Result<(), Error> {
    let mut counted = tally::unfolded();
    counted.retain(|one| one.hits + one.misses + one.dropped > 0);
    if counted.is_empty() {
        return Ok(());
    }
    xact::run(c"enrichment_cache: counting look-ups", || {
        for one in &counted {
            let clamp = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            lookups::count(&one.service, clamp(one.hits), clamp(one.misses), clamp(one.dropped))?;
        }
        Ok(())
    })?;
    tally::fold(&counted);
    Ok(())
}

/// Rows in batches: the first of each page, in the order of the pages, then the second of each, and so on.
fn batches(rows: impl Iterator<Item = (Hits, u32)>) -> VecDeque<Vec<Hits>> {
    let mut pages: BTreeMap<u32, Vec<Hits>> = BTreeMap::new();
    rows.for_each(|(hits, page)| pages.entry(page).or_default().push(hits));
    let deepest = pages.values().map(Vec::len).max().unwrap_or(0);
    let mut found = VecDeque::new();
    for depth in 0..deepest {
        let layer: Vec<Hits> = pages.values().filter_map(|page| page.get(depth).copied()).collect();
        found.extend(layer.chunks(BATCH).map(<[Hits]>::to_vec));
    }
    found
}
