//! What was spent under one budget, and what may be spent next.

use super::fixed::Fixed;
use super::report::Report;
use super::sliding::Sliding;
use super::window::{window_end, window_start};
use super::{Limit, Per, Spend, WindowStatus};
use crate::core::{Micros, SECOND};

/// How long a provider's word on what it allows at all is believed after the window it was said in.
const ALLOWED_FOR: Micros = 25 * 3600 * SECOND;
/// How long its word on a balance that no window renews is believed.
const BALANCE_FOR: Micros = 3600 * SECOND;
const LOOK_AGAIN: Micros = 60 * SECOND;
/// A call that starts so shortly before the end of an hour, a day or a month is counted in both.
const BORDER: Micros = 5 * SECOND;

/// A provider's word, and the calls that may have started since.
#[derive(Clone, Copy, Debug)]
struct Word {
    report: Report,
    since: i64,
}

/// Calls by window, and what the provider itself says. All windows are counted, limited or not, so that a limit added
/// later knows its past.
#[derive(Clone, Copy, Debug)]
pub struct Spending {
    second: Sliding,
    minute: Sliding,
    hour: Fixed,
    day: Fixed,
    month: Fixed,
    /// The latest call's start.
    last: Micros,
    /// By window; the last is a balance.
    words: [Option<Word>; Per::ALL.len() + 1],
}

impl Default for Spending {
    fn default() -> Self {
        Spending {
            second: Sliding::new(Per::Second),
            minute: Sliding::new(Per::Minute),
            hour: Fixed::new(Per::Hour),
            day: Fixed::new(Per::Day),
            month: Fixed::new(Per::Month),
            last: Micros::MIN,
            words: [None; Per::ALL.len() + 1],
        }
    }
}

/// What binds: a window, or a balance that no window renews.
pub type Held = (Micros, Option<Per>);

impl Spending {
    /// Takes what one ledger recorded. Calls of a second or minute are taken as having happened as late as they could, so
    /// that a restart never lets more calls start than no restart would.
    pub fn restore(&mut self, ledger: &[Spend], now: Micros) {
        let mut ledger: Vec<&Spend> = ledger.iter().filter(|spend| spend.spent > 0 || spend.by_all > 0).collect();
        ledger.sort_by_key(|spend| spend.window_start);
        for Spend { per, window_start, spent, by_all } in ledger {
            match per {
                Per::Second => self.second.restore(*window_start, *spent, now),
                Per::Minute => self.minute.restore(*window_start, *spent, now),
                Per::Hour => self.hour.restore(*window_start, *spent, *by_all),
                Per::Day => self.day.restore(*window_start, *spent, *by_all),
                Per::Month => self.month.restore(*window_start, *spent, *by_all),
            }
        }
    }

    /// Whether there is anything that may hold a call up: a limit, or a word of the provider's.
    pub fn limited(&self, limits: &[Limit]) -> bool {
        !limits.is_empty() || self.words.iter().any(Option::is_some)
    }

    /// How many of `want` calls may start now.
    pub fn permits(&mut self, limits: &[Limit], now: Micros, want: u32) -> u32 {
        let mut allowed = i64::from(want);
        for per in slots() {
            let limit = limit(limits, per);
            allowed = allowed.min(self.room(limit, per, now).unwrap_or(i64::MAX));
            if let (Some(limit), Some(per)) = (limit.filter(|limit| limit.even), per) {
                allowed = allowed.min(i64::from(self.evenly_at(limit, per, now) <= now));
            }
        }
        // between 0 and `want`
        allowed.max(0) as u32
    }

    /// Records `n` calls that start now, whether or not they are permitted, and gives what to add to the ledger:
    /// one row for each limit, two at the end of its window.
    pub fn reserve(&mut self, limits: &[Limit], now: Micros, n: u32) -> Vec<Spend> {
        if n == 0 {
            return Vec::new();
        }
        self.second.add(now, n);
        self.minute.add(now, n);
        self.add_fixed(now, n.into());
        self.last = now;
        self.words.iter_mut().flatten().for_each(|word| word.since = word.since.saturating_add(n.into()));
        let mut spends = Vec::with_capacity(limits.len());
        for per in limits.iter().map(|limit| limit.per) {
            for at in [Some(now), next_too(per, now)].into_iter().flatten() {
                let by_all = self.spent(per, at);
                spends.push(Spend { per, window_start: window_start(per, at), spent: n.into(), by_all });
            }
        }
        spends
    }

