//! One lane: what its service may be asked now, and the claims for it.

use super::ledgers::budget_of;
use super::standing::{self, UNAUTHORIZED};
use super::{adopt, credentials, usage};
use crate::core::breaker::{Breaker, State};
use crate::core::error::Error;
use crate::core::fair::Fair;
use crate::core::limiter::{Held, Spend, Spending};
use crate::core::pace::Pace;
use crate::core::secret::Secret;
use crate::core::service::Service;
use crate::core::Micros;
use crate::io::lineup::Room;
use crate::pg::store::breakers::{self, Standing};
use crate::pg::store::lanes::{self as ledger, Pause};
use crate::pg::store::{queue, renewal};
use crate::pg::{budgets, wake};
use std::collections::VecDeque;
use std::sync::Arc;

const SECOND: Micros = 1_000_000;
/// A lane whose provider has asked another database to wait looks again after this: that may be over sooner.
const LOOK_ELSEWHERE: Micros = 60 * SECOND;
/// A lane without its secret looks for it again after this; setting one through SQL wakes it at once.
const LOOK_FOR_SECRET: Micros = 60 * SECOND;

#[derive(Default)]
pub struct Lane {
    /// What it spends from, as long as its secret stays.
    pub budget: budgets::Key,
    /// Used when the cluster has more budgets than places for them.
    own: Option<Box<Spending>>,
    /// Claimed and not stored yet; calls under way, and requests that wait for a thread.
    pub(super) in_flight: u32,
    /// Calls that ended since the last round, and how fast they end.
    pub(super) finished: usize,
    pub(super) pace: Pace,
    fair: Fair,
    pub(super) next_event: Option<Micros>,
    /// What holds the lane up, and until when.
    pub(super) held_up: Option<Held>,
    /// Whether that is a pause which another database was asked for.
    pub(super) paused_elsewhere: bool,
    /// When the provider was last asked what it says of its limits.
    pub usage_asked: Option<Micros>,
    /// How many calls have ended in all, and had ended here and elsewhere when those questions went out that are not answered yet.
    pub(super) ended: u64,
    ended_when_asked: VecDeque<(u64, u64)>,
    /// Until when it is paused because the provider asked to wait.
    pub limited_until: Option<Micros>,
    /// Until when others who spend from its budget have been told to wait.
    told: Option<Micros>,
}

/// What a lane needs to ask with.
pub(super) struct Ready {
    /// `None` where none is needed.
    secret: Option<Secret>,
    breaker: Breaker,
    /// Whether one call has to find out first: the provider has refused the last secret or asked to wait.
    probes: bool,
}

pub(super) struct Start {
    pub(super) service: Arc<Service>,
    pub(super) secret: Option<Secret>,
    pub(super) claims: Vec<queue::Claim>,
    /// Keys of which files of the disk cache had the answer.
    pub(super) answered: Vec<String>,
    /// Whether the ledger holds something that must not be lost.
    pub(super) spent: bool,
}

impl Start {
    /// No call for a key; the question about usage may be due.
    fn of_nothing(service: &Arc<Service>, secret: Option<Secret>) -> Start {
        Start { service: service.clone(), secret, claims: Vec::new(), answered: Vec::new(), spent: false }
    }
}

