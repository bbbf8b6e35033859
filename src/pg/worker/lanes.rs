//! One lane per service: what it may start now (limits, pause, calls in flight), and the start of its calls. Spend is
//! recorded and committed, together with the claim, before a call goes out.

use super::{credentials, xact};
use crate::core::classify::Outcome;
use crate::core::error::Error;
use crate::core::key::{self, Key, KeyForm};
use crate::core::limiter::{Limiter, Per};
use crate::core::request;
use crate::core::secret::Secret;
use crate::core::service::Service;
use crate::core::Micros;
use crate::io::{Done, Job, Pool};
use crate::pg::shmem::{Text, Waits};
use crate::pg::store::lanes::{self as ledger, Pause};
use crate::pg::store::{queue, registry};
use crate::pg::{convert, gucs, wake};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const SECOND: Micros = 1_000_000;
/// A lane without its secret looks for it again after this; setting one through SQL wakes it at once.
const LOOK_FOR_SECRET: Micros = 60 * SECOND;

#[derive(Default)]
struct Lane {
    limiter: Option<Limiter>,
    in_flight: u32,
    next_event: Option<Micros>,
    /// The window that holds the lane up, and until when.
    held_up: Option<(Micros, Per)>,
}

/// The lanes of one database's worker.
#[derive(Default)]
pub struct Lanes {
    lanes: BTreeMap<String, Lane>,
    /// Attempts used up before the call that is in flight now, by request.
    attempts: HashMap<i64, i32>,
    /// Claims of which no request could be made.
    unsent: Vec<Done>,
}

struct Start {
    service: Arc<Service>,
    secret: Option<Secret>,
    claims: Vec<queue::Claim>,
}

impl Lanes {
    /// Claims what each lane may start now and hands it to the pool; true when something was started.
    pub fn start(&mut self, pool: &Pool) -> Result<bool, Error> {
        let starts = xact::run(c"enrichment_cache: claiming requests", || self.claim())?;
        let mut started = false;
        for start in starts {
            for claim in start.claims {
                started = true;
                self.attempts.insert(claim.id, claim.attempts);
                if let Some(lane) = self.lanes.get_mut(&start.service.name) {
                    lane.in_flight += 1;
                }
                match job(&start.service, start.secret.as_ref(), &claim) {
                    Ok(job) => pool.submit(job),
                    Err(done) => self.unsent.push(done),
                }
            }
            let lane = self.lanes.get_mut(&start.service.name);
            if let Some(limiter) = lane.and_then(|lane| lane.limiter.as_mut()) {
                limiter.went_out(convert::clock());
            }
        }
        Ok(started)
    }

    fn claim(&mut self) -> Result<Vec<Start>, Error> {
        let now = convert::clock();
        let services = registry::all()?;
        let due: HashMap<String, Micros> = queue::due()?.into_iter().collect();
        self.lanes.retain(|name, lane| services.contains_key(name) || lane.in_flight > 0);
        self.rest();
        let mut starts = Vec::new();
        let mut threads = Threads::of(&services, &self.lanes);
        for (name, service) in services.iter().filter(|(_, service)| service.enabled) {
            let lane = self.lanes.entry(name.clone()).or_default();
            lane.next_event = due.get(name).copied();
            if lane.next_event.is_some_and(|at| at <= now) {
                let start = lane.claim(service, threads.room(lane), now)?;
                threads.take(lane, start.as_ref().map_or(0, |start| start.claims.len()));
                starts.extend(start);
            }
        }
        Ok(starts)
    }

    /// Forgets when lanes wanted to go on: nothing is to be started for now, or it is about to be found out anew.
    pub fn rest(&mut self) {
        for lane in self.lanes.values_mut() {
            (lane.next_event, lane.held_up) = (None, None);
        }
    }

    /// When a lane can next do something.
    pub fn next_event(&self) -> Option<Micros> {
        self.lanes.values().filter_map(|lane| lane.next_event).min()
    }

    /// The lanes that wait for a limit, as other sessions may see them.
    pub fn waits(&self) -> Vec<Waits> {
        let database = wake::my_database();
        let held_up = |(service, lane): (&String, &Lane)| {
            let (until, per) = lane.held_up?;
            Some(Waits { database, service: Text::new(service), until, per: Text::new(per.as_str()) })
        };
        self.lanes.iter().filter_map(held_up).collect()
    }

