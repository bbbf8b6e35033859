//! The threads of an import: one walks, one counts what it has not come to, some read and take apart; the session takes what they
//! made, in the order of the walk.
//!
//! Contract: `gate` is held for moments only. A reader waits at it while [`MOST_BYTES`] are under way, except the one whose
//! turn is next, so that the order never stands still. Dropping the [`Pipeline`] ends the threads: each looks at `stop`
//! after every file, and no wait is without end.

use super::safe;
use super::tree::{Entry, Walk};
use crate::core::disk::item::{look, Item, Services, What};
use crate::io::signals::AllBlocked;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

/// Files that a reader takes at a time.
const BATCH: usize = 32;
/// Batches that are read and not yet taken.
const AHEAD: usize = 64;
/// Batches that are found and not yet read: some 30 MB of paths. A walk that stands still before so many has somebody else
/// count the rest.
const FOUND: usize = 8192;
/// Bytes of files that are read and not yet taken.
const MOST_BYTES: u64 = 64 << 20;
const STACK_BYTES: usize = 512 * 1024;
/// Of the memory for a file's bytes a reader keeps so much for the next one.
const KEPT_BYTES: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_millis(100);

/// What is to be read.
pub struct Spec {
    pub root: OwnedFd,
    /// Behind which path to begin.
    pub after: Option<Vec<u8>>,
    /// Of which services only.
    pub only: Option<BTreeSet<String>>,
    pub services: Services,
    /// Larger files are not read.
    pub most_bytes: u64,
    /// Whether the readers make the `jsonb` of answers: the database is in UTF-8.
    pub build: bool,
}

/// What comes next.
pub enum Next {
    Items(Vec<Item>),
    /// Nothing yet.
    Waiting,
    End,
}

struct Batch {
    number: u64,
    entries: Vec<Entry>,
}

struct Done {
    number: u64,
    items: Vec<Item>,
}

struct Gate {
    bytes: u64,
    next: u64,
}

struct Shared {
    spec: Spec,
    gate: Mutex<Gate>,
    opened: Condvar,
    stop: AtomicBool,
    /// Batches that were handed out, all of them once `walked` is set.
    batches: AtomicU64,
    walked: AtomicBool,
    /// Files that were handed out, all of them once `walked` is set.
    handed_out: AtomicU64,
    counted: AtomicU64,
    all_counted: AtomicBool,
}

/// A reading that is under way.
pub struct Pipeline {
    shared: Arc<Shared>,
    done: Receiver<Done>,
    waiting: BTreeMap<u64, Vec<Item>>,
}

fn lock(gate: &Mutex<Gate>) -> MutexGuard<'_, Gate> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let _blocked = AllBlocked::here();
    let named = thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    // a panic ends the thread, and with it its end of the channel; the session sees that
    named.spawn(move || drop(catch_unwind(AssertUnwindSafe(work)))).map(drop)
}

impl Pipeline {
    /// Starts reading with so many readers.
    ///
    /// # Errors
    /// A thread could not be made, or the root cannot be listed.
    pub fn start(spec: Spec, readers: usize) -> io::Result<Pipeline> {
        Pipeline::start_ahead(spec, readers, FOUND)
    }

    /// As [`Pipeline::start`], with so many batches found and not yet read.
    pub(super) fn start_ahead(spec: Spec, readers: usize, found: usize) -> io::Result<Pipeline> {
        let walk = Walk::new(&spec.root, spec.after.as_deref(), spec.only.clone())?;
        let shared = Arc::new(Shared {
            spec,
            gate: Mutex::new(Gate { bytes: 0, next: 0 }),
            opened: Condvar::new(),
            stop: AtomicBool::new(false),
            batches: AtomicU64::new(0),
            walked: AtomicBool::new(false),
            handed_out: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            all_counted: AtomicBool::new(false),
        });
        let (found, batches) = sync_channel::<Batch>(found);
        let (finished, done) = sync_channel::<Done>(AHEAD);
        // made first: when a thread cannot be started, dropping it ends those that were
        let pipeline = Pipeline { shared: shared.clone(), done, waiting: BTreeMap::new() };
        let batches = Arc::new(Mutex::new(batches));
        for _ in 0..readers.max(1) {
            let (shared, batches, finished) = (shared.clone(), batches.clone(), finished.clone());
            spawn("import reader", move || read_batches(&shared, &batches, &finished))?;
        }
        spawn("import walk", move || walk_all(&shared, walk, &found))?;
        Ok(pipeline)
    }

    /// The next files in the order of the walk, waiting for at most `patience`.
    pub fn next(&mut self, patience: Duration) -> Next {
        loop {
            let turn = lock(&self.shared.gate).next;
            if let Some(items) = self.waiting.remove(&turn) {
                let mut gate = lock(&self.shared.gate);
                gate.next += 1;
                gate.bytes = gate.bytes.saturating_sub(size(&items));
                drop(gate);
                self.shared.opened.notify_all();
                return Next::Items(items);
            }
            match self.done.recv_timeout(patience) {
                Ok(done) => drop(self.waiting.insert(done.number, done.items)),
                Err(RecvTimeoutError::Timeout) => return Next::Waiting,
                Err(RecvTimeoutError::Disconnected) => return Next::End,
            }
        }
    }

