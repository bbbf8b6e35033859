//! The limiter as a table of states, and its promise as a property.

use super::*;
use crate::core::SECOND;
use proptest::prelude::*;

pub(super) const NOON: Micros = 1_790_000_000 * SECOND;

pub(super) fn limit(max: u32, per: Per) -> Limit {
    Limit { max, per, even: false, cap: false }
}

/// One service's limits and what was spent under them.
pub(super) struct Limiter {
    pub(super) limits: Vec<Limit>,
    pub(super) spending: Spending,
}

impl Limiter {
    pub(super) fn new(limits: &[Limit], ledger: &[Spend], now: Micros) -> Self {
        let mut spending = Spending::default();
        spending.restore(ledger, now);
        Limiter { limits: limits.to_vec(), spending }
    }

    pub(super) fn permits(&mut self, now: Micros, want: u32) -> u32 {
        self.spending.permits(&self.limits, now, want)
    }

    pub(super) fn reserve(&mut self, now: Micros, n: u32) -> Vec<Spend> {
        self.spending.reserve(&self.limits, now, n)
    }

    pub(super) fn next_permit_at(&mut self, now: Micros) -> Option<(Micros, Per)> {
        let (at, per) = self.spending.next_permit_at(&self.limits, now)?;
        Some((at, per.expect("a window")))
    }

    fn set_limits(&mut self, limits: &[Limit], _now: Micros) {
        self.limits = limits.to_vec();
    }

    pub(super) fn status(&self, now: Micros) -> Vec<WindowStatus> {
        self.spending.status(&self.limits, now)
    }
}

pub(super) fn spend(per: Per, window_start: Micros, spent: i64) -> Spend {
    Spend { per, window_start, spent, by_all: 0 }
}

