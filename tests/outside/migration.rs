//! Moving in from a disk cache: whole trees imported by real servers.

mod adoption;
mod back;
mod crash;
mod helper;
mod odd_text;
mod report;
mod progress;
mod rights;
mod rows;
mod sent;
mod tree;
