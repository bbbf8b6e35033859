//! Taking times: sessions, rounds in turns, samples and ratios, plans, pgbench, single latencies.

pub mod latency;
pub mod pgbench;
pub mod plan;
pub mod processor;
pub mod rounds;
pub mod samples;
pub mod session;
