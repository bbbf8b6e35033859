//! Taking times: processors awake, sessions, rounds in turns, samples and ratios, plans, pgbench, single latencies.

pub mod awake;
pub mod latency;
pub mod pgbench;
pub mod plan;
pub mod rounds;
pub mod samples;
pub mod session;
