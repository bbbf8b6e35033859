//! The worker of one database. Its main thread alone speaks to PostgreSQL, the pool's threads speak HTTP. It reads
//! aloud: what came back → what sessions ask → what is new → what may be asked now → what is to be written → wait.

use super::answers::{self, Held};
use super::fetches::{self, Contested};
use super::{
    adopt::Adoption, discover, lanes::Lanes, ledgers::Ledgers, lookups::Lookups, mirror::Mirror, said, signals,
    signals::Ended, steps::Steps, trials::Trials, write_back::WriteBack, writers::Writers, xact,
};
use crate::core::error::Error;
use crate::core::Micros;
use crate::io::{wake::Any, ClientConfig, Pool};
use crate::pg::shmem::{self, Database, State, Text};
use crate::pg::store::sources::{self, Attached};
use crate::pg::store::{attempts, cleanup, lanes as ledger, queue};
use crate::pg::{backlog, convert, gucs, store, tally, trials, wake};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::prelude::*;
use std::os::fd::RawFd;
use std::time::Duration;

const SECOND: Micros = 1_000_000;
/// How long running calls are waited for when the worker ends.
const GRACE: Duration = Duration::from_secs(3);
const SHORTEST_NAP: Micros = SECOND / 200;
/// After this it looks at what there is to do, whether or not anybody said that there is something.
const LONGEST_NAP: Micros = 600 * SECOND;
/// How long answers may gather before they are stored, while threads have calls to make: storing a few costs nearly as
/// much as storing many. Sessions that wait are not kept waiting for it.
const GATHER: Duration = Duration::from_millis(40);
/// A database without the extension is looked at again after this.
const LOOK_AGAIN: Micros = 60 * SECOND;
const CLEANUP_BATCH: i64 = 1000;

#[pg_guard]
#[no_mangle]
pub extern "C-unwind" fn enrichment_worker_main(database: pg_sys::Datum) {
    signals::install();
    let oid = database.value() as u32;
    if !may_take_place(oid) {
        return;
    }
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(oid)), None);
    // only now is this process one that others see alive
    if !take_place(oid) {
        return;
    }
    signals::configure_session();
    store::registry::in_worker();
    let seen = changes(oid);
    match installed() {
        Err(error) => report(oid, State::Failed, convert::clock() + 10 * SECOND, &error.to_string()),
        Ok(None) => report_absent(oid, seen),
        Ok(Some(extension)) => serve(oid, extension),
    }
}

/// Whether no other worker has the database and no session keeps workers out.
fn is_free(place: &Database) -> bool {
    place.held_by == 0 && (place.pid == wake::my_pid() || !wake::alive(place.pid))
}

/// Whether it is worth to connect.
fn may_take_place(oid: u32) -> bool {
    shmem::read(|shared| shared.database(oid).is_some_and(is_free)).unwrap_or(false)
}

/// Claims the database for this process; false when it is not free.
fn take_place(oid: u32) -> bool {
    shmem::write(|shared| {
        let Some(place) = shared.database_mut(oid).filter(|place| is_free(place)) else { return false };
        place.pid = wake::my_pid();
        true
    })
    .unwrap_or(false)
}

fn report(oid: u32, state: State, retry_at: Micros, error: &str) {
    shmem::write(|shared| {
        if let Some(place) = shared.database_mut(oid) {
            place.state = state;
            place.retry_at = retry_at;
            if !error.is_empty() || state == State::Serving {
                place.error = Text::new(error);
            }
        }
    });
}

/// How often sessions have woken this database's worker, so far.
fn wakes(oid: u32) -> u32 {
    shmem::read(|shared| shared.database(oid).map_or(0, |place| place.wakes)).unwrap_or(0)
}

/// How often this database's extension has come or gone, so far.
pub(super) fn changes(oid: u32) -> u32 {
    shmem::read(|shared| shared.database(oid).map_or(0, |place| place.changes)).unwrap_or(0)
}

/// Whether this process is the worker of the database still, with the extension as it was and no session that keeps workers out.
pub(super) fn is_served_by(oid: u32, pid: i32, changes: u32) -> bool {
    let stands = |place: &Database| place.pid == pid && place.held_by == 0 && place.changes == changes;
    wake::alive(pid) && shmem::read(|shared| shared.database(oid).is_some_and(stands)).unwrap_or(false)
}

/// Reports that the extension was not there when `seen` changes had been told of: if it has come since, the launcher,
/// which hears of this process's end, looks again at once.
fn report_absent(oid: u32, seen: u32) {
    shmem::write(|shared| {
        if let Some(place) = shared.database_mut(oid) {
            let same = place.changes == seen;
            place.state = if same { State::Absent } else { State::Unknown };
            place.retry_at = if same { convert::clock() + LOOK_AGAIN } else { 0 };
        }
    });
}

/// The extension that is there now: one that was dropped and created again is another, with other requests.
fn installed() -> Result<Option<pg_sys::Oid>, Error> {
    xact::run(c"enrichment_cache: looking for the extension", || match store::extension() {
        Ok(extension) => Ok(Some(extension)),
        Err(Error::NotInstalled) => Ok(None),
        Err(error) => Err(error),
    })
}

