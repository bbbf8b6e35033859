//! What an import did with each file, counted so that it adds up.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What became of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Imported,
    /// The cache knew something newer.
    OlderThanRow,
    Expired,
    /// This very observation was there, or another file of the same key was taken.
    Duplicate,
    Malformed,
    Unreadable,
    /// Kept under its digest.
    UnknownKey,
}

/// Sums over files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub files: u64,
    pub bytes: u64,
    pub imported: u64,
    pub older_than_row: u64,
    pub expired: u64,
    pub duplicate: u64,
    pub malformed: u64,
    pub unreadable: u64,
    pub unknown_key: u64,
}

impl Counts {
    fn note(&mut self, fate: Fate, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
        *self.of(fate) += 1;
    }

    fn of(&mut self, fate: Fate) -> &mut u64 {
        match fate {
            Fate::Imported => &mut self.imported,
            Fate::OlderThanRow => &mut self.older_than_row,
            Fate::Expired => &mut self.expired,
            Fate::Duplicate => &mut self.duplicate,
            Fate::Malformed => &mut self.malformed,
            Fate::Unreadable => &mut self.unreadable,
            Fate::UnknownKey => &mut self.unknown_key,
        }
    }

    fn was_named(&mut self, fate: Fate) {
        self.unknown_key = self.unknown_key.saturating_sub(1);
        *self.of(fate) += 1;
    }
}

/// The report of a run; files that are no service's count in `all` only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    #[serde(flatten)]
    pub all: Counts,
    #[serde(default)]
    pub services: BTreeMap<String, Counts>,
}

impl Report {
    pub fn note(&mut self, service: Option<&str>, fate: Fate, bytes: u64) {
        self.all.note(fate, bytes);
        if let Some(service) = service {
            if !self.services.contains_key(service) {
                self.services.insert(service.to_owned(), Counts::default());
            }
            if let Some(counts) = self.services.get_mut(service) {
                counts.note(fate, bytes);
            }
        }
    }

    /// The key of a file that was noted as of an unknown one is known after all, and this became of the file.
    pub fn was_named(&mut self, service: &str, fate: Fate) {
        self.all.was_named(fate);
        if let Some(counts) = self.services.get_mut(service) {
            counts.was_named(fate);
        }
    }

    /// Reads the text of [`Report::to_json`]; nothing is an empty report.
    pub fn parse(text: Option<&str>) -> Option<Report> {
        text.map_or_else(|| Some(Report::default()), |text| serde_json::from_str(text).ok())
    }

    pub fn to_json(&self) -> String {
        // maps with texts as keys and numbers as values: nothing that could fail
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_adds_up_and_reads_back() {
        let fates = [
            Fate::Imported,
            Fate::OlderThanRow,
            Fate::Expired,
            Fate::Duplicate,
            Fate::Malformed,
            Fate::Unreadable,
            Fate::UnknownKey,
        ];
        let mut report = Report::default();
        for (n, fate) in fates.into_iter().enumerate() {
            for _ in 0..=n {
                report.note((n % 2 == 0).then_some("spur"), fate, 10);
            }
        }
        let Counts { files, bytes, imported, older_than_row, expired, duplicate, malformed, unreadable, unknown_key } =
            report.all;
        assert_eq!((files, bytes), (28, 280));
        let parts = [imported, older_than_row, expired, duplicate, malformed, unreadable, unknown_key];
        assert_eq!(parts, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(report.services["spur"].files, 16);
        assert_eq!(Report::parse(Some(&report.to_json())), Some(report.clone()));
        report.was_named("spur", Fate::Duplicate);
        assert_eq!((report.all.files, report.all.bytes), (28, 280));
        assert_eq!((report.all.duplicate, report.all.unknown_key), (5, 6));
        assert_eq!((report.services["spur"].files, report.services["spur"].unknown_key), (16, 6));
        assert_eq!(Report::parse(None), Some(Report::default()));
        assert_eq!(Report::parse(Some("[]")), None);
    }
}
