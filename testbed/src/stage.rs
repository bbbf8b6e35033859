//! The stage: the private PostgreSQL tree that `make stage` makes and `make build` puts the
//! extension into.

use crate::place;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A PostgreSQL installation of this repository alone.
#[derive(Clone, Debug)]
pub struct Stage {
    programs: PathBuf,
}

impl Stage {
    /// The tree named by `ENRICHMENT_STAGE`, else `stage` in the state directory of `make`.
    ///
    /// # Errors
    /// When there is no server in it, with the command that makes one.
    pub fn from_env() -> Result<Self, String> {
        let root = match std::env::var_os("ENRICHMENT_STAGE").filter(|given| !given.is_empty()) {
            Some(given) => PathBuf::from(given),
            None => place::state().join("stage"),
        };
        Self::at(&root)
    }

    /// The tree at `root`; the newest server when it holds several.
    ///
    /// # Errors
    /// When there is no server in it.
    pub fn at(root: &Path) -> Result<Self, String> {
        let versions = root.join("usr/lib/postgresql");
        let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(&versions)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
            .filter(|(_, home)| home.join("bin/postgres").is_file())
            .collect();
        found.sort();
        match found.pop() {
            Some((_, home)) => Ok(Self { programs: home.join("bin") }),
            None => Err(format!("no server in {}: run `make stage`", root.display())),
        }
    }

    /// A program of the tree: `postgres`, `initdb`, `psql`, `pg_dump`, `pg_basebackup`, ...
    pub fn bin(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// True when the extension is installed in the tree.
    pub fn has_extension(&self) -> bool {
        Command::new(self.bin("pg_config"))
            .arg("--sharedir")
            .output()
            .map(|output| {
                let share = String::from_utf8_lossy(&output.stdout);
                Path::new(share.trim_end()).join("extension/enrichment_cache.control").exists()
            })
            .unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_tree_says_what_to_run() {
        let why = Stage::at(Path::new("/nonexistent")).unwrap_err();
        assert!(why.contains("make stage"), "{why}");
    }
}
