//! Writing what was stored into files of the disk cache. The list of keys is a table (`enrichment_disk_outbox`), so that what was
//! committed is written even if everything ends in between; the files are written by a thread (`io/disk/scribe.rs`), so that a
//! disk that is slow or does not answer holds up nothing else.

use super::xact;
use crate::core::disk::{layout, written};
use crate::core::error::Error;
use crate::core::{Micros, SECOND};
use crate::io::disk::{Report, Scribe, Task, Written};
use crate::pg::disk;
use crate::pg::store::files::{self, Noted};
use crate::pg::{convert, gucs};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Most keys of one batch, and most bytes of their answers.
const BATCH: i64 = 200;
const BYTES: usize = 16 << 20;
/// How often a directory in trouble is tried.
const TRY_AGAIN: Micros = 2 * SECOND;
/// How long the file that is being written is waited for when the worker ends.
const GRACE: Duration = Duration::from_millis(500);

pub struct Mirror {
    scribe: Scribe,
    /// What the thread has, by the id of its task: the first of the ids of a key, and all of them.
    under_way: HashMap<i64, Vec<Noted>>,
    /// When to look at the list again, where no commit says so.
    look_at: Micros,
}

impl Mirror {
    /// # Errors
    /// No file descriptor left.
    pub fn new() -> std::io::Result<Mirror> {
        Ok(Mirror { scribe: Scribe::new()?, under_way: HashMap::new(), look_at: 0 })
    }

    /// Readable while a batch that was written waits to be taken off the list.
    pub fn wakes(&self) -> BorrowedFd<'_> {
        self.scribe.wakes()
    }

    /// When there is something to do next.
    pub fn next_event(&self) -> Option<Micros> {
        (disk::written_through() && !self.scribe.busy()).then_some(self.look_at)
    }

    /// Takes what was written off the list, and hands the thread the next batch; says whether it did.
    ///
    /// # Errors
    /// What the statements raise. What was written is then written again, which changes nothing.
    pub fn round(&mut self) -> Result<bool, Error> {
        if let Some(report) = self.scribe.report() {
            let trouble = report.trouble.is_some();
            self.settle(report)?;
            if trouble {
                self.look_at = convert::clock() + TRY_AGAIN;
                return Ok(false);
            }
        }
        if self.scribe.busy() || !disk::written_through() {
            return Ok(false);
        }
        if !disk::writing_again() {
            self.look_at = convert::clock() + TRY_AGAIN;
            return Ok(false);
        }
        let (tasks, nothing_to_do) =
            xact::run(c"enrichment_cache: reading what is to be written into files", || self.next_batch())?;
        let busy = !nothing_to_do.is_empty();
        if busy {
            xact::run(c"enrichment_cache: noting keys without a file", || files::done(nothing_to_do))?;
        }
        let Some(root) = gucs::disk_cache_dir().filter(|_| !tasks.is_empty()) else { return Ok(busy) };
        self.scribe.write(&root, tasks).map_err(|error| Error::other(format!("files cannot be written: {error}")))?;
        Ok(true)
    }

    /// The tasks of the next batch, each key once, and the ids of keys of which there is nothing to write.
    fn next_batch(&mut self) -> Result<(Vec<Task>, Vec<i64>), Error> {
        self.under_way.clear();
        let due = files::due(BATCH)?;
        if due.is_empty() {
            self.look_at = files::next_due()?.unwrap_or(Micros::MAX);
        }
        let mut keys: BTreeMap<(String, String), Vec<Noted>> = BTreeMap::new();
        for noted in due {
            keys.entry((noted.service.clone(), noted.key.clone())).or_default().push(noted);
        }
        let (mut tasks, mut nothing_to_do, mut bytes) = (Vec::new(), Vec::new(), 0);
        for ((service, key), noted) in keys {
            let Some(id) = noted.first().map(|noted| noted.id) else { continue };
            match task(id, &service, &key, &noted)? {
                Some(task) => {
                    bytes += task.file.as_ref().map_or(0, |(_, body)| body.len());
                    self.under_way.insert(id, noted);
                    tasks.push(task);
                }
                None => nothing_to_do.extend(noted.iter().map(|noted| noted.id)),
            }
            if bytes > BYTES {
                break;
            }
        }
        Ok((tasks, nothing_to_do))
    }

    /// Notes what became of a batch.
    fn settle(&mut self, report: Report) -> Result<(), Error> {
        let now = convert::clock();
        let mut under_way = std::mem::take(&mut self.under_way);
        let (mut done, mut failed, mut written) = (Vec::new(), Vec::new(), BTreeMap::<String, i64>::new());
        for (id, outcome) in report.tasks {
            let Some(noted) = under_way.remove(&id) else { continue };
            match outcome {
                Written::Done => *written.entry(noted[0].service.clone()).or_default() += 1,
                // an older program was faster: its answer is the newer one
                Written::Newer => disk::tell(&noted[0].service, &noted[0].key),
                Written::Failed(why) => {
                    failed.extend(noted.into_iter().map(|noted| (noted.id, noted.failures, why.clone())));
                    continue;
                }
            }
            done.extend(noted.into_iter().map(|noted| noted.id));
        }
        let why = report.trouble.or_else(|| failed.first().filter(|_| done.is_empty()).map(|(.., why)| why.clone()));
        if why.is_some() || !done.is_empty() {
            disk::write_trouble(why.as_deref());
        }
        xact::run(c"enrichment_cache: noting written files", || {
            for (id, failures, why) in &failed {
                files::failed(*id, now + disk::pause_after(*failures as u32 + 1), why)?;
            }
            for (service, files) in written {
                files::count(&service, 0, files)?;
            }
            files::done(done)
        })
    }

    /// Ends after the file that is being written; the rest stays on the list.
    pub fn finish(mut self, still_here: bool) {
        if let Some(report) = self.scribe.finish(GRACE).filter(|_| still_here) {
            if let Err(error) = self.settle(report) {
                pgrx::log!("enrichment_cache: some files are written again at the next start: {error}");
            }
        }
    }
}

/// What the thread is to do for a key; nothing where the layout has no place for what the table says.
fn task(id: i64, service: &str, key: &str, noted: &[Noted]) -> Result<Option<Task>, Error> {
    // deleted: files from before go too, wherever a look finds them; one that came later stays
    let deleted_at = noted.iter().filter(|noted| noted.deleted).map(|noted| noted.at).max();
    let deleted = deleted_at.map(|at| (at, layout::tried(service, key)));
    let said = files::said(service, key)?;
    let at = said.as_ref().map_or(0, |said| said.fetched_at);
    let files =
        said.map(|said| written::files(service, key, &said.status, said.payload.as_deref())).unwrap_or_default();
    let file = files.file.map(|(path, body)| (path, body.into_bytes()));
    Ok((file.is_some() || deleted.is_some()).then_some(Task { id, deleted, file, at, away: files.away }))
}
