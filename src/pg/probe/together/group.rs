//! Processes that answer one query together, and how they find the memory that they share.
//!
//! Contract: a memo belongs to a leader, a service and all that a look-up's answer depends on: snapshot, start of the transaction, user,
//! table. Two processes of one leader for which these are the same would get the same answers, so what one finds the other may
//! take. A place of the list is taken by the worker that comes first, and free again when the last process has let the memo go; the
//! server's own callback sees to that in processes that die.

use super::shared::SharedMemo;
use crate::pg::shmem::Text;
use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PGRXSharedMemory};
use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// Most memos that there are at one time, in all databases.
const PLACES: usize = 64;
const LONGEST_NAME: usize = 64;

/// What a snapshot sees. Two with the same bounds and the same number of running transactions see the same: transactions
/// between the bounds only ever end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    xmin: pg_sys::TransactionId,
    xmax: pg_sys::TransactionId,
    running: (u32, i32, bool),
    command: pg_sys::CommandId,
}

impl Seen {
    pub fn by(snapshot: &pg_sys::SnapshotData) -> Self {
        Seen {
            xmin: snapshot.xmin,
            xmax: snapshot.xmax,
            running: (snapshot.xcnt, snapshot.subxcnt, snapshot.suboverflowed),
            command: snapshot.curcid,
        }
    }
}

/// What a memo's answers depend on, beside the leader.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub seen: Seen,
    /// Starts of transaction and statement.
    pub times: (i64, i64),
    pub user: pg_sys::Oid,
    pub table: pg_sys::Oid,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    leader: i32,
    database: pg_sys::Oid,
    asked: Asked,
    service: Text<LONGEST_NAME>,
}

#[derive(Clone, Copy)]
struct Listed {
    identity: Option<Identity>,
    members: u32,
    /// 0 while it is being made.
    handle: pg_sys::dsm_handle,
}

struct List([Listed; PLACES]);

impl Default for List {
    fn default() -> Self {
        List([Listed { identity: None, members: 0, handle: 0 }; PLACES])
    }
}

// SAFETY: plain values without pointers, guarded by the LWLock around them.
unsafe impl PGRXSharedMemory for List {}

// SAFETY: the name is used once.
static LIST: PgLwLock<List> = unsafe { PgLwLock::new(c"enrichment_cache shared memos") };

thread_local! {
    /// Those of this process: a piece of memory is mapped once, however many call sites use it.
    static MINE: RefCell<Vec<(Identity, Weak<SharedMemo>)>> = const { RefCell::new(Vec::new()) };
}

/// Reserves the list; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(LIST);
}

/// What came of looking for a memo.
pub enum Joined {
    Memo(Rc<SharedMemo>),
    /// There may be one later on.
    NotYet,
    Never,
}

/// The memo of this query's processes for a service; a worker makes it where there is none, for about so many `rows` and in
/// `limit` bytes.
pub fn join(asked: Asked, service: &str, rows: u64, limit: usize) -> Joined {
    let Some(leader) = leader() else { return Joined::Never };
    if !crate::pg::gucs::preloaded() || service.len() > LONGEST_NAME {
        return Joined::Never;
    }
    // SAFETY: a variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    let identity = Identity { leader, database, asked, service: Text::new(service) };
    if let Some(memo) = mine(&identity) {
        return Joined::Memo(memo);
    }
    let (at, memo) = match place_of(&identity) {
        Place::None(joined) => return joined,
        Place::Made(at, handle) => (at, SharedMemo::of(handle)),
        Place::ToMake(at) => (at, SharedMemo::new(rows, limit)),
    };
    let Some(memo) = memo else {
        leave(at);
        return Joined::Never;
    };
    if let Some(segment) = memo.segment() {
        segment.at_the_end(left, at);
        LIST.exclusive().0[at].handle = segment.handle();
    }
    let memo = Rc::new(memo);
    MINE.with(|mine| mine.borrow_mut().push((identity, Rc::downgrade(&memo))));
    Joined::Memo(memo)
}

/// The process that this one works with, by its leader's number; `None` for one that works alone.
fn leader() -> Option<i32> {
    // SAFETY: a process that has a place of its own has it until it ends; a leader outlives its workers.
    unsafe {
        let own = pg_sys::MyProc.as_ref()?;
        own.lockGroupLeader.as_ref().map(|leader| leader.pid)
    }
}

fn is_worker() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

fn mine(identity: &Identity) -> Option<Rc<SharedMemo>> {
    MINE.with(|mine| {
        let mut mine = mine.borrow_mut();
        mine.retain(|(_, memo)| memo.strong_count() > 0);
        mine.iter().find(|(other, _)| other == identity).and_then(|(_, memo)| memo.upgrade())
    })
}

enum Place {
    Made(usize, pg_sys::dsm_handle),
    ToMake(usize),
    None(Joined),
}

/// The memo's place in the list, with this process as one of its members.
fn place_of(identity: &Identity) -> Place {
    let mut list = LIST.exclusive();
    let listed = &mut list.0;
    if let Some(at) = listed.iter().position(|one| one.members > 0 && one.identity.as_ref() == Some(identity)) {
        if listed[at].handle == 0 {
            return Place::None(Joined::NotYet);
        }
        listed[at].members += 1;
        return Place::Made(at, listed[at].handle);
    }
    // a leader alone needs none
    if !is_worker() {
        return Place::None(Joined::NotYet);
    }
    let Some(at) = listed.iter().position(|one| one.members == 0) else { return Place::None(Joined::Never) };
    listed[at] = Listed { identity: Some(*identity), members: 1, handle: 0 };
    Place::ToMake(at)
}

fn leave(at: usize) {
    let one = &mut LIST.exclusive().0[at];
    one.members = one.members.saturating_sub(1);
}

/// This process lets a memo go.
#[pg_guard]
unsafe extern "C-unwind" fn left(_segment: *mut pg_sys::dsm_segment, at: pg_sys::Datum) {
    leave(at.value());
}
