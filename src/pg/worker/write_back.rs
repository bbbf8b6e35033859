//! Answers go to the rows that wait for them, a bounded batch of keys and one commit at a time.

use super::{steps::Steps, xact};
use crate::core::error::Error;
use crate::pg::store::indicators;
use crate::pg::store::sources::{self, Shape, Source};
use crate::pg::store::user_tables;

/// Writes one batch of each source; true when one of them had anything to write.
pub fn all(standing: &[Source], steps: &mut Steps) -> bool {
    let mut busy = false;
    for source in standing {
        busy |= steps.run(&format!("write-back to {}", source.name), || batch(source));
    }
    busy
}

fn batch(source: &Source) -> Result<bool, Error> {
    let written = xact::run(c"enrichment_cache: writing back", || {
        let keys = indicators::dirty(&source.name, source.commit_interval)?;
        if keys.is_empty() {
            return Ok(false);
        }
        if source.shape != Shape::None {
            user_tables::write_back(source, &keys)?;
        }
        indicators::written(&source.name, keys)?;
        Ok(true)
    });
    if let Err(error) = &written {
        let why = error.to_string();
        xact::run(c"enrichment_cache: noting a failed write", || sources::problem(&source.name, Some(&why)))?;
    }
    written
}
