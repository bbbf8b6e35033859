//! Moving in from a disk cache: whole trees imported by real servers.

mod adoption;
mod at_once;
mod back;
mod crash;
mod helper;
mod invalidated;
mod odd_text;
mod orphans;
mod progress;
mod report;
mod rights;
mod rows;
mod second_look;
mod sent;
mod tree;
