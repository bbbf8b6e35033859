//! The state of one running sandbox and its settings.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::faults::Faults;
use crate::limits::{self, Limit, Limits};
use crate::provider::Provider;
use crate::stats::Stats;

/// What a sandbox is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// port on 127.0.0.1, 0 for any free one
    pub port: u16,
    /// the providers' own limits, or none
    pub real_limits: bool,
    /// limits in place of a provider's own
    pub limits: Vec<(Provider, Limit)>,
    /// milliseconds every provider takes for an answer
    pub latency_ms: u64,
    /// queries left at Spur
    pub spur_balance: i64,
    /// share of addresses and hosts URLhaus knows, 0 to 1
    pub urlhaus_found: f64,
    /// the accepted key of VirusTotal
    pub virustotal_key: String,
    /// the accepted key of URLhaus
    pub urlhaus_key: String,
    /// the accepted token of Spur
    pub spur_key: String,
    /// one line per request on standard output
    pub log: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            port: 0,
            real_limits: true,
            limits: Vec::new(),
            latency_ms: 0,
            spur_balance: 50_000,
            urlhaus_found: 0.06,
            virustotal_key: "sandbox-virustotal-key".to_string(),
            urlhaus_key: "sandbox-urlhaus-key".to_string(),
            spur_key: "sandbox-spur-key".to_string(),
            log: false,
        }
    }
}

impl Settings {
    fn limits_of(&self, provider: Provider) -> Vec<Limit> {
        let ordered: Vec<Limit> =
            self.limits.iter().filter(|(of, _)| *of == provider).map(|(_, limit)| *limit).collect();
        match (ordered.is_empty(), self.real_limits) {
            (false, _) => ordered,
            (true, true) => limits::real(provider),
            (true, false) => Vec::new(),
        }
    }
}

/// The state all requests share.
#[derive(Debug)]
pub struct App {
    /// as started
    pub settings: Settings,
    /// windows of calls
    pub limits: Limits,
    /// ordered faults
    pub faults: Faults,
    /// counters
    pub stats: Stats,
    latency_ms: [AtomicU64; Provider::ALL.len()],
    tells: [AtomicBool; Provider::ALL.len()],
    spur_balance: AtomicI64,
}

impl App {
    /// A fresh state.
    pub fn new(settings: Settings) -> Self {
        App {
            limits: Limits::new(|provider| settings.limits_of(provider)),
            faults: Faults::default(),
            stats: Stats::default(),
            latency_ms: Provider::ALL.map(|_| AtomicU64::new(settings.latency_ms)),
            tells: Provider::ALL.map(|_| AtomicBool::new(false)),
            spur_balance: AtomicI64::new(settings.spur_balance),
            settings,
        }
    }

    /// Milliseconds a provider takes.
    pub fn latency_ms(&self, provider: Provider) -> u64 {
        self.latency_ms[provider as usize].load(Ordering::Relaxed)
    }

    /// Changes how long a provider takes.
    pub fn set_latency_ms(&self, provider: Provider, ms: u64) {
        self.latency_ms[provider as usize].store(ms, Ordering::Relaxed);
    }

    /// Whether a provider says in the headers of each answer how much of its limit is left.
    pub fn tells_limits(&self, provider: Provider) -> bool {
        self.tells[provider as usize].load(Ordering::Relaxed)
    }

    /// Has it say so.
    pub fn tell_limits(&self, provider: Provider) {
        self.tells[provider as usize].store(true, Ordering::Relaxed);
    }

    /// Queries left at Spur.
    pub fn spur_balance(&self) -> i64 {
        self.spur_balance.load(Ordering::Relaxed).max(0)
    }

    /// Sets the queries left at Spur.
    pub fn set_spur_balance(&self, queries: i64) {
        self.spur_balance.store(queries, Ordering::Relaxed);
    }

    /// Spends one query at Spur: what is left, or None if there was none.
    pub fn spend_spur(&self) -> Option<i64> {
        self.spur_balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left > 0).then(|| left - 1))
            .ok()
            .map(|before| before - 1)
    }

    /// As after the start, apart from limits and latency, which stay as they were set.
    pub fn reset(&self) {
        self.stats.reset();
        self.faults.cancel_all();
        self.limits.forget_calls();
        self.set_spur_balance(self.settings.spur_balance);
    }

    /// Writes a line per request if that is wanted. A reader that has gone away is no reason to stop.
    pub fn log(&self, line: impl FnOnce() -> String) {
        if self.settings.log {
            let _gone = writeln!(std::io::stdout(), "{}", line());
        }
    }
}
