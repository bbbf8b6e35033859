//! One lane per service: what it may start now (limits, pause, calls in flight), and the start of its calls. Spend is
//! recorded and committed, together with the claim, before a call goes out.

use super::jobs::job;
use super::lane::{Lane, Start};
use super::{fetches, usage, xact};
use crate::core::error::Error;
use crate::core::limiter::{Held, Per};
use crate::core::secret::Secret;
use crate::core::service::Service;
use crate::core::Micros;
use crate::io::{Done, Pool};
use crate::pg::shmem::{Text, Waits};
use crate::pg::store::lanes::{self as ledger};
use crate::pg::store::{queue, registry};
use crate::pg::{budgets, convert, wake};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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
            let mut jobs = Vec::with_capacity(calls);
            for claim in start.claims {
                self.attempts.insert(claim.id, claim.attempts);
                if let Some(lane) = self.lanes.get_mut(&start.service.name) {
                    lane.in_flight += 1;
                }
                match job(&start.service, start.secret.as_ref(), &claim) {
                    Ok(job) => jobs.push(job),
                    Err(done) => self.unsent.push(done),
                }
            }
            pool.submit_all(jobs);
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
            budgets::under_way(database, name, &lane.budget, lane.in_flight, lane.ended);
        }
    }

    /// Takes what the provider said of its limits with this answer.
    pub fn take_reports(&mut self, done: &Done) {
        if done.reports.is_empty() && !done.usage {
            return;
        }
        let Some(lane) = self.lanes.get_mut(&done.service.name) else { return };
        let (under_way, ended) = budgets::elsewhere(wake::my_database(), &done.service.name, &lane.budget);
        let ended = if done.usage { lane.ended_since_asked(ended) } else { 0 };
        if done.reports.is_empty() {
            return;
        }
        // the answer's own call is in them
        let here = lane.in_flight.saturating_sub(u32::from(!done.usage));
        let others = here.saturating_add(under_way).saturating_add(ended);
        let reports = done.reports.clone();
        // a millisecond that has begun counts: what is in doubt ran side by side
        let began = done.finished_at.saturating_sub((Micros::from(done.latency_ms) + 1) * 1000);
        lane.spending(done.finished_at, |spending| {
            reports.into_iter().for_each(|report| spending.report(report, others, began))
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
            lane.pace.count(std::mem::take(&mut lane.finished), now);
            lane.next_event = due.get(name).copied();
            let due = lane.next_event.is_some_and(|at| at <= now);
            let waiting = room.busy(name).waiting > 0;
            match if due || waiting { lane.ready(service, now)? } else { None } {
                Some(ready) if due => {
                    let start = lane.claim(service, ready, &room, now, &mut self.reserved)?;
                    room.take(name, start.claims.len());
                    starts.push(start);
                }
                Some(_) => {}
                None => {
                    if lane.next_event.is_some() {
                        starts.extend(lane.only_asks(service, now)?);
                    }
                    stopped.extend(waiting.then(|| name.clone()));
                }
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
            (lane.next_event, lane.held_up, lane.paused_elsewhere) = (None, None, false);
        }
    }

    /// Until when a service is paused because its provider asked to wait, as far as was last seen.
    pub fn limited_until(&self, service: &str) -> Option<Micros> {
        self.lanes.get(service)?.limited_until
    }

    /// Notes such a pause.
    pub fn limit(&mut self, service: &str, until: Option<Micros>, told: Option<Micros>) {
        if let Some(lane) = self.lanes.get_mut(service) {
            lane.limit(service, until, told);
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
                per: Text::new(if lane.paused_elsewhere { "pause" } else { per.map_or("balance", Per::as_str) }),
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
            lane.end();
        }
        self.attempts.remove(&id).unwrap_or(0)
    }
}
