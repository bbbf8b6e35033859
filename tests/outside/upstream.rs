//! The failures that users of the old disk cache suffered, one test each, by their number in its history.

mod answers;
mod keys;
mod outages;
mod rows;
