//! One place in a query that calls `enrich_get`: what it keeps from row to row, and for how long that is true.
//!
//! The first call of a site keeps nothing, as most sites look one key up. From the second on it has a memo, in a child
//! of the memory context in which PostgreSQL keeps the call site itself. What is remembered holds as long as a new look-up
//! could not find anything else: the same snapshot, command, transaction, user, table and registry.

use super::habit::Habit;
use super::memo::{Answer, Memo, Row};
use super::together::group::Seen;
use super::together::shared::{self, SharedMemo};
use super::together::{self, Together};
use super::{answer, preload, scan, target};
use crate::core::error::Error;
use crate::core::key;
use crate::core::service::Service;
use crate::pg::convert::Host;
use crate::pg::lone::{self, Lone};
use crate::pg::store::registry;
use crate::pg::{disk, encoding, gucs, tally};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

/// When what was remembered is true. What this session's own transaction did is told apart by command and epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    seen: Seen,
    epoch: u64,
    user: pg_sys::Oid,
    changes: (u64, u64),
}

/// Grows at each end of a transaction or subtransaction.
static EPOCH: Lone<u64> = Lone::new(0);

thread_local! {
    static SITES: RefCell<Vec<*mut Site>> = const { RefCell::new(Vec::new()) };
}

impl Stamp {
    fn of(snapshot: pg_sys::Snapshot) -> Self {
        Stamp {
            // SAFETY: the active snapshot is there as long as it is active.
            seen: Seen::by(unsafe { &*snapshot }),
            epoch: EPOCH.get(),
            user: lone::user(),
            changes: (target::changes(), registry::generation()),
        }
    }
}

struct Known {
    name: Box<[u8]>,
    service: Arc<Service>,
    counter: tally::Counter,
    habit: Habit,
    together: Together,
}

struct Site {
    stamp: Stamp,
    memo: Memo,
    services: Vec<Known>,
    /// The service of the last call: queries hardly ever change it from row to row.
    last: usize,
    callback: pg_sys::MemoryContextCallback,
}

/// What marks a site that was called once.
static CALLED_ONCE: u8 = 0;

/// A key as the caller gave it.
#[derive(Clone, Copy)]
pub enum Given<'a> {
    Text(&'a str),
    Host(Host<'a>),
}

impl Given<'_> {
    /// What tells it apart from other keys of the same call site.
    fn bytes(&self) -> &[u8] {
        match self {
            Given::Text(text) => text.as_bytes(),
            Given::Host(host) => host.bytes(),
        }
    }

    /// Its normal form for a service, `None` when it cannot be a key there.
    fn normal(&self, service: &Service) -> Option<Cow<'_, str>> {
        match self {
            Given::Text(text) => key::normal_form(service.key_kind, text),
            Given::Host(host) => key::normal_form_of_address(service.key_kind, host.address()?).map(Cow::Owned),
        }
    }
}

