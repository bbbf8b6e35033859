//! One lane per service: what it may start now (limits, pause, calls in flight), and the start of its calls. Spend is
//! recorded and committed, together with the claim, before a call goes out.

use super::jobs::job;
use super::ledgers::budget_of;
use super::{adopt, credentials, fetches, usage, xact};
use crate::core::error::Error;
use crate::core::limiter::{Held, Per, Spend, Spending};
use crate::core::secret::Secret;
use crate::core::service::Service;
use crate::core::Micros;
use crate::io::lineup::Room;
use crate::io::{Done, Pool};
use crate::pg::shmem::{Text, Waits};
use crate::pg::store::lanes::{self as ledger, Pause};
use crate::pg::store::{queue, registry};
use crate::pg::{budgets, convert, wake};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const SECOND: Micros = 1_000_000;
/// A lane without its secret looks for it again after this; setting one through SQL wakes it at once.
const LOOK_FOR_SECRET: Micros = 60 * SECOND;
/// Most requests of a lane that are claimed ahead of the threads that will call.
const MOST_AHEAD: usize = 500;
/// Rounds whose calls are claimed ahead: threads must not run dry while answers are stored.
const ROUNDS_AHEAD: usize = 4;

#[derive(Default)]
pub struct Lane {
    /// What it spends from, as long as its secret stays.
    pub budget: budgets::Key,
    /// Used when the cluster has more budgets than places for them.
    own: Option<Box<Spending>>,
    /// Claimed and not stored yet; calls under way, and requests that wait for a thread.
    in_flight: u32,
    /// Calls that ended since the last round, and about how many do in one.
    finished: usize,
    pace: usize,
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
    /// Claims taken out of the pool again, to be given back to the queue.
    withdrawn: Vec<i64>,
    /// The enabled services the pool keeps threads for.
    known: Vec<String>,
}

struct Start {
    service: Arc<Service>,
    secret: Option<Secret>,
    claims: Vec<queue::Claim>,
    /// Keys of which files of the disk cache had the answer.
    answered: Vec<String>,
    /// Whether the ledger holds something that must not be lost.
    spent: bool,
}

