//! Pure rules: no PostgreSQL, no files, no network, no threads, no clock (`now` is an argument).

pub mod address;
pub mod ahead;
pub mod answers;
pub mod backoff;
pub mod breaker;
pub mod classify;
pub mod condition;
pub mod disk;
pub mod error;
pub mod fair;
pub mod hash;
pub mod hibp;
pub mod hush;
pub mod iso;
mod json_path;
pub mod json_reads;
pub mod json_text;
pub mod jsonb;
pub mod key;
pub mod limiter;
pub mod pace;
pub mod redact;
pub mod request;
pub mod rules;
pub mod scatter;
pub mod secret;
pub mod service;
pub mod ssh_keys;
pub mod text_array;
pub mod trial;
pub mod ttl;
pub mod typed;
pub mod worth;

pub use error::Error;

/// A moment or a length of time in microseconds; moments count from the Unix epoch, UTC.
pub type Micros = i64;

/// One second in [`Micros`].
pub const SECOND: Micros = 1_000_000;