/// One database's worker at work.
struct Worker {
    pool: Pool,
    lanes: Lanes,
    ledgers: Ledgers,
    steps: Steps,
    held: Held,
    contested: Contested,
    trials: Trials,
    write_back: WriteBack,
    writers: Writers,
    lookups: Lookups,
    adoption: Adoption,
    mirror: Mirror,
    /// Whether what a worker that died had claimed is nobody's again; nothing is claimed before.
    released: bool,
    /// Whether nothing but answers has ended the last rest.
    only_answers: bool,
    attached: Attached,
    next_cleanup: Micros,
    cleaned_to: cleanup::CleanedTo,
    next_count: Micros,
}

fn client_config() -> ClientConfig {
    ClientConfig {
        user_agent: gucs::user_agent(),
        allow_private_hosts: gucs::allow_private_hosts(),
        ca_file: gucs::ca_file(),
        http_proxy: gucs::http_proxy(),
    }
}

fn serve(oid: u32, extension: pg_sys::Oid) {
    let begun = Pool::start(gucs::concurrency(), client_config()).and_then(|pool| Ok((pool, Mirror::new()?)));
    let (pool, mirror) = match begun {
        Ok(begun) => begun,
        Err(error) => return report(oid, State::Failed, convert::clock() + 10 * SECOND, &error.to_string()),
    };
    report(oid, State::Serving, 0, "");
    tally::serve();
    trials::begin_again();
    let now = convert::clock();
    let mut worker = Worker {
        pool,
        lanes: Lanes::default(),
        ledgers: Ledgers::default(),
        steps: Steps::default(),
        held: Held::default(),
        contested: Contested::default(),
        trials: Trials::default(),
        write_back: WriteBack::default(),
        writers: Writers::default(),
        lookups: Lookups::starting(now),
        adoption: Adoption::default(),
        mirror,
        released: false,
        only_answers: false,
        attached: Attached::default(),
        next_cleanup: now + 30 * SECOND,
        cleaned_to: cleanup::CleanedTo::default(),
        next_count: now,
    };
    let (mut found, mut seen) = (Some(extension), 0);
    let wakes_us = match Any::of(&[worker.pool.wakes(), worker.mirror.wakes()]) {
        Ok(any) => any,
        Err(error) => return report(oid, State::Failed, convert::clock() + 10 * SECOND, &error.to_string()),
    };
    while !signals::terminating() && found == Some(extension) {
        if signals::reload_if_asked() {
            if let Err(error) = worker.pool.reconfigure(gucs::concurrency(), client_config()) {
                pgrx::warning!("enrichment_cache: the former HTTP settings stay in force: {error}");
            }
            if !still_wanted(oid) {
                break;
            }
        }
        let woken = wakes(oid);
        seen = changes(oid);
        found = installed().unwrap_or(found);
        if found == Some(extension) && !worker.round() && wakes(oid) == woken {
            worker.rest(wakes_us.fd());
        }
    }
    worker.finish(found == Some(extension));
    tally::leave();
    match found {
        Some(_) => report(oid, State::Unknown, 0, ""),
        None => report_absent(oid, seen),
    }
}

fn still_wanted(oid: u32) -> bool {
    shmem::read(|shared| shared.database(oid).is_some_and(|place| gucs::serves(place.name.as_str()))).unwrap_or(false)
}

impl Worker {
    /// Waits until somebody wakes it, answers are to be stored, or something it knows of is due; no statement before.
    fn rest(&mut self, results: RawFd) {
        if self.pool.gathers_for().is_none() {
            xact::flush();
        }
        let until = convert::clock().saturating_add(LONGEST_NAP).min(self.next_event());
        loop {
            // what is said late takes no look into the database
            said::overdue();
            let next = until.min(said::next().unwrap_or(Micros::MAX));
            let left = next.saturating_sub(convert::clock()).clamp(SHORTEST_NAP, LONGEST_NAP);
            let left = Duration::from_micros(left as u64);
            let longest = match self.pool.gathers_for() {
                Some(gathers) => gathers.min(left),
                // the quiet has ended while the worker was at work, which nobody signals
                None if self.pool.has_results() => Duration::ZERO,
                None => left,
            };
            let ended = signals::wait(longest, Some(results));
            let gathered = self.pool.gathers_for().is_none() && self.pool.has_results();
            let due = convert::clock() >= until;
            if ended != Ended::Time || gathered || due || signals::terminating() {
                self.only_answers = ended != Ended::Called && !due;
                return;
            }
        }
    }