    /// Counts calls in the windows that stand in the calendar.
    fn add_fixed(&mut self, now: Micros, n: i64) {
        for (per, window) in [(Per::Hour, &mut self.hour), (Per::Day, &mut self.day), (Per::Month, &mut self.month)] {
            window.add(now, n);
            if let Some(next) = next_too(per, now) {
                window.add(next, n);
            }
        }
    }

    /// Takes back calls reserved last that did not go out.
    pub fn take_back(&mut self, now: Micros, n: u32) {
        self.second.take_back(n);
        self.minute.take_back(n);
        self.add_fixed(now, -i64::from(n));
        self.words.iter_mut().flatten().for_each(|word| word.since = (word.since - i64::from(n)).max(0));
    }

    /// Says that the calls reserved last have gone out only now, after what had to be done first: a provider counts
    /// them from here.
    pub fn went_out(&mut self, now: Micros) {
        self.second.went_out(now);
        self.minute.went_out(now);
        self.last = self.last.max(now);
    }

    /// When the next call may start, and what holds it back longest; `None` when one may start now.
    pub fn next_permit_at(&mut self, limits: &[Limit], now: Micros) -> Option<Held> {
        let mut latest: Option<Held> = None;
        for per in slots() {
            let limit = limit(limits, per);
            let used_up = self.room(limit, per, now).is_some_and(|room| room <= 0);
            // where nothing is allowed at all, somebody may change that
            let frees = used_up.then(|| self.frees_at(limit, per, now).unwrap_or(now.saturating_add(LOOK_AGAIN)));
            let evenly = limit.filter(|limit| limit.even).zip(per).map(|(limit, per)| self.evenly_at(limit, per, now));
            for at in [frees, evenly.filter(|at| *at > now)].into_iter().flatten() {
                if latest.is_none_or(|(before, _)| at > before) {
                    latest = Some((at, per));
                }
            }
        }
        latest
    }

    /// Takes the provider's own numbers: they win over what was counted here. `under_way`: calls that have started and
    /// may not be in them yet; `began`: when the call began that brought them. Of calls that ran side by side the answers may come in
    /// another order than they were given, so of their numbers those count that leave less.
    pub fn report(&mut self, report: Report, under_way: u32, began: Micros) {
        let word = &mut self.words[slot(report.per)];
        let beside = word.filter(|old| {
            let since_set_back = report.at.saturating_add(LOOK_AGAIN) < old.report.at;
            began <= old.report.at && report.at < until(&old.report) && !since_set_back
        });
        let less = beside.map(|old| old.report).filter(|old| old.left().is_some() && old.left() <= report.left());
        *word = Some(Word { report: less.unwrap_or(report), since: i64::from(under_way) });
    }

    /// The provider's latest word on a window (`None`: on a balance).
    pub fn reported(&self, per: Option<Per>) -> Option<Report> {
        self.words[slot(per)].map(|word| word.report)
    }

    /// When the provider last said anything.
    pub fn reported_at(&self) -> Option<Micros> {
        self.words.iter().flatten().map(|word| word.report.at).max()
    }

    /// How full each window is that a limit or the provider counts.
    pub fn status(&self, limits: &[Limit], now: Micros) -> Vec<WindowStatus> {
        let status = |per: Per| {
            let limit = limit(limits, Some(per));
            let reported = self.words[slot(Some(per))].is_some();
            (limit.is_some() || reported).then(|| {
                let (spent, window_start, resets_at) = match per {
                    Per::Second => self.second.status(now),
                    Per::Minute => self.minute.status(now),
                    Per::Hour => self.hour.status(now),
                    Per::Day => self.day.status(now),
                    Per::Month => self.month.status(now),
                };
                WindowStatus { per, max: self.max(limit, per, now), spent, window_start, resets_at }
            })
        };
        Per::ALL.into_iter().filter_map(status).collect()
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.second.entries()
    }