/// The answer for a key at this call site, counted: the payload if fresh. A key that cannot be one has no answer, and is
/// not counted.
///
/// # Errors
/// `UnknownService`, `NotInstalled`, or what the look-up raises.
pub fn get(fcinfo: pg_sys::FunctionCallInfo, service: &str, key: Given) -> Result<Option<pg_sys::Datum>, Error> {
    let Some((site, snapshot)) = site_of(fcinfo) else {
        let service = registry::service(service)?;
        let Some(key) = key.normal(&service) else { return Ok(None) };
        let counter = tally::Counter::of(&service.name);
        return answer::fresh(&service, &key, &mut answer::Once { counter }, 0);
    };
    let stamp = Stamp::of(snapshot);
    if site.stamp != stamp {
        site.forget();
        site.stamp = stamp;
    }
    site.enter(service)?;
    let known = &mut site.services[site.last];
    let mut limit = gucs::memo_size();
    let mut shared = None;
    if limit > 0 {
        if !known.habit.passes_over() {
            known.together.look_after(known.habit.looked_up(), &stamp.seen, &known.service.name, limit)?;
            shared = known.together.memo();
        }
        // a text that is found there is in normal form
        if let (Some(memo), Given::Text(text)) = (shared, key) {
            if let shared::Known::Answer(found) = memo.get(text.as_bytes()) {
                return Ok(known.taken(found));
            }
        }
        if let Some((found, hit)) = site.memo.get(site.last as u32, key.bytes()) {
            match found {
                // an answer without a row came from a file
                Some(_) if !hit => known.counter.count_file(),
                _ => known.counter.count(hit),
            }
            known.habit.came_again();
            return Ok(found);
        }
    }
    let Some(normal) = key.normal(&known.service) else { return Ok(None) };
    if limit > 0 {
        if let Some(memo) = shared {
            match memo.get(normal.as_bytes()) {
                shared::Known::Answer(found) => {
                    site.memo.point((site.last as u32, key.bytes()), found, limit);
                    return Ok(known.taken(found));
                }
                shared::Known::Absent if !disk::may_answer(&known.service.name) => {
                    known.counter.count(false);
                    return Ok(None);
                }
                _ => (),
            }
        }
        if !site.memo.is_complete(site.last as u32) {
            let spent = known.together.spent(known.habit.spent());
            if !known.habit.is_new() {
                limit = 0;
            } else if encoding::is_utf8() && known.habit.wants_all(spent)? {
                match shared {
                    Some(memo) => together::bring_all_in(memo, &known.service)?,
                    None => bring_all_in(&mut site.memo, site.last as u32, &known.service, limit)?,
                }
            }
        }
        if site.memo.is_complete(site.last as u32) {
            let found = site.memo.get(site.last as u32, normal.as_bytes());
            // what the table lacks may lie in a file
            if found.is_some() || !disk::may_answer(&known.service.name) {
                let (found, hit) = found.unwrap_or((None, false));
                known.counter.count(hit);
                return Ok(found);
            }
        }
    }
    let at = (site.last as u32, key.bytes());
    let shared = shared.filter(|_| limit > 0).map(|memo| (memo, &*normal));
    let mut keep = Keep { memo: &mut site.memo, counter: &mut known.counter, at, limit, shared };
    let before = scan::spent();
    let found = answer::fresh(&known.service, &normal, &mut keep, 0);
    known.habit.has_spent(scan::spent() - before);
    found
}

/// Brings all rows of a service into the memo, as far as there is room.
fn bring_all_in(memo: &mut Memo, at: u32, service: &Service, limit: usize) -> Result<(), Error> {
    let all =
        preload::each_answer(&service.name, None, |key, payload, row| memo.bring_in((at, key), payload, row, limit))?;
    if all {
        memo.completed(at);
    }
    Ok(())
}

struct Keep<'a> {
    memo: &'a mut Memo,
    counter: &'a mut tally::Counter,
    at: (u32, &'a [u8]),
    limit: usize,
    /// What the query's other processes remember, and the key's normal form.
    shared: Option<(&'a SharedMemo, &'a str)>,
}

impl answer::Taker for Keep<'_> {
    fn take(&mut self, payload: Option<&[u8]>, row: Option<Row>, hit: bool) -> Option<pg_sys::Datum> {
        self.counter.count(hit);
        if self.limit > 0 {
            let row = row.filter(|_| hit);
            if let Some((memo, key)) = self.shared {
                if let Some(kept) = memo.put(key.as_bytes(), payload, row) {
                    if key.as_bytes() != self.at.1 {
                        self.memo.point(self.at, kept, self.limit);
                    }
                    return kept.answer.map(pg_sys::Datum::from);
                }
            }
            if let Some(kept) = self.memo.put(self.at, payload, row, self.limit) {
                return kept;
            }
        }
        if let (Some(row), true) = (row, hit) {
            tally::touch(row.id, row.block, 1);
        }
        payload.map(answer::copied)
    }

    fn pass(&mut self, hit: bool) {
        self.counter.count(hit);
    }

    fn file(&mut self, payload: Option<pg_sys::Datum>) -> Option<pg_sys::Datum> {
        self.counter.count_file();
        let bytes = payload.map(answer::bytes_of);
        if self.limit > 0 {
            if let Some(kept) = self.memo.put(self.at, bytes, None, self.limit) {
                return kept;
            }
        }
        payload
    }
}

