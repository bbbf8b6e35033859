//! Honeypot data: the tables of a Cowrie analytics database, and generated rows with the distributions seen in
//! the wild, from a few thousand sessions (the demo) to millions (the benchmarks).
//!
//! `tables` makes the tables, `addresses`, `passwords` and `session` invent what stands in them, `load` writes it
//! by COPY. Everything but the calendar follows from `Size::seed`: the same seed gives the same rows, their times
//! count back from the hour in which they are loaded.

mod addresses;
mod copy;
mod keys;
mod load;
mod passwords;
mod session;
mod tables;

pub use load::load;
pub use passwords::COMMON_PASSWORDS;
pub use tables::create_tables;

use std::time::Duration;

/// What the functions of this module return; the error is the server's or the connection's.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The type of `session_summaries.enrichment` and of the other JSON columns. Both are found in installations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    Json,
    Jsonb,
}

impl JsonType {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            JsonType::Json => "json",
            JsonType::Jsonb => "jsonb",
        }
    }
}

/// The type of the `source_ip` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    Varchar,
    Inet,
}

impl AddressType {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            AddressType::Varchar => "varchar(45)",
            AddressType::Inet => "inet",
        }
    }
}

/// Which variant of the tables, and in which schema (made when it is missing).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub json: JsonType,
    pub address: AddressType,
    pub schema: String,
}

impl Shape {
    /// A table's name, qualified and quoted.
    pub(crate) fn table(&self, name: &str) -> String {
        format!("{}.{name}", self.quoted_schema())
    }

    pub(crate) fn quoted_schema(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }
}

impl Default for Shape {
    /// The shape most installations have: `json`, `varchar(45)`, schema `public`.
    fn default() -> Self {
        Shape { json: JsonType::Json, address: AddressType::Varchar, schema: "public".into() }
    }
}

/// How much data. `addresses`, `files` and `passwords` count distinct values; each is lowered to `sessions` where
/// it is larger, because every value stands in at least one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub sessions: usize,
    pub addresses: usize,
    pub files: usize,
    pub passwords: usize,
    pub seed: u64,
}

impl Size {
    /// What `make demo` shows: large enough for a heavy tail, small enough to be answered in a minute.
    pub fn demo() -> Self {
        Size { sessions: 5_000, addresses: 1_000, files: 200, passwords: 500, seed: 7 }
    }
}

/// What was written. Rows unless another unit is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    pub sessions: u64,
    /// Distinct values of `source_ip`.
    pub addresses: u64,
    /// Those of `addresses` that are public, so that a provider may be asked.
    pub public_addresses: u64,
    /// Rows of `files`; one hash may stand in several.
    pub files: u64,
    /// Distinct hashes in `files`.
    pub hashes: u64,
    pub passwords: u64,
    /// Those of `passwords` that come from [`COMMON_PASSWORDS`].
    pub common_passwords: u64,
    pub password_uses: u64,
    pub ssh_keys: u64,
    pub raw_events: u64,
    pub took: Duration,
}
