//! Moving in from a disk cache: whole trees imported by real servers.

mod adoption;
mod at_once;
mod back;
mod crash;
mod helper;
mod odd_text;
mod progress;
mod report;
mod rights;
mod rows;
mod sent;
mod tree;
