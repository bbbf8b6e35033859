//! Lines for the user: steps, sections, failures. Colours only on a terminal and without NO_COLOR.

use console::style;
use std::fmt::Display;

/// Whether progress may be drawn: standard output is a terminal that understands cursor movement.
pub fn is_live() -> bool {
    console::Term::stdout().features().is_attended() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A step that is done.
pub fn done(text: impl Display) {
    println!("{} {text}", style("✓").green().bold());
}

/// A note under a step.
pub fn note(text: impl Display) {
    for line in text.to_string().lines() {
        println!("  {}", style(line).dim());
    }
}

/// A section's title.
pub fn title(text: impl Display) {
    println!("\n{}", style(text).bold().underlined());
}

/// A statement the user may copy, indented.
pub fn statement(sql: &str) {
    for line in sql.lines() {
        println!("    {}", style(line).cyan());
    }
}

/// Why the demo ends early, on standard error.
pub fn failed(reason: &str) {
    eprintln!("{} {reason}", style("✗").red().bold().for_stderr());
}
