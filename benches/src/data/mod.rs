//! What is read and written: answers with the sizes and shapes of the providers', and a honeypot's sessions, files and
//! passwords. All of it follows from row numbers, so that every run has the same.

pub mod answers;
pub mod copy;
pub mod dice;
pub mod hibp;
pub mod keys;
pub mod main_load;
pub mod store_load;
pub mod user_tables;
pub mod virustotal;

use crate::settings::Settings;

/// How many there are of everything.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Addresses; each has an answer of dshield, urlhaus and spur.
    pub addresses: u64,
    pub files: u64,
    /// HIBP ranges that are cached.
    pub ranges: u64,
    pub sessions: u64,
    pub passwords: u64,
}

impl Sizes {
    /// The scale the extension is planned for, times the one asked for.
    pub fn of(settings: &Settings) -> Self {
        Self {
            addresses: settings.rows(300_000),
            files: settings.rows(50_000),
            ranges: settings.rows(50_000),
            sessions: settings.rows(1_700_000),
            passwords: settings.rows(276_000),
        }
    }
}
