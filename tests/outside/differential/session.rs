//! One session of the differential test: what is open in it, and what its statements may fail with.

use super::steps;
use crate::reads::{comparison, force_workers, pid, Reads, Seen};
use crate::support::{run, said};
use postgres::{Client, Statement};
use std::fmt;

pub const ISOLATION: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// What a client has to live with among other sessions, and tries again: a serialization failure, a lock that is not
/// to be had in time, a deadlock, a key that somebody else has inserted, a table whose rows a cursor is reading.
const EXPECTED: [&str; 5] = ["40001", "55P03", "40P01", "23505", "55006"];
/// VACUUM waits for the pages that open cursors read, and no lock_timeout ends that.
const WAITED: &str = "57014";
/// A transaction that has made a cursor WITH HOLD cannot be prepared.
const CANNOT_PREPARE: &str = "0A000";

pub struct Transaction {
    pub isolation: &'static str,
    pub read_only: bool,
    pub savepoints: usize,
    pub statements: usize,
}

pub struct Session {
    pub name: char,
    pub client: Client,
    pub open: Option<Transaction>,
    /// Whether a cursor is open, and whether it outlives the transaction.
    pub cursor: Option<bool>,
    pid: i32,
    compared: Statement,
    glance: Statement,
    wrapped: Statement,
    crowded: Statement,
}

/// How a session asks: with how large a memo, and whether by parallel workers.
#[derive(Clone, Copy)]
pub struct Ways {
    pub memo: &'static str,
    pub workers: bool,
}

/// No memo, one that holds half of the crowd, and one that holds everything.
pub const MEMOS: [&str; 3] = ["0", "64kB", "256MB"];

/// How a statement ended: done, or with an error.
pub type Outcome = Result<(), Refusal>;

pub enum Refusal {
    /// One that a client has to live with, by its SQLSTATE.
    Expected(String),
    /// What must not be.
    Defect(String),
}

impl Session {
    pub fn new(reads: &Reads, name: char, ways: Ways) -> Session {
        let mut client = reads.client();
        run(&mut client, &format!("SET client_min_messages = error; SET enrichment_cache.memo_size = '{}'", ways.memo));
        if ways.workers {
            force_workers(&mut client);
        }
        let pid = pid(&mut client);
        let [compared, glance, wrapped, crowded] = ["compared", "glance", "wrapped", "crowded"]
            .map(|view| client.prepare(&comparison(view)).unwrap_or_else(|why| panic!("{why}")));
        Session { name, client, open: None, cursor: None, pid, compared, glance, wrapped, crowded }
    }

    /// Runs a statement of a step. After an expected error the transaction goes back to its last savepoint, or ends.
    pub fn run(&mut self, sql: &str) -> Outcome {
        let done = self.client.batch_execute(sql);
        if let Some(transaction) = &mut self.open {
            transaction.statements += 1;
        }
        done.map_err(|error| self.failed(sql, &error))
    }

    fn failed(&mut self, sql: &str, error: &postgres::Error) -> Refusal {
        let code = error.code().map_or("", |code| code.code()).to_string();
        let may_be = EXPECTED.contains(&code.as_str())
            || code == CANNOT_PREPARE && sql.starts_with("PREPARE")
            || steps::known_bug(sql, error)
            || code == WAITED && sql.starts_with("VACUUM")
            || code == "25006" && self.open.as_ref().is_some_and(|transaction| transaction.read_only);
        if !may_be {
            return Refusal::Defect(format!("{sql}: {}", said(error)));
        }
        let ended = sql.starts_with("COMMIT") || sql.starts_with("PREPARE");
        match &mut self.open {
            // a serialization failure is of the whole transaction
            Some(transaction) if transaction.savepoints > 0 && code != "40001" && !ended => {
                let savepoint = transaction.savepoints;
                let back = format!("ROLLBACK TO SAVEPOINT s{savepoint}");
                self.client.batch_execute(&back).unwrap_or_else(|why| panic!("{self}: {back}: {}", said(&why)));
                self.close();
            }
            Some(_) => self.end("ROLLBACK"),
            None => {}
        }
        Refusal::Expected(code)
    }

    /// Ends the transaction for good.
    pub fn end(&mut self, how: &str) {
        self.open = None;
        self.client.batch_execute(how).unwrap_or_else(|why| panic!("{self}: {how}: {}", said(&why)));
        if how.starts_with("ROLLBACK") || self.cursor == Some(false) {
            self.close();
        }
    }

    /// Whatever cursor is left.
    fn close(&mut self) {
        self.cursor = None;
        self.client.batch_execute("CLOSE ALL").unwrap_or_else(|why| panic!("{self}: {}", said(&why)));
    }

    /// Compares what one view gives; the differences, or nothing when the answers are the same, and how many there were.
    pub fn compare(&mut self, view: &str) -> Result<Seen, String> {
        let statement = match view {
            "glance" => &self.glance,
            "wrapped" => &self.wrapped,
            "crowded" => &self.crowded,
            _ => &self.compared,
        };
        match self.client.query_one(statement, &[]) {
            Ok(row) if row.get::<_, &str>(1).is_empty() => Ok(Seen::of(&row, self.pid)),
            Ok(row) => Err(row.get(1)),
            Err(error) => self.unless_defect(view, &error),
        }
    }

    /// No answers, when the error is an expected one.
    fn unless_defect(&mut self, sql: &str, error: &postgres::Error) -> Result<Seen, String> {
        match self.failed(sql, error) {
            Refusal::Expected(_) => Ok(Seen::default()),
            Refusal::Defect(what) => Err(what),
        }
    }

    /// Fetches some rows of the open cursor, each of which holds both answers.
    pub fn fetch(&mut self, rows: usize) -> Result<Seen, String> {
        let sql = format!("FETCH {rows} FROM look");
        let fetched = match self.client.query(&sql, &[]) {
            Ok(fetched) => fetched,
            Err(error) => return self.unless_defect(&sql, &error),
        };
        let mut seen = Seen::default();
        for row in &fetched {
            let (got, want): (Option<&str>, Option<&str>) = (row.get(1), row.get(2));
            if got != want {
                return Err(format!("cursor: {} gives {got:?}, plain SQL {want:?}", row.get::<_, &str>(0)));
            }
            seen.answers += i64::from(got.is_some());
        }
        if let [first, .., last] = &fetched[..] {
            seen.passes = last.get::<_, i64>(3) - first.get::<_, i64>(3);
        }
        Ok(seen)
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        match &self.open {
            None => write!(f, "(idle)"),
            Some(t) => write!(f, "({}, {} savepoints, {} statements)", t.isolation, t.savepoints, t.statements),
        }
    }
}
