//! The thread that writes files, so that the worker of PostgreSQL never waits for a disk.
//!
//! Contract: one batch at a time. Its report is in the mailbox when it is over, and says of each task what became of it; a
//! task that it does not name was not begun. Nothing is in memory alone: whoever hands a task over knows of it until the
//! report says that it is done.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;
use std::{io, mem};

use super::tree::{Flush, Tree, Trouble};
use crate::core::Micros;
use crate::io::signals::AllBlocked;
use crate::io::wake::Mailbox;

/// Enough for a few paths and the server's own.
const STACK_BYTES: usize = 256 * 1024;

/// What is to be done with the files of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: i64,
    /// Files of an answer that was deleted, and when: those that were not changed after that go first.
    pub deleted: Option<(Micros, Vec<String>)>,
    /// The file to write, and its bytes.
    pub file: Option<(String, Vec<u8>)>,
    /// The moment of observation, which becomes the file's time of change.
    pub at: Micros,
    /// Files that say something else of the key; they go away, if they are not newer.
    pub away: Vec<String>,
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    /// The file that is there is newer, and stayed.
    Newer,
    Failed(String),
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Report {
    pub tasks: Vec<(i64, Written)>,
    /// Why the rest was not begun.
    pub trouble: Option<String>,
}

/// The thread, started with the first batch.
pub struct Scribe {
    batches: Option<mpsc::Sender<(PathBuf, Vec<Task>)>>,
    mailbox: Arc<Mailbox<Report>>,
    stop: Arc<AtomicBool>,
    busy: bool,
}

impl Scribe {
    /// # Errors
    /// No file descriptor left.
    pub fn new() -> io::Result<Scribe> {
        let mailbox = Arc::new(Mailbox::new()?);
        Ok(Scribe { batches: None, mailbox, stop: Arc::default(), busy: false })
    }

    /// Readable while a report waits.
    pub fn wakes(&self) -> BorrowedFd<'_> {
        self.mailbox.as_fd()
    }

    /// Whether a batch is being written.
    pub fn busy(&self) -> bool {
        self.busy
    }

    /// Hands a batch over; only when it is not busy.
    ///
    /// # Errors
    /// No thread can be made; nothing of the batch was begun.
    pub fn write(&mut self, root: &Path, batch: Vec<Task>) -> io::Result<()> {
        if self.batches.is_none() {
            self.batches = Some(self.start()?);
        }
        let sent = self.batches.as_ref().is_some_and(|batches| batches.send((root.to_path_buf(), batch)).is_ok());
        if !sent {
            self.batches = None;
            return Err(io::Error::other("the thread that writes files has ended"));
        }
        self.busy = true;
        Ok(())
    }

    fn start(&self) -> io::Result<mpsc::Sender<(PathBuf, Vec<Task>)>> {
        let (send, receive) = mpsc::channel::<(PathBuf, Vec<Task>)>();
        let (mailbox, stop) = (self.mailbox.clone(), self.stop.clone());
        let _blocked = AllBlocked::here();
        thread::Builder::new().name("enrichment files".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            while let Ok((root, batch)) = receive.recv() {
                mailbox.post(write_batch(&root, batch, &stop));
            }
        })?;
        Ok(send)
    }

    /// Waits for a report, so long at most.
    pub fn wait(&self, longest: Duration) {
        self.mailbox.wait(longest);
    }

    /// The report of the batch, when it is over.
    pub fn report(&mut self) -> Option<Report> {
        let report = self.mailbox.drain(Duration::ZERO).pop()?;
        self.busy = false;
        Some(report)
    }

    /// Has the batch end after the file that is being written, and waits for that, so long at most: a disk that does not
    /// answer keeps nobody.
    pub fn finish(&mut self, longest: Duration) -> Option<Report> {
        self.stop.store(true, Ordering::Relaxed);
        if mem::take(&mut self.busy) {
            self.wait(longest);
        }
        self.mailbox.drain(Duration::ZERO).pop()
    }
}

fn write_batch(root: &Path, batch: Vec<Task>, stop: &AtomicBool) -> Report {
    let mut report = Report::default();
    let tree = match Tree::open(root) {
        Ok(tree) => tree,
        Err(trouble) => return Report { trouble: Some(trouble.to_string()), ..report },
    };
    for task in batch {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match write_task(&tree, &task) {
            Ok(written) => report.tasks.push((task.id, written)),
            Err(Trouble::File(why)) => report.tasks.push((task.id, Written::Failed(why))),
            Err(Trouble::Tree(why)) => {
                report.trouble = Some(why);
                break;
            }
        }
    }
    report
}

fn write_task(tree: &Tree, task: &Task) -> Result<Written, Trouble> {
    if let Some((at, paths)) = &task.deleted {
        for path in paths {
            tree.remove(path, *at)?;
        }
    }
    if let Some((path, bytes)) = &task.file {
        if tree.changed(path)?.is_some_and(|at| at > task.at) {
            return Ok(Written::Newer);
        }
        tree.write(path, bytes, task.at, Flush::Now)?;
    }
    for path in &task.away {
        tree.remove(path, task.at)?;
    }
    Ok(Written::Done)
}
