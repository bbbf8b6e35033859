//! One COPY stream in text format: fields are added one by one, a row ends with `end`.
//!
//! Format: PostgreSQL documentation, COPY, "Text Format".

use super::Result;
use jiff::Timestamp;
use postgres::CopyInWriter;
use std::fmt::Display;
use std::io::Write;

pub(super) struct Rows<'a> {
    writer: CopyInWriter<'a>,
    line: Vec<u8>,
}

impl<'a> Rows<'a> {
    /// Starts `COPY table (columns) FROM STDIN`. `table` is qualified and quoted already.
    pub(super) fn open(client: &'a mut postgres::Client, table: &str, columns: &str) -> Result<Rows<'a>> {
        let writer = client.copy_in(&format!("COPY {table} ({columns}) FROM STDIN"))?;
        Ok(Rows { writer, line: Vec::with_capacity(1024) })
    }

    fn separate(&mut self) {
        if !self.line.is_empty() {
            self.line.push(b'\t');
        }
    }

    /// A text field, escaped.
    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.separate();
        for &byte in value.as_bytes() {
            match byte {
                b'\\' => self.line.extend_from_slice(b"\\\\"),
                b'\t' => self.line.extend_from_slice(b"\\t"),
                b'\n' => self.line.extend_from_slice(b"\\n"),
                b'\r' => self.line.extend_from_slice(b"\\r"),
                _ => self.line.push(byte),
            }
        }
        self
    }

    /// A text field or NULL.
    pub(super) fn optional(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.plain("\\N"),
        }
    }

    /// A field whose text needs no escape: a number, a flag.
    pub(super) fn plain(&mut self, value: impl Display) -> &mut Self {
        self.separate();
        let _ = write!(self.line, "{value}");
        self
    }

    /// A time, given in seconds since 1970.
    pub(super) fn time(&mut self, seconds: i64) -> &mut Self {
        let at = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        self.plain(at)
    }

    /// Sends the row.
    pub(super) fn end(&mut self) -> Result<()> {
        self.line.push(b'\n');
        self.writer.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }

    /// Ends the stream and returns the number of rows the server took.
    pub(super) fn finish(self) -> Result<u64> {
        Ok(self.writer.finish()?)
    }
}
