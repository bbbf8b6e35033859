//! What is running: written after each start, read by `stop` and by the next `run`.

use crate::Result;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The contents of `state.json` in the demo's directory.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The cluster's directory; its process is found by the server's own pid file.
    pub cluster: Option<PathBuf>,
    pub sandbox: Option<SandboxState>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxState {
    pub pid: i32,
    pub port: u16,
}

fn file(directory: &Path) -> PathBuf {
    directory.join("state.json")
}

impl State {
    /// The state of the last run; `None` when there was none.
    ///
    /// # Errors
    /// When the file is there but cannot be read or understood.
    pub fn read(directory: &Path) -> Result<Option<State>> {
        let file = file(directory);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", file.display()).into()),
        };
        match serde_json::from_str(&text) {
            Ok(state) => Ok(Some(state)),
            Err(error) => Err(format!("{} is damaged ({error}): remove it", file.display()).into()),
        }
    }

    /// Replaces the file in one step, so that a crash leaves the old or the new one.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let fresh = directory.join("state.json.new");
        fs::write(&fresh, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(fresh, file(directory))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_as_it_was_written() {
        let directory = std::env::temp_dir().join(format!("enrichment-demo-state-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        assert_eq!(State::read(&directory).expect("readable"), None);
        let state =
            State { cluster: Some(directory.join("cluster")), sandbox: Some(SandboxState { pid: 17, port: 8080 }) };
        state.write(&directory).expect("writable");
        assert_eq!(State::read(&directory).expect("readable"), Some(state));
        fs::write(file(&directory), "{").expect("writable");
        let problem = State::read(&directory).expect_err("damaged").to_string();
        assert!(problem.contains("is damaged"), "{problem}");
        fs::remove_dir_all(&directory).expect("removable");
    }
}
