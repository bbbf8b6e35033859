//! What the user sees while it runs: one line for each thing done, with the time since the start.

use crate::groups::Group;
use crate::report::results::Results;
use std::sync::LazyLock;
use std::time::Instant;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Minutes and seconds since the first line.
fn clock() -> String {
    let seconds = BEGAN.elapsed().as_secs();
    format!("{:>3}:{:02}", seconds / 60, seconds % 60)
}

/// A line of progress.
pub fn note(text: &str) {
    println!("{}  {text}", clock());
}

/// The beginning of a part.
pub fn title(text: &str) {
    println!("{}  == {text}", clock());
}

/// Why it ends early, on standard error.
pub fn failed(why: &str) {
    eprintln!("error: {why}");
}

/// Each target of the groups that ran, and whether it is met.
pub fn summary(results: &Results, groups: &[&Group]) {
    let (mut met, mut missed, mut open) = (0, 0, 0);
    println!();
    for target in groups.iter().filter_map(|group| results.section(group.id)).flat_map(|section| &section.targets) {
        match target.met() {
            Some(true) => met += 1,
            Some(false) => missed += 1,
            None => open += 1,
        }
        println!(
            "  {:<13} {}: {} (wanted {})",
            target.verdict(),
            target.claim,
            target.measured_text(),
            target.bound_text()
        );
    }
    println!("\ntargets: {met} met, {missed} missed, {open} not measured");
}
