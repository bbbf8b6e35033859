//! The disk cache of the older programs: its layouts, and what lies in its files.

pub mod layout;
