//! Reading a disk cache for the import: a walk in a defined order, files read without ever leaving the tree, and the
//! threads that do both ahead of the session that stores.

pub mod pipeline;
pub mod safe;
#[cfg(test)]
mod tests;
pub mod tree;
