//! The worker's judgement at work: what each outcome does to a request and to its service, the breaker, the order of
//! the queue and its bound, what is asked again because it is read, and the figures.

mod bound;
mod breaker;
mod dead;
mod log_lines;
mod outcomes;
mod queue;
mod read_again;
mod secrets;
mod waits;

use crate::support::{address, Base};

/// In the cluster that these tests share.
fn base(name: &str) -> Base {
    Base::new("engine", name)
}

/// `n` addresses as an array of SQL.
fn addresses(from: u32, n: u32) -> String {
    let keys: Vec<String> = (from..from + n).map(address).collect();
    format!("'{{{}}}'", keys.join(","))
}

/// Changes members of a service's rules.
fn set_rules(base: &Base, service: &str, rules: &str) {
    base.run(&format!("UPDATE enrichment_service SET rules = rules || '{rules}' WHERE name = '{service}'"));
}
