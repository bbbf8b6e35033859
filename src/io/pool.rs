//! The threads that make the calls, so that the worker of PostgreSQL never waits for a provider.
//!
//! Contract: `state` is held for moments only, never during a call. A result is in the mailbox before its job stops
//! counting as under way, so `in_flight() == 0` means that [`Pool::drain`] returns all that is left.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::call::{failed, internal_fault, perform};
use super::client::Client;
use super::clock;
use super::config::ClientConfig;
use super::lineup::{Heard, Lineup, Room};
use super::signals::AllBlocked;
use super::wake::{Mailbox, BATCH};
use crate::core::classify::{Cause, Health, Outcome, TransportKind};
use crate::core::key::Key;
use crate::core::limiter::Report;
use crate::core::request::Request;
use crate::core::service::Service;
use crate::core::Micros;

/// Enough for a TLS handshake in a build without optimisation, with a margin of more than two.
const STACK_BYTES: usize = 512 * 1024;
/// How long an interrupted call may take to notice.
const INTERRUPT_GRACE: Duration = Duration::from_millis(200);

/// One call to make.
pub struct Job {
    pub id: i64,
    pub service: Arc<Service>,
    pub key: Key,
    pub request: Request,
    /// Whether it asks what the provider says of its limits, and not for a key.
    pub usage: bool,
}

/// What became of a [`Job`].
#[derive(Clone, Debug)]
pub struct Done {
    pub id: i64,
    pub service: Arc<Service>,
    pub key: Key,
    pub outcome: Outcome,
    pub cause: Cause,
    /// `None` when there was no answer.
    pub status_code: Option<u16>,
    /// Where it failed when there was no answer.
    pub failed_at: Option<TransportKind>,
    pub latency_ms: u32,
    /// How long the provider asked to be left alone with this key, in microseconds, whatever the outcome.
    pub retry_after: Option<Micros>,
    pub finished_at: Micros,
    pub usage: bool,
    /// No further call of its service starts before [`Pool::go_on`].
    pub stops: bool,
    /// What its end says of its service.
    pub heard: Heard,
    /// What the provider said of its limits.
    pub reports: Vec<Report>,
}

/// A call as it ended, judged.
pub struct Performed {
    pub outcome: Outcome,
    pub cause: Cause,
    pub status_code: Option<u16>,
    pub failed_at: Option<TransportKind>,
    pub latency_ms: u32,
    pub retry_after: Option<Micros>,
    pub reports: Vec<Report>,
}

/// What a thread does with a job; a value so that tests and benchmarks can put another in its place.
pub type Perform = fn(&Job, &Client) -> Performed;

/// The pool. Dropping it is [`Pool::shutdown`] without grace.
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A job came, or threads have to end.
    work: Condvar,
    /// A call or a thread ended.
    ended: Condvar,
    mailbox: Mailbox<Done>,
    perform: Perform,
}

struct State {
    lineup: Lineup,
    client: Arc<Client>,
    threads: usize,
    started: u64,
    closing: bool,
}

impl Pool {
    /// Makes a pool without threads; they come with the jobs, up to `max_threads` (at least 1), with all signals
    /// blocked.
    ///
    /// # Errors
    /// Those of [`Client::new`]; no file descriptor left.
    pub fn start(max_threads: usize, config: ClientConfig) -> io::Result<Pool> {
        Pool::start_with(max_threads, config, perform)
    }

