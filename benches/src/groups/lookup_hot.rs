//! A look-up over a hot set: few keys that come again and again, and many that come once.

use super::rivals::{self, CORRELATED, EXECUTED, GET, GET_NO_MEMO, MEMO_SIZE, PLPGSQL, SCAN, SQL_FUNCTION};
use crate::bed::{Bed, MAIN};
use crate::data::Sizes;
use crate::measure::plan;
use crate::measure::rounds::{in_turns, statement, Measured};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::grouped;
use crate::report::table::Table;
use crate::Result;

const ROWS: u64 = 100_000;
const FEW: u64 = 1_000;
/// Planned at each call, it takes long enough with a part of the rows.
const ROWS_EXECUTED: u64 = 5_000;

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let sizes = Sizes::of(&bed.settings);
    let mut session = bed.session(MAIN)?;
    rivals::create(&mut session)?;
    let (few, many) = (FEW.min(sizes.addresses / 2), ROWS.min(sizes.addresses));
    let repeats = ROWS / few;
    hot_table(&mut session, "hot_few", few, repeats)?;
    hot_table(&mut session, "hot_many", many, 1)?;

    let mut findings = Findings::default();
    findings.say(
        "Each statement counts the answers of dshield over a table of keys in random order, for instance \
         `SELECT count(enrich_get('dshield', k)) FROM keys`. Nothing is subtracted: the first line shows what reading the \
         keys alone takes. The correlated subquery is `(SELECT c.payload FROM enrichment_cache c WHERE c.service = 'dshield' AND \
         c.cache_key = k AND c.expires_at > now())`; its plan was checked: an index scan for each row. No parallel workers.",
    );
    for (table, keys, rows) in [("hot_few", few, few * repeats), ("hot_many", many, many)] {
        let measured = over(bed, &mut session, &format!("bench.{table}"), keys, rows)?;
        let what = if keys == rows {
            format!("{} keys, each once", grouped(keys as f64))
        } else {
            format!("{} keys, {} rows", grouped(keys as f64), grouped(rows as f64))
        };
        findings.table(Table::of(
            &format!("{what}:"),
            "ns a row",
            &measured,
            &[("× subquery", CORRELATED), ("× plpgsql", PLPGSQL)],
        ));
        findings.target(Target::at_most(
            &format!("hot set, {what}: enrich_get, × correlated subquery"),
            0.65,
            measured.ratio(GET, CORRELATED),
        ));
    }
    Ok(findings)
}

/// The first `keys` addresses, each `repeats` times, in random order.
fn hot_table(session: &mut Session, name: &str, keys: u64, repeats: u64) -> Result<()> {
    session.run(&format!(
        "DROP TABLE IF EXISTS bench.{name};
         CREATE TABLE bench.{name} AS
            SELECT k FROM (SELECT DISTINCT source_ip AS k FROM sessions ORDER BY 1 LIMIT {keys}) d
            CROSS JOIN generate_series(1, {repeats}) ORDER BY hashtext(k || generate_series), k"
    ))?;
    session.run(&format!("VACUUM ANALYZE bench.{name}"))
}

fn over(bed: &Bed, session: &mut Session, table: &str, keys: u64, rows: u64) -> Result<Measured> {
    let memo = session.has_setting(MEMO_SIZE)?;
    let from = format!("{table} h");
    let get = rivals::get("h.k", &from);
    let correlated = rivals::correlated("h.k", &from);
    let plpgsql = rivals::function("get_plpgsql", "h.k", &from);
    let sql = rivals::function("get_sql", "h.k", &from);
    let few = ROWS_EXECUTED.min(rows);
    let executed = rivals::function("get_executed", "h.k", &format!("(SELECT k FROM {table} LIMIT {few}) h"));
    plan::must(session, "", &correlated, "one index scan a row", |plan| {
        plan.join() == "no join" && plan.probes(&["enrichment_cache"], "cache_key")
    })?;
    let all = [(GET, get.as_str()), (CORRELATED, &correlated), (PLPGSQL, &plpgsql), (SQL_FUNCTION, &sql)];
    rivals::agree(session, rows as i64, &all)?;
    let variants = vec![
        statement(SCAN, "", &format!("SELECT count(h.k) FROM {from}"), rows),
        statement(GET, "", &get, rows),
        statement(GET_NO_MEMO, &format!("SET {MEMO_SIZE} = 0"), &get, rows).available(memo),
        statement(CORRELATED, "", &correlated, rows),
        statement(PLPGSQL, "", &plpgsql, rows),
        rivals::by_spi(&get, rows).available(memo),
        statement(SQL_FUNCTION, "", &sql, rows),
        statement(EXECUTED, "", &executed, few),
    ];
    in_turns(bed, &format!("{} keys", grouped(keys as f64)), session, variants)
}