    /// Whether everything was walked and handed over; false when a thread died on the way.
    pub fn complete(&self) -> bool {
        self.shared.walked.load(Ordering::Acquire)
            && lock(&self.shared.gate).next == self.shared.batches.load(Ordering::Acquire)
    }

    /// How many files there are from where the reading began, once they are counted or all are walked.
    pub fn total(&self) -> Option<u64> {
        let shared = &self.shared;
        match (shared.walked.load(Ordering::Acquire), shared.all_counted.load(Ordering::Acquire)) {
            (true, _) => Some(shared.handed_out.load(Ordering::Relaxed)),
            (false, true) => Some(shared.counted.load(Ordering::Relaxed)),
            (false, false) => None,
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.opened.notify_all();
    }
}

fn size(items: &[Item]) -> u64 {
    items.iter().map(|item| item.bytes).sum()
}

fn walk_all(shared: &Arc<Shared>, walk: Walk, found: &SyncSender<Batch>) {
    let mut counting = false;
    let mut entries = Vec::with_capacity(BATCH);
    let mut walk = walk.peekable();
    while let Some(entry) = walk.next() {
        if shared.stopped() {
            return;
        }
        entries.push(entry);
        shared.handed_out.fetch_add(1, Ordering::Relaxed);
        if entries.len() == BATCH || walk.peek().is_none() {
            let number = shared.batches.fetch_add(1, Ordering::AcqRel);
            let batch = match found.try_send(Batch { number, entries: std::mem::take(&mut entries) }) {
                Ok(()) => continue,
                Err(TrySendError::Full(batch)) => batch,
                Err(TrySendError::Disconnected(_)) => return,
            };
            if !std::mem::replace(&mut counting, true) {
                let last = batch.entries.last().map(|entry| entry.path().to_vec());
                let (before, shared) = (shared.handed_out.load(Ordering::Relaxed), shared.clone());
                // without a thread the total is known at the end
                drop(spawn("import count", move || count_rest(&shared, last.as_deref(), before)));
            }
            if found.send(batch).is_err() {
                return;
            }
        }
    }
    shared.walked.store(true, Ordering::Release);
}

fn count_rest(shared: &Shared, after: Option<&[u8]>, before: u64) {
    let Ok(walk) = Walk::new(&shared.spec.root, after, shared.spec.only.clone()) else { return };
    shared.counted.store(before, Ordering::Relaxed);
    for _ in walk {
        // who has walked all has counted it too
        if shared.stopped() || shared.walked.load(Ordering::Relaxed) {
            return;
        }
        shared.counted.fetch_add(1, Ordering::Relaxed);
    }
    shared.all_counted.store(true, Ordering::Release);
}

fn read_batches(shared: &Shared, batches: &Mutex<Receiver<Batch>>, finished: &SyncSender<Done>) {
    // memory that is given back and taken again for each file costs more than reading it
    let mut bytes = Vec::new();
    loop {
        let next = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Batch { number, entries }) = next else { return };
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries {
            if !shared.wait_for_room(number) {
                return;
            }
            let item = shared.take(entry, &mut bytes);
            lock(&shared.gate).bytes += item.bytes;
            items.push(item);
        }
        if finished.send(Done { number, items }).is_err() {
            return;
        }
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits until there is room for another file; false when all is to end.
    fn wait_for_room(&self, number: u64) -> bool {
        let mut gate = lock(&self.gate);
        while !self.stopped() && gate.bytes >= MOST_BYTES && gate.next != number {
            gate = self.opened.wait_timeout(gate, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        !self.stopped()
    }

    fn take(&self, entry: Entry, bytes: &mut Vec<u8>) -> Item {
        let path = match entry {
            Entry::File(path) => path,
            Entry::Other(path, why) => return Item { path, bytes: 0, what: What::Unreadable(why) },
        };
        let spec = &self.spec;
        bytes.shrink_to(KEPT_BYTES);
        let modified_at = match safe::read(&spec.root, &path, spec.most_bytes, bytes) {
            Ok(modified_at) => modified_at,
            Err(why) => return Item { path, bytes: 0, what: What::Unreadable(why) },
        };
        // one file that trips over a defect of ours must not end the import
        let looked = catch_unwind(AssertUnwindSafe(|| {
            let what = look(&path, bytes, modified_at, &spec.services);
            if spec.build {
                what.built()
            } else {
                what
            }
        }));
        let what = looked.unwrap_or_else(|_| What::Malformed("could not be taken apart".to_owned()));
        Item { path, bytes: bytes.len() as u64, what }
    }
}
