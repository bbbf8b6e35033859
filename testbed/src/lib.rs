//! What tests, demo and benchmarks stand on: private PostgreSQL clusters from the stage, the
//! sandbox providers as a process of their own, generated honeypot data, and waiting without
//! sleeping. Nothing here touches the system's PostgreSQL.

pub mod honeypot;

mod builder;
mod clock;
mod cluster;
mod connect;
mod control;
mod leftovers;
pub mod misfortune;
mod names;
mod place;
mod port;
mod process;
mod sandbox;
mod services;
mod stage;
mod standby;
mod wait;

pub use builder::ClusterBuilder;
pub use clock::Clock;
pub use cluster::{Cluster, StopMode};
pub use port::free_port;
pub use sandbox::Sandbox;
pub use stage::Stage;
pub use wait::{try_wait_until, wait_until};
