//! Comparing the files of an import with what the cache holds, one by one.

use super::run::{next_part, open};
use super::take::{expiry, resolve};
use crate::core::disk::item::{shown, Answer, Item, What, Whose};
use crate::core::disk::known::Known;
use crate::core::error::Error;
use crate::pg::convert;
use crate::pg::store::migration::compared::{compare as compare_rows, compare_orphans, Compared};
use crate::pg::store::migration::{self as rows};
use std::collections::BTreeMap;

/// Files compared with one statement.
const BATCH: usize = 500;
/// The most differences that are listed; all are counted.
const MOST_LISTED: usize = 10_000;

/// What a comparison found: a file that differs, or (without a path) how many files there are of a kind.
pub struct Finding {
    pub path: Option<String>,
    pub service: Option<String>,
    pub key: Option<String>,
    pub finding: &'static str,
    pub files: i64,
}

const SAME: &str = "same";
const NEWER: &str = "newer in the cache";
const EXPIRED: &str = "expired";
const NO_ANSWER: &str = "malformed or unreadable";
const MISSING: &str = "missing in the cache";
const OLDER: &str = "older in the cache";
const DIFFERS: &str = "differs";

/// Reads the directory of a run again and compares.
///
/// # Errors
/// No such run, or a directory that cannot be read.
pub fn verify(run: i64) -> Result<Vec<Finding>, Error> {
    let row = rows::look(run)?.ok_or_else(|| Error::InvalidArgument {
        message: format!("no import of a directory has the number {run}"),
        hint: "The table enrichment_migration lists the imports that were run.".to_owned(),
    })?;
    let (mut pipeline, mut known) = open(&row.directory, row.services.as_deref(), None, true)?;
    let mut found = Findings::default();
    let mut items: Vec<Item> = Vec::with_capacity(BATCH);
    while let Some(part) = next_part(&mut pipeline)? {
        items.extend(part);
        if items.len() >= BATCH {
            compare(&std::mem::take(&mut items), &mut found, &mut known)?;
        }
    }
    compare(&items, &mut found, &mut known)?;
    Ok(found.rows())
}

#[derive(Default)]
pub(super) struct Findings {
    counts: BTreeMap<&'static str, i64>,
    listed: Vec<Finding>,
}

impl Findings {
    fn note(&mut self, item: &Item, answer: Option<&Answer>, key: Option<&str>, finding: &'static str) {
        *self.counts.entry(finding).or_default() += 1;
        if matches!(finding, MISSING | OLDER | DIFFERS) && self.listed.len() < MOST_LISTED {
            self.listed.push(Finding {
                path: Some(shown(&item.path)),
                service: answer.map(|answer| answer.service.name.clone()),
                key: key.map(str::to_owned),
                finding,
                files: 1,
            });
        }
    }

    pub(super) fn rows(self) -> Vec<Finding> {
        let count = |(finding, files)| Finding { path: None, service: None, key: None, finding, files };
        self.listed.into_iter().chain(self.counts.into_iter().map(count)).collect()
    }
}

/// A file, what it says, and whose it is where that is known.
type Compare<'a> = (&'a Item, &'a Answer, Option<&'a str>);

pub(super) fn compare(items: &[Item], found: &mut Findings, known: &mut Known) -> Result<(), Error> {
    let now = convert::clock();
    let keys = resolve(items, known);
    let mut groups: BTreeMap<(&str, bool), Vec<Compare>> = BTreeMap::new();
    for (item, key) in items.iter().zip(&keys) {
        match &item.what {
            What::Answer(answer) => {
                let group = groups.entry((&answer.service.name, key.is_some())).or_default();
                group.push((item, answer, key.as_deref()));
            }
            What::Malformed(_) | What::Unreadable(_) => found.note(item, None, None, NO_ANSWER),
        }
    }
    for ((service, known), files) in groups {
        let mut batch = rows::Batch::of(service);
        let mut digests: Vec<&[u8]> = Vec::new();
        for (_, answer, key) in &files {
            match (key, &answer.key) {
                (Some(key), _) => batch.keys.push(key),
                (None, Whose::Digest { digest, .. }) => digests.push(digest),
                (None, Whose::Key(_)) => (), // a key that is named is known
            }
            batch.payloads.push(rows::Payload::of(answer));
            batch.ranges.push(answer.body.ranges.as_deref());
        }
        let compared = if known { compare_rows(&batch)? } else { compare_orphans(&batch, digests)? };
        for ((item, answer, key), row) in files.into_iter().zip(compared) {
            found.note(item, Some(answer), key, finding(answer, key, row, now));
        }
    }
    Ok(())
}

fn finding(answer: &Answer, key: Option<&str>, row: Option<Compared>, now: i64) -> &'static str {
    match row {
        None if expiry(answer, key) <= now => EXPIRED,
        None => MISSING,
        Some(row) if row.fetched_at > answer.fetched_at => NEWER,
        Some(row) if row.fetched_at < answer.fetched_at => OLDER,
        Some(row) if row.same => SAME,
        Some(_) => DIFFERS,
    }
}
