//! psql of the private tree: what it prints is what the user will see when repeating the query.

use crate::Result;
use std::path::PathBuf;
use std::process::Command;

/// The program and the connection.
pub struct Psql {
    pub program: PathBuf,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
}

impl Psql {
    fn arguments(&self) -> [String; 8] {
        let [host, port] = [self.host.clone(), self.port.to_string()];
        ["-h".into(), host, "-p".into(), port, "-U".into(), self.user.clone(), "-d".into(), self.database.clone()]
    }

    /// The command line for the user.
    pub fn command_line(&self) -> String {
        format!("{} {}", self.program.display(), self.arguments().join(" "))
    }

    /// Runs one statement and returns psql's table.
    ///
    /// # Errors
    /// psql's own words when the statement fails.
    pub fn table(&self, sql: &str) -> Result<String> {
        let output = Command::new(&self.program)
            .args(self.arguments())
            .args(["-X", "-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-P", "null=∅"])
            .args(["-P", "format=wrapped", "-P", "columns=118", "-c", sql])
            .env("PGCLIENTENCODING", "UTF8")
            .output()?;
        if !output.status.success() {
            return Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim_end()).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
    }
}
