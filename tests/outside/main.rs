//! Tests from outside: real clusters with real workers, which ask the sandbox providers.

mod contention;
mod crash;
mod databases;
mod ddl;
mod demo;
mod differential;
mod dual;
mod dump;
mod fetch;
mod health;
mod lifecycle;
mod limits;
mod lookups;
mod not_preloaded;
mod outcomes;
mod readme;
mod reads;
mod refresh;
mod sources;
mod sources_support;
mod support;
mod throughput;
mod upstream;
mod utility;
mod views;
