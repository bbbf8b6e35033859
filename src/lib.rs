//! enrichment_cache: the answers of threat-intelligence APIs, kept in the database that holds the events they explain.

pub mod core;
pub mod io;
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
pub mod pg;
