//! What enrich_health says of a worker in trouble, while it lasts and afterwards.

use crate::support::{run, Base};

const TROUBLE: &str = "SELECT coalesce(string_agg(severity || ' ' || detail, '; '), 'none')
    FROM enrich_health() WHERE check_name = 'worker step'";

#[test]
fn a_failing_step_is_a_warning_of_health_as_long_as_it_fails() {
    let base = Base::new("health", "troubled");
    base.wait_for::<String>(TROUBLE, "none".to_string());
    base.run(
        "CREATE TABLE sessions (source_ip text, enrichment jsonb);
        SELECT enrich_attach('sessions', 'source_ip', '{dshield}', 'enrichment')",
    );
    let mut holder = base.client();
    run(&mut holder, "BEGIN; LOCK TABLE enrichment_arrival IN ACCESS EXCLUSIVE MODE");
    // a key that only the locked table could tell of makes the worker try
    base.run("SELECT enrich_wake()");
    base.wait_for::<bool>(
        &format!("SELECT ({TROUBLE}) LIKE 'warning a step fails and is tried again: %lock timeout%'"),
        true,
    );
    run(&mut holder, "ROLLBACK");
    base.run("INSERT INTO sessions VALUES ('8.8.8.8')");
    base.wait_for::<i64>("SELECT count(enrichment) FROM sessions", 1);
    base.wait_for::<String>(TROUBLE, "none".to_string());
}
