//! Tests from outside: real clusters with real workers, which ask the sandbox providers.

mod databases;
mod fetch;
mod lifecycle;
mod limits;
mod not_preloaded;
mod outcomes;
mod sources;
mod sources_support;
mod support;
mod utility;
