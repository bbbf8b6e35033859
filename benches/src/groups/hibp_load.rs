//! A downloaded corpus of HIBP into the cache, against COPY of the same file.

use crate::bed::Bed;
use crate::data::hibp;
use crate::measure::rounds::{in_turns, Variant};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::{bytes, grouped};
use crate::report::table::Table;
use crate::{screen, Result};
use std::fs;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DATABASE: &str = "bench_hibp_load";
const OURS: &str = "`CALL enrich_hibp_load`";
const COPY: &str = "`COPY` into a table of hash and count";
const COPY_KEYED: &str = "the same with a primary key on the hash";

/// Ranges at scale 1, of the 1,048,576 of the whole corpus.
const RANGES: u64 = 4_000;

/// The file, gone with this.
struct Corpus {
    directory: PathBuf,
    file: PathBuf,
    hashes: u64,
    bytes: u64,
}

impl Drop for Corpus {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let ranges = bed.settings.rows(RANGES);
    let mut session = bed.create_database(DATABASE)?;
    let corpus = plant(ranges)?;
    let (path, hashes) = (corpus.file.display().to_string(), corpus.hashes);
    let copy = |table: &str, key: &str| {
        let run = format!(
            "DROP TABLE IF EXISTS bench.{table}; CREATE TABLE bench.{table} (hash text {key}, seen bigint);
             COPY bench.{table} FROM '{path}' WITH (DELIMITER ':')"
        );
        move |session: &mut Session| Ok(rate(hashes, session.time(&run)?))
    };
    session.run("CREATE SCHEMA IF NOT EXISTS bench; UPDATE enrichment_service SET enabled = false")?;
    let load = format!("CALL enrich_hibp_load('{path}', begin_anew => true)");
    let variants = vec![
        Variant::new(OURS, |session: &mut Session| {
            session.run("TRUNCATE enrichment_cache")?;
            let took = session.time(&load)?;
            let kept: i64 = session.one("SELECT count(*) FROM enrichment_cache WHERE service = 'hibp'")?;
            match kept as u64 == ranges {
                true => Ok(rate(hashes, took)),
                false => Err(format!("{kept} ranges are kept of {ranges}").into()),
            }
        }),
        Variant::new(COPY, copy("plain", "")),
        Variant::new(COPY_KEYED, copy("keyed", "PRIMARY KEY")),
    ];
    let measured = in_turns(bed, "hibp-load", &mut session, variants)?;
    let mut findings = Findings::default();
    findings.say(format!(
        "A file of {} hashes in {} ranges, {}, in the form of the corpus (ordered by hash, `HASH:COUNT`), in the page cache. The cache is empty before each load; COPY \
         reads the same file into a new table. Each is one call on a durable server.",
        grouped(hashes as f64),
        grouped(ranges as f64),
        bytes(corpus.bytes as f64)
    ));
    findings.table(Table::of("", "hashes a second", &measured, &[("× COPY", COPY), ("× COPY with a key", COPY_KEYED)]));
    findings.target(Target::at_least("a corpus of HIBP, × rate of COPY", 0.9, measured.ratio(OURS, COPY)));
    Ok(findings)
}

fn rate(hashes: u64, took: Duration) -> f64 {
    hashes as f64 / took.as_secs_f64()
}

/// Writes the file where the server can read it.
fn plant(ranges: u64) -> Result<Corpus> {
    screen::note("a corpus of HIBP");
    let directory = std::env::temp_dir().join(format!("enrichment-bench-corpus-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let file = directory.join("pwned-passwords-sha1-ordered-by-hash.txt");
    let mut corpus = Corpus { directory, file, hashes: 0, bytes: 0 };
    fs::set_permissions(&corpus.directory, fs::Permissions::from_mode(0o755))?;
    write(&mut corpus, ranges)?;
    corpus.bytes = fs::metadata(&corpus.file)?.len();
    fs::set_permissions(&corpus.file, fs::Permissions::from_mode(0o644))?;
    Ok(corpus)
}

fn write(corpus: &mut Corpus, ranges: u64) -> Result<()> {
    let mut out = BufWriter::new(fs::File::create::<&Path>(&corpus.file)?);
    for n in 0..ranges {
        // a file that ends before the last of all prefixes may have been cut off: its last range would be left out
        let prefix = format!("{:05X}", if n + 1 == ranges { 0xF_FFFF } else { n });
        let range: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&hibp::range(&prefix, &[]))?;
        let mut lines: Vec<(&String, &serde_json::Value)> = range.iter().collect();
        lines.sort_by_key(|(suffix, _)| *suffix);
        corpus.hashes += lines.len() as u64;
        for (suffix, seen) in lines {
            writeln!(out, "{prefix}{suffix}:{seen}")?;
        }
    }
    Ok(out.flush()?)
}
