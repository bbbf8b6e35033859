//! Budgets that the workers of all databases share: whoever asks a provider with the same secret spends from one.
//!
//! Contract: one LWLock guards both tables. It is held for plain arithmetic over a few hundred bytes, never across a
//! statement or anything that may raise. A worker reserves here first, then writes the same into the ledger of its
//! database (`enrichment_quota`) and commits, then calls; what it could not commit it gives back. The memory is empty
//! after a start of the server: each worker brings in its own ledger (`join`), once in the life of this memory, and no
//! call that counts goes out before all databases have had the chance to.

use crate::core::limiter::{Spend, Spending};
use crate::core::Micros;
use crate::pg::shmem::Text;
use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PGRXSharedMemory};

/// Most budgets of a cluster.
const BUDGETS: usize = 128;
/// Most services of all databases whose ledgers were read.
const MEMBERS: usize = 512;
/// A budget not spent from for so long may give its place to another: longer than any window.
const OLD: Micros = 32 * 86_400 * 1_000_000;

/// What tells budgets apart: a digest of the provider's host and the secret. Zero marks a free place.
pub type Key = [u8; 16];

#[derive(Clone, Copy)]
struct Budget {
    key: Key,
    used_at: Micros,
    spending: Spending,
    /// Until when the provider has asked to be left alone, and who was told: that service of that database sees to it by itself.
    limited_until: Micros,
    told: (u32, Text<64>),
}

/// A service of a database whose ledger is in.
#[derive(Clone, Copy)]
struct Member {
    database: u32,
    service: Text<64>,
    key: Key,
    /// Calls under way, which the provider's own numbers may not hold yet.
    under_way: u32,
    /// Calls that have ended in all.
    ended: u64,
    since: Micros,
}

#[derive(Clone, Copy)]
struct Budgets {
    budgets: [Budget; BUDGETS],
    members: [Member; MEMBERS],
}

const NOBODY: Key = [0; 16];

impl Default for Budgets {
    fn default() -> Self {
        let budget = Budget::new(NOBODY, 0);
        let member = Member { database: 0, service: Text::new(""), key: NOBODY, under_way: 0, ended: 0, since: 0 };
        Budgets { budgets: [budget; BUDGETS], members: [member; MEMBERS] }
    }
}

// SAFETY: plain values without pointers, guarded by the LWLock around them.
unsafe impl PGRXSharedMemory for Budgets {}

// SAFETY: the name is used once.
static SHARED: PgLwLock<Budgets> = unsafe { PgLwLock::new(c"enrichment_cache budgets") };

/// Reserves the memory; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(SHARED);
}

/// Whether the ledger of a service has been brought into this budget.
pub fn joined(database: u32, service: &str, key: &Key) -> bool {
    SHARED.share().members.iter().any(|member| member.is(database, service, key))
}

/// Brings the ledger of a service into its budget, unless that was done before.
pub fn join(database: u32, service: &str, key: &Key, ledger: &[Spend], now: Micros) {
    let mut shared = SHARED.exclusive();
    if shared.members.iter().any(|member| member.is(database, service, key)) {
        return;
    }
    let free = shared.members.iter().position(|member| member.key == NOBODY).or_else(|| {
        let oldest = shared.members.iter().enumerate().min_by_key(|(_, member)| member.since);
        oldest.map(|(at, _)| at)
    });
    if let Some(at) = free {
        let member = Member { database, service: Text::new(service), key: *key, under_way: 0, ended: 0, since: now };
        shared.members[at] = member;
    }
    if let Some(budget) = shared.budget(key, now) {
        budget.spending.restore(ledger, now);
    }
}

/// Looks at a budget, and spends from it; `None` when there are more budgets than places.
pub fn with<T>(key: &Key, now: Micros, work: impl FnOnce(&mut Spending) -> T) -> Option<T> {
    let mut shared = SHARED.exclusive();
    let budget = shared.budget(key, now)?;
    budget.used_at = now;
    Some(work(&mut budget.spending))
}

