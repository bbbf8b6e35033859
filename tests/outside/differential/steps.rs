//! The statements that the differential test draws: each one line of SQL for one session.

use crate::reads::Dice;

const EXPIRY: [&str; 8] = [
    "now() + interval '1 hour'",
    "now() + interval '1 day'",
    "clock_timestamp() + interval '15 milliseconds'",
    "now() - interval '30 minutes'",
    "now() - interval '3 hours'",
    "now()",
    "'infinity'",
    "'-infinity'",
];

/// A condition that holds for some rows: one key, one service, or a tenth of everything.
fn some_rows(dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => format!("service = '{}'", service(dice)),
        1 => format!("id % 10 = {}", dice.below(10)),
        _ => format!("(service, cache_key) = (SELECT u.service, u.cache_key FROM universe u WHERE u.n = {})", n(dice)),
    }
}

fn service(dice: &mut Dice) -> &'static str {
    dice.pick(&["dshield", "assets", "virustotal", "urlhaus", "spur"])
}

/// The number of a key that can be stored.
fn n(dice: &mut Dice) -> usize {
    1 + dice.below(39)
}

fn seed(dice: &mut Dice) -> f64 {
    dice.below(1_000_000) as f64 / 1e6
}

fn store(dice: &mut Dice) -> String {
    let answer = match dice.below(6) {
        0 => "NULL, response_status => 'not_found'".to_string(),
        1 => "NULL, response_status => 'error', error_message => 'x'".to_string(),
        2 => format!("made({}), ttl => '1 hour', fetched_at => now() - interval '90 minutes'", dice.below(50)),
        3 => format!("made({}), ttl => '15 milliseconds'", dice.below(50)),
        4 => format!("made({}), ttl => '0'", dice.below(50)),
        _ => format!("made({})", dice.below(50)),
    };
    format!("SELECT enrich_store(service, raw, {answer}) FROM universe WHERE n = {}", n(dice))
}

fn store_many(dice: &mut Dice) -> String {
    let (service, modulus) = (service(dice), 2 + dice.below(5));
    let ttl = dice.pick(&["NULL", "'15 milliseconds'", "'1 hour'"]);
    format!(
        "SELECT enrich_store_many('{service}', coalesce(array_agg(raw), '{{}}'), coalesce(array_agg(made(n)), '{{}}'), {ttl})
        FROM universe WHERE service = '{service}' AND cache_key IS NOT NULL AND n % {modulus} = {}",
        dice.below(modulus)
    )
}

fn insert(dice: &mut Dice) -> String {
    let expires = dice.pick(&EXPIRY);
    let conflict = dice.pick(&["", "ON CONFLICT DO NOTHING"]);
    let (payload, status) = dice.pick(&[("made(n)", "success"), ("made(7)", "success"), ("NULL", "not_found")]);
    format!(
        "INSERT INTO enrichment_cache (service, cache_key, payload, response_status, expires_at)
        SELECT service, cache_key, {payload}, '{status}', {expires} FROM universe
        WHERE n IN ({}, {}) {conflict}",
        n(dice),
        n(dice)
    )
}

fn update(dice: &mut Dice) -> String {
    let rows = some_rows(dice);
    match dice.below(5) {
        0 => format!("UPDATE enrichment_cache SET payload = NULL, response_status = 'not_found' WHERE {rows}"),
        1 | 2 => format!("UPDATE enrichment_cache SET expires_at = {} WHERE {rows}", dice.pick(&EXPIRY)),
        // to another key and back, or where it is taken
        3 => format!(
            "UPDATE enrichment_cache SET cache_key = (SELECT cache_key FROM universe WHERE n = {})
            WHERE (service, cache_key) = (SELECT service, cache_key FROM universe WHERE n = {})",
            n(dice),
            n(dice)
        ),
        _ => format!(
            "UPDATE enrichment_cache SET payload = made({}), response_status = 'success' WHERE {rows}",
            dice.below(20)
        ),
    }
}

fn hot(dice: &mut Dice) -> String {
    let rows = some_rows(dice);
    format!("UPDATE enrichment_cache SET hit_count = hit_count + 1, accessed_at = clock_timestamp() WHERE {rows}")
}

fn invalidate(dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => format!("SELECT enrich_invalidate('{}')", service(dice)),
        n @ (1 | 2) => {
            format!("SELECT enrich_invalidate(service, raw, {}) FROM universe WHERE n = {}", n == 1, 1 + dice.below(39))
        }
        _ => format!("SELECT enrich_invalidate('{}', hard => true)", service(dice)),
    }
}

/// Divides by zero where the answers differ.
fn returning(dice: &mut Dice) -> String {
    format!(
        "UPDATE enrichment_cache u SET payload = made(3), response_status = 'success' WHERE {}
        RETURNING 1 / (enrich_get(service, cache_key) IS NOT DISTINCT FROM accepted(enrich_get(service, cache_key),
            ARRAY(SELECT c.payload FROM enrichment_cache c
                WHERE c.service = u.service AND c.cache_key = u.cache_key AND c.expires_at > now()),
            ARRAY(SELECT c.payload FROM enrichment_cache c WHERE c.service = u.service AND c.cache_key = u.cache_key)))::int",
        some_rows(dice)
    )
}

