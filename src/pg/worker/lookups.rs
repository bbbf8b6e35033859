//! Folding what look-ups counted into tables: hits and misses per service, hits and last use per row.
//!
//! Rows are gathered first, each once however often it was looked up, and written in batches with at most one row of a page
//! each, and only where the page has room for one more version: else the update would have to be entered into every
//! index. What finds no room, for a long query still sees the version before, waits for the next time.

use super::steps::Steps;
use super::{read_again, xact};
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::{self, micros_of};
use crate::pg::room::Pages;
use crate::pg::store::lookups::{self, Hits};
use crate::pg::{gucs, tally};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Most rows of one transaction.
const BATCH: usize = 500;
/// Most distinct rows that are gathered; more are counted as dropped.
const GATHERED: usize = 100_000;
/// Most batches that are still written when the worker ends: about half a second's work.
const LAST_BATCHES: usize = 40;

/// A row's hits, and the page it stood in.
type Row = (Hits, u32);

/// What this worker has gathered and not written.
#[derive(Default)]
pub struct Lookups {
    rows: HashMap<i64, Row>,
    batches: VecDeque<Vec<Row>>,
    /// When it was last done.
    last: Micros,
}

impl Lookups {
    /// Begins to gather; nothing is written before an interval has passed.
    pub fn starting(now: Micros) -> Self {
        Lookups { last: now, ..Lookups::default() }
    }

    /// Takes over what sessions have put into shared memory.
    pub fn gather(&mut self) {
        for touch in tally::touched(usize::MAX) {
            let hits = Hits { id: touch.row, hits: i64::from(touch.hits), at: micros_of(touch.at) };
            self.add((hits, touch.block));
        }
    }

    fn add(&mut self, (new, page): Row) {
        if let Some((known, at)) = self.rows.get_mut(&new.id) {
            known.hits += new.hits;
            known.at = known.at.max(new.at);
            *at = page;
        } else if self.rows.len() < GATHERED {
            self.rows.insert(new.id, (new, page));
        } else {
            tally::dropped(1);
        }
    }

    /// Writes the counters and begins with the rows when it is time, else one batch of rows; says whether there is more.
    pub fn fold(&mut self, steps: &mut Steps) -> bool {
        let now = convert::clock();
        if now >= self.next_event() {
            self.last = now;
            steps.run("counters of look-ups", || write_counters().map(|()| false));
            if self.batches.is_empty() {
                self.batches = batches(std::mem::take(&mut self.rows).into_values());
            }
        }
        let busy = self.batches.front().is_some_and(|batch| {
            let rows: Vec<i64> = batch.iter().map(|(hits, _)| hits.id).collect();
            steps.run("requests of what is read", || {
                xact::run(c"enrichment_cache: requesting what is read", || read_again::request(rows))
            })
        });
        steps.run("hits of rows", || self.write_batch(false));
        busy || !self.batches.is_empty()
    }

    /// Writes the rows of one batch whose pages have room, or all of them when this is the last chance.
    fn write_batch(&mut self, last_chance: bool) -> Result<bool, Error> {
        let Some(batch) = self.batches.front() else { return Ok(false) };
        let (written, waiting) = xact::run_briefly(c"enrichment_cache: counting hits of rows", || {
            let pages = Pages::open()?;
            let fits = |page| last_chance || pages.as_ref().is_some_and(|pages| pages.has_room(page));
            let (now, later): (Vec<Row>, Vec<Row>) = batch.iter().partition(|(_, page)| fits(*page));
            let rows: Vec<Hits> = now.into_iter().map(|(hits, _)| hits).collect();
            Ok((lookups::touch(&rows)?, later))
        })?;
        tally::dropped(((batch.len() - waiting.len()) as u64).saturating_sub(written));
        self.batches.pop_front();
        waiting.into_iter().for_each(|row| self.add(row));
        Ok(!self.batches.is_empty())
    }

    /// When there is something to do next.
    pub fn next_event(&self) -> Micros {
        self.last + gucs::stats_interval().as_micros() as Micros
    }

    /// Writes what can be written before the worker ends.
    pub fn finish(mut self) -> Result<(), Error> {
        self.gather();
        write_counters()?;
        self.batches.extend(batches(std::mem::take(&mut self.rows).into_values()));
        for _ in 0..LAST_BATCHES {
            self.write_batch(true)?;
        }
        tally::dropped((self.batches.iter().map(Vec::len).sum::<usize>() + self.rows.len()) as u64);
        Ok(())
    }
}

fn write_counters() -> Result<(), Error> {
    let counted = tally::unfolded();
    if counted.is_empty() {
        return Ok(());
    }
    xact::run(c"enrichment_cache: counting look-ups", || {
        for one in &counted {
            let clamp = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            let counts = [one.hits, one.misses, one.dropped, one.files].map(clamp);
            lookups::count(&one.service, counts)?;
        }
        Ok(())
    })?;
    tally::fold(&counted);
    Ok(())
}

/// Rows in batches: the first of each page, in the order of the pages, then the second of each, and so on.
fn batches(rows: impl Iterator<Item = Row>) -> VecDeque<Vec<Row>> {
    let mut pages: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
    rows.for_each(|row| pages.entry(row.1).or_default().push(row));
    let deepest = pages.values().map(Vec::len).max().unwrap_or(0);
    let mut found = VecDeque::new();
    for depth in 0..deepest {
        let layer: Vec<Row> = pages.values().filter_map(|page| page.get(depth).copied()).collect();
        found.extend(layer.chunks(BATCH).map(<[Row]>::to_vec));
    }
    found
}