impl Known {
    fn new(name: &str) -> Result<Known, Error> {
        let service = registry::service(name)?;
        let counter = tally::Counter::of(&service.name);
        let (habit, together) = (Habit::default(), Together::default());
        Ok(Known { name: name.as_bytes().into(), service, counter, habit, together })
    }

    /// Counts an answer that is remembered together, and gives it out.
    fn taken(&mut self, found: Answer) -> Option<pg_sys::Datum> {
        self.counter.count(found.row.is_some());
        self.habit.came_again();
        found.answer.map(pg_sys::Datum::from)
    }
}

impl Site {
    /// Makes the service of this call the last one.
    fn enter(&mut self, service: &str) -> Result<(), Error> {
        let name = service.as_bytes();
        if self.services.get(self.last).is_some_and(|known| &*known.name == name) {
            return Ok(());
        }
        self.last = match self.services.iter().position(|known| &*known.name == name) {
            Some(at) => at,
            None => {
                self.services.push(Known::new(service)?);
                self.services.len() - 1
            }
        };
        Ok(())
    }

    fn forget(&mut self) {
        self.memo.clear();
        self.services.clear();
    }
}

/// The site of this call, from its second call on, and the snapshot that it sees by.
fn site_of<'a>(fcinfo: pg_sys::FunctionCallInfo) -> Option<(&'a mut Site, pg_sys::Snapshot)> {
    let snapshot = lone::active_snapshot()?;
    // SAFETY: PostgreSQL leaves `fn_extra` to the function; what is in it is nothing, the mark, or a site that lives as
    // long as the context it was made in.
    unsafe {
        let info = (*fcinfo).flinfo;
        if info.is_null() {
            return None;
        }
        let extra = (*info).fn_extra;
        let mark = (&raw const CALLED_ONCE).cast_mut().cast();
        if extra.is_null() {
            (*info).fn_extra = mark;
            return None;
        }
        if extra != mark {
            return Some((&mut *extra.cast::<Site>(), snapshot));
        }
        let memory = pg_sys::AllocSetContextCreateInternal(
            (*info).fn_mcxt,
            c"enrichment_cache memo".as_ptr(),
            0,
            1024,
            8 * 1024 * 1024,
        );
        let site = Box::into_raw(Box::new(Site {
            stamp: Stamp::of(snapshot),
            memo: Memo::new(memory),
            services: Vec::new(),
            last: 0,
            callback: pg_sys::MemoryContextCallback::default(),
        }));
        (*site).callback.func = Some(gone);
        (*site).callback.arg = site.cast();
        pg_sys::MemoryContextRegisterResetCallback(memory, &raw mut (*site).callback);
        SITES.with(|sites| sites.borrow_mut().push(site));
        (*info).fn_extra = site.cast();
        Some((&mut *site, snapshot))
    }
}

/// The context of a site goes away: its last look-ups are reported.
#[pg_guard]
unsafe extern "C-unwind" fn gone(arg: *mut core::ffi::c_void) {
    let site = arg.cast::<Site>();
    SITES.with(|sites| sites.borrow_mut().retain(|other| *other != site));
    // SAFETY: made by Box::into_raw; this is called once, before the context's memory is freed.
    let site = unsafe { Box::from_raw(site) };
    site.memo.report();
}

/// A transaction or subtransaction has ended: nothing that was remembered is true any more. Sites that outlive the
/// transaction give their memory back.
pub fn end(transaction: bool) {
    EPOCH.set(EPOCH.get() + 1);
    if transaction {
        let sites: Vec<*mut Site> = SITES.with(|sites| sites.borrow().clone());
        // SAFETY: a site takes itself off the list when it goes.
        sites.into_iter().for_each(|site| unsafe { (*site).forget() });
    }
}
