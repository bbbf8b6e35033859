//! The data of the read groups: the cache with all its services, and the user's tables.

use super::copy::Rows;
use super::dice::Dice;
use super::{answers, hibp, keys, user_tables, virustotal, Sizes};
use crate::bed::{Bed, MAIN};
use crate::measure::session::Session;
use crate::{screen, Result};
use std::time::Instant;

/// Pieces the load is made in, each with a line of progress.
const PIECES: u64 = 10;

/// Makes the database of the read groups, once.
///
/// # Errors
/// The server's error, or that the extension does not see what was stored.
pub fn prepare(bed: &mut Bed) -> Result<()> {
    if bed.prepared.contains(&MAIN) {
        return Ok(());
    }
    let began = Instant::now();
    let sizes = Sizes::of(&bed.settings);
    let mut session = bed.create_database(MAIN)?;
    user_tables::create(&mut session, &sizes)?;
    fill_cache(&mut session, &sizes)?;
    user_tables::fill(&mut session, &sizes)?;
    session.run("CHECKPOINT")?;
    check(&mut session, &sizes)?;
    bed.prepared.push(MAIN);
    let size: i64 = session.one("SELECT pg_database_size(current_database())")?;
    screen::note(&format!("data are there: {} MB, {:.0} s in all", size >> 20, began.elapsed().as_secs_f64()));
    Ok(())
}

/// Answers come in the order of the addresses, those of the services mixed, as a worker stores them.
fn fill_cache(session: &mut Session, sizes: &Sizes) -> Result<()> {
    let ranges = hibp::wanted(session, sizes.ranges)?;
    let later = drop_indexes(session)?;
    let began = Instant::now();
    for piece in 0..PIECES {
        let part = |count: u64| count * piece / PIECES..count * (piece + 1) / PIECES;
        copy_answers(session, part(sizes.addresses), part(sizes.files))?;
        let part = part(ranges.len() as u64);
        hibp::store(session, &ranges[part.start as usize..part.end as usize])?;
        screen::note(&format!("cache: {} of {PIECES}, {:.0} s", piece + 1, began.elapsed().as_secs_f64()));
    }
    for index in later {
        session.run(&index)?;
    }
    session.run("VACUUM ANALYZE enrichment_cache")?;
    screen::note(&format!("cache: indexes and statistics, {:.0} s", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Drops the cache's indexes that enforce nothing; gives what makes them again.
///
/// # Errors
/// The server's error.
pub fn drop_indexes(session: &mut Session) -> Result<Vec<String>> {
    let rows = session.rows(
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
         WHERE i.indrelid = 'enrichment_cache'::regclass AND NOT i.indisunique",
    )?;
    for row in &rows {
        session.run(&format!("DROP INDEX {}", row.get::<_, String>(0)))?;
    }
    Ok(rows.iter().map(|row| row.get(1)).collect())
}

/// The answers about these addresses and files.
///
/// # Errors
/// The server's error.
pub fn copy_answers(session: &mut Session, addresses: std::ops::Range<u64>, files: std::ops::Range<u64>) -> Result<()> {
    let mut rows = Rows::open(session, "enrichment_cache", "service, cache_key, payload, fetched_at, expires_at")?;
    let per_file = (addresses.end - addresses.start) / (files.end - files.start).max(1);
    let mut files = files;
    for n in addresses.clone() {
        let address = keys::address(n);
        let mut row = |service: &str, key: &str, payload: &str| row(&mut rows, service, key, payload, n);
        row("dshield", &address, &answers::dshield(n, &address, 0))?;
        row("urlhaus", &address, &answers::urlhaus(n, &address))?;
        row("spur", &address, &answers::spur(n, &address))?;
        let of_file = (n - addresses.start).is_multiple_of(per_file.max(1));
        if let Some(file) = if of_file { files.next() } else { None } {
            row("virustotal", &keys::file_hash(file), &virustotal::report(file))?;
        }
    }
    for file in files {
        row(&mut rows, "virustotal", &keys::file_hash(file), &virustotal::report(file), file)?;
    }
    rows.finish()?;
    Ok(())
}

/// Observed within the last days, and fresh for weeks: nothing expires while it is measured.
pub fn row(rows: &mut Rows, service: &str, key: &str, payload: &str, n: u64) -> Result<()> {
    let mut dice = Dice::new(service, n);
    let now = jiff::Timestamp::now().as_second();
    let time = |seconds: i64| jiff::Timestamp::from_second(seconds).map_err(|why| why.to_string());
    let fetched = time(now - dice.below(200_000) as i64)?;
    let expires = time(now + 20 * 86_400 + dice.below(1_700_000) as i64)?;
    rows.field(service).field(key).field(payload).field(fetched).field(expires).end()
}

/// What was written past the extension's functions must be seen by them and by its views.
fn check(session: &mut Session, sizes: &Sizes) -> Result<()> {
    let hit: bool = session.one(&format!("SELECT enrich_get('dshield', '{}') IS NOT NULL", keys::address(0)))?;
    if !hit {
        return Err(
            "enrich_get does not find a row that was loaded by COPY: the load no longer fits the extension".into()
        );
    }
    let expected = [
        ("dshield", sizes.addresses),
        ("spur", sizes.addresses),
        ("urlhaus", sizes.addresses),
        ("virustotal", sizes.files),
    ];
    for (service, expected) in expected {
        let seen: i64 = session.one(&format!("SELECT count(*) FROM enrichment_{service}"))?;
        if seen as u64 != expected {
            return Err(format!("enrichment_{service} shows {seen} of {expected} rows that were loaded by COPY").into());
        }
    }
    Ok(())
}