    fn spent(&mut self, per: Per, now: Micros) -> i64 {
        match per {
            Per::Second => self.second.spent(now),
            Per::Minute => self.minute.spent(now),
            Per::Hour => self.hour.spent(now),
            Per::Day => self.day.spent(now),
            Per::Month => self.month.spent(now),
        }
    }

    /// Calls that may still start: as the provider says while that holds, else as was counted here. `None`: any number.
    fn room(&mut self, limit: Option<&Limit>, per: Option<Per>, now: Micros) -> Option<i64> {
        let by_count = match per {
            Some(per) => self.max(limit, per, now).map(|max| max.saturating_sub(self.spent(per, now))),
            None => None,
        };
        let word = self.words[slot(per)].filter(|word| now < until(&word.report));
        let Some(left) = word.and_then(|word| Some(word.report.left()?.saturating_sub(word.since))) else {
            return by_count;
        };
        match limit.filter(|limit| limit.cap).and(by_count) {
            Some(by_count) => Some(by_count.min(left)),
            None => Some(left),
        }
    }

    /// The limit of a window: the provider's own where it named one lately, else the service's.
    fn max(&self, limit: Option<&Limit>, per: Per, now: Micros) -> Option<i64> {
        let own = limit.map(|limit| i64::from(limit.max));
        let word = self.words[slot(Some(per))].filter(|word| now < word.report.at.saturating_add(ALLOWED_FOR));
        let Some(allowed) = word.and_then(|word| word.report.allowed) else { return own };
        match limit.filter(|limit| limit.cap).and(own) {
            Some(own) => Some(own.min(allowed)),
            None => Some(allowed),
        }
    }

    fn frees_at(&mut self, limit: Option<&Limit>, per: Option<Per>, now: Micros) -> Option<Micros> {
        let word = self.words[slot(per)].filter(|word| now < until(&word.report));
        let used_up = word.filter(|word| word.report.left().is_some_and(|left| left <= word.since));
        let reported = used_up.map(|word| until(&word.report));
        let counted = match per.zip(per.and_then(|per| self.max(limit, per, now))) {
            Some((per, max)) if word.is_none() || limit.is_some_and(|limit| limit.cap) => match per {
                Per::Second => self.second.frees_at(now, max),
                Per::Minute => self.minute.frees_at(now, max),
                Per::Hour => self.hour.frees_at(now, max),
                Per::Day => self.day.frees_at(now, max),
                Per::Month => self.month.frees_at(now, max),
            },
            _ => None,
        };
        reported.max(counted)
    }

    fn evenly_at(&self, limit: &Limit, per: Per, now: Micros) -> Micros {
        if self.last == Micros::MIN {
            return now;
        }
        let max = self.max(Some(limit), per, now).unwrap_or(i64::MAX);
        match per {
            Per::Second => self.second.evenly_at(now, max, self.last),
            Per::Minute => self.minute.evenly_at(now, max, self.last),
            Per::Hour => self.hour.evenly_at(now, max, self.last),
            Per::Day => self.day.evenly_at(now, max, self.last),
            Per::Month => self.month.evenly_at(now, max, self.last),
        }
    }
}

/// The next window of the calendar, where a call that starts now may arrive only then, or the provider's clock may be there.
fn next_too(per: Per, now: Micros) -> Option<Micros> {
    let end = window_end(per, now);
    (per >= Per::Hour && end > now && end - now <= BORDER).then_some(end)
}

/// Every window, and a balance.
fn slots() -> impl Iterator<Item = Option<Per>> {
    Per::ALL.into_iter().map(Some).chain([None])
}

fn slot(per: Option<Per>) -> usize {
    per.map_or(Per::ALL.len(), |per| per as usize)
}

fn limit(limits: &[Limit], per: Option<Per>) -> Option<&Limit> {
    limits.iter().find(|limit| Some(limit.per) == per)
}

/// Until when a report says how much is left.
fn until(report: &Report) -> Micros {
    let window = match report.per {
        None => return report.at.saturating_add(BALANCE_FOR),
        Some(Per::Second) => report.at.saturating_add(SECOND),
        Some(Per::Minute) => report.at.saturating_add(60 * SECOND),
        Some(per) => window_end(per, report.at),
    };
    report.resets_at.unwrap_or(window)
}
