//! Which job comes next. Each service has a line of its own; the service with the fewest calls under way is next, none
//! has more of them than its `max_in_flight`, and one thread is kept for each service that has none: a provider that does
//! not answer must not take them all.
//!
//! A plain value; the pool guards it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::pool::Job;
use crate::core::classify::Health;
use crate::core::service::Service;

#[derive(Default)]
struct Line {
    jobs: VecDeque<Job>,
    running: usize,
    /// Whether it is one of the services that threads are kept for.
    known: bool,
    /// Answers not taken yet after which no further call may start.
    stops: usize,
    /// Failed calls in a row.
    failures: u32,
    /// The most calls that ran at once since that row began.
    abreast: u32,
    /// When it was last given a thread, as a count of jobs.
    served: u64,
    /// The call that worked and was the last of these to begin, by the same count.
    worked: u64,
}

/// What the end of a call says of its service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The most calls of its service that ran at once since calls began to fail in a row; 0: this one has not failed.
    pub abreast: u32,
    /// It failed, but a call that began after it has worked.
    pub overtaken: bool,
}

/// The jobs that wait, by service, and how many run.
pub(super) struct Lineup {
    lines: BTreeMap<String, Line>,
    pub(super) threads: usize,
    waiting: usize,
    running: usize,
    served: u64,
}

/// How many calls of each service would start at once.
pub struct Room {
    /// Threads without a job.
    free: usize,
    /// Services that threads are kept for.
    known: usize,
    lines: BTreeMap<String, Busy>,
    stopped: BTreeSet<String>,
}

/// The jobs of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    pub running: usize,
    pub waiting: usize,
}

impl Room {
    /// How many further calls of this service would start at once, as far as threads go.
    pub fn threads(&self, service: &str) -> usize {
        let without = self.known.saturating_sub(self.lines.len());
        match self.busy(service) {
            Busy { running: 0, waiting: 0 } => {
                self.free.saturating_sub(without.saturating_sub(1)).max(self.free.min(1))
            }
            _ => self.free.saturating_sub(without),
        }
    }

    /// Whether no call of this service starts until an answer of it is taken note of.
    pub fn is_stopped(&self, service: &str) -> bool {
        self.stopped.contains(service)
    }

    pub fn busy(&self, service: &str) -> Busy {
        self.lines.get(service).copied().unwrap_or_default()
    }

    /// Takes so many of them.
    pub fn take(&mut self, service: &str, calls: usize) {
        if calls > 0 {
            let line = self.lines.entry(service.to_owned()).or_default();
            let started = calls.min(self.free);
            self.free -= started;
            line.running += started;
            line.waiting += calls - started;
        }
    }
}

impl Line {
    /// The most calls its service may have under way.
    fn most(&self) -> usize {
        self.jobs.front().map_or(0, |job| job.service.max_in_flight.max(1) as usize)
    }
}

impl Lineup {
    pub(super) fn new(threads: usize) -> Self {
        Lineup { lines: BTreeMap::new(), threads: threads.max(1), waiting: 0, running: 0, served: 0 }
    }

