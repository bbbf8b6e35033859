//! What a provider says of its limits, against what was counted; and what is counted twice.

use super::tests::{limit, spend, start, Limiter, NOON};
use super::*;
use crate::core::SECOND;

/// After every report of before.
const LATER: Micros = NOON + 1;

fn report(per: Option<Per>, allowed: Option<i64>, remaining: Option<i64>) -> Report {
    Report { per, allowed, remaining, used: None, resets_at: None, at: NOON }
}

#[test]
fn the_providers_own_numbers_win_over_the_ledger() {
    let day = [limit(500, Per::Day)];
    let mut limiter = Limiter::new(&day, &[spend(Per::Day, window_start(Per::Day, NOON), 500)], NOON);
    assert_eq!(limiter.permits(NOON, 9), 0);
    // it knows of fewer calls than the ledger
    limiter.spending.report(report(Some(Per::Day), Some(500), Some(7)), 2, LATER);
    assert_eq!(limiter.permits(NOON, 9), 5);
    assert_eq!(start(&mut limiter, NOON, 3), 3);
    assert_eq!(limiter.permits(NOON, 9), 2);
    // it knows of more
    limiter.spending.report(report(Some(Per::Day), Some(500), Some(0)), 0, LATER);
    assert_eq!(limiter.permits(NOON, 9), 0);
    assert_eq!(limiter.next_permit_at(NOON), Some((window_end(Per::Day, NOON), Per::Day)));
    // and the next day it is counted again, up to what it allows
    let tomorrow = window_end(Per::Day, NOON);
    limiter.spending.report(report(Some(Per::Day), Some(3), Some(0)), 0, LATER);
    assert_eq!(limiter.permits(tomorrow, 9), 3);
    assert_eq!(limiter.status(tomorrow)[0].max, Some(3));
}

#[test]
fn a_cap_holds_whatever_the_provider_allows() {
    let cap = Limit { cap: true, ..limit(5, Per::Day) };
    let mut limiter = Limiter::new(&[cap], &[], NOON);
    limiter.spending.report(report(Some(Per::Day), Some(60_000_000_000), Some(60_000_000_000)), 0, LATER);
    assert_eq!(start(&mut limiter, NOON, 9), 5);
    assert_eq!(limiter.next_permit_at(NOON), Some((window_end(Per::Day, NOON), Per::Day)));
    limiter.limits[0].cap = false;
    assert_eq!(limiter.permits(NOON, 1000), 1000);
}

#[test]
fn a_window_that_only_the_provider_counts_binds_too() {
    let mut limiter = Limiter::new(&[], &[], NOON);
    limiter.spending.report(report(Some(Per::Hour), Some(240), Some(1)), 0, LATER);
    assert_eq!(start(&mut limiter, NOON, 9), 1);
    assert_eq!(limiter.next_permit_at(NOON), Some((window_end(Per::Hour, NOON), Per::Hour)));
    let reset = Report { resets_at: Some(NOON + 90 * SECOND), ..report(Some(Per::Hour), None, Some(0)) };
    limiter.spending.report(reset, 0, LATER);
    assert_eq!(limiter.next_permit_at(NOON), Some((NOON + 90 * SECOND, Per::Hour)));
    assert_eq!(limiter.permits(NOON + 90 * SECOND, 9), 9);
}

#[test]
fn a_used_up_balance_is_looked_at_again_after_an_hour() {
    let mut spending = Spending::default();
    spending.report(report(None, None, Some(2)), 0, LATER);
    assert_eq!(spending.permits(&[], NOON, 9), 2);
    spending.reserve(&[], NOON, 2);
    assert_eq!(spending.next_permit_at(&[], NOON), Some((NOON + 3600 * SECOND, None)));
    spending.report(report(None, None, Some(100)), 0, LATER);
    assert_eq!(spending.permits(&[], NOON, 9), 9);
}

/// What a balance leaves, by a call of these times.
fn said(left: i64, ended: Micros) -> Report {
    Report { at: NOON + ended, ..report(None, None, Some(left)) }
}

#[test]
fn an_older_answer_that_comes_last_does_not_bring_back_what_was_spent() {
    let mut spending = Spending::default();
    // two calls side by side: the provider counted the first one first, and its answer comes last
    spending.report(said(8, 10), 1, NOON);
    assert_eq!(spending.permits(&[], NOON + 10, 99), 7);
    spending.report(said(9, 20), 0, NOON);
    assert_eq!(spending.permits(&[], NOON + 20, 99), 8, "nothing is under way any more");
    // a call that began when that was known knows better, also more
    spending.report(said(50, 40), 0, NOON + 30);
    assert_eq!(spending.permits(&[], NOON + 40, 99), 50);
    // and less is believed at once
    spending.report(said(3, 45), 2, NOON + 1);
    assert_eq!(spending.permits(&[], NOON + 45, 99), 1);
}

#[test]
fn what_was_left_of_a_window_says_nothing_of_the_next_one() {
    let mut spending = Spending::default();
    let minute = |left, at: Micros, resets: Micros| Report {
        at: NOON + at,
        resets_at: Some(NOON + resets),
        ..report(Some(Per::Minute), Some(5), Some(left))
    };
    spending.report(minute(0, 10, 100), 0, NOON);
    assert_eq!(spending.permits(&[], NOON + 20, 9), 0);
    // asked in the old window, answered in the new one
    spending.report(minute(4, 110, 200), 0, NOON + 5);
    assert_eq!(spending.permits(&[], NOON + 110, 9), 4);
    // a clock that was set back does not keep an old word
    spending.report(minute(2, -3_600 * SECOND, -3_500 * SECOND), 0, NOON - 3_600 * SECOND);
    assert_eq!(spending.permits(&[], NOON - 3_600 * SECOND, 9), 2);
}

#[test]
fn a_call_shortly_before_midnight_counts_on_both_days() {
    let limits = [limit(5, Per::Day), limit(100, Per::Month)];
    let midnight = window_end(Per::Day, NOON);
    let mut limiter = Limiter::new(&limits, &[], NOON);
    // early enough: on its day only
    assert_eq!(start(&mut limiter, midnight - 6 * SECOND, 2), 2);
    let spends = limiter.reserve(midnight - 2 * SECOND, 3);
    let rows: Vec<_> = spends.iter().map(|spend| (spend.per, spend.window_start, spend.spent, spend.by_all)).collect();
    let month = window_start(Per::Month, NOON);
    let today = window_start(Per::Day, NOON);
    assert_eq!(rows, [(Per::Day, today, 3, 5), (Per::Day, midnight, 3, 3), (Per::Month, month, 3, 5)]);
    assert_eq!(limiter.permits(midnight - SECOND, 9), 0);
    assert_eq!(limiter.permits(midnight, 9), 2);
    assert_eq!(limiter.permits(midnight + 86_400 * SECOND, 9), 5);
    // known again after a restart
    let mut again = Limiter::new(&limits, &spends, midnight);
    assert_eq!(again.permits(midnight, 9), 2);
    // and taken back on both
    limiter.spending.take_back(midnight - 2 * SECOND, 3);
    assert_eq!((limiter.permits(midnight - SECOND, 9), limiter.permits(midnight, 9)), (3, 5));
}
