//! enrichment_cache: the answers of threat-intelligence APIs, kept in the database that holds the events they explain.

pub mod core;
pub mod io;
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
pub mod pg;

#[cfg(feature = "pg_test")]
#[path = "../pgrx-tests/mod.rs"]
mod in_database;
/// The framework of the in-database tests looks for this module by name.
#[cfg(all(test, feature = "pg_test"))]
pub use in_database::pg_test;
