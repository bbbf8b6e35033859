//! What a provider says of its limits, against what was counted.

use super::tests::{limit, spend, start, Limiter, NOON};
use super::*;
use crate::core::SECOND;

fn report(per: Option<Per>, allowed: Option<i64>, remaining: Option<i64>) -> Report {
    Report { per, allowed, remaining, used: None, resets_at: None, at: NOON }
}

#[test]
fn the_providers_own_numbers_win_over_the_ledger() {
    let day = [limit(500, Per::Day)];
    let mut limiter = Limiter::new(&day, &[spend(Per::Day, window_start(Per::Day, NOON), 500)], NOON);
    assert_eq!(limiter.permits(NOON, 9), 0);
    // it knows of fewer calls than the ledger
    limiter.spending.report(report(Some(Per::Day), Some(500), Some(7)), 2);
    assert_eq!(limiter.permits(NOON, 9), 5);
    assert_eq!(start(&mut limiter, NOON, 3), 3);
    assert_eq!(limiter.permits(NOON, 9), 2);
    // it knows of more
    limiter.spending.report(report(Some(Per::Day), Some(500), Some(0)), 0);
    assert_eq!(limiter.permits(NOON, 9), 0);
    assert_eq!(limiter.next_permit_at(NOON), Some((window_end(Per::Day, NOON), Per::Day)));
    // and the next day it is counted again, up to what it allows
    let tomorrow = window_end(Per::Day, NOON);
    limiter.spending.report(report(Some(Per::Day), Some(3), Some(0)), 0);
    assert_eq!(limiter.permits(tomorrow, 9), 3);
    assert_eq!(limiter.status(tomorrow)[0].max, Some(3));
}

#[test]
fn a_cap_holds_whatever_the_provider_allows() {
    let cap = Limit { cap: true, ..limit(5, Per::Day) };
    let mut limiter = Limiter::new(&[cap], &[], NOON);
    limiter.spending.report(report(Some(Per::Day), Some(60_000_000_000), Some(60_000_000_000)), 0);
    assert_eq!(start(&mut limiter, NOON, 9), 5);
    assert_eq!(limiter.next_permit_at(NOON), Some((window_end(Per::Day, NOON), Per::Day)));
    limiter.limits[0].cap = false;
    assert_eq!(limiter.permits(NOON, 1000), 1000);
}

#[test]
fn a_window_that_only_the_provider_counts_binds_too() {
    let mut limiter = Limiter::new(&[], &[], NOON);
    limiter.spending.report(report(Some(Per::Hour), Some(240), Some(1)), 0);
    assert_eq!(start(&mut limiter, NOON, 9), 1);
    assert_eq!(limiter.next_permit_at(NOON), Some((window_end(Per::Hour, NOON), Per::Hour)));
    let reset = Report { resets_at: Some(NOON + 90 * SECOND), ..report(Some(Per::Hour), None, Some(0)) };
    limiter.spending.report(reset, 0);
    assert_eq!(limiter.next_permit_at(NOON), Some((NOON + 90 * SECOND, Per::Hour)));
    assert_eq!(limiter.permits(NOON + 90 * SECOND, 9), 9);
}

#[test]
fn a_used_up_balance_is_looked_at_again_after_an_hour() {
    let mut spending = Spending::default();
    spending.report(report(None, None, Some(2)), 0);
    assert_eq!(spending.permits(&[], NOON, 9), 2);
    spending.reserve(&[], NOON, 2);
    assert_eq!(spending.next_permit_at(&[], NOON), Some((NOON + 3600 * SECOND, None)));
    spending.report(report(None, None, Some(100)), 0);
    assert_eq!(spending.permits(&[], NOON, 9), 9);
}
