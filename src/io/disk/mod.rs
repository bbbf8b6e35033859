//! The files of the disk cache that older programs read and write too: looking a key up, and putting answers there.

mod look;
mod place;
mod scribe;
mod tree;

#[cfg(test)]
mod tests;

pub use look::{contents, judge, Contents, Look, Lying};
pub use scribe::{Report, Scribe, Task, Written};
pub use tree::{Flush, Tree, Trouble};
