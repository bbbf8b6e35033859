//! Where things are: the state directory that `make` has chosen, and who runs servers there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who runs the servers when the tests are run by root, as PostgreSQL refuses to be run by root.
const SERVER_USER: &str = "postgres";

/// The repository this crate was built in.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// `ENRICHMENT_STATE`, or what `make stage` has noted, or `target/`.
pub fn state() -> PathBuf {
    if let Some(given) = std::env::var_os("ENRICHMENT_STATE").filter(|given| !given.is_empty()) {
        return given.into();
    }
    let target = workspace().join("target");
    match fs::read_to_string(target.join("enrichment-state")) {
        Ok(noted) => noted.trim_end().into(),
        Err(_) => target,
    }
}

/// The user and group that server processes get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

/// `None` when servers run as whoever runs the tests.
pub fn server_account() -> Result<Option<Account>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    Ok(Some(Account { uid: id("-u")?, gid: id("-g")? }))
}

fn id(which: &str) -> Result<u32, String> {
    let output =
        Command::new("id").args([which, SERVER_USER]).output().map_err(|why| format!("cannot run id: {why}"))?;
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .map_err(|_| format!("root cannot run PostgreSQL and there is no user {SERVER_USER}: run `make setup`"))
}

/// Makes a directory that the server can write to and everybody can look into.
pub fn make_directory(path: &Path, account: Option<Account>) -> Result<(), String> {
    let problem = |why: std::io::Error| format!("cannot make {}: {why}", path.display());
    fs::create_dir_all(path).map_err(problem)?;
    if let Some(account) = account {
        std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid)).map_err(problem)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_holds_this_crate() {
        assert!(workspace().join("testbed/Cargo.toml").is_file());
    }
}
