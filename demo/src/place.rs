//! Where the demo keeps its cluster, logs and state.

use crate::Result;
use std::path::{Path, PathBuf};

/// The demo's own directory below the state directory that `make` exports as `ENRICHMENT_STATE`.
///
/// # Errors
/// When the variable is not set: the state directory is chosen by `make`, not guessed here.
pub fn directory() -> Result<PathBuf> {
    match std::env::var_os("ENRICHMENT_STATE").filter(|state| !state.is_empty()) {
        Some(state) => Ok(Path::new(&state).join("demo")),
        None => Err("ENRICHMENT_STATE is not set: start the demo with `make demo`".into()),
    }
}

/// The sandbox program: the one named by `ENRICHMENT_SANDBOX`, else the one built beside this program.
///
/// # Errors
/// When there is none.
pub fn sandbox_program() -> Result<PathBuf> {
    let program = match std::env::var_os("ENRICHMENT_SANDBOX").filter(|named| !named.is_empty()) {
        Some(named) => PathBuf::from(named),
        None => std::env::current_exe()?.with_file_name("enrichment-sandbox"),
    };
    match program.is_file() {
        true => Ok(program),
        false => Err(format!("no sandbox program at {}: start the demo with `make demo`", program.display()).into()),
    }
}

/// The cluster's directory within the demo's.
pub fn cluster(directory: &Path) -> PathBuf {
    directory.join("cluster")
}
