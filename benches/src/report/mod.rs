//! What was found: targets and tables, kept in performance.json, written out as performance.md.

pub mod document;
pub mod findings;
pub mod machine;
pub mod numbers;
pub mod results;
pub mod table;
