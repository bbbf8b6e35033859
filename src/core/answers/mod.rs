//! Where a provider's answers hold what the typed views show, in each of the shapes in which they were ever cached.

pub mod spur;
pub mod urlhaus;
pub mod virustotal;

#[cfg(test)]
mod tests;
