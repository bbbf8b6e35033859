//! `make bench`: each capability of the extension against its plain-PostgreSQL counterpart, on the same data, in the
//! same run, in turns; the result is docs/performance.md.
//!
//! `data/` makes what is read, `measure/` takes the times, `groups/` says what is compared with what, `report/` writes.

mod bed;
mod data;
mod groups;
mod measure;
mod report;
mod screen;
mod settings;
mod stop;

use bed::Bed;
use report::results::{Results, Run};
use settings::Settings;
use std::process::ExitCode;
use stop::Stop;

/// An error is a text for the user; most come from the server.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    // before any thread is made, so that all of them leave the signals to the one that waits for them
    let stop = match Stop::install() {
        Ok(stop) => stop,
        Err(why) => return failed(&*why),
    };
    match bench(&stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if stop.signal().is_some() => {
            screen::failed("interrupted; the cluster is removed, sections measured before are in the document");
            // 128 + the signal's number, as a shell says it
            ExitCode::from(128 + stop.signal().unwrap_or_default() as u8)
        }
        Err(why) => failed(&*why),
    }
}

fn failed(why: &dyn std::error::Error) -> ExitCode {
    screen::failed(&why.to_string());
    ExitCode::FAILURE
}

fn bench(stop: &Stop) -> Result<()> {
    let settings = Settings::from_env(|name| std::env::var(name).ok())?;
    let groups = groups::chosen(&settings.only)?;
    let mut results = Results::read(&settings.documents)?;
    screen::title(&format!(
        "benchmarks at scale {}, {} rounds: {}",
        settings.scale,
        settings.rounds,
        groups.iter().map(|group| group.id).collect::<Vec<_>>().join(", ")
    ));
    let mut bed = Bed::start(&settings, stop)?;
    let run = Run::now(&settings, &mut bed)?;
    results.begin(run);
    for (number, group) in groups.iter().enumerate() {
        screen::title(&format!("{} ({} of {}): {}", group.id, number + 1, groups.len(), group.title));
        group.needs.prepare(&mut bed)?;
        let findings = (group.measure)(&mut bed)?;
        results.put(group, findings);
        results.write(&settings.documents)?;
    }
    screen::summary(&results, &groups);
    screen::note(&format!("written: {}", settings.documents.join("performance.md").display()));
    Ok(())
}
