//! What is printed when the work is done: results, reasons for the gaps, and how to go on.

use crate::progress::Progress;
use crate::psql::Psql;
use crate::queries::{CAUSES, EXAMPLES, NOVEL_PASSWORD, QUESTIONS, WITHOUT_ADDRESS};
use crate::{screen, Result};
use postgres::Client;

/// The three queries, each with its SQL and its result.
///
/// # Errors
/// psql's, when a query fails.
pub fn results(psql: &Psql) -> Result<()> {
    for question in QUESTIONS {
        screen::title(question.title);
        screen::statement(question.sql);
        println!("{}", psql.table(question.sql)?);
    }
    Ok(())
}

/// Why what is empty is empty.
///
/// # Errors
/// The server's and psql's.
pub fn reasons(client: &mut Client, psql: &Psql, last: &Progress) -> Result<()> {
    screen::title("Why the few empty values are empty");
    screen::statement(CAUSES);
    println!("{}", psql.table(CAUSES)?);
    for example in client.query(EXAMPLES, &[])? {
        let (service, key): (String, String) = (example.get(0), example.get(1));
        let sentence: String = client.query_one("SELECT enrich_explain($1, $2)", &[&service, &key])?.get(0);
        screen::statement(&format!("SELECT enrich_explain('{service}', '{key}');"));
        println!("{sentence}");
    }
    screen::statement(NOVEL_PASSWORD);
    println!("{}", psql.table(NOVEL_PASSWORD)?);
    let without: i64 = client.query_one(WITHOUT_ADDRESS, &[])?.get(0);
    screen::note(format!("{without} sessions have no source address (NULL), so there is nothing to ask about."));
    if let Some(slow) = last.services.iter().find(|service| !service.is_complete()) {
        let eta = slow.eta.as_deref().map(|eta| format!(", done about {eta}")).unwrap_or_default();
        screen::note(format!(
            "{} goes on in the background: {} of {} answered{eta}; its limit is {}.",
            slow.name, slow.answered, slow.eligible, slow.limits
        ));
    }
    Ok(())
}

/// How to look around, repeat and end.
pub fn farewell(psql: &Psql) {
    screen::title("Look around");
    println!("  connect     {}", psql.command_line());
    println!("  watch       SELECT * FROM enrichment_coverage;  SELECT * FROM enrichment_eta;");
    println!("  run again   make demo");
    println!("  stop        make demo-stop");
}

/// What the extension and the server say about themselves, after a failure. Never fails itself.
pub fn diagnosis(psql: &Psql, log: &str) {
    for sql in ["SELECT * FROM enrich_health()", "SELECT * FROM enrichment_worker", CAUSES] {
        match psql.table(sql) {
            Ok(table) => println!("\n{sql}\n{table}"),
            Err(error) => println!("\n{sql}\n{error}"),
        }
    }
    println!("\nlast lines of the server's log\n{log}");
}