    /// Keeps a thread for each of these services.
    pub(super) fn keep_for<'a>(&mut self, services: impl Iterator<Item = &'a str>) {
        self.lines.values_mut().for_each(|line| line.known = false);
        services.for_each(|service| self.line(service).known = true);
        self.lines.retain(|_, line| line.known || line.running > 0 || !line.jobs.is_empty());
    }

    pub(super) fn push(&mut self, job: Job) {
        self.waiting += 1;
        let line = match self.lines.get_mut(&job.service.name) {
            Some(line) => line,
            None => self.lines.entry(job.service.name.clone()).or_default(),
        };
        // what a service says of its limits may be what lets its other calls go on
        match job.usage {
            true => line.jobs.push_front(job),
            false => line.jobs.push_back(job),
        }
    }

    /// The job for a thread that has none.
    pub(super) fn next(&mut self) -> Option<Job> {
        let name = self.best()?;
        let line = self.lines.get_mut(&name)?;
        let job = line.jobs.pop_front()?;
        self.served += 1;
        (line.served, line.running) = (self.served, line.running + 1);
        (self.waiting, self.running) = (self.waiting - 1, self.running + 1);
        Some(job)
    }

    /// How many threads would find a job, at most (those that are kept for others do not).
    pub(super) fn startable(&self) -> usize {
        if self.waiting == 0 || self.best().is_none() {
            return 0;
        }
        let able = |line: &Line| line.jobs.len().min(line.most().saturating_sub(line.running));
        self.lines.values().map(able).sum()
    }

    fn best(&self) -> Option<String> {
        let free = self.threads.saturating_sub(self.running);
        if free == 0 {
            return None;
        }
        let idle = self.lines.values().filter(|line| line.known && line.running == 0).count();
        let may = |line: &Line| {
            let Some(job) = line.jobs.front() else { return false };
            (job.usage || line.stops == 0) && line.running < line.most() && (line.running == 0 || free > idle)
        };
        let able = self.lines.iter().filter(|(_, line)| may(line));
        able.min_by_key(|(_, line)| (line.running, line.served)).map(|(name, _)| name.clone())
    }

    /// A call of this service has ended.
    pub(super) fn ended(&mut self, service: &str) {
        self.running = self.running.saturating_sub(1);
        if let Some(line) = self.lines.get_mut(service) {
            line.running = line.running.saturating_sub(1);
        }
    }

    /// The number of the job that was given out last.
    pub(super) fn served(&self) -> u64 {
        self.served
    }

    /// Takes in how a call that still counts as running ended, the job of this number; says what that tells, and whether so many
    /// in a row have failed as open the breaker of the service.
    pub(super) fn heard(&mut self, service: &Service, number: u64, health: Health) -> (Heard, bool) {
        let line = self.line(&service.name);
        let overtaken = health == Health::Fails && number < line.worked;
        match health {
            Health::Works => (line.failures, line.abreast, line.worked) = (0, 0, line.worked.max(number)),
            Health::Fails if overtaken => {}
            Health::Fails => {
                line.failures = line.failures.saturating_add(1);
                line.abreast = line.abreast.max(u32::try_from(line.running).unwrap_or(u32::MAX));
            }
            Health::Unknown => {}
        }
        let counts = health == Health::Fails && !overtaken;
        let enough = service.rules.breaker.enough(line.abreast).filter(|_| counts);
        (Heard { abreast: line.abreast, overtaken }, enough.is_some_and(|enough| line.failures >= enough))
    }

    /// No further call of this service starts before this is taken back as often.
    pub(super) fn stop(&mut self, service: &str) {
        self.line(service).stops += 1;
    }

    /// Takes a stop back.
    pub(super) fn go_on(&mut self, service: &str) {
        let line = self.line(service);
        line.stops = line.stops.saturating_sub(1);
    }

    /// Takes the waiting jobs of a service out, except one that asks for its usage; their ids.
    pub(super) fn withdraw(&mut self, service: &str) -> Vec<i64> {
        let Some(line) = self.lines.get_mut(service) else { return Vec::new() };
        let (kept, taken): (VecDeque<Job>, VecDeque<Job>) =
            std::mem::take(&mut line.jobs).into_iter().partition(|job| job.usage);
        line.jobs = kept;
        self.waiting -= taken.len();
        taken.into_iter().map(|job| job.id).collect()
    }

    /// Takes all waiting jobs out.
    pub(super) fn clear(&mut self) -> Vec<Job> {
        self.waiting = 0;
        self.lines.values_mut().flat_map(|line| std::mem::take(&mut line.jobs)).collect()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn room(&self) -> Room {
        let lines = self.lines.iter().filter(|(_, line)| line.running > 0 || !line.jobs.is_empty());
        let busy = |line: &Line| Busy { running: line.running, waiting: line.jobs.len() };
        Room {
            free: self.threads.saturating_sub(self.running),
            known: self.lines.values().filter(|line| line.known).count(),
            lines: lines.map(|(name, line)| (name.clone(), busy(line))).collect(),
            stopped: self.lines.iter().filter(|(_, line)| line.stops > 0).map(|(name, _)| name.clone()).collect(),
        }
    }

    fn line(&mut self, service: &str) -> &mut Line {
        self.lines.entry(service.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_server::{get, key, service};
    use super::*;
    use std::sync::Arc;

    fn job(id: i64, name: &str, max_in_flight: u32) -> Job {
        let service = Arc::new(crate::core::service::Service { name: name.into(), max_in_flight, ..service(1_000) });
        Job { id, service, key: key("k"), request: get(String::new()), usage: false }
    }

    fn lineup(threads: usize, known: &[&str], jobs: &[(&str, u32, usize)]) -> Lineup {
        let mut lineup = Lineup::new(threads);
        lineup.keep_for(known.iter().copied());
        for (name, max_in_flight, n) in jobs {
            (0..*n).for_each(|id| lineup.push(job(id as i64, name, *max_in_flight)));
        }
        lineup
    }

    fn started(lineup: &mut Lineup) -> Vec<String> {
        std::iter::from_fn(|| lineup.next()).map(|job| job.service.name.clone()).collect()
    }

    #[test]
    fn services_take_turns_and_none_passes_its_most() {
        let mut lineup = lineup(9, &["a", "b"], &[("a", 4, 9), ("b", 3, 9)]);
        assert_eq!(started(&mut lineup), ["a", "b", "a", "b", "a", "b", "a"]);
        assert_eq!((lineup.running(), lineup.waiting(), lineup.startable()), (7, 11, 0));
        lineup.ended("b");
        assert_eq!(started(&mut lineup), ["b"]);
    }

    #[test]
    fn one_that_does_not_answer_leaves_a_thread_for_each_of_the_others() {
        let mut lineup = lineup(6, &["a", "b", "c"], &[("a", 1000, 100)]);
        assert_eq!(started(&mut lineup).len(), 4);
        (0..3).for_each(|id| lineup.push(job(id, "c", 9)));
        assert_eq!(started(&mut lineup), ["c"], "the last thread is kept for b");
        lineup.push(job(9, "b", 9));
        assert_eq!(started(&mut lineup), ["b"]);
        // fewer threads than services: whoever has nothing under way may go
        let mut narrow = self::lineup(1, &["a", "b", "c"], &[("a", 9, 2), ("b", 9, 1)]);
        for expected in ["a", "b", "a"] {
            assert_eq!(started(&mut narrow), [expected]);
            narrow.ended(expected);
        }
    }

    #[test]
    fn room_is_what_would_start_at_once() {
        let mut lineup = lineup(8, &["a", "b", "c"], &[("a", 1000, 3)]);
        started(&mut lineup);
        lineup.push(job(7, "b", 1));
        let mut room = lineup.room();
        // one of the five free threads is kept for c, which needs none kept for itself
        assert_eq!((room.threads("a"), room.threads("c")), (4, 5));
        assert_eq!(room.busy("b"), Busy { running: 0, waiting: 1 });
        room.take("c", 7);
        assert_eq!((room.threads("a"), room.busy("c")), (0, Busy { running: 5, waiting: 2 }));
        assert_eq!(self::lineup(1, &["a", "b"], &[]).room().threads("b"), 1);
    }

    #[test]
    fn as_many_failures_in_a_row_as_open_the_breaker_are_enough() {
        let mut lineup = lineup(8, &["a"], &[]);
        let mut service = service(1_000);
        let heard = |lineup: &mut Lineup, service: &Service, all: &[Health]| -> Vec<bool> {
            all.iter().zip(1..).map(|(health, number)| lineup.heard(service, number, *health).1).collect()
        };
        use Health::{Fails, Unknown, Works};
        service.rules.breaker.failures = 3;
        let ended = [Fails, Fails, Works, Fails, Unknown, Fails, Fails, Fails, Works, Fails];
        let enough = [false, false, false, false, false, false, true, true, false, false];
        assert_eq!(heard(&mut lineup, &service, &ended), enough);
        service.rules.breaker.failures = 0;
        assert_eq!(heard(&mut lineup, &service, &[Fails; 9]), [false; 9], "a breaker that never opens");
    }

    #[test]
    fn failures_that_are_quicker_than_the_answers_of_calls_beside_them_are_not_enough() {
        use Health::{Fails, Works};
        let mut lineup = lineup(8, &["a"], &[("a", 1000, 6)]);
        let mut service = service(1_000);
        service.name = "a".to_string();
        service.rules.breaker.failures = 3;
        while lineup.next().is_some() {}
        let says = |abreast| (Heard { abreast, overtaken: false }, false);
        for number in 2..6 {
            assert_eq!(lineup.heard(&service, number, Fails), says(6), "{number}");
            lineup.ended("a");
        }
        assert_eq!(lineup.heard(&service, 1, Works), says(0));
        lineup.ended("a");
        assert_eq!(lineup.heard(&service, 6, Fails), says(1), "a row of its own");
    }

    #[test]
    fn failures_that_are_slower_than_the_answers_of_calls_that_began_later_are_not_enough() {
        use Health::{Fails, Works};
        let mut lineup = lineup(8, &["a"], &[("a", 1000, 8)]);
        let mut service = service(1_000);
        service.name = "a".to_string();
        service.rules.breaker.failures = 3;
        while lineup.next().is_some() {}
        let mut end = |number, health| {
            let heard = lineup.heard(&service, number, health);
            lineup.ended("a");
            heard
        };
        assert_eq!(end(5, Works), (Heard::default(), false));
        for number in 1..5 {
            assert_eq!(end(number, Fails), (Heard { abreast: 0, overtaken: true }, false), "{number}");
        }
        // those that began after it count
        let ends: Vec<bool> = (6..9).map(|number| end(number, Fails).1).collect();
        assert_eq!(ends, [false, false, true]);
    }

    #[test]
    fn a_stopped_service_starts_nothing_but_the_question_for_its_usage() {
        let mut lineup = lineup(8, &["a"], &[("a", 1000, 2)]);
        lineup.stop("a");
        lineup.stop("a");
        lineup.go_on("a");
        assert!(lineup.next().is_none() && lineup.startable() == 0 && lineup.room().is_stopped("a"));
        lineup.push(Job { usage: true, ..job(5, "a", 1000) });
        assert!(lineup.next().is_some_and(|job| job.usage) && lineup.next().is_none());
        assert_eq!(lineup.withdraw("a"), [0, 1]);
        lineup.push(job(6, "a", 1000));
        lineup.go_on("a");
        assert!(!lineup.room().is_stopped("a"));
        assert_eq!(lineup.next().map(|job| job.id), Some(6));
        assert_eq!(lineup.waiting(), 0);
    }
}
