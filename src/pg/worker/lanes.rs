//! One lane per service: what it may start now (limits, pause, calls in flight), and the start of its calls. Spend is
//! recorded and committed, together with the claim, before a call goes out.

use super::standing::UNAUTHORIZED;
use super::{adopt, credentials, fetches, ledgers, usage, xact};
use crate::core::breaker::State;
use crate::core::classify::{Cause, Outcome};
use crate::core::error::Error;
use crate::core::hash::budget_key;
use crate::core::key::{self, Key, KeyForm};
use crate::core::limiter::{Held, Per, Spending};
use crate::core::request;
use crate::core::secret::Secret;
use crate::core::service::Service;
use crate::core::Micros;
use crate::io::{Done, Job, Pool};
use crate::pg::shmem::{Text, Waits};
use crate::pg::store::breakers::{self, Standing};
use crate::pg::store::lanes::{self as ledger, Pause};
use crate::pg::store::{queue, registry, renewal};
use crate::pg::{budgets, convert, gucs, wake};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const SECOND: Micros = 1_000_000;
/// A lane without its secret looks for it again after this; setting one through SQL wakes it at once.
const LOOK_FOR_SECRET: Micros = 60 * SECOND;

#[derive(Default)]
pub struct Lane {
    /// What it spends from, as long as its secret stays.
    pub budget: budgets::Key,
    /// Used when the cluster has more budgets than places for them.
    own: Option<Box<Spending>>,
    in_flight: u32,
    next_event: Option<Micros>,
    /// What holds the lane up, and until when.
    held_up: Option<Held>,
    /// When the provider was last asked what it says of its limits.
    pub usage_asked: Option<Micros>,
}

/// The lanes of one database's worker.
#[derive(Default)]
pub struct Lanes {
    lanes: BTreeMap<String, Lane>,
    /// Attempts used up before the call that is in flight now, by request.
    attempts: HashMap<i64, i32>,
    /// Claims of which no request could be made.
    unsent: Vec<Done>,
    /// Calls taken from budgets in the transaction under way.
    reserved: Vec<(budgets::Key, u32)>,
}

struct Start {
    service: Arc<Service>,
    secret: Option<Secret>,
    claims: Vec<queue::Claim>,
    /// Keys of which files of the disk cache had the answer.
    answered: Vec<String>,
}

impl Lanes {
    /// Claims what each lane may start now and hands it to the pool; true when something was started.
    pub fn start(&mut self, pool: &Pool) -> Result<bool, Error> {
        self.reserved.clear();
        let claimed = xact::run(c"enrichment_cache: claiming requests", || self.claim());
        if claimed.is_err() {
            // nothing of it was recorded, and nothing will go out
            let now = convert::clock();
            for (budget, calls) in self.reserved.drain(..) {
                budgets::with(&budget, now, |spending| spending.take_back(now, calls));
            }
        }
        let starts = claimed?;
        let mut started = false;
        for start in starts {
            let calls = start.claims.len();
            started |= !start.answered.is_empty();
            fetches::complete(&start.service.name, start.answered.iter().map(String::as_str));
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
            if let Some(lane) = self.lanes.get_mut(&start.service.name) {
                let now = convert::clock();
                if calls > 0 {
                    lane.spending(now, |spending| spending.went_out(now));
                }
                if let Some(job) = usage::job(lane, &start.service, start.secret.as_ref(), now) {
                    pool.submit(job);
                }
            }
        }
        self.tell_under_way();
        Ok(started)
    }

    /// Lets the other databases know how many calls are under way.
    fn tell_under_way(&self) {
        let database = wake::my_database();
        for (name, lane) in self.lanes.iter().filter(|(_, lane)| lane.budget != budgets::Key::default()) {
            budgets::under_way(database, name, &lane.budget, lane.in_flight);
        }
    }