    /// As [`Pool::start`], with another way to make a call.
    ///
    /// # Errors
    /// As [`Pool::start`].
    pub fn start_with(max_threads: usize, config: ClientConfig, perform: Perform) -> io::Result<Pool> {
        let state = State {
            lineup: Lineup::new(max_threads),
            client: Arc::new(Client::new(config, max_threads)?),
            threads: 0,
            started: 0,
            closing: false,
        };
        let shared = Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            ended: Condvar::new(),
            mailbox: Mailbox::new()?,
            perform,
        };
        Ok(Pool { shared: Arc::new(shared) })
    }

    /// Hands a job over, as [`Pool::submit_all`].
    pub fn submit(&self, job: Job) {
        self.submit_all([job]);
    }

    /// Hands jobs over. Never blocks; they wait for free threads, and until their service may have one more call under way.
    /// When not even one thread can be made, they end at once with an error that may be tried again.
    pub fn submit_all(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut state = self.shared.lock();
        let jobs = jobs.into_iter().map(|job| state.lineup.push(job)).count();
        while state.wants_thread() {
            let Err(e) = Shared::spawn(&self.shared, &mut state) else { continue };
            if state.threads > 0 {
                break;
            }
            let refused = state.lineup.clear();
            drop(state);
            refused.into_iter().for_each(|job| {
                let performed = failed(format!("no thread for the call: {e}"));
                self.shared.mailbox.post(done(job, performed));
            });
            return;
        }
        drop(state);
        match jobs {
            1 => self.shared.work.notify_one(),
            _ => self.shared.work.notify_all(),
        }
    }

    /// Keeps a thread for each of these services, however long the calls of others take.
    pub fn keep_for<'a>(&self, services: impl Iterator<Item = &'a str>) {
        self.shared.lock().lineup.keep_for(services);
        self.shared.work.notify_all();
    }

    /// How many calls of each service would start at once.
    pub fn room(&self) -> Room {
        self.shared.lock().lineup.room()
    }

    /// Takes the jobs of a service out that have not started; their ids.
    pub fn withdraw(&self, service: &str) -> Vec<i64> {
        self.shared.lock().lineup.withdraw(service)
    }

    /// Says that an answer after which no further call may start (see [`Done::stops`]) was taken note of.
    pub fn go_on(&self, service: &str) {
        self.shared.lock().lineup.go_on(service);
        self.shared.work.notify_all();
    }

    /// The results that wait, in the order of their arrival; [`Pool::wake_fd`] is not readable after.
    pub fn drain(&self) -> Vec<Done> {
        self.shared.mailbox.drain(Duration::ZERO)
    }

    /// As [`Pool::drain`], but no more than a batch; the next ones may gather for so long, while threads have work, before
    /// the descriptor tells. Where a batch is left, it is readable still.
    pub fn gather(&self, quiet: Duration) -> Vec<Done> {
        self.shared.mailbox.take(BATCH, quiet)
    }

    /// How long results may still gather, `None` when that time is over.
    pub fn gathers_for(&self) -> Option<Duration> {
        self.shared.mailbox.quiet_left()
    }

    /// Whether results wait, also such as are still gathering.
    pub fn has_results(&self) -> bool {
        !self.shared.mailbox.is_empty()
    }

    /// A descriptor that is readable while results wait that somebody is to take. It stays the same as long as the pool; only poll it.
    pub fn wake_fd(&self) -> RawFd {
        self.wakes().as_raw_fd()
    }

    /// The same, borrowed.
    pub fn wakes(&self) -> BorrowedFd<'_> {
        self.shared.mailbox.as_fd()
    }

    /// Jobs that wait or run; a result not yet drained does not count.
    pub fn in_flight(&self) -> usize {
        let state = self.shared.lock();
        state.lineup.waiting() + state.lineup.running()
    }

    /// Changes the settings for the jobs that have not started. With fewer threads, those too many end when idle.
    ///
    /// # Errors
    /// Those of [`Client::new`]; all settings then stay as they were.
    pub fn reconfigure(&self, max_threads: usize, config: ClientConfig) -> io::Result<()> {
        let client = Arc::new(Client::new(config, max_threads)?);
        let mut state = self.shared.lock();
        state.client = client;
        state.lineup.threads = max_threads.max(1);
        while state.wants_thread() {
            if Shared::spawn(&self.shared, &mut state).is_err() {
                break;
            }
        }
        drop(state);
        self.shared.work.notify_all();
        Ok(())
    }

    /// Drops the jobs that have not started, waits at most `grace` for those that run and returns what finished. The
    /// calls that still run are interrupted and lost, which takes at most 200 ms more.
    pub fn shutdown(self, grace: Duration) -> Vec<Done> {
        self.shared.close();
        self.shared.wait_until(grace, |state| state.lineup.running() == 0);
        let finished = self.shared.mailbox.drain(Duration::ZERO);
        let client = self.shared.lock().client.clone();
        client.interrupt();
        self.shared.wait_until(INTERRUPT_GRACE, |state| state.threads == 0);
        finished
    }

    #[cfg(test)]
    pub(super) fn results_within(&self, timeout_ms: u16) -> Vec<Done> {
        self.shared.mailbox.readable_within(timeout_ms);
        self.drain()
    }

    #[cfg(test)]
    pub(super) fn has_result(&self) -> bool {
        self.shared.mailbox.readable_within(0)
    }

    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.shared.lock().threads
    }

    /// Lives exactly as long as the pool or one of its threads does.
    #[cfg(test)]
    pub(super) fn lifeline(&self) -> std::sync::Weak<impl Sized> {
        Arc::downgrade(&self.shared)
    }
}

