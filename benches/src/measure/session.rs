//! A connection whose errors say which statement failed, and which is cancelled when the program is to end.

use crate::stop::{Registration, Stop};
use crate::Result;
use postgres::types::{FromSqlOwned, ToSql};
use postgres::{Client, Row, SimpleQueryMessage, Statement};
use std::time::{Duration, Instant};

/// One connection.
pub struct Session {
    client: Client,
    stop: Stop,
    _registration: Registration,
}

impl Session {
    /// Takes over an open connection.
    ///
    /// # Errors
    /// When the server refuses the settings.
    pub fn open(client: Client, stop: &Stop) -> Result<Self> {
        let registration = stop.register(client.cancel_token());
        Ok(Self { client, stop: stop.clone(), _registration: registration })
    }

    /// Runs statements for what they do.
    ///
    /// # Errors
    /// What the server says, and to which statement.
    pub fn run(&mut self, sql: &str) -> Result<()> {
        self.stop.check()?;
        self.client.batch_execute(sql).map_err(|why| told(&why, sql))
    }

    /// Runs one statement and says how long the server took to answer.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn time(&mut self, sql: &str) -> Result<Duration> {
        let began = Instant::now();
        self.run(sql)?;
        Ok(began.elapsed())
    }

    /// The single value of a query.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn one<T: FromSqlOwned>(&mut self, sql: &str) -> Result<T> {
        self.stop.check()?;
        let row = self.client.query_one(sql, &[]).map_err(|why| told(&why, sql))?;
        row.try_get(0).map_err(|why| told(&why, sql))
    }

    /// The first value of a statement as text, of whatever type it is.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn text(&mut self, sql: &str) -> Result<String> {
        self.stop.check()?;
        let said = self.client.simple_query(sql).map_err(|why| told(&why, sql))?;
        let row = said.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(row.and_then(|row| row.get(0)).unwrap_or_default().to_string())
    }

    /// The rows of a query.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.stop.check()?;
        self.client.query(sql, &[]).map_err(|why| told(&why, sql))
    }

    /// A statement to be executed often.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn prepare(&mut self, sql: &str) -> Result<Statement> {
        self.stop.check()?;
        self.client.prepare(sql).map_err(|why| told(&why, sql))
    }

    /// Executes a prepared statement; `sql` is for the message of an error.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn execute(&mut self, statement: &Statement, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.stop.check()?;
        self.client.query(statement, parameters).map_err(|why| told(&why, "a prepared statement"))
    }

    /// `COPY table (columns) FROM STDIN`.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn copy_in(&mut self, sql: &str) -> Result<postgres::CopyInWriter<'_>> {
        self.stop.check()?;
        self.client.copy_in(sql).map_err(|why| told(&why, sql))
    }

    /// Whether the server has such a setting.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn has_setting(&mut self, name: &str) -> Result<bool> {
        self.one(&format!("SELECT EXISTS (SELECT FROM pg_settings WHERE name = '{name}')"))
    }
}

/// The server's message with the statement, which alone says little.
fn told(why: &postgres::Error, sql: &str) -> Box<dyn std::error::Error + Send + Sync> {
    let message = match why.as_db_error() {
        Some(error) => {
            let more = [error.detail(), error.hint()].into_iter().flatten().collect::<Vec<_>>().join("; ");
            format!("{}{}{more}", error.message(), if more.is_empty() { "" } else { ": " })
        }
        None => why.to_string(),
    };
    format!("{message}\n  in: {}", sql.trim().chars().take(600).collect::<String>()).into()
}
