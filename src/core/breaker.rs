//! The breaker of a service: after some calls in a row that failed it is left alone for a while, then one call may try.
//! A plain value; the clock and the chance are arguments.

use super::backoff;
use super::classify::Health;
use super::{Micros, SECOND};
use serde::{Deserialize, Serialize};

/// When it opens and for how long: the member `breaker` of a service's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Failed calls in a row, of different keys, that open it; 0 = it never opens.
    pub failures: u32,
    /// How long it is open for the first time; each further time in a row is twice as long.
    pub open_seconds: u32,
    /// The longest it is open.
    pub max_open_seconds: u32,
}

/// The longest time that rules may ask for, in seconds.
const LONGEST: u32 = 86_400;
const MOST_FAILURES: u32 = 1_000_000;

impl Default for Policy {
    fn default() -> Self {
        Policy { failures: 5, open_seconds: 30, max_open_seconds: 900 }
    }
}

impl Policy {
    /// How many failed calls in a row open it while `abreast` calls are under way at once; `None`: it never opens. Calls that
    /// fail may be quicker than those beside them that do not, and end in a row that says nothing: so as many as went out
    /// together have to fail.
    pub fn enough(&self, abreast: u32) -> Option<u32> {
        (self.failures > 0).then(|| self.failures.max(abreast))
    }

    /// Says what cannot be meant.
    ///
    /// # Errors
    /// A number outside its bounds, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.failures > MOST_FAILURES {
            return Err(format!("failures: {} is not between 0 and {MOST_FAILURES}", self.failures));
        }
        if !(1..=LONGEST).contains(&self.open_seconds) {
            return Err(format!("open_seconds: {} is not between 1 and {LONGEST}", self.open_seconds));
        }
        if !(self.open_seconds..=LONGEST).contains(&self.max_open_seconds) {
            return Err(format!(
                "max_open_seconds: {} is not between open_seconds and {LONGEST}",
                self.max_open_seconds
            ));
        }
        Ok(())
    }
}

/// Where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Calls go out.
    #[default]
    Closed,
    /// None does until `until`.
    Open,
    /// One at a time does, to see whether the provider is back.
    HalfOpen,
}

impl State {
    /// The value of `enrichment_lane.breaker`.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
        }
    }

    /// Reads the value of `enrichment_lane.breaker`.
    pub fn parse(text: &str) -> Option<Self> {
        [State::Closed, State::Open, State::HalfOpen].into_iter().find(|state| state.as_str() == text)
    }
}

/// A breaker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    pub state: State,
    /// When it came into this state; `None` when it never left the first.
    pub since: Option<Micros>,
    /// Until when it is open; stays until it closes.
    pub until: Option<Micros>,
    /// Failed calls in a row.
    pub failures: u32,
    /// How often it has opened since a call last succeeded.
    pub openings: u32,
    /// The request that failed last: one that fails again and again says nothing of the provider.
    pub last_failed: Option<i64>,
    /// What went wrong with the call that opened it.
    pub reason: Option<String>,
}

impl Breaker {
    /// How many of `room` calls may start now, while `in_flight` are under way.
    pub fn permits(&self, room: u32, in_flight: u32, now: Micros) -> u32 {
        match self.state {
            State::Closed => room,
            State::Open if self.until.is_some_and(|until| until > now) => 0,
            State::Open | State::HalfOpen => room.min(1u32.saturating_sub(in_flight)),
        }
    }

    /// A call goes out that it permitted.
    pub fn goes_out(&mut self, now: Micros) {
        if self.state == State::Open {
            (self.state, self.since) = (State::HalfOpen, Some(now));
        }
    }