/// Says how many calls of a service are under way, and how many have ended.
pub fn under_way(database: u32, service: &str, key: &Key, calls: u32, ended: u64) {
    let mut shared = SHARED.exclusive();
    if let Some(member) = shared.members.iter_mut().find(|member| member.is(database, service, key)) {
        (member.under_way, member.ended) = (calls, ended);
    }
}

/// How many calls are under way in a budget, and how many have ended, without those of this service of this database, which knows
/// its own better.
pub fn elsewhere(database: u32, service: &str, key: &Key) -> (u32, u64) {
    let shared = SHARED.share();
    let others = shared.members.iter().filter(|member| member.key == *key && !member.is(database, service, key));
    others.fold((0, 0), |(under_way, ended), member| {
        (member.under_way.saturating_add(under_way), member.ended.wrapping_add(ended))
    })
}

/// Notes until when the provider has asked a service of a database to be left alone; `None` when that is over. Of several that were asked
/// the one counts that waits longest: another one may ask once more, and is told so itself.
pub fn limit(database: u32, service: &str, key: &Key, until: Option<Micros>) {
    let mut shared = SHARED.exclusive();
    let Some(budget) = shared.budgets.iter_mut().find(|budget| budget.key == *key && *key != NOBODY) else { return };
    let until = until.unwrap_or(0);
    if until > budget.limited_until || budget.was_told(database, service) {
        (budget.limited_until, budget.told) = (until, (database, Text::new(service)));
    }
}

/// Until when the provider has asked the same service of another database that spends from this budget to be left alone, if that is still
/// to come. Other services at the same host may be under other limits.
pub fn limited_elsewhere(database: u32, service: &str, key: &Key, now: Micros) -> Option<Micros> {
    let shared = SHARED.share();
    let budget = shared.budgets.iter().find(|budget| budget.key == *key && *key != NOBODY)?;
    let elsewhere = budget.told.0 != database && budget.told.1.as_str() == service;
    (elsewhere && budget.limited_until > now).then_some(budget.limited_until)
}

/// The budget that a service of a database spends from now.
pub fn of_service(database: u32, service: &str) -> Option<(Key, Spending)> {
    if !super::gucs::preloaded() {
        return None;
    }
    let shared = SHARED.share();
    let members = shared.members.iter();
    let its = members.filter(|member| member.database == database && member.service.as_str() == service);
    let key = its.max_by_key(|member| member.since)?.key;
    shared.budgets.iter().find(|budget| budget.key == key).map(|budget| (key, budget.spending))
}

/// The service of a database now spends from this budget: the latest it joined.
pub fn touch(database: u32, service: &str, key: &Key, now: Micros) {
    let mut shared = SHARED.exclusive();
    if let Some(member) = shared.members.iter_mut().find(|member| member.is(database, service, key)) {
        member.since = now;
    }
}

/// Forgets that the ledgers of a database were read; what was spent stays spent.
pub fn forget_database(database: u32) {
    let mut shared = SHARED.exclusive();
    let gone = shared.members.iter_mut().filter(|member| member.database == database);
    gone.for_each(|member| (member.key, member.database) = (NOBODY, 0));
}

impl Member {
    fn is(&self, database: u32, service: &str, key: &Key) -> bool {
        self.database == database && self.key == *key && self.service.as_str() == service
    }
}

impl Budget {
    fn new(key: Key, used_at: Micros) -> Self {
        let told = (0, Text::new(""));
        Budget { key, used_at, spending: Spending::default(), limited_until: 0, told }
    }

    fn was_told(&self, database: u32, service: &str) -> bool {
        self.told.0 == database && self.told.1.as_str() == service
    }
}

impl Budgets {
    fn budget(&mut self, key: &Key, now: Micros) -> Option<&mut Budget> {
        let known = self.budgets.iter().position(|budget| budget.key == *key);
        let at = known.or_else(|| {
            let old = now.saturating_sub(OLD);
            self.budgets.iter().position(|budget| budget.key == NOBODY || budget.used_at < old)
        })?;
        if known.is_none() {
            self.budgets[at] = Budget::new(*key, now);
        }
        Some(&mut self.budgets[at])
    }
}
