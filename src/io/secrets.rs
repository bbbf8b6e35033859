//! Where a provider's secret comes from: a file of the secrets directory, the stored value, the environment.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::core::secret::Secret;

/// A credential is short; a longer file is another one by mistake.
const MAX_BYTES: u64 = 64 * 1024;

/// The sources of secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretSource {
    /// A directory with one file for each secret, named like it (as container platforms mount them).
    pub dir: Option<PathBuf>,
}

/// Which source gave a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    File,
    Stored,
    Environment,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::File => "file",
            Origin::Stored => "stored",
            Origin::Environment => "environment",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer of [`SecretSource::find`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub secret: Option<(Secret, Origin)>,
    /// What an administrator should hear about the file; never holds the secret.
    pub warning: Option<String>,
}

impl SecretSource {
    /// The secret of that name, from the first source that has a value which is not empty: the file `<dir>/<name>`
    /// without the white space around it, `stored`, the environment variable of the name in upper case.
    pub fn resolve(&self, name: &str, stored: Option<&str>) -> Option<Secret> {
        self.find(name, stored).secret.map(|(secret, _)| secret)
    }

    /// As [`SecretSource::resolve`], with the origin and what was wrong with the file: not readable, empty, or open
    /// to other users. A name that is empty, holds a `/` or begins with a dot finds nothing.
    pub fn find(&self, name: &str, stored: Option<&str>) -> Found {
        self.find_in(name, stored, |variable| std::env::var(variable).ok())
    }

    fn find_in(&self, name: &str, stored: Option<&str>, environment: impl Fn(&str) -> Option<String>) -> Found {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0', '=']) {
            let warning =
                Some("the name of a secret is empty, begins with a dot or holds a character no name has".into());
            return Found { secret: None, warning };
        }
        let (text, warning) = match &self.dir {
            Some(dir) => read(&dir.join(name), name),
            None => (None, None),
        };
        let value = |text: &str| Some(Secret::new(text)).filter(|secret| !secret.expose().is_empty());
        let from = |text: Option<&str>, origin| text.and_then(value).map(|secret| (secret, origin));
        let secret = from(text.as_deref(), Origin::File)
            .or_else(|| from(stored, Origin::Stored))
            .or_else(|| from(environment(&name.to_ascii_uppercase()).as_deref(), Origin::Environment));
        Found { secret, warning }
    }
}

/// The text of a secrets file, and what is wrong with it. An absent file is not wrong.
fn read(path: &Path, name: &str) -> (Option<String>, Option<String>) {
    let (text, mode) = match read_bounded(path) {
        Ok(read) => read,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return (None, None),
        Err(e) => return (None, Some(format!("the file of secret \"{name}\" was not read: {e}"))),
    };
    let warning = match text.trim().is_empty() {
        true => Some(format!("the file of secret \"{name}\" is empty")),
        false if mode & 0o077 != 0 => {
            Some(format!("the file of secret \"{name}\" is open to other users (mode {:04o})", mode & 0o7777))
        }
        false => None,
    };
    (Some(text), warning)
}

fn read_bounded(path: &Path) -> io::Result<(String, u32)> {
    // a pipe or a device would block or never end
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut text = String::new();
    match file.take(MAX_BYTES + 1).read_to_string(&mut text)? as u64 > MAX_BYTES {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 64 kB")),
        false => Ok((text, mode)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::test_server::ScratchDir;
    use std::fs::{set_permissions, Permissions};

    fn environment(variable: &str) -> Option<String> {
        (variable == "VT_API_KEY").then(|| "from-environment".to_owned())
    }

    fn shown(found: &Found) -> Option<(&str, Origin)> {
        found.secret.as_ref().map(|(secret, origin)| (secret.expose(), *origin))
    }

    fn secret_file(scratch: &ScratchDir, name: &str, text: &str, mode: u32) {
        set_permissions(scratch.write(name, text.as_bytes()), Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_wins_over_the_stored_value_and_that_over_the_environment() {
        let scratch = ScratchDir::new("secrets");
        let source = SecretSource { dir: Some(scratch.path().to_owned()) };
        let find = |stored| source.find_in("vt_api_key", stored, environment);
        assert_eq!(shown(&find(None)), Some(("from-environment", Origin::Environment)));
        assert_eq!(shown(&find(Some(" "))), Some(("from-environment", Origin::Environment)));
        assert_eq!(shown(&find(Some("stored"))), Some(("stored", Origin::Stored)));
        secret_file(&scratch, "vt_api_key", "in-file\n", 0o600);
        assert_eq!(find(Some("stored")).warning, None);
        assert_eq!(shown(&find(Some("stored"))), Some(("in-file", Origin::File)));
        assert_eq!(source.find_in("other", None, environment), Found { secret: None, warning: None });
        assert_eq!(source.resolve("vt_api_key", None).unwrap().expose(), "in-file");
    }

    #[test]
    fn an_empty_file_gives_way_and_is_named() {
        let scratch = ScratchDir::new("secrets");
        secret_file(&scratch, "k", "\n", 0o600);
        let found = SecretSource { dir: Some(scratch.path().to_owned()) }.find_in("k", Some("stored"), environment);
        assert_eq!(shown(&found), Some(("stored", Origin::Stored)));
        assert_eq!(found.warning.as_deref(), Some("the file of secret \"k\" is empty"));
    }

    #[test]
    fn a_file_open_to_others_is_used_with_a_warning_that_does_not_hold_it() {
        let scratch = ScratchDir::new("secrets");
        secret_file(&scratch, "k", "hunter2", 0o644);
        let found = SecretSource { dir: Some(scratch.path().to_owned()) }.find_in("k", None, environment);
        assert_eq!(shown(&found), Some(("hunter2", Origin::File)));
        assert!(found.warning.as_ref().unwrap().contains("0644"));
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn a_name_cannot_leave_the_directory() {
        let scratch = ScratchDir::new("secrets");
        secret_file(&scratch, "outside", "hunter2", 0o600);
        std::fs::create_dir(scratch.path().join("inside")).unwrap();
        let source = SecretSource { dir: Some(scratch.path().join("inside")) };
        for name in ["../outside", "..", ".hidden", "", "a/b", "a\0b", "a=b"] {
            let found = source.find_in(name, Some("stored"), |_| Some("env".into()));
            assert!(found.secret.is_none() && found.warning.is_some(), "{name:?}");
        }
    }

    #[test]
    fn a_directory_or_a_large_file_in_place_of_a_secret_is_a_warning() {
        let scratch = ScratchDir::new("secrets");
        std::fs::create_dir(scratch.path().join("folder")).unwrap();
        secret_file(&scratch, "large", &"x".repeat(70_000), 0o600);
        let source = SecretSource { dir: Some(scratch.path().to_owned()) };
        for name in ["folder", "large"] {
            let found = source.find_in(name, None, |_| None);
            assert!(found.secret.is_none() && found.warning.unwrap().contains("was not read"), "{name}");
        }
    }
}
