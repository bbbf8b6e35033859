//! The demo program, run as `make demo` runs it, without a terminal: results at the end, and nothing left after stop.

use crate::support::SOON;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use testbed::wait_until;

/// A state directory of its own, as the servers' account must be able to reach it.
struct State(PathBuf);

impl State {
    fn new() -> State {
        let base = std::env::var_os("ENRICHMENT_STATE").map(PathBuf::from);
        let base = base.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"));
        let state = base.join(format!("demo-test-{}", std::process::id()));
        fs::create_dir_all(&state).unwrap_or_else(|why| panic!("{}: {why}", state.display()));
        State(state)
    }

    fn demo(&self, command: &str) -> Output {
        let stage = std::env::var_os("ENRICHMENT_STAGE").map(PathBuf::from);
        let stage = stage.or_else(|| self.0.parent().map(|base| base.join("stage"))).expect("a stage");
        Command::new(program())
            .arg(command)
            .env("ENRICHMENT_STATE", &self.0)
            .env("ENRICHMENT_STAGE", stage)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|why| panic!("{}: {why}", program().display()))
    }

    /// Command lines of processes that work in this directory or name it.
    fn processes(&self) -> Vec<String> {
        let here = self.0.display().to_string();
        let text = |path: PathBuf| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|process| {
                let works_in = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&self.0));
                let output = fs::read_link(process.join("fd/1")).is_ok_and(|file| file.starts_with(&self.0));
                works_in || output || text(process.join("cmdline")).is_ok_and(|line| line.contains(&here))
            })
            .filter_map(|process| text(process.join("cmdline")).ok().filter(|line| !line.is_empty()))
            .collect()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.0.join("demo").exists() {
            self.demo("stop");
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `ENRICHMENT_DEMO`, else the one built beside this test.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("ENRICHMENT_DEMO").filter(|named| !named.is_empty()) {
        return named.into();
    }
    let here = std::env::current_exe().unwrap_or_default();
    here.ancestors().nth(2).map(|directory| directory.join("enrichment-demo")).unwrap_or_default()
}

/// The rows of psql's table that follows this line, headers and footer left out.
fn table_after<'a>(output: &'a str, line: &str) -> Vec<&'a str> {
    let after = output.split_once(line).unwrap_or_else(|| panic!("no {line:?} in\n{output}")).1;
    let ruled = after.lines().skip_while(|line| !line.starts_with("---")).skip(1);
    ruled.take_while(|line| !line.starts_with('(') && !line.trim().is_empty()).collect()
}

#[test]
fn the_demo_fills_its_tables_prints_its_results_and_leaves_nothing_after_stop() {
    let state = State::new();
    let ran = state.demo("run");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{}\n{said}\n{}", ran.status, String::from_utf8_lossy(&ran.stderr));
    assert!(!said.contains('\u{1b}'), "colours or cursor movements without a terminal:\n{said}");
    let progress: Vec<&str> = said.lines().filter(|line| line.contains(" % answered, ")).collect();
    assert!(progress.len() >= 3 && progress.last().is_some_and(|line| line.contains("100 % answered")), "{progress:?}");
    for (title, columns) in [
        ("Which networks attack most?", "addresses"),
        ("Which malware was dropped, and how often?", "detections"),
        ("Which passwords are old acquaintances, which are new?", "seen_in_breaches"),
    ] {
        let rows = table_after(&said, title);
        assert!(rows.len() >= 3, "{title} {rows:?}");
        let block = said.split_once(title).map(|(_, after)| after).unwrap_or_default();
        assert!(block.contains(columns), "{title}");
        let full = rows.iter().filter(|row| row.split('|').all(|cell| !cell.trim().is_empty() && cell.trim() != "∅"));
        assert!(full.count() >= 1, "{title}: no row is full\n{}", rows.join("\n"));
    }
    assert!(table_after(&said, "Why the few empty values are empty").len() >= 5);
    assert!(said.contains("make demo-stop") && said.contains("/bin/psql -h 127.0.0.1 -p "), "{said}");
    assert!(state.processes().len() > 5, "the demo did not stay up: {:?}", state.processes());

    let stopped = state.demo("stop");
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    wait_until("the demo's processes to end", SOON, || match state.processes() {
        left if left.is_empty() => Ok(Some(())),
        left => Err(format!("{left:?}")),
    });
    assert!(!state.0.join("demo").exists(), "files are left");
    let again = state.demo("stop");
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("nothing to stop"));
}
