//! How the tests speak SQL: statements, single values as text, refusals with all their parts.

use pgrx::prelude::*;

/// Runs statements.
pub fn run(sql: &str) {
    Spi::run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The one value of a query as text; `None` for NULL or no row.
pub fn value(sql: &str) -> Option<String> {
    let sql = format!("SELECT ({sql})::text");
    Spi::get_one(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The one value of a query, which must not be NULL.
pub fn text(sql: &str) -> String {
    value(sql).unwrap_or_else(|| panic!("{sql}: NULL"))
}

/// The values of a query of one column, in its order; NULL as the word.
pub fn list(sql: &str) -> Vec<String> {
    let sql = format!("SELECT coalesce(array_agg(coalesce(q::text, 'NULL')), '{{}}') FROM ({sql}) AS s (q)");
    Spi::get_one(&sql).unwrap_or_else(|error| panic!("{sql}: {error}")).unwrap_or_default()
}

/// The number a query gives.
pub fn count(sql: &str) -> i64 {
    text(sql).parse().unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Asserts that a condition holds; NULL does not.
pub fn holds(condition: &str) {
    assert_eq!(value(&format!("SELECT {condition}")).as_deref(), Some("true"), "{condition}");
}

/// A text as an SQL literal (`standard_conforming_strings` is on).
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What PostgreSQL says when it refuses; missing parts are empty.
#[derive(Debug)]
pub struct Refusal {
    pub sqlstate: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
}

impl Refusal {
    /// Asserts SQLSTATE and message, and that the hint holds these words.
    pub fn says(&self, sqlstate: &str, message: &str, hint: &str) {
        assert_eq!((self.sqlstate.as_str(), self.message.as_str()), (sqlstate, message), "{self:?}");
        assert!(self.hint.contains(hint) && self.hint.ends_with('.'), "{self:?} lacks the hint {hint:?}");
    }
}

/// Asserts that a statement is refused; its effects are undone.
pub fn refused(sql: &str) -> Refusal {
    refusal(sql, None)
}

/// Asserts that a statement is refused in a session of this role.
pub fn refused_to(role: &str, sql: &str) -> Refusal {
    refusal(sql, Some(role))
}

fn refusal(sql: &str, role: Option<&str>) -> Refusal {
    if value("SELECT to_regprocedure('pg_temp.refusal(text, text)')").is_none() {
        run("CREATE FUNCTION pg_temp.refusal(statement text, role text) RETURNS text[] LANGUAGE plpgsql AS $refusal$
            DECLARE
                state text; message text; detail text; hint text;
            BEGIN
                IF role IS NOT NULL THEN
                    EXECUTE format('SET LOCAL SESSION AUTHORIZATION %I', role);
                END IF;
                EXECUTE statement;
                RETURN NULL;
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
                    detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
                RETURN ARRAY[state, message, detail, hint];
            END $refusal$");
    }
    let role = role.map_or("NULL".to_string(), quoted);
    let asked = format!("SELECT pg_temp.refusal({}, {role})", quoted(sql));
    let parts: Option<Vec<String>> = Spi::get_one(&asked).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let [sqlstate, message, detail, hint] =
        parts.unwrap_or_else(|| panic!("not refused: {sql}")).try_into().unwrap_or_else(|_| panic!("four parts"));
    Refusal { sqlstate, message, detail, hint }
}

/// Runs something in a session of another role.
pub fn acting_as<T>(role: &str, work: impl FnOnce() -> T) -> T {
    run(&format!("SET LOCAL SESSION AUTHORIZATION {role}"));
    let result = work();
    run("RESET SESSION AUTHORIZATION");
    result
}

/// Adds a service of keys of a kind, for tests that must not change the built-in ones.
pub fn service(name: &str, key_kind: &str) {
    run(&format!(
        "INSERT INTO enrichment_service (name, key_kind, url) VALUES ('{name}', '{key_kind}', 'https://{name}.example/{{key}}')"
    ));
}

/// The names, quoted and with schema, of the extension's own tables (`r`) or views (`v`).
pub fn relations(kind: &str) -> Vec<String> {
    list(&format!(
        "SELECT c.oid::regclass::text FROM pg_class c
        JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
        JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
        WHERE e.extname = 'enrichment_cache' AND c.relkind = '{kind}' ORDER BY 1"
    ))
}
