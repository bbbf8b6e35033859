//! performance.md: from the results alone, always the whole of it.

use super::numbers::{bytes, grouped};
use super::results::{Results, Run, Section};
use super::table::Table;
use std::fmt::Write;

const HEAD: &str = "# Performance

<!-- Written by `make bench` from performance.json. Changes made by hand are lost. -->

What the extension costs beside the plain SQL that would do the same, each measured on the same data in the same run. Times belong to
the machine below; the ratios are what to compare with another machine or version.
";

const HOW: &str = "## How it is measured

`make bench` makes a PostgreSQL cluster of its own from the server's programs installed here, with the extension in release mode, loads
generated data, and removes everything afterwards. What is compared runs in turns (A, B, C, A, B, C, ...), so that whatever else the machine does
meets all alike. The first round warms up and is discarded. A figure is the median of the other rounds, with the least and the most of them
beside it. A ratio divides two medians; the range behind a target's figure is that of the ratios within each round. Before anything is measured,
the tables are vacuumed and analysed; autovacuum is off.
";

const AGAIN: &str = "## Run it again

<!-- test: skip takes from minutes to an hour -->
```sh
make bench                                  # all of it, scale 1: about 20 GB of disk, 8 GB of memory
BENCH_SCALE=0.1 make bench                  # a tenth of the data, for smaller machines
BENCH_ONLY=wire,joins make bench            # some groups; the sections of the others stay
BENCH_ROUNDS=9 make bench                   # more rounds than 5
BENCH_ONLY=ten-million make bench           # the run of its own: 10 million rows, 20 GB of disk
BENCH_DOCS=elsewhere make bench             # writes performance.md and performance.json there, not into docs/
```
";

/// The document.
pub fn markdown(results: &Results) -> String {
    let mut text = HEAD.to_string();
    let _ = write!(text, "\n{}", about(&results.run));
    text.push_str("\n## Targets\n\n");
    text.push_str(&targets(results));
    let _ = write!(text, "\n{HOW}");
    for section in &results.sections {
        let _ = write!(text, "\n{}", chapter(section, &results.run));
    }
    let _ = write!(text, "\n{AGAIN}");
    text
}

fn about(run: &Run) -> String {
    let memory = bytes(run.memory_mib as f64 * 1024.0 * 1024.0);
    let revision = run.revision.as_ref().map(|revision| format!(", revision {revision}")).unwrap_or_default();
    let rows = |full: f64| grouped((full * run.scale).round().max(1.0));
    let settings = run.settings.iter().map(|(name, value)| format!("`{name} = {value}`")).collect::<Vec<_>>();
    format!(
        "- Machine: {} cores, {memory} of memory, {}\n\
         - Versions: {}, enrichment_cache {}{revision}\n\
         - Measured: {}, {} rounds after one to warm up\n\
         - Scale: {} ({} addresses with answers of dshield, urlhaus and spur, {} reports of virustotal, {} ranges of hibp; \
         {} sessions, {} passwords)\n\
         - Settings: {}; what is not named has PostgreSQL's default (fsync and synchronous_commit are on)\n",
        run.cores,
        run.processor,
        run.postgres,
        run.extension,
        run.at,
        run.rounds,
        run.scale,
        rows(300_000.0),
        rows(50_000.0),
        rows(50_000.0),
        rows(1_700_000.0),
        rows(276_000.0),
        settings.join(", ")
    )
}

fn targets(results: &Results) -> String {
    let mut table = Table::new("", &["target", "wanted", "measured (range over the rounds)", ""]);
    let all: Vec<_> = results.sections.iter().flat_map(|section| &section.targets).collect();
    for target in &all {
        let verdict = if target.met() == Some(false) { "**not met**" } else { target.verdict() };
        table.row(&[&target.claim, &target.bound_text(), &target.measured_text(), verdict]);
    }
    let met = all.iter().filter(|target| target.met() == Some(true)).count();
    format!("{met} of {} are met.\n\n{}", all.len(), table.markdown())
}

/// The source of a paragraph in lines of at most 120 characters.
fn wrapped(paragraph: &str) -> String {
    let mut text = String::new();
    let mut length = 0;
    for word in paragraph.split_whitespace() {
        let long = word.chars().count();
        if length > 0 && length + 1 + long > 120 {
            text.push('\n');
            length = 0;
        } else if length > 0 {
            text.push(' ');
            length += 1;
        }
        text.push_str(word);
        length += long;
    }
    text
}

fn chapter(section: &Section, last: &Run) -> String {
    let mut text = format!("## {}\n\n", section.title);
    if section.run != *last {
        let run = &section.run;
        let revision = run.revision.as_ref().map(|revision| format!(", revision {revision}")).unwrap_or_default();
        let _ = write!(
            text,
            "Measured in another run: {}, scale {}, {} rounds, {}{revision}, {} cores, {}.\n\n",
            run.at, run.scale, run.rounds, run.postgres, run.cores, run.processor
        );
    }
    for sentence in &section.text {
        let _ = write!(text, "{}\n\n", wrapped(sentence));
    }
    text.push_str(&section.tables.iter().map(Table::markdown).collect::<Vec<_>>().join("\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::ALL;
    use crate::measure::samples::Ratio;
    use crate::report::findings::{Findings, Target};

    fn results() -> Results {
        let mut results = Results::default();
        results.begin(Run { at: "yesterday".into(), scale: 0.1, ..Run::default() });
        let mut findings = Findings::default();
        findings.target(Target::at_most("kept", 1.0, Some(Ratio::once(0.5))));
        results.put(&ALL[0], findings);
        results.begin(Run { at: "today".into(), scale: 1.0, ..Run::default() });
        let mut findings = Findings::default();
        findings.target(Target::at_most("missed", 1.0, Some(Ratio::once(2.0)))).say("A sentence.");
        results.put(&ALL[1], findings);
        results
    }

    #[test]
    fn paragraphs_are_wrapped_between_words() {
        let text = wrapped(&"a word of some length ".repeat(30));
        assert!(text.lines().all(|line| line.len() <= 120 && !line.ends_with(' ')), "{text}");
        assert_eq!(text.lines().count(), 6);
        assert_eq!(wrapped("short"), "short");
    }

    #[test]
    fn every_target_has_its_verdict() {
        let text = markdown(&results());
        assert!(text.contains("1 of 2 are met."), "{text}");
        let line = |claim: &str| text.lines().find(|line| line.starts_with(&format!("| {claim}"))).unwrap().to_string();
        assert!(line("kept").contains("| met") || line("kept").contains(" met |"));
        assert!(line("missed").contains("**not met**"));
        assert!(text.contains("\nA sentence.\n"));
    }

    #[test]
    fn a_section_of_another_run_says_so() {
        let text = markdown(&results());
        assert!(text.contains("Measured in another run: yesterday, scale 0.1"), "{text}");
        assert!(!text.contains("another run: today"));
        assert!(text.contains("300,000 addresses"));
    }
}
