//! What was asked and how it was answered, per provider.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::answer::Verdict;
use crate::provider::Provider;

/// The counters of one provider since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// requests that arrived
    pub requests: u64,
    /// answered with knowledge, slow answers among them
    pub ok: u64,
    /// answered with "over the limit", also when Spur's balance is used up
    pub limited: u64,
    /// answered with "wrong key" or "blocked agent"
    pub unauthorized: u64,
    /// asked and unknown (VirusTotal 404, URLhaus no_results, DShield with nothing but the number)
    pub not_found: u64,
    /// not a valid question
    pub bad_request: u64,
    /// hit by a fault
    pub faulted: u64,
    /// requests without an answer yet
    pub in_flight: u64,
    /// the most of them at one time
    pub max_in_flight: u64,
    /// connections on which this provider was asked something
    pub connections: u64,
    /// requests per key
    pub by_key: BTreeMap<String, u64>,
    /// when each arrived, by the wall clock in microseconds since 1970, and for which key
    #[serde(skip)]
    pub calls: Vec<(i64, String)>,
}

/// All counters.
#[derive(Debug, Default)]
pub struct Stats {
    counters: [Mutex<Counters>; Provider::ALL.len()],
}

/// A request without an answer yet; it leaves the count when this is dropped.
#[derive(Debug)]
pub struct InFlight<'a> {
    stats: &'a Stats,
    provider: Provider,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut counters = self.stats.of(self.provider);
        counters.in_flight = counters.in_flight.saturating_sub(1);
    }
}

impl Stats {
    fn of(&self, provider: Provider) -> MutexGuard<'_, Counters> {
        self.counters[provider as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that arrives.
    pub fn arrive(&self, provider: Provider, key: &str, new_connection: bool) -> InFlight<'_> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        let mut counters = self.of(provider);
        counters.calls.push((at, key.to_string()));
        counters.requests += 1;
        counters.connections += u64::from(new_connection);
        counters.in_flight += 1;
        counters.max_in_flight = counters.max_in_flight.max(counters.in_flight);
        *counters.by_key.entry(key.to_string()).or_default() += 1;
        InFlight { stats: self, provider }
    }

    /// Counts an answer from the provider itself.
    pub fn answered(&self, provider: Provider, verdict: Verdict) {
        let mut counters = self.of(provider);
        match verdict {
            Verdict::Ok => counters.ok += 1,
            Verdict::NotFound => counters.not_found += 1,
            Verdict::BadRequest => counters.bad_request += 1,
            Verdict::Refused => counters.limited += 1,
        }
    }

    /// Counts a refused key.
    pub fn unauthorized(&self, provider: Provider) {
        self.of(provider).unauthorized += 1;
    }

    /// Counts a fault.
    pub fn faulted(&self, provider: Provider) {
        self.of(provider).faulted += 1;
    }

    /// A copy of one provider's counters.
    pub fn get(&self, provider: Provider) -> Counters {
        self.of(provider).clone()
    }

    /// All counters as JSON, by the providers' names.
    pub fn all(&self) -> serde_json::Value {
        Provider::ALL
            .into_iter()
            .map(|provider| (provider.name().to_string(), serde_json::json!(self.get(provider))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// When each request to a provider arrived, and for which key.
    pub fn calls(&self, provider: Provider) -> serde_json::Value {
        serde_json::json!(self.of(provider).calls)
    }

    /// Sets all counters to zero, but keeps the requests in flight.
    pub fn reset(&self) {
        for provider in Provider::ALL {
            let mut counters = self.of(provider);
            let in_flight = counters.in_flight;
            *counters = Counters { in_flight, max_in_flight: in_flight, ..Counters::default() };
        }
    }
}