fn virustotal() -> Vec<Limit> {
    parse_limits(r#"[{"max":4,"per":"minute"},{"max":500,"per":"day"},{"max":15500,"per":"month"}]"#).unwrap()
}

/// Starts whatever is permitted, one by one.
pub(super) fn start(limiter: &mut Limiter, now: Micros, want: u32) -> u32 {
    let n = limiter.permits(now, want);
    limiter.reserve(now, n);
    n
}

#[test]
fn limits_are_read_and_mistakes_in_them_are_named() {
    assert_eq!(virustotal(), [limit(4, Per::Minute), limit(500, Per::Day), limit(15_500, Per::Month)]);
    assert_eq!(parse_limits("[]"), Ok(vec![]));
    for (json, why) in [
        (r#"[{"max":0,"per":"day"}]"#, "0 per day"),
        (r#"[{"max":1,"per":"day"},{"max":2,"per":"day"}]"#, "more than one limit per day"),
        (r#"[{"max":1,"per":"week"}]"#, "week"),
        (r#"[{"max":1,"per":"day","burst":2}]"#, "burst"),
        (r#"[{"max":-1,"per":"day"}]"#, "-1"),
        (r#"[{"per":"day"}]"#, "max"),
        ("{}", "limits"),
        ("", "limits"),
    ] {
        let given = parse_limits(json).unwrap_err();
        assert!(given.contains(why), "{json}: {given}");
    }
    let json = serde_json::to_string(&virustotal()).unwrap();
    assert_eq!(parse_limits(&json), Ok(virustotal()));
    for per in Per::ALL {
        assert_eq!(Per::parse(per.as_str()), Some(per));
    }
}

#[test]
fn all_windows_bind_at_once() {
    let mut limiter = Limiter::new(&virustotal(), &[], NOON);
    assert_eq!(start(&mut limiter, NOON, 10), 4);
    assert_eq!(limiter.permits(NOON + 59 * SECOND, 10), 0);
    let (at, per) = limiter.next_permit_at(NOON + SECOND).unwrap();
    assert_eq!((at, per), (NOON + 61_200_000, Per::Minute));
    assert_eq!(limiter.permits(at - 1, 1), 0);
    assert_eq!(limiter.permits(at, 10), 4);
    assert_eq!(limiter.next_permit_at(at), None);
}

#[test]
fn a_used_up_day_ends_at_midnight_and_is_the_binding_window() {
    let day = window_start(Per::Day, NOON);
    let ledger = [spend(Per::Day, day, 500)];
    let mut limiter = Limiter::new(&virustotal(), &ledger, NOON);
    assert_eq!(limiter.permits(NOON, 1), 0);
    assert_eq!(limiter.next_permit_at(NOON), Some((day + 86_400 * SECOND, Per::Day)));
    assert_eq!(limiter.permits(day + 86_400 * SECOND, 9), 4);
}

#[test]
fn reserving_gives_one_ledger_row_for_each_limit() {
    let mut limiter = Limiter::new(&virustotal(), &[], NOON);
    let rows = limiter.reserve(NOON, 3);
    let expected: Vec<Spend> = [Per::Minute, Per::Day, Per::Month]
        .map(|per| Spend { per, window_start: window_start(per, NOON), spent: 3, by_all: 3 })
        .to_vec();
    assert_eq!(rows, expected);
    assert!(limiter.reserve(NOON, 0).is_empty());
}

#[test]
fn no_limit_permits_everything_and_a_limit_set_later_knows_the_past() {
    let mut limiter = Limiter::new(&[], &[], NOON);
    assert_eq!(start(&mut limiter, NOON, 1_000_000), 1_000_000);
    assert_eq!(limiter.next_permit_at(NOON), None);
    limiter.set_limits(&[limit(5, Per::Minute)], NOON + SECOND);
    assert_eq!(limiter.permits(NOON + SECOND, 1), 0);
    assert_eq!(limiter.next_permit_at(NOON + SECOND), Some((NOON + 61_200_000, Per::Minute)));
}

#[test]
fn a_lower_limit_binds_at_once_and_a_higher_one_frees_at_once() {
    let mut limiter = Limiter::new(&[limit(4, Per::Minute)], &[], NOON);
    start(&mut limiter, NOON, 4);
    limiter.set_limits(&[limit(600, Per::Minute)], NOON);
    assert_eq!(limiter.permits(NOON, 1000), 596);
    limiter.set_limits(&[limit(2, Per::Minute)], NOON);
    assert_eq!(limiter.permits(NOON, 1), 0);
}

#[test]
fn a_clock_set_back_neither_frees_nor_freezes() {
    let mut limiter = Limiter::new(&[limit(1, Per::Second)], &[], NOON);
    start(&mut limiter, NOON, 1);
    let back = NOON - 3600 * SECOND;
    assert_eq!(limiter.permits(back, 1), 0);
    assert_eq!(limiter.next_permit_at(back), Some((back + 1_100_000, Per::Second)));
    assert_eq!(limiter.permits(back + 1_100_000, 1), 1);
}

#[test]
fn a_ledger_from_a_clock_ahead_counts_when_its_window_comes() {
    let tomorrow = window_end(Per::Day, NOON);
    let ledger = [spend(Per::Day, tomorrow, 3)];
    let mut limiter = Limiter::new(&[limit(4, Per::Day)], &ledger, NOON);
    assert_eq!(start(&mut limiter, NOON, 9), 4);
    assert_eq!(limiter.permits(tomorrow, 9), 1);
    assert_eq!(start(&mut limiter, tomorrow, 9), 1);
    assert_eq!(limiter.permits(tomorrow, 9), 0);
}

#[test]
fn status_says_how_full_each_window_is_and_when_it_is_empty() {
    let mut limiter = Limiter::new(&virustotal(), &[], NOON);
    start(&mut limiter, NOON, 3);
    let status = limiter.status(NOON + SECOND);
    assert_eq!(
        status.iter().map(|s| (s.per, s.max.unwrap(), s.spent)).collect::<Vec<_>>(),
        [(Per::Minute, 4, 3), (Per::Day, 500, 3), (Per::Month, 15_500, 3),]
    );
    assert_eq!(status[0].resets_at, NOON + 61_200_000);
    assert_eq!(status[1].resets_at, window_end(Per::Day, NOON));
    let later = limiter.status(NOON + 62 * SECOND);
    assert_eq!((later[0].spent, later[0].resets_at), (0, NOON + 62 * SECOND));
}

#[test]
fn calls_counted_together_count_until_the_latest_of_them_is_old() {
    let mut limiter = Limiter::new(&[limit(2, Per::Second)], &[], NOON);
    assert_eq!(start(&mut limiter, NOON, 1), 1);
    assert_eq!(start(&mut limiter, NOON + 1_900, 1), 1);
    assert_eq!(limiter.permits(NOON + 1_100_000, 2), 0);
    assert_eq!(limiter.permits(NOON + 1_101_900, 2), 2);
}

#[test]
fn a_fast_service_needs_bounded_memory_and_reaches_its_rate() {
    let mut limiter = Limiter::new(&[limit(10_000, Per::Second)], &[], NOON);
    let mut started = 0;
    for step in 0..5_000 {
        started += start(&mut limiter, NOON + step * 1_000, 100);
    }
    // 5 s at 10,000/s, less the margin of a tenth, and 1,000 to spare for the grain
    assert!((48_000..=50_000).contains(&started), "{started}");
    assert!(limiter.spending.entries() <= 80, "{}", limiter.spending.entries());
}

/// The largest number of starts in any real window of this length.
fn densest(starts: &[Micros], length: Micros) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (i, at) in starts.iter().enumerate() {
        while starts[first] + length <= *at {
            first += 1;
        }
        most = most.max(i - first + 1);
    }
    most
}

/// Two databases that ask with the same secret.
#[test]
fn one_budget_is_spent_by_all_and_known_to_each_ledger() {
    let limits = [limit(10, Per::Day)];
    let (mut shared, mut ledgers) = (Spending::default(), [Vec::new(), Vec::new()]);
    for database in [0, 1, 0, 1, 1] {
        let n = shared.permits(&limits, NOON, 3);
        ledgers[database].extend(shared.reserve(&limits, NOON, n));
    }
    assert_eq!(ledgers.iter().flatten().map(|spend| spend.spent).collect::<Vec<_>>(), [3, 3, 3, 1]);
    // the tables hold a row a window: calls added, what was known of all replaced
    let rows = ledgers.map(|rows| Spend {
        spent: rows.iter().map(|row| row.spent).sum(),
        by_all: rows.iter().map(|row| row.by_all).max().unwrap(),
        ..rows[0]
    });
    assert_eq!(rows.map(|row| (row.spent, row.by_all)), [(6, 9), (4, 10)]);
    // after a crash each ledger alone knows nearly all of it, both together all
    let mut after = Spending::default();
    after.restore(&rows[..1], NOON);
    assert_eq!(after.permits(&limits, NOON, 9), 1);
    after.restore(&rows[1..], NOON);
    assert_eq!(after.permits(&limits, NOON, 9), 0);
    assert_eq!(after.status(&limits, NOON)[0].spent, 10);
}

#[test]
fn a_call_that_did_not_go_out_is_given_back() {
    let mut limiter = Limiter::new(&virustotal(), &[], NOON);
    start(&mut limiter, NOON, 4);
    limiter.spending.take_back(NOON, 3);
    assert_eq!(limiter.permits(NOON + SECOND, 9), 3);
    assert_eq!(limiter.status(NOON).iter().map(|s| s.spent).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn even_calls_are_spread_over_what_is_left_of_the_window() {
    let even = |max, per| Limit { even: true, ..limit(max, per) };
    let mut limiter = Limiter::new(&[even(4, Per::Minute)], &[], NOON);
    assert_eq!(start(&mut limiter, NOON, 9), 1);
    assert_eq!(limiter.next_permit_at(NOON), Some((NOON + 15_300_000, Per::Minute)));

    let hour = window_start(Per::Hour, NOON);
    let mut limiter = Limiter::new(&[even(4, Per::Hour)], &[], hour);
    let mut starts = Vec::new();
    let mut now = hour;
    while now < hour + 3600 * SECOND {
        starts.extend((0..start(&mut limiter, now, 9)).map(|_| (now - hour) / (60 * SECOND)));
        now += SECOND;
    }
    assert_eq!(starts, [0, 15, 30, 45]);
    // what was not used in the first half is spread over the second
    let late = hour + 5400 * SECOND;
    assert_eq!(start(&mut limiter, late, 9), 1);
    assert_eq!(limiter.next_permit_at(late), Some((late + 450 * SECOND, Per::Hour)));
}

/// VirusTotal's three windows over 40 days, a restart in every tenth hour: seconds of computing.
#[test]
fn weeks_of_simulated_time_never_pass_a_limit_and_use_it_up() {
    let mut ledger: BTreeMapLedger = Default::default();
    let mut limiter = Limiter::new(&virustotal(), &[], NOON);
    let (mut now, mut starts, mut restarts) = (NOON, Vec::new(), 0);
    while now < NOON + 40 * 86_400 * SECOND {
        if (now - NOON) / (36_000 * SECOND) > restarts {
            restarts += 1;
            limiter = Limiter::new(&virustotal(), &rows(&ledger), now);
        }
        let n = start_recorded(&mut limiter, &mut ledger, now);
        starts.extend((0..n).map(|_| now));
        now = limiter.next_permit_at(now).map_or(now + SECOND, |(at, _)| at.min(now + 36_000 * SECOND));
    }
    assert!(densest(&starts, 60 * SECOND) <= 4);
    let mut days: std::collections::BTreeMap<Micros, u32> = Default::default();
    starts.iter().for_each(|at| *days.entry(window_start(Per::Day, *at)).or_default() += 1);
    assert!(days.values().all(|calls| *calls <= 500));
    // whole days are used to the last call, until the month is
    let whole: Vec<u32> = days.values().copied().skip(1).take(38).collect();
    assert!(whole.iter().all(|calls| *calls == 500), "{whole:?}");
}

fn start_recorded(limiter: &mut Limiter, ledger: &mut BTreeMapLedger, now: Micros) -> u32 {
    let n = limiter.permits(now, 9);
    for spend in limiter.reserve(now, n) {
        *ledger.entry((spend.per, spend.window_start)).or_default() += spend.spent;
    }
    n
}

proptest! {
    #[test]
    fn no_real_second_or_minute_ever_sees_more_than_the_limit_across_restarts(
        second in 1..6u32,
        minute in 1..40u32,
        steps in proptest::collection::vec((0..3_000_000i64, 1..8u32, 0..12u8), 1..200),
    ) {
        let limits = [limit(second, Per::Second), limit(minute, Per::Minute)];
        let mut ledger: BTreeMapLedger = Default::default();
        let mut limiter = Limiter::new(&limits, &[], NOON);
        let mut now = NOON;
        let mut starts = Vec::new();
        for (pause, want, event) in steps {
            now += pause;
            match event {
                0 => limiter = Limiter::new(&limits, &rows(&ledger), now),
                1 => now = limiter.next_permit_at(now).map_or(now, |(at, _)| at),
                _ => {}
            }
            let permitted = limiter.permits(now, want);
            prop_assert!(permitted <= want);
            prop_assert_eq!(permitted == 0, limiter.next_permit_at(now).is_some());
            for spend in limiter.reserve(now, permitted) {
                *ledger.entry((spend.per, spend.window_start)).or_default() += spend.spent;
            }
            starts.extend((0..permitted).map(|_| now));
        }
        prop_assert!(densest(&starts, SECOND) <= second as usize);
        prop_assert!(densest(&starts, 60 * SECOND) <= minute as usize);
    }

    #[test]
    fn no_calendar_window_sees_more_than_the_limit(
        max in 1..20u32, steps in proptest::collection::vec((0..3_600_000_000i64, 1..9u32, any::<bool>()), 1..100),
    ) {
        let limits = [limit(max, Per::Hour), limit(max * 3, Per::Day)];
        let mut ledger: BTreeMapLedger = Default::default();
        let mut limiter = Limiter::new(&limits, &[], NOON);
        let mut now = NOON;
        for (pause, want, restart) in steps {
            now += pause;
            if restart {
                limiter = Limiter::new(&limits, &rows(&ledger), now);
            }
            let permitted = limiter.permits(now, want);
            for spend in limiter.reserve(now, permitted) {
                *ledger.entry((spend.per, spend.window_start)).or_default() += spend.spent;
            }
            if let Some((at, _)) = limiter.next_permit_at(now) {
                prop_assert!(limiter.permits(at, 1) == 1 && limiter.permits(at - 1, 1) == 0);
            }
        }
        for ((per, _), spent) in ledger {
            let most = if per == Per::Hour { max } else { max * 3 };
            prop_assert!(spent <= i64::from(most));
        }
    }

    #[test]
    fn no_moment_and_no_ledger_make_it_panic(
        moments in proptest::collection::vec(any::<i64>(), 1..20),
        ledger in proptest::collection::vec((0..5usize, any::<i64>(), any::<i64>()), 0..10),
    ) {
        let ledger: Vec<Spend> = ledger
            .into_iter()
            .map(|(per, window_start, spent)| spend(Per::ALL[per], window_start, spent))
            .collect();
        let limits = Per::ALL.map(|per| limit(3, per));
        let mut limiter = Limiter::new(&limits, &ledger, moments[0]);
        for now in moments {
            limiter.reserve(now, u32::MAX);
            let _ = (limiter.permits(now, 5), limiter.next_permit_at(now), limiter.status(now));
        }
    }
}

type BTreeMapLedger = std::collections::BTreeMap<(Per, Micros), i64>;

fn rows(ledger: &BTreeMapLedger) -> Vec<Spend> {
    ledger.iter().map(|(&(per, start), &calls)| spend(per, start, calls)).collect()
}