    /// Does what there is to do, a bounded batch of each kind; says whether there may be more.
    fn round(&mut self) -> bool {
        let only_answers = std::mem::take(&mut self.only_answers);
        let Worker {
            pool,
            lanes,
            ledgers,
            steps,
            held,
            contested,
            trials,
            write_back,
            writers,
            released,
            attached,
            lookups,
            ..
        } = self;
        let (adoption, mirror) = (&mut self.adoption, &mut self.mirror);
        let quiet = if fetches::somebody_waits() { Duration::ZERO } else { GATHER };
        let mut done = pool.gather(quiet);
        done.iter().filter(|done| done.stops).for_each(|done| lanes.stop(&done.service.name, pool));
        trials.finish(&mut done, lanes);
        done.extend(lanes.take_unsent());
        answers::settle(done, lanes, held);
        let mut busy = false;
        if !*released {
            steps.run("release of claims", || {
                xact::run(c"enrichment_cache: releasing claims", queue::release_all)?;
                *released = true;
                Ok(false)
            });
        }
        busy |= steps.run("answers of files", || adoption.round());
        busy |= steps.run("files of the disk cache", || mirror.round());
        if *released {
            busy |= steps.run("tests of services", || Ok(ledgers.bring_in()? && trials.begin(pool, lanes)));
        }
        if gucs::enabled() && *released {
            busy |= steps.run("requests of waiting sessions", || fetches::accept(contested));
            busy |= steps.run("start of calls", || match ledgers.bring_in()? {
                true => lanes.start(pool),
                false => Ok(false),
            });
        } else {
            steps.run("giving back requests", || lanes.rest(pool).map(|()| false));
        }
        // without attached tables answers change nothing here
        if !only_answers || !attached.standing.is_empty() || steps.next_try().is_some() {
            busy |= steps.run("new keys", discover::fold_arrivals);
            let known = xact::run(c"enrichment_cache: reading sources", sources::all);
            steps.run("reading sources", || {
                *attached = known?;
                Ok(false)
            });
            discover::note_broken(&attached.broken, steps);
            busy |= discover::sweep(&attached.standing, steps);
            write_back.take(writers.share());
            busy |= write_back.all(&attached.standing, steps);
            writers.tend(write_back.is_pressed());
        }
        lookups.gather();
        busy |= lookups.fold(steps);
        said::overdue();
        self.maintain();
        self.show();
        busy
    }

    fn maintain(&mut self) {
        let now = convert::clock();
        if now >= self.next_count {
            self.next_count = now + gucs::stats_interval().as_micros() as Micros;
            self.steps.run("statistics", || {
                xact::run(c"enrichment_cache: counting entries", || {
                    ledger::forget_old_spends()?;
                    attempts::forget_old()?;
                    backlog::counted(queue::length()?);
                    ledger::count_entries()
                })
                .map(|_| false)
            });
        }
        let Some(every) = gucs::cleanup_interval() else { return };
        if now >= self.next_cleanup {
            let Worker { steps, cleaned_to, .. } = self;
            let more = steps.run("cleanup", || {
                let batch = xact::run(c"enrichment_cache: cleanup", || cleanup::cleanup(CLEANUP_BATCH, cleaned_to))?;
                Ok(batch.more)
            });
            // where there is more, the next round goes on
            if !more {
                self.cleaned_to = cleanup::CleanedTo::default();
            }
            self.next_cleanup = if more { now } else { now + every.as_micros() as Micros };
        }
    }

    fn show(&self) {
        let in_flight = self.pool.in_flight() as u32;
        let waits = self.lanes.waits();
        shmem::write(|shared| {
            shared.show_lanes(wake::my_database(), &waits);
            if let Some(place) = shared.database_mut(wake::my_database()) {
                place.in_flight = in_flight;
            }
        });
    }

    fn next_event(&self) -> Micros {
        // a sweep that is due now has just failed: its step rests
        let sweeps = discover::next_event(&self.attached.standing).map(|due| due.max(convert::clock() + SECOND));
        let retries =
            [self.steps.next_try(), self.held.next_try(), self.contested.next_try(), self.write_back.next_try()];
        let retries = retries.into_iter().chain([self.ledgers.next_try(), self.mirror.next_event()]);
        let counts = [Some(self.next_count), Some(self.lookups.next_event())];
        let planned = [self.lanes.next_event(), sweeps, self.next_cleanup_at()];
        retries.chain(planned).chain(counts).flatten().min().unwrap_or(Micros::MAX)
    }

    fn next_cleanup_at(&self) -> Option<Micros> {
        gucs::cleanup_interval().map(|_| self.next_cleanup)
    }

    /// Stores what has been answered, gives back what has not.
    fn finish(self, still_here: bool) {
        signals::clear_cancel();
        let Worker { pool, mut lanes, mut held, lookups, mirror, .. } = self;
        let mut done = pool.shutdown(GRACE);
        // the next worker begins them again
        done.retain(|done| done.id >= 0);
        signals::clear_cancel();
        mirror.finish(still_here);
        if still_here {
            held.try_now();
            answers::settle(done, &mut lanes, &mut held);
            if let Err(error) = xact::run(c"enrichment_cache: releasing claims", queue::release_all) {
                pgrx::log!("enrichment_cache: claims are released at the next start: {error}");
            }
            if let Err(error) = lookups.finish() {
                pgrx::log!("enrichment_cache: some hits were not written down: {error}");
            }
        }
    }
}
