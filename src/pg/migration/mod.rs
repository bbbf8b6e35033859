//! Moving in from a disk cache: the session's reading that goes on from one transaction to the next, and what becomes of
//! each file.

pub mod adopt;
pub mod invalidate;
pub mod rows;
pub mod run;
mod second_look;
mod subtransaction;
mod take;
pub mod verify;