impl Lanes {
    /// Claims what each lane may start now and hands it to the pool; true when there is something to look at again.
    pub fn start(&mut self, pool: &Pool) -> Result<bool, Error> {
        self.reserved.clear();
        let claimed = xact::run(c"enrichment_cache: claiming requests", || self.claim(pool));
        if claimed.is_err() {
            // nothing of it was recorded, and nothing will go out
            let now = convert::clock();
            for (budget, calls) in self.reserved.drain(..) {
                budgets::with(&budget, now, |spending| spending.take_back(now, calls));
            }
        }
        let starts = claimed?;
        self.withdrawn.clear();
        let mut again = false;
        for start in starts {
            let calls = start.claims.len();
            again |= !start.answered.is_empty();
            fetches::complete(&start.service.name, start.answered.iter().map(String::as_str));
            for claim in start.claims {
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
        Ok(again || !self.unsent.is_empty() || self.next_event().is_some_and(|at| at <= convert::clock()))
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

    fn claim(&mut self, pool: &Pool) -> Result<Vec<Start>, Error> {
        let now = convert::clock();
        let services = registry::all()?;
        let due: HashMap<String, Micros> = queue::due()?.into_iter().collect();
        self.lanes.retain(|name, lane| services.contains_key(name) || lane.in_flight > 0);
        self.forget_plans();
        self.keep_threads(&services, pool);
        let mut starts = Vec::new();
        let mut room = pool.room();
        let mut stopped: Vec<String> = self.lanes.keys().filter(|name| !self.known.contains(name)).cloned().collect();
        for (name, service) in services.iter().filter(|(_, service)| service.enabled) {
            let lane = self.lanes.entry(name.clone()).or_default();
            lane.pace = (lane.pace + std::mem::take(&mut lane.finished)).div_ceil(2);
            lane.next_event = due.get(name).copied();
            let due = lane.next_event.is_some_and(|at| at <= now);
            let waiting = room.busy(name).waiting > 0;
            match if due || waiting { lane.ready(service, now)? } else { None } {
                Some(secret) if due => {
                    let start = lane.claim(service, secret, &room, now, &mut self.reserved)?;
                    room.take(name, start.claims.len());
                    starts.push(start);
                }
                None if waiting => stopped.push(name.clone()),
                _ => {}
            }
        }
        for name in stopped {
            self.withdraw(&name, pool);
        }
        queue::release(&self.withdrawn)?;
        match starts.iter().any(|start| start.spent) {
            true => xact::commit_durably(),
            false => xact::commit_lazily(),
        }
        Ok(starts)
    }

    /// Has the pool keep a thread for each enabled service.
    fn keep_threads(&mut self, services: &BTreeMap<String, Arc<Service>>, pool: &Pool) {
        let enabled = || services.values().filter(|service| service.enabled).map(|service| service.name.as_str());
        if !self.known.iter().map(String::as_str).eq(enabled()) {
            self.known = enabled().map(str::to_string).collect();
            pool.keep_for(enabled());
        }
    }

    /// Takes a lane's requests that wait for a thread out of the pool; the next claim gives them back to the queue.
    fn withdraw(&mut self, service: &str, pool: &Pool) {
        let ids = pool.withdraw(service);
        if let Some(lane) = self.lanes.get_mut(service) {
            lane.in_flight = lane.in_flight.saturating_sub(ids.len() as u32);
        }
        ids.iter().for_each(|id| {
            self.attempts.remove(id);
        });
        self.withdrawn.extend(ids);
    }

    /// The provider has said that it is enough: what waits for a thread goes back to the queue.
    pub fn stop(&mut self, service: &str, pool: &Pool) {
        self.withdraw(service, pool);
        pool.go_on(service);
    }

    /// Nothing is to be started for now: what waits for a thread goes back to the queue.
    ///
    /// # Errors
    /// What giving back raises; it is done with the next attempt then.
    pub fn rest(&mut self, pool: &Pool) -> Result<(), Error> {
        self.forget_plans();
        let names: Vec<String> = self.lanes.keys().cloned().collect();
        names.iter().for_each(|name| self.withdraw(name, pool));
        if !self.withdrawn.is_empty() {
            xact::run(c"enrichment_cache: giving requests back", || queue::release(&self.withdrawn))?;
            self.withdrawn.clear();
        }
        Ok(())
    }

    /// Forgets when lanes wanted to go on.
    fn forget_plans(&mut self) {
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

    /// Claims that ended without a call since this was last asked.
    pub fn take_unsent(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.unsent)
    }

    /// Takes a finished call off its lane; returns the attempts it had used up before.
    pub fn finished(&mut self, service: &str, id: i64) -> i32 {
        if let Some(lane) = self.lanes.get_mut(service) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
            lane.finished += 1;
        }
        self.attempts.remove(&id).unwrap_or(0)
    }
}

impl Lane {
    /// The secret to ask with, `Some(None)` where none is needed; `None` when the lane may not ask now.
    fn ready(&mut self, service: &Service, now: Micros) -> Result<Option<Option<Secret>>, Error> {
        let pause = ledger::pause_of(&service.name)?;
        if let Some(until) = pause.until.filter(|until| *until > now) {
            self.next_event = Some(until);
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
        Ok(Some(secret))
    }

    fn claim(
        &mut self,
        service: &Arc<Service>,
        secret: Option<Secret>,
        room: &Room,
        now: Micros,
        reserved: &mut Vec<(budgets::Key, u32)>,
    ) -> Result<Start, Error> {
        self.join(service, secret.as_ref(), now)?;
        let room = self.room(service, room, now);
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
                return Ok(Start {
                    service: service.clone(),
                    secret,
                    claims: Vec::new(),
                    answered: Vec::new(),
                    spent: false,
                });
            }
        };
        reserved.push((self.budget, permitted));
        let claims = queue::claim(&service.name, i64::from(permitted), now)?;
        let (claims, answered) = adopt::unless_answered(service, claims)?;
        let unused = permitted.saturating_sub(claims.len() as u32);
        if unused > 0 {
            reserved.pop();
            reserved.push((self.budget, permitted - unused));
            self.spending(now, |spending| spending.take_back(now, unused));
            take_off(&mut spends, unused);
        }
        if !claims.is_empty() {
            ledger::spend(&service.name, &self.budget, &spends)?;
        }
        let spent = !claims.is_empty() && !spends.is_empty();
        // with all the room taken, the end of a running call wakes the worker; else it has to look what is next
        if spends.is_empty() && unused == 0 {
            self.next_event = None;
        }
        Ok(Start { service: service.clone(), secret, claims, answered, spent })
    }

    /// How many requests are to be claimed. Where a limit counts, no more than can be called at once: the provider counts
    /// from then. Else some more, so that a thread that is done finds the next one while answers are stored.
    fn room(&mut self, service: &Service, room: &Room, now: Micros) -> u32 {
        let busy = room.busy(&service.name);
        let most = (service.max_in_flight as usize).saturating_sub(busy.running);
        let at_once = most.min(room.threads(&service.name));
        let limits = self.spending(now, |spending| spending.limited(&service.limits));
        let wanted = match limits {
            true => at_once.saturating_sub(busy.waiting),
            false => {
                let ahead = (ROUNDS_AHEAD * self.pace).min(MOST_AHEAD);
                let wanted = (at_once + ahead).saturating_sub(busy.waiting);
                // a few at a time cost as much as many
                if at_once == 0 && wanted < ahead / 2 {
                    0
                } else {
                    wanted
                }
            }
        };
        wanted as u32
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

/// Takes calls that were not made off rows of the ledger that are not written yet.
fn take_off(spends: &mut [Spend], calls: u32) {
    for spend in spends {
        spend.spent -= i64::from(calls);
        spend.by_all -= i64::from(calls);
    }
}