    /// Claims that ended without a call since this was last asked.
    pub fn take_unsent(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.unsent)
    }

    /// Takes a finished call off its lane; returns the attempts it had used up before.
    pub fn finished(&mut self, service: &str, id: i64) -> i32 {
        if let Some(lane) = self.lanes.get_mut(service) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
        self.attempts.remove(&id).unwrap_or(0)
    }
}

/// The pool's free threads, of which one is kept for each lane that has none: a provider that does not answer must not
/// take them all.
struct Threads {
    free: usize,
    /// Lanes of enabled services with nothing in flight.
    without: usize,
}

impl Threads {
    fn of(services: &BTreeMap<String, Arc<Service>>, lanes: &BTreeMap<String, Lane>) -> Self {
        let in_flight = |name: &String| lanes.get(name).map_or(0, |lane| lane.in_flight as usize);
        let enabled = services.iter().filter(|(_, service)| service.enabled);
        Threads {
            free: gucs::concurrency().saturating_sub(lanes.values().map(|lane| lane.in_flight as usize).sum()),
            without: enabled.filter(|(name, _)| in_flight(name) == 0).count(),
        }
    }

    fn room(&self, lane: &Lane) -> u32 {
        let room = match lane.in_flight {
            0 => self.free.saturating_sub(self.without.saturating_sub(1)).max(self.free.min(1)),
            _ => self.free.saturating_sub(self.without),
        };
        room as u32
    }

    fn take(&mut self, lane: &Lane, started: usize) {
        self.free = self.free.saturating_sub(started);
        if lane.in_flight == 0 && started > 0 {
            self.without = self.without.saturating_sub(1);
        }
    }
}

impl Lane {
    fn claim(&mut self, service: &Arc<Service>, threads: u32, now: Micros) -> Result<Option<Start>, Error> {
        let pause = ledger::pause_of(&service.name)?;
        if let Some(until) = pause.until.filter(|until| *until > now) {
            self.next_event = Some(until);
            return Ok(None);
        }
        let room = service.max_in_flight.saturating_sub(self.in_flight).min(threads);
        let limiter = self.limiter(service, now)?;
        let limiter_room = limiter.permits(now, room.max(1));
        if limiter_room == 0 {
            let held_up = limiter.next_permit_at(now);
            self.next_event = held_up.map(|(at, _)| at);
            self.held_up = held_up;
            return Ok(None);
        }
        if room == 0 {
            self.next_event = None; // the end of a running call wakes the worker
            return Ok(None);
        }
        let secret = credentials::of(service)?;
        if secret.is_none() && service.secret_required {
            let pause = Pause {
                until: Some(now + LOOK_FOR_SECRET),
                cause: Some("no_credential".to_string()),
                reason: Some(credentials::missing(service)),
                failures: 0,
            };
            self.next_event = pause.until;
            ledger::set_pause(&service.name, &pause)?;
            return Ok(None);
        }
        let claims = queue::claim(&service.name, i64::from(room.min(limiter_room)), now)?;
        if !claims.is_empty() {
            let spends = self.limiter(service, now)?.reserve(now, claims.len() as u32);
            ledger::spend(&service.name, &spends)?;
        }
        Ok(Some(Start { service: service.clone(), secret, claims }))
    }

    fn limiter(&mut self, service: &Service, now: Micros) -> Result<&mut Limiter, Error> {
        if self.limiter.is_none() {
            self.limiter = Some(Limiter::new(&service.limits, &ledger::ledger(&service.name)?, now));
        }
        let limiter = self.limiter.get_or_insert_with(|| Limiter::new(&service.limits, &[], now));
        limiter.set_limits(&service.limits, now);
        Ok(limiter)
    }
}

/// The job of a claim, or its outcome when no request can be made of it.
fn job(service: &Arc<Service>, secret: Option<&Secret>, claim: &queue::Claim) -> Result<Job, Done> {
    let built = key::normalise(service.key_kind, &claim.key).map_err(|problem| problem.why).and_then(|key| {
        let request = request::build(service, &key, secret, &gucs::user_agent(), gucs::contact().as_deref())?;
        Ok((key, request))
    });
    match built {
        Ok((key, request)) => Ok(Job { id: claim.id, service: service.clone(), key, request }),
        Err(why) => Err(Done {
            id: claim.id,
            service: service.clone(),
            key: Key { text: claim.key.clone(), form: KeyForm::Text },
            outcome: Outcome::Error { message: format!("no request can be built: {why}"), retry: false },
            status_code: None,
            latency_ms: 0,
            finished_at: convert::clock(),
        }),
    }
}
