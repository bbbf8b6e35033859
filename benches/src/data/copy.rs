//! A COPY stream whose rows go out in large pieces.
//!
//! Format: PostgreSQL documentation, COPY, "Text Format". Nothing written here holds a backslash, tab or line end.

use crate::measure::session::Session;
use crate::Result;
use std::fmt::Display;
use std::io::Write;

const PIECE: usize = 256 * 1024;

pub struct Rows<'a> {
    writer: postgres::CopyInWriter<'a>,
    text: String,
    begun: bool,
}

impl<'a> Rows<'a> {
    /// Starts `COPY table (columns) FROM STDIN`.
    ///
    /// # Errors
    /// The server's error.
    pub fn open(session: &'a mut Session, table: &str, columns: &str) -> Result<Self> {
        let writer = session.copy_in(&format!("COPY {table} ({columns}) FROM STDIN"))?;
        Ok(Self { writer, text: String::with_capacity(PIECE * 2), begun: false })
    }

    /// The next field of the row.
    pub fn field(&mut self, value: impl Display) -> &mut Self {
        use std::fmt::Write;
        if self.begun {
            self.text.push('\t');
        }
        self.begun = true;
        let _ = write!(self.text, "{value}");
        self
    }

    /// The row is complete.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn end(&mut self) -> Result<()> {
        self.text.push('\n');
        self.begun = false;
        if self.text.len() >= PIECE {
            self.writer.write_all(self.text.as_bytes())?;
            self.text.clear();
        }
        Ok(())
    }

    /// Ends the stream; returns the rows the server took.
    ///
    /// # Errors
    /// The server's error about any of the rows.
    pub fn finish(mut self) -> Result<u64> {
        self.writer.write_all(self.text.as_bytes())?;
        Ok(self.writer.finish()?)
    }
}
