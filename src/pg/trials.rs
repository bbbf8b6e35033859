//! Tests of services that sessions ask for: their places in shared memory.
//!
//! Contract: one LWLock guards the places, held for a scan of them, never across a statement or a wait. A session takes
//! a place and alone frees it; the worker moves its stage forward and writes the report, as long as the ticket is the same.

use crate::pg::shmem::Text;
use crate::pg::{gucs, wake};
use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PGRXSharedMemory};

/// Most tests at one time.
pub const PLACES: usize = 8;
/// Of a report in bytes.
const REPORT: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    /// Put here by the session.
    Asked,
    /// The worker is at it.
    Taken,
    /// The report is there.
    Done,
}

#[derive(Clone, Copy)]
struct Place {
    stage: Stage,
    database: u32,
    pid: i32,
    /// Tells this test from the one that had the place before.
    ticket: u32,
    service: Text<64>,
    report: Text<REPORT>,
}

#[derive(Clone, Copy)]
struct Places {
    tickets: u32,
    places: [Place; PLACES],
}

impl Default for Places {
    fn default() -> Self {
        let free =
            Place { stage: Stage::Free, database: 0, pid: 0, ticket: 0, service: Text::EMPTY, report: Text::EMPTY };
        Places { tickets: 0, places: [free; PLACES] }
    }
}

// SAFETY: plain values without pointers, guarded by the LWLock around them.
unsafe impl PGRXSharedMemory for Places {}

// SAFETY: the name is used once.
static PLACED: PgLwLock<Places> = unsafe { PgLwLock::new(c"enrichment_cache tests") };

/// Reserves the memory; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(PLACED);
}

/// A test under way, as its session holds it; its place is given back whatever happens.
pub struct Trial {
    at: usize,
    ticket: u32,
}

impl Trial {
    /// Takes a place; `None` when all are taken.
    pub fn ask(service: &str) -> Option<Trial> {
        let mut shared = PLACED.exclusive();
        let at = shared.places.iter().position(|place| place.stage == Stage::Free || !wake::alive(place.pid))?;
        let ticket = shared.tickets.wrapping_add(1);
        shared.tickets = ticket;
        shared.places[at] = Place {
            stage: Stage::Asked,
            database: wake::my_database(),
            pid: wake::my_pid(),
            ticket,
            service: Text::new(service),
            report: Text::EMPTY,
        };
        Some(Trial { at, ticket })
    }

    /// The report, once it is there.
    pub fn report(&self) -> Option<String> {
        let shared = PLACED.share();
        let place = &shared.places[self.at];
        (place.stage == Stage::Done && place.ticket == self.ticket).then(|| place.report.as_str().to_owned())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let mut shared = PLACED.exclusive();
        let place = &mut shared.places[self.at];
        if place.ticket == self.ticket {
            place.stage = Stage::Free;
        }
    }
}

/// Has a worker that begins do what one before it left.
pub fn begin_again() {
    if gucs::preloaded() {
        let database = wake::my_database();
        let mut shared = PLACED.exclusive();
        let left = |place: &&mut Place| place.stage == Stage::Taken && place.database == database;
        shared.places.iter_mut().filter(left).for_each(|place| place.stage = Stage::Asked);
    }
}

/// The tests of this database that nobody has begun, which are begun now: ticket and service.
pub fn take() -> Vec<(u32, String)> {
    if !gucs::preloaded() {
        return Vec::new();
    }
    let database = wake::my_database();
    let asked = |place: &Place| place.stage == Stage::Asked && place.database == database;
    if !PLACED.share().places.iter().any(asked) {
        return Vec::new();
    }
    let mut shared = PLACED.exclusive();
    let asked = shared.places.iter_mut().filter(|place| asked(place));
    asked
        .map(|place| {
            place.stage = Stage::Taken;
            (place.ticket, place.service.as_str().to_owned())
        })
        .collect()
}

/// Hands a report to the session that waits for it, if it still does.
pub fn tell(ticket: u32, report: &str) {
    let mut shared = PLACED.exclusive();
    let waits = |place: &&mut Place| place.stage == Stage::Taken && place.ticket == ticket;
    let pid = shared.places.iter_mut().find(waits).map(|place| {
        place.report = Text::new(report);
        place.stage = Stage::Done;
        place.pid
    });
    drop(shared);
    wake::process(pid.unwrap_or(0));
}
