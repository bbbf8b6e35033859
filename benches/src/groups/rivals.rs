//! What a user would write in place of enrich_get, and the checks that all of them find the same.

use crate::measure::rounds::Variant;
use crate::measure::session::Session;
use crate::Result;

/// The setting that bounds what one call of enrich_get remembers.
pub const MEMO_SIZE: &str = "enrichment_cache.memo_size";

/// Names of the variants, as they stand in tables.
pub const SCAN: &str = "reading the rows, no look-up";
pub const GET: &str = "`enrich_get(service, text)`";
pub const GET_NO_MEMO: &str = "`enrich_get(service, text)`, memo_size = 0";
pub const CORRELATED: &str = "correlated subquery";
pub const PLPGSQL: &str = "plpgsql function (a kept plan run by SPI)";
pub const SPI: &str = "compiled function, a kept plan run by SPI";
pub const SQL_FUNCTION: &str = "`LANGUAGE sql` function";
pub const EXECUTED: &str = "plpgsql function with EXECUTE (SPI, planned each time)";

const FUNCTIONS: &str = "
    CREATE OR REPLACE FUNCTION bench.get_plpgsql(which text, wanted text) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
    DECLARE answer jsonb;
    BEGIN
        SELECT c.payload INTO answer FROM enrichment_cache c
        WHERE c.service = which AND c.cache_key = wanted AND c.expires_at > now();
        RETURN answer;
    END $$;
    CREATE OR REPLACE FUNCTION bench.get_sql(which text, wanted text) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
        SELECT c.payload FROM enrichment_cache c
        WHERE c.service = which AND c.cache_key = wanted AND c.expires_at > now()
    $$;
    CREATE OR REPLACE FUNCTION bench.get_executed(which text, wanted text) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
    DECLARE answer jsonb;
    BEGIN
        EXECUTE 'SELECT c.payload FROM enrichment_cache c
                 WHERE c.service = $1 AND c.cache_key = $2 AND c.expires_at > now()' INTO answer USING which, wanted;
        RETURN answer;
    END $$";

/// The table is changed so that sessions look at it anew.
const DISTRIBUTED: &str = "SET allow_system_table_mods = on;
    CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass NOT NULL, partmethod \"char\" NOT NULL, partkey text,
        colocationid int NOT NULL DEFAULT 0, repmodel \"char\" NOT NULL DEFAULT 's');
    INSERT INTO pg_catalog.pg_dist_partition (logicalrelid, partmethod) VALUES ('enrichment_cache', 'h');
    ALTER TABLE enrichment_cache SET (autovacuum_enabled = off)";

/// Makes the functions.
///
/// # Errors
/// The server's error.
pub fn create(session: &mut Session) -> Result<()> {
    session.run(FUNCTIONS)
}

/// A query that looks up `key` (an expression over `from`) in dshield, row by row, by `call`.
fn counting(expression: &str, from: &str) -> String {
    format!("SELECT count({expression}) FROM {from}")
}

/// By enrich_get; `key` may be text or inet.
pub fn get(key: &str, from: &str) -> String {
    counting(&format!("enrich_get('dshield', {key})"), from)
}

/// As a user writes it without the extension's functions.
pub fn correlated(key: &str, from: &str) -> String {
    let query = format!(
        "(SELECT c.payload FROM enrichment_cache c WHERE c.service = 'dshield' AND c.cache_key = {key} AND c.expires_at > now())"
    );
    counting(&query, from)
}

/// By one of the functions above.
pub fn function(name: &str, key: &str, from: &str) -> String {
    counting(&format!("bench.{name}('dshield', {key})"), from)
}

/// Nanoseconds for each of `rows` by a compiled function that runs a kept plan by SPI: what enrich_get itself is where Citus lists its table, here
/// in an imitation of that list. Nothing is remembered.
pub fn by_spi<'a>(sql: &str, rows: u64) -> Variant<'a, Session> {
    let sql = sql.to_string();
    Variant::new(SPI, move |session: &mut Session| {
        session.run("RESET ALL")?;
        session.run(&format!("SET {MEMO_SIZE} = 0; {DISTRIBUTED}"))?;
        let took = session.time(&sql);
        session
            .run("DROP TABLE pg_catalog.pg_dist_partition; ALTER TABLE enrichment_cache RESET (autovacuum_enabled)")?;
        Ok(took?.as_nanos() as f64 / rows as f64)
    })
}

/// Fails unless all statements give the same number, which they are expected to.
///
/// # Errors
/// The server's error, or two numbers that differ.
pub fn agree(session: &mut Session, expected: i64, statements: &[(&str, &str)]) -> Result<()> {
    for (name, sql) in statements {
        session.run("RESET ALL")?;
        let found: i64 = session.one(sql)?;
        if found != expected {
            return Err(format!(
                "{name} finds {found} answers, not {expected}: what is compared is not the same\n  in: {sql}"
            )
            .into());
        }
    }
    Ok(())
}
