//! The disk cache beside the table. The older programs are played by the tests: they read and write files.

mod delete;
mod export;
mod hung;
mod imports;
mod read;
mod round_trip;
mod runbook;
mod support;
mod trouble;
mod write;
