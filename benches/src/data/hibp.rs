//! HIBP ranges: about 900 suffixes each, among them those of passwords that are really tried.

use super::dice::Dice;
use crate::measure::session::Session;
use crate::Result;
use std::fmt::Write;

/// Ranges stored by one call.
const RANGES_PER_CALL: usize = 100;
/// This share of the passwords whose range is cached is breached.
const BREACHED: f64 = 0.6;

/// A prefix, and suffixes that shall stand in its range.
pub type Wanted = (String, Vec<String>);

/// The prefixes to be cached: those of the passwords in `password_tracking`, at most so many.
///
/// # Errors
/// The server's error.
pub fn wanted(session: &mut Session, most: u64) -> Result<Vec<Wanted>> {
    let rows = session.rows(&format!(
        "SELECT prefix, array_agg(suffix) FROM (
            SELECT enrich_hibp_prefix(password_text) AS prefix, enrich_hibp_suffix(password_text) AS suffix
            FROM password_tracking) p
         GROUP BY prefix ORDER BY hashtext(prefix), prefix LIMIT {most}"
    ))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Stores these ranges as the extension does, so in whatever form it keeps them.
///
/// # Errors
/// The server's error.
pub fn store(session: &mut Session, ranges: &[Wanted]) -> Result<()> {
    let statement = session.prepare("SELECT enrich_store_many('hibp', $1::text[], $2::text[]::jsonb[])")?;
    for call in ranges.chunks(RANGES_PER_CALL) {
        let keys: Vec<&str> = call.iter().map(|(prefix, _)| prefix.as_str()).collect();
        let payloads: Vec<String> = call.iter().map(|(prefix, suffixes)| range(prefix, suffixes)).collect();
        session.execute(&statement, &[&keys, &payloads])?;
    }
    Ok(())
}

/// The JSON of one range: suffix and count.
pub fn range(prefix: &str, suffixes: &[String]) -> String {
    let mut dice = Dice::new("hibp", u64::from_str_radix(prefix, 16).unwrap_or_default());
    let count = dice.between(850, 950);
    let mut text = String::with_capacity(48_000);
    text.push('{');
    for suffix in suffixes {
        if dice.chance(BREACHED) {
            let _ = write!(text, "\"{suffix}\":{},", seen(&mut dice));
        }
    }
    for _ in 0..count {
        let (a, b, c) = (dice.draw(), dice.draw(), dice.draw() & 0xfff);
        let _ = write!(text, "\"{a:016X}{b:016X}{c:03X}\":{},", seen(&mut dice));
    }
    text.pop();
    text.push('}');
    text
}

/// Half of the passwords were seen once or twice, few very often.
fn seen(dice: &mut Dice) -> u64 {
    (1.0 / (1.0 - dice.unit()).powf(1.2)).min(9_000_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_range_has_about_900_suffixes_and_some_of_the_wanted_ones() {
        let wanted: Vec<String> = (0..100).map(|n| format!("{n:035}")).collect();
        let text = range("5BAA6", &wanted);
        assert!((30_000..60_000).contains(&text.len()), "{}", text.len());
        let value: Value = serde_json::from_str(&text).unwrap();
        let range = value.as_object().unwrap();
        assert!(range
            .keys()
            .all(|key| key.len() == 35 && key.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_lowercase())));
        assert!(range.values().all(|count| count.as_u64().is_some_and(|count| count > 0)));
        let known = wanted.iter().filter(|suffix| range.contains_key(*suffix)).count();
        assert!((40..80).contains(&known), "{known}");
        assert!((850..=1_050).contains(&range.len()), "{}", range.len());
    }
}
