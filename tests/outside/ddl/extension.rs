//! x placeholder for now.
