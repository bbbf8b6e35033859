//! The in-database tests: each runs inside a transaction of its own that is rolled back, so no worker ever sees what
//! it wrote.

mod ask;
mod attach;
mod attach_options;
mod cleanup;
mod comments;
mod compare;
mod coverage;
mod explain;
mod get;
mod hibp;
mod invalidate;
mod json_text;
mod keys;
mod lookup;
mod odd;
mod passwords;
mod permissions;
mod registry;
mod request;
mod secrets;
mod shadow;
mod store;
mod store_history;
mod store_many;
mod table;
mod text;
mod triggers;
mod typed;
mod views;

/// What the framework asks before it starts its server.
#[cfg(test)]
pub mod pg_test {
    /// Runs once in the test process, before the first test.
    pub fn setup(_options: Vec<&str>) {}

    /// Settings of the test server.
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["shared_preload_libraries = 'enrichment_cache'"]
    }
}
