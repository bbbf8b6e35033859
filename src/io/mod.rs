//! Effects without PostgreSQL: the HTTP client and its pool of threads, the secrets' sources, the clock.

pub mod aside;
mod call;
pub mod client;
pub mod clock;
pub mod config;
pub mod disk;
pub mod egress;
mod failure;
pub mod hibp_corpus;
pub mod import;
pub mod lineup;
pub mod pool;
pub mod secrets;
mod signals;
mod trust;
pub mod wake;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tls_tests;

pub use client::Client;
pub use config::ClientConfig;
pub use lineup::Heard;
pub use pool::{Done, Job, Pool};
pub use secrets::SecretSource;