impl State {
    fn wants_thread(&self) -> bool {
        self.threads < self.lineup.threads && self.lineup.startable() > self.threads - self.lineup.running()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(shared: &Arc<Shared>, state: &mut State) -> io::Result<()> {
        let blocked = AllBlocked::here();
        let its = Arc::clone(shared);
        let name = format!("enrich-http-{}", state.started % 1000);
        thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || its.run())?;
        drop(blocked);
        state.threads += 1;
        state.started += 1;
        Ok(())
    }

    fn run(&self) {
        while let Some((job, number, client)) = self.next() {
            let performed = catch_unwind(AssertUnwindSafe(|| (self.perform)(&job, &client)))
                .unwrap_or_else(|panic| failed(internal_fault(&job, panic.as_ref())));
            let service = Arc::clone(&job.service);
            let health = Health::of(&performed.outcome, performed.cause);
            // as many failures in a row as open the breaker are noted before anything else is asked
            let (heard, enough) = self.lock().lineup.heard(&service, number, health);
            let stops = enough || performed.outcome.stops();
            if stops {
                self.lock().lineup.stop(&service.name);
            }
            self.mailbox.post(Done { stops, heard, ..done(job, performed) });
            self.lock().lineup.ended(&service.name);
            self.ended.notify_all();
        }
        self.ended.notify_all();
    }

    /// Waits for a job and its number; `None` when this thread has to end, which is then counted.
    fn next(&self) -> Option<(Job, u64, Arc<Client>)> {
        let mut state = self.lock();
        loop {
            if state.closing || state.threads > state.lineup.threads {
                state.threads -= 1;
                return None;
            }
            if let Some(job) = state.lineup.next() {
                return Some((job, state.lineup.served(), state.client.clone()));
            }
            // this thread has no work, so nothing is gained by gathering
            self.mailbox.hurry();
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        let dropped = state.lineup.clear();
        drop(state);
        drop(dropped);
        self.work.notify_all();
    }

    fn wait_until(&self, at_most: Duration, reached: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + at_most;
        let mut state = self.lock();
        while !reached(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn done(job: Job, performed: Performed) -> Done {
    let Performed { outcome, cause, status_code, failed_at, latency_ms, retry_after, reports } = performed;
    let Job { id, service, key, usage, .. } = job;
    let finished_at = clock::now();
    let (stops, heard) = (false, Heard::default());
    Done {
        id,
        service,
        key,
        outcome,
        cause,
        status_code,
        failed_at,
        latency_ms,
        retry_after,
        finished_at,
        usage,
        stops,
        heard,
        reports,
    }
}
