//! The data of the groups that write: a cache of one service, a plain copy of it, and answers that wait to be stored.

use super::copy::Rows;
use super::{answers, keys, main_load};
use crate::bed::{Bed, STORE};
use crate::groups::like_the_cache;
use crate::measure::session::Session;
use crate::settings::Settings;
use crate::{screen, Result};
use std::time::Instant;

/// Entries that are always there, and entries that wait.
pub fn base(settings: &Settings) -> u64 {
    settings.rows(300_000)
}

pub fn staged(settings: &Settings) -> u64 {
    settings.rows(100_000)
}

/// Makes the database of the groups that write, once.
///
/// # Errors
/// The server's error.
pub fn prepare(bed: &mut Bed) -> Result<()> {
    if bed.prepared.contains(&STORE) {
        return Ok(());
    }
    let began = Instant::now();
    let (base, staged) = (base(&bed.settings), staged(&bed.settings));
    let mut session = bed.create_database(STORE)?;
    let mut rows = Rows::open(&mut session, "enrichment_cache", "service, cache_key, payload, fetched_at, expires_at")?;
    for n in 0..base {
        let address = keys::address(n);
        main_load::row(&mut rows, "dshield", &address, &answers::dshield(n, &address, 0), n)?;
    }
    rows.finish()?;
    session.run("VACUUM ANALYZE enrichment_cache")?;
    like_the_cache(&mut session, "bench.plain", "true")?;
    stage(&mut session, base, staged)?;
    bed.prepared.push(STORE);
    screen::note(&format!(
        "{base} entries twice and {staged} to be stored are there, {:.0} s",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Answers with the numbers from `base` on: `p` is the first, `p2` a later one of the same key.
fn stage(session: &mut Session, base: u64, staged: u64) -> Result<()> {
    session.run("CREATE UNLOGGED TABLE bench.stage (n bigint PRIMARY KEY, k text NOT NULL, p jsonb NOT NULL, p2 jsonb NOT NULL)")?;
    let mut rows = Rows::open(session, "bench.stage", "n, k, p, p2")?;
    for n in 0..staged {
        let address = keys::address(base + n);
        let [p, p2] = [0, 1].map(|generation| answers::dshield(base + n, &address, generation));
        rows.field(n).field(&address).field(p).field(p2).end()?;
    }
    rows.finish()?;
    session.run("VACUUM ANALYZE bench.stage")
}

/// Takes what was staged out of both tables again, and the history with it.
///
/// # Errors
/// The server's error.
pub fn clear(session: &mut Session, table: &str) -> Result<()> {
    session
        .run(&format!("DELETE FROM {table} c USING bench.stage s WHERE c.service = 'dshield' AND c.cache_key = s.k"))?;
    session.run("TRUNCATE enrichment_history")?;
    session.run(&format!("VACUUM ANALYZE {table}"))
}