fn with_changes(dice: &mut Dice) -> String {
    format!(
        "WITH gone AS (DELETE FROM enrichment_cache WHERE {} RETURNING id)
        SELECT 1 / (count(*) FILTER (WHERE g.got IS DISTINCT FROM g.want) = 0)::int FROM glance g, (SELECT count(*) FROM gone) n",
        some_rows(dice)
    )
}

/// Something about a part of the crowd, mostly that it is there again.
fn crowd(dice: &mut Dice) -> String {
    let part = format!("cache_key IN (SELECT cache_key FROM crowd WHERE n % 7 = {})", dice.below(7));
    match dice.below(6) {
        0 => format!("DELETE FROM enrichment_cache WHERE service = 'dshield' AND {part}"),
        1 | 2 => format!(
            "UPDATE enrichment_cache SET expires_at = {} WHERE service = 'dshield' AND {part}",
            dice.pick(&EXPIRY)
        ),
        _ => crowd_again(dice),
    }
}

/// All of the crowd, or every second or third of it.
pub fn crowd_again(dice: &mut Dice) -> String {
    let modulus = 1 + dice.below(3);
    format!(
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
        SELECT service, cache_key, made(n), now() + interval '1 hour' FROM crowd WHERE n % {modulus} = {}
        GROUP BY n, service, cache_key ON CONFLICT (service, cache_key)
        DO UPDATE SET payload = EXCLUDED.payload, response_status = 'success', expires_at = EXCLUDED.expires_at",
        dice.below(modulus)
    )
}

/// A statement that may run in a transaction or alone.
pub fn statement(dice: &mut Dice) -> String {
    if dice.percent(10) {
        return crowd(dice);
    }
    match dice.below(100) {
        0..16 => store(dice),
        16..26 => store_many(dice),
        26..36 => insert(dice),
        36..50 => update(dice),
        50..57 => format!("DELETE FROM enrichment_cache WHERE {}", some_rows(dice)),
        57..65 => invalidate(dice),
        65..70 => format!("SELECT enrich_cleanup({})", dice.pick(&["NULL", "1", "5"])),
        70..77 => hot(dice),
        77..81 => returning(dice),
        81..84 => with_changes(dice),
        84..87 => {
            format!("INSERT INTO noted SELECT n FROM universe WHERE n <= 39 AND n % 9 = {}", dice.below(9))
        }
        87 => "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT service, cache_key, made(min(n)), now() + interval '1 hour' FROM universe
            WHERE cache_key IS NOT NULL GROUP BY service, cache_key ON CONFLICT DO NOTHING"
            .to_string(),
        88..90 => "UPDATE enrichment_service SET max_bytes = max_bytes + 1 WHERE name = 'dshield'".to_string(),
        _ => format!("SELECT wander({}, {})", seed(dice), 2 + dice.below(5)),
    }
}

/// A call that commits by itself.
pub fn procedure(dice: &mut Dice) -> String {
    format!("CALL wander_and_commit({}, {})", seed(dice), 3 + dice.below(6))
}

/// What may run beside open transactions, outside any.
pub fn upkeep(dice: &mut Dice) -> &'static str {
    dice.pick(&[
        "VACUUM enrichment_cache",
        "VACUUM (INDEX_CLEANUP ON) enrichment_cache",
        "VACUUM (FREEZE) enrichment_cache",
        "VACUUM (ANALYZE, DISABLE_PAGE_SKIPPING) enrichment_cache",
        "CHECKPOINT",
        "ANALYZE enrichment_cache",
    ])
}

/// PostgreSQL's bug #18351: with transactions in other databases, a rewrite may want the out-of-line parts of rows that
/// nobody sees any more and that a VACUUM has removed. Nothing is lost, and it may be tried again.
pub fn known_bug(sql: &str, error: &postgres::Error) -> bool {
    let rewrites = ["VACUUM FULL", "CLUSTER", "REINDEX"].iter().any(|verb| sql.starts_with(verb));
    rewrites && error.as_db_error().is_some_and(|error| error.message().starts_with("missing chunk number"))
}

/// What needs the table for itself for a while, and leaves every row visible to those who saw it.
pub fn rewrite(dice: &mut Dice) -> &'static str {
    dice.pick(&[
        "REINDEX TABLE CONCURRENTLY enrichment_cache",
        "REINDEX TABLE enrichment_cache",
        "VACUUM FULL enrichment_cache",
        "CLUSTER enrichment_cache USING enrichment_cache_pkey",
        "ALTER TABLE enrichment_cache ADD COLUMN IF NOT EXISTS extra int DEFAULT 7",
        "ALTER TABLE enrichment_cache DROP COLUMN IF EXISTS extra",
    ])
}

/// What only an idle table allows.
pub fn exclusive(dice: &mut Dice) -> &'static str {
    match dice.below(10) {
        0 | 1 => "TRUNCATE enrichment_cache",
        2 => "BEGIN; TRUNCATE enrichment_cache; SELECT count(*) FROM glance; ROLLBACK",
        _ => rewrite(dice),
    }
}
