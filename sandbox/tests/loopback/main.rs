//! The sandbox as a client sees it: a real one on a free port, spoken to with `ureq`.

mod access;
mod client;
mod control;
mod faults;
mod limits;
mod program;
mod shapes;