    /// A call has ended, one of so many at once. `random` (0 to 1) spreads the time it is open. What ends while it is open
    /// began before, and says nothing new.
    pub fn heard(
        &mut self,
        policy: &Policy,
        (health, abreast): (Health, u32),
        request: i64,
        why: &str,
        now: Micros,
        random: f64,
    ) {
        match (self.state, health) {
            (State::Open, _) | (_, Health::Unknown) => {}
            (State::Closed, Health::Works) => (self.failures, self.last_failed) = (0, None),
            (State::HalfOpen, Health::Works) => {
                *self = Breaker { since: Some(now), ..Breaker::default() };
            }
            (State::Closed, Health::Fails) => {
                if self.last_failed != Some(request) {
                    self.failures = self.failures.saturating_add(1);
                }
                self.last_failed = Some(request);
                if policy.enough(abreast).is_some_and(|enough| self.failures >= enough) {
                    self.open(policy, why, now, random);
                }
            }
            (State::HalfOpen, Health::Fails) => {
                self.failures = self.failures.saturating_add(1);
                self.last_failed = Some(request);
                self.open(policy, why, now, random);
            }
        }
    }

    fn open(&mut self, policy: &Policy, why: &str, now: Micros, random: f64) {
        self.openings = self.openings.saturating_add(1);
        let base = Micros::from(policy.open_seconds) * SECOND;
        let cap = Micros::from(policy.max_open_seconds) * SECOND;
        let length = backoff::delay(self.openings, base, cap, random).max(SECOND / 2);
        self.state = State::Open;
        self.since = Some(now);
        self.until = Some(now.saturating_add(length));
        self.reason = Some(why.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use Health::{Fails, Unknown, Works};

    const POLICY: Policy = Policy { failures: 3, open_seconds: 10, max_open_seconds: 60 };

    /// What happens at a second: a call goes out, or one of a request ends.
    enum Event {
        Out,
        End(Health, i64),
    }
    use Event::{End, Out};

    /// State, failures and end of the open time (in seconds) after each event.
    fn run(events: &[(i64, Event)]) -> Vec<(State, u32, Option<i64>)> {
        let mut breaker = Breaker::default();
        let step = |(at, event): &(i64, Event)| {
            match event {
                Out => breaker.goes_out(at * SECOND),
                End(health, request) => breaker.heard(&POLICY, (*health, 1), *request, "x", at * SECOND, 0.5),
            }
            (breaker.state, breaker.failures, breaker.until.map(|until| until / SECOND))
        };
        events.iter().map(step).collect()
    }

    #[test]
    fn failures_in_a_row_open_it_and_anything_that_works_begins_anew() {
        use State::*;
        assert_eq!(
            run(&[
                (1, End(Fails, 1)),
                (2, End(Fails, 2)),
                (3, End(Works, 3)),
                (4, End(Fails, 4)),
                (5, End(Unknown, 5)),
                (6, End(Fails, 6)),
                (7, End(Fails, 7)),
            ]),
            [
                (Closed, 1, None),
                (Closed, 2, None),
                (Closed, 0, None),
                (Closed, 1, None),
                (Closed, 1, None),
                (Closed, 2, None),
                (Open, 3, Some(17)),
            ]
        );
    }

    #[test]
    fn as_many_calls_as_are_under_way_at_once_have_to_fail() {
        let mut breaker = Breaker::default();
        for n in 1..=7 {
            breaker.heard(&POLICY, (Fails, 8), n, "x", n, 0.5);
            assert_eq!((breaker.state, breaker.failures), (State::Closed, n as u32));
        }
        breaker.heard(&POLICY, (Fails, 8), 8, "x", 8, 0.5);
        assert_eq!(breaker.state, State::Open);
    }

    #[test]
    fn one_key_that_fails_again_and_again_does_not_open_it() {
        let events: Vec<_> = (1..20).map(|at| (at, End(Fails, 7))).collect();
        assert_eq!(run(&events).last(), Some(&(State::Closed, 1, None)));
    }

    #[test]
    fn a_probe_that_fails_opens_it_for_longer_and_one_that_works_closes_it() {
        use State::*;
        let mut events: Vec<_> = (1..=3).map(|n| (0, End(Fails, n))).collect();
        for (at, end) in [(10, Fails), (30, Fails), (70, Fails), (130, Unknown), (131, Works)] {
            events.push((at, Out));
            events.push((at, End(end, at)));
        }
        events.push((140, End(Fails, 1)));
        events.push((140, End(Fails, 2)));
        events.push((140, End(Fails, 3)));
        let seen = run(&events);
        // 10 s, 20 s, 40 s, 60 s (the cap), and 10 s again after it was closed
        assert_eq!(
            seen[2..],
            [
                (Open, 3, Some(10)),
                (HalfOpen, 3, Some(10)),
                (Open, 4, Some(30)),
                (HalfOpen, 4, Some(30)),
                (Open, 5, Some(70)),
                (HalfOpen, 5, Some(70)),
                (Open, 6, Some(130)),
                (HalfOpen, 6, Some(130)),
                (HalfOpen, 6, Some(130)),
                (HalfOpen, 6, Some(130)),
                (Closed, 0, None),
                (Closed, 1, None),
                (Closed, 2, None),
                (Open, 3, Some(150)),
            ]
        );
    }

    #[test]
    fn what_ends_while_it_is_open_changes_nothing() {
        let mut events: Vec<_> = (1..=3).map(|n| (0, End(Fails, n))).collect();
        events.extend([(1, End(Fails, 9)), (2, End(Works, 8)), (3, End(Unknown, 7))]);
        assert!(run(&events)[2..].iter().all(|seen| *seen == (State::Open, 3, Some(10))));
    }

    #[test]
    fn it_permits_all_or_none_or_one() {
        let open = |state, until| Breaker { state, until, ..Breaker::default() };
        for (breaker, in_flight, permitted) in [
            (open(State::Closed, None), 0, 4),
            (open(State::Closed, None), 9, 4),
            (open(State::Open, Some(11)), 0, 0),
            (open(State::Open, Some(10)), 0, 1),
            (open(State::Open, Some(10)), 1, 0),
            (open(State::HalfOpen, Some(10)), 0, 1),
            (open(State::HalfOpen, Some(10)), 2, 0),
        ] {
            assert_eq!(breaker.permits(4, in_flight, 10), permitted, "{breaker:?} with {in_flight}");
            assert_eq!(breaker.permits(0, in_flight, 10), 0);
        }
    }

    #[test]
    fn a_policy_of_no_failures_never_opens_it() {
        let policy = Policy { failures: 0, ..POLICY };
        let mut breaker = Breaker::default();
        (0..1000).for_each(|n| breaker.heard(&policy, (Fails, 1), n, "x", n, 0.5));
        assert_eq!(breaker.state, State::Closed);
    }

    #[test]
    fn a_policy_that_cannot_be_meant_is_refused() {
        assert_eq!(Policy::default().check(), Ok(()));
        for (policy, word) in [
            (Policy { failures: 2_000_000, ..POLICY }, "failures"),
            (Policy { open_seconds: 0, ..POLICY }, "open_seconds"),
            (Policy { max_open_seconds: 9, ..POLICY }, "max_open_seconds"),
            (Policy { max_open_seconds: 90_000, ..POLICY }, "max_open_seconds"),
        ] {
            assert!(policy.check().unwrap_err().contains(word), "{policy:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_it_is_open_no_longer_than_the_cap_and_lets_one_call_try_after(
            events in prop::collection::vec((any::<bool>(), 0..3u8, any::<i64>(), 0..100i64, 0.0..1.0f64), 0..200),
        ) {
            let (mut breaker, mut now) = (Breaker::default(), 0);
            for (out, health, request, later, random) in events {
                now += later * SECOND;
                let permitted = breaker.permits(4, 0, now);
                if out && permitted > 0 {
                    breaker.goes_out(now);
                } else {
                    let health = [Works, Fails, Unknown][usize::from(health)];
                    breaker.heard(&POLICY, (health, 1), request, "x", now, random);
                }
                prop_assert_eq!(breaker.state == State::Closed, breaker.until.is_none());
                if let Some(until) = breaker.until {
                    prop_assert!(until <= now + 60 * SECOND);
                    prop_assert_eq!(breaker.permits(4, 0, now + 60 * SECOND), 1);
                }
                prop_assert_eq!(State::parse(breaker.state.as_str()), Some(breaker.state));
            }
        }
    }
}