    /// Takes what the provider said of its limits with this answer.
    pub fn take_reports(&mut self, done: &Done) {
        let Some(lane) = self.lanes.get_mut(&done.service.name).filter(|_| !done.reports.is_empty()) else { return };
        let under_way = budgets::all_under_way(&lane.budget).max(lane.in_flight);
        // the answer's own call is in them
        let others = under_way.saturating_sub(u32::from(!done.usage));
        let reports = done.reports.clone();
        lane.spending(done.finished_at, |spending| {
            reports.into_iter().for_each(|report| spending.report(report, others))
        });
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
                let start = lane.claim(service, threads.room(lane), now, &mut self.reserved)?;
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
            Some(Waits {
                database,
                service: Text::new(service),
                until,
                per: Text::new(per.map_or("balance", Per::as_str)),
            })
        };
        self.lanes.iter().filter_map(held_up).collect()
    }

    /// Takes one call from a service's budget, for which no request waits, if one may start now; else what holds it up.
    pub fn permit_one(
        &mut self,
        service: &Service,
        secret: Option<&Secret>,
        now: Micros,
    ) -> Result<Result<(), Option<Held>>, Error> {
        let lane = self.lanes.entry(service.name.clone()).or_default();
        xact::run(c"enrichment_cache: permitting a test", || {
            lane.join(service, secret, now)?;
            let taken = lane.spending(now, |spending| match spending.permits(&service.limits, now, 1) {
                0 => Err(spending.next_permit_at(&service.limits, now)),
                _ => Ok(spending.reserve(&service.limits, now, 1)),
            });
            let spends = match taken {
                Ok(spends) => spends,
                Err(held) => return Ok(Err(held)),
            };
            ledger::spend(&service.name, &lane.budget, &spends)?;
            lane.spending(now, |spending| spending.went_out(now));
            Ok(Ok(()))
        })
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
    fn claim(
        &mut self,
        service: &Arc<Service>,
        threads: u32,
        now: Micros,
        reserved: &mut Vec<(budgets::Key, u32)>,
    ) -> Result<Option<Start>, Error> {
        let Standing { pause, mut breaker } = breakers::standing(&service.name)?;
        let refused = pause.cause.as_deref() == Some(UNAUTHORIZED);
        let open = breaker.until.filter(|_| breaker.state == State::Open);
        if let Some(until) = pause.until.max(open).filter(|until| *until > now) {
            self.next_event = Some(if refused { until.min(now + LOOK_FOR_SECRET) } else { until });
            if !(refused && self.has_another_secret(service)?) {
                return Ok(None);
            }
            ledger::forget_want_of_secret(&service.name)?;
            queue::retry_refused(&service.name)?;
        }
        let room = service.max_in_flight.saturating_sub(self.in_flight).min(threads);
        let mut room = breaker.permits(room, self.in_flight, now);
        if refused {
            // one call finds out whether the secret is accepted now
            room = room.min(1u32.saturating_sub(self.in_flight));
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
        self.join(service, secret.as_ref(), now)?;
        let taken =
            self.spending(now, |spending| match spending.permits(&service.limits, now, room.max(1)).min(room) {
                0 => Err(spending.next_permit_at(&service.limits, now)),
                n => Ok((n, spending.reserve(&service.limits, now, n))),
            });
        let (permitted, mut spends) = match taken {
            Ok(taken) => taken,
            Err(held_up) => {
                // without room and without a limit that binds, the end of a running call wakes the worker
                let asks = held_up.and_then(|_| usage::next(self, service));
                self.next_event = held_up.map(|(at, _)| asks.map_or(at, |asks| at.min(asks.max(now))));
                self.held_up = held_up;
                return Ok(Some(Start { service: service.clone(), secret, claims: Vec::new(), answered: Vec::new() }));
            }
        };
        reserved.push((self.budget, permitted));
        let claims = queue::claim(&service.name, i64::from(permitted), now)?;
        let (mut claims, answered) = adopt::unless_answered(service, claims)?;
        if service.rules.conditional {
            renewal::note_kept(&service.name, &mut claims)?;
        }
        let unused = permitted.saturating_sub(claims.len() as u32);
        if unused > 0 {
            reserved.pop();
            reserved.push((self.budget, permitted - unused));
            self.spending(now, |spending| spending.take_back(now, unused));
            ledgers::take_off(&mut spends, unused);
        }
        if !claims.is_empty() {
            ledger::spend(&service.name, &self.budget, &spends)?;
            if breaker.state == State::Open {
                breaker.goes_out(now);
                breakers::set(&service.name, &breaker)?;
            }
        }
        Ok(Some(Start { service: service.clone(), secret, claims, answered }))
    }

    /// Whether the secret is another one than that which the lane was refused with.
    fn has_another_secret(&self, service: &Service) -> Result<bool, Error> {
        let now = budget_of(service, credentials::of(service)?.as_ref());
        Ok(self.budget != budgets::Key::default() && self.budget != now)
    }

    /// Makes the lane spend from the budget of this secret, its ledger brought in.
    fn join(&mut self, service: &Service, secret: Option<&Secret>, now: Micros) -> Result<(), Error> {
        let database = wake::my_database();
        let budget = budget_of(service, secret);
        if !budgets::joined(database, &service.name, &budget) {
            let rows = ledger::ledger(&service.name, &budget)?;
            budgets::join(database, &service.name, &budget, &rows, now);
        } else if self.budget != budget {
            budgets::touch(database, &service.name, &budget, now);
        }
        if self.budget != budget {
            self.budget = budget;
            self.usage_asked = None;
            self.own = None;
            if budgets::with(&budget, now, |_| ()).is_none() {
                let mut own = Box::<Spending>::default();
                own.restore(&ledger::ledger(&service.name, &budget)?, now);
                self.own = Some(own);
            }
        }
        Ok(())
    }

    /// Looks at the lane's budget, and spends from it.
    fn spending<T>(&mut self, now: Micros, work: impl FnOnce(&mut Spending) -> T) -> T {
        if let Some(own) = &mut self.own {
            return work(own);
        }
        let mut work = Some(work);
        let shared = budgets::with(&self.budget, now, |spending| work.take().map(|work| work(spending)));
        match (shared.flatten(), work) {
            (Some(done), _) => done,
            (None, Some(work)) => work(self.own.get_or_insert_default()),
            (None, None) => unreachable!("the work is taken only where it is done"),
        }
    }
}

/// Which budget a service spends from when it asks with this secret.
pub fn budget_of(service: &Service, secret: Option<&Secret>) -> budgets::Key {
    // SAFETY: reads a field of the control file's copy in memory.
    let cluster = unsafe { pgrx::pg_sys::GetSystemIdentifier() };
    budget_key(cluster, &request::host(&service.url), secret.map_or("", Secret::expose))
}

/// The job of a claim, or its outcome when no request can be made of it.
fn job(service: &Arc<Service>, secret: Option<&Secret>, claim: &queue::Claim) -> Result<Job, Done> {
    let built = key::normalise(service.key_kind, &claim.key).map_err(|problem| problem.why).and_then(|key| {
        let mut request = request::build(service, &key, secret, &gucs::user_agent(), gucs::contact().as_deref())?;
        if let Some(kept) = &claim.kept {
            request.only_if_changed(kept);
        }
        Ok((key, request))
    });
    match built {
        Ok((key, request)) => Ok(Job { id: claim.id, service: service.clone(), key, request, usage: false }),
        Err(why) => Err(Done {
            id: claim.id,
            service: service.clone(),
            key: Key { text: claim.key.clone(), form: KeyForm::Text },
            outcome: Outcome::Error { message: format!("no request can be built: {why}"), retry: false },
            cause: Cause::NoRequest,
            status_code: None,
            failed_at: None,
            latency_ms: 0,
            finished_at: convert::clock(),
            usage: false,
            reports: Vec::new(),
        }),
    }
}