impl Lane {
    /// What the lane asks with; `None` when it may not ask now.
    pub(super) fn ready(&mut self, service: &Service, now: Micros) -> Result<Option<Ready>, Error> {
        let Standing { pause, breaker } = breakers::standing(&service.name)?;
        let refused = pause.cause.as_deref() == Some(UNAUTHORIZED);
        let limited = pause.cause.as_deref().is_some_and(standing::limits);
        let open = breaker.until.filter(|_| breaker.state == State::Open);
        self.limit(&service.name, pause.until.filter(|_| limited), standing::told_to_wait(&pause));
        if let Some(until) = pause.until.max(open).filter(|until| *until > now) {
            self.next_event = Some(if refused { until.min(now + LOOK_FOR_SECRET) } else { until });
            if !(refused && self.has_another_secret(service)?) {
                return Ok(None);
            }
            ledger::forget_want_of_secret(&service.name)?;
            queue::retry_refused(&service.name)?;
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
        let probes = refused || limited;
        Ok(Some(Ready { secret, breaker, probes }))
    }

    /// The start of nothing but the question how much of a limit is left, where the provider has asked to wait and that
    /// question is due: what was bought is noticed so.
    pub(super) fn only_asks(&mut self, service: &Arc<Service>, now: Micros) -> Result<Option<Start>, Error> {
        let limited = self.limited_until.is_some_and(|until| until > now);
        let Some(asks) = usage::next(self, service).filter(|_| limited) else { return Ok(None) };
        if asks > now {
            self.next_event = self.next_event.map(|at| at.min(asks));
            return Ok(None);
        }
        let secret = credentials::of(service)?;
        if secret.is_none() && service.secret_required {
            return Ok(None);
        }
        self.join(service, secret.as_ref(), now)?;
        self.next_event = Some(now);
        Ok(Some(Start::of_nothing(service, secret)))
    }

    pub(super) fn claim(
        &mut self,
        service: &Arc<Service>,
        ready: Ready,
        room: &Room,
        now: Micros,
        reserved: &mut Vec<(budgets::Key, u32)>,
    ) -> Result<Start, Error> {
        let Ready { secret, mut breaker, probes } = ready;
        self.join(service, secret.as_ref(), now)?;
        // one secret, one account: the provider would say the same here
        if let Some(until) = budgets::limited_elsewhere(wake::my_database(), &service.name, &self.budget, now) {
            self.next_event = Some(until.min(now + LOOK_ELSEWHERE));
            (self.held_up, self.paused_elsewhere) = (Some((until, None)), true);
            return Ok(Start::of_nothing(service, secret));
        }
        let room = self.room(service, room, now);
        let mut room = breaker.permits(room, self.in_flight, now);
        if probes {
            room = room.min(1u32.saturating_sub(self.in_flight));
        }
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
                return Ok(Start::of_nothing(service, secret));
            }
        };
        reserved.push((self.budget, permitted));
        let claims = queue::claim(&service.name, permitted, self.fair.by_age(permitted), now)?;
        let (mut claims, answered) = adopt::unless_answered(service, claims)?;
        if service.rules.conditional {
            renewal::note_kept(&service.name, &mut claims)?;
        }
        let unused = permitted.saturating_sub(claims.len() as u32);
        if unused > 0 {
            reserved.pop();
            reserved.push((self.budget, permitted - unused));
            self.spending(now, |spending| spending.take_back(now, unused));
            take_off(&mut spends, unused);
        }
        if !claims.is_empty() {
            ledger::spend(&service.name, &self.budget, &spends)?;
            if breaker.state == State::Open {
                breaker.goes_out(now);
                breakers::set(&service.name, &breaker)?;
            }
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
        // the provider has said that it is enough, and that answer is still to be taken
        if room.is_stopped(&service.name) {
            return 0;
        }
        let busy = room.busy(&service.name);
        let most = (service.max_in_flight as usize).saturating_sub(busy.running);
        let at_once = most.min(room.threads(&service.name));
        let limits = self.spending(now, |spending| spending.limited(&service.limits));
        let wanted = match limits {
            true => at_once.saturating_sub(busy.waiting),
            false => {
                let unstored = (self.in_flight as usize).saturating_sub(busy.running + busy.waiting);
                self.pace.to_claim(at_once, busy.waiting, unstored)
            }
        };
        wanted as u32
    }

    /// A call has ended.
    pub(super) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.finished += 1;
        self.ended += 1;
    }

    /// The question what the provider says of its limits goes out.
    pub fn asks_usage(&mut self, service: &str) {
        let (_, elsewhere) = budgets::elsewhere(wake::my_database(), service, &self.budget);
        self.ended_when_asked.push_back((self.ended, elsewhere));
    }

    /// The oldest such question is answered; how many calls have ended since it went out, which may not be in its numbers.
    pub(super) fn ended_since_asked(&mut self, elsewhere: u64) -> u32 {
        let Some((here, there)) = self.ended_when_asked.pop_front() else { return 0 };
        // one that left the budget meanwhile took its number along
        let ended = (self.ended - here).saturating_add(elsewhere.saturating_sub(there));
        u32::try_from(ended).unwrap_or(u32::MAX)
    }

    /// Notes until when the lane is paused because the provider asked to wait, and until when all who spend from its budget are to wait.
    pub(super) fn limit(&mut self, service: &str, until: Option<Micros>, told: Option<Micros>) {
        if self.told != told {
            budgets::limit(wake::my_database(), service, &self.budget, told);
        }
        (self.limited_until, self.told) = (until, told);
    }

    /// Whether the secret is another one than that which the lane was refused with.
    fn has_another_secret(&self, service: &Service) -> Result<bool, Error> {
        let now = budget_of(service, credentials::of(service)?.as_ref());
        Ok(self.budget != budgets::Key::default() && self.budget != now)
    }

    /// Makes the lane spend from the budget of this secret, its ledger brought in.
    pub(super) fn join(&mut self, service: &Service, secret: Option<&Secret>, now: Micros) -> Result<(), Error> {
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
    pub(super) fn spending<T>(&mut self, now: Micros, work: impl FnOnce(&mut Spending) -> T) -> T {
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
