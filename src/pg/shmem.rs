//! What processes share: the databases and their workers, and the sessions that wait for an answer.
//!
//! Contract: one LWLock guards both tables. It is held for a scan of a few hundred places at most, never across a
//! statement, a wait or anything that may raise. A place of `databases` is written by the launcher (which databases
//! there are), by its worker (what it does) and by a session that holds the database for a while (see `hooks`). A
//! place of `waiting` belongs to the session that took it; a worker only moves its stage forward. Processes wake each
//! other through the latch of the other's PGPROC, after the lock is released.

use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PGRXSharedMemory};

/// Most databases of one cluster that can be served.
pub const DATABASES: usize = 256;
/// Most sessions that can wait in `enrich_fetch` at one time.
pub const WAITING: usize = 512;

/// Most lanes whose waiting is shown at one time.
pub const LANES: usize = 256;

/// A text of at most `N` bytes, cut at a character's border.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize> {
    length: u16,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    pub const EMPTY: Self = Text { length: 0, bytes: [0; N] };

    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; N];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        Text { length: end as u16, bytes }
    }

    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.length).min(N)]).unwrap_or("")
    }
}

/// What stands with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has looked yet, or somebody asked to look again.
    Unknown,
    /// Its worker is being started.
    Starting,
    /// Looked at: the extension is not there.
    Absent,
    /// A worker serves it.
    Serving,
    /// Its worker ended; `error` says why, `retry_at` when it is tried again.
    Failed,
    /// `enrichment_cache.databases` leaves it out.
    Excluded,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Starting => "starting",
            State::Absent => "absent",
            State::Serving => "serving",
            State::Failed => "failed",
            State::Excluded => "excluded",
        }
    }
}

#[derive(Clone, Copy)]
pub struct Database {
    pub oid: u32,
    pub name: Text<64>,
    pub state: State,
    pub pid: i32,
    /// The session that keeps workers out of this database, 0 for none.
    pub held_by: i32,
    pub in_flight: u32,
    /// Requests in its queue, once its worker has counted them (see `backlog`).
    pub requests: Option<i64>,
    /// How often sessions have said that the extension came or went: whoever looks in between looks again.
    pub changes: u32,
    /// Whether what it has spent is in the budgets (see `budgets`).
    pub ledger_read: bool,
    /// How often sessions have woken the worker: a wait for a lock inside a statement eats up the latch.
    pub wakes: u32,
    /// When it is looked at again, microseconds since 1970.
    pub retry_at: i64,
    pub error: Text<256>,
}

const NO_DATABASE: Database = Database {
    oid: 0,
    name: Text::EMPTY,
    state: State::Unknown,
    pid: 0,
    held_by: 0,
    in_flight: 0,
    requests: None,
    changes: 0,
    ledger_read: false,
    wakes: 0,
    retry_at: 0,
    error: Text::EMPTY,
};

/// How far a waiting session's request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Free,
    /// Put here by the session.
    Asked,
    /// The worker has it in its queue.
    Taken,
    /// Answered, whatever the answer.
    Done,
}

#[derive(Clone, Copy)]
pub struct Waiting {
    pub stage: Stage,
    pub database: u32,
    pub pid: i32,
    pub service: Text<64>,
    pub key: Text<512>,
}

const NOBODY: Waiting = Waiting { stage: Stage::Free, database: 0, pid: 0, service: Text::EMPTY, key: Text::EMPTY };

/// A lane that waits for its limit: what the ledger's fixed windows cannot show of a sliding one.
#[derive(Clone, Copy)]
pub struct Waits {
    pub database: u32,
    pub service: Text<64>,
    /// When the next call may start, microseconds since 1970.
    pub until: i64,
    pub per: Text<8>,
}

const NO_WAIT: Waits = Waits { database: 0, service: Text::EMPTY, until: 0, per: Text::EMPTY };

#[derive(Clone, Copy)]
pub struct Shared {
    pub launcher: i32,
    /// When the launcher first wrote here, microseconds since 1970.
    pub born: i64,
    pub databases: [Database; DATABASES],
    pub waiting: [Waiting; WAITING],
    pub lanes: [Waits; LANES],
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            launcher: 0,
            born: 0,
            databases: [NO_DATABASE; DATABASES],
            waiting: [NOBODY; WAITING],
            lanes: [NO_WAIT; LANES],
        }
    }
}

// SAFETY: plain values without pointers, guarded by the LWLock around them.
unsafe impl PGRXSharedMemory for Shared {}

// SAFETY: the name is used once.
static SHARED: PgLwLock<Shared> = unsafe { PgLwLock::new(c"enrichment_cache") };

/// Reserves the memory; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(SHARED);
}

/// Looks at the shared tables; `None` when the library was not preloaded.
pub fn read<T>(look: impl FnOnce(&Shared) -> T) -> Option<T> {
    super::gucs::preloaded().then(|| look(&SHARED.share()))
}

/// Changes the shared tables; `None` when the library was not preloaded.
pub fn write<T>(change: impl FnOnce(&mut Shared) -> T) -> Option<T> {
    super::gucs::preloaded().then(|| change(&mut SHARED.exclusive()))
}

impl Shared {
    pub fn database(&self, oid: u32) -> Option<&Database> {
        self.databases.iter().find(|place| place.oid == oid && oid != 0)
    }

    pub fn database_mut(&mut self, oid: u32) -> Option<&mut Database> {
        self.databases.iter_mut().find(|place| place.oid == oid && oid != 0)
    }

    /// The place of a database, a new one when it has none; `None` when all are taken.
    pub fn place_for(&mut self, oid: u32, name: &str) -> Option<&mut Database> {
        let at = self.databases.iter().position(|place| place.oid == oid).or_else(|| {
            let free = self.databases.iter().position(|place| place.oid == 0)?;
            self.databases[free] = Database { oid, ..NO_DATABASE };
            Some(free)
        })?;
        self.databases[at].name = Text::new(name);
        Some(&mut self.databases[at])
    }

    /// Shows the lanes of a database that wait for a limit, and only those.
    pub fn show_lanes(&mut self, database: u32, waits: &[Waits]) {
        self.lanes.iter_mut().filter(|lane| lane.database == database).for_each(|lane| *lane = NO_WAIT);
        let free = self.lanes.iter_mut().filter(|lane| lane.database == 0);
        free.zip(waits).for_each(|(lane, wait)| *lane = *wait);
    }

    pub fn forget_database(&mut self, oid: u32) {
        if let Some(place) = self.database_mut(oid) {
            *place = NO_DATABASE;
        }
        self.show_lanes(oid, &[]);
    }
}
