//! Nobody asks: fetching is switched off, or no worker serves the database. And who asks in vain.

use super::{answer, base, diagnosis, last_answer, put_off, set, wait_quiet_but_for_the_queue, SESSIONS, SOMETHING};
use crate::support::{wait_served, wait_unserved, Base};

/// The table with these services, each of which has answered for the addresses up to 60 and, long ago, up to 70.
fn attached(base: &Base, services: &[(&str, &str)]) {
    base.run(SESSIONS);
    let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
    base.run(&format!(
        "SELECT enrich_attach('session_summaries', 'source_ip', '{{{}}}', 'enrichment')",
        names.join(",")
    ));
    wait_quiet_but_for_the_queue(base);
    for (service, age) in services {
        answer(base, service, 1, 60, SOMETHING, age, "7 days");
        answer(base, service, 61, 70, SOMETHING, "30 days", "7 days");
    }
    wait_quiet_but_for_the_queue(base);
    put_off(base);
}

fn explained(base: &Base, key: &str) -> String {
    base.one(&format!("SELECT enrich_explain('expiring', '{key}')"))
}

fn unwell(base: &Base) -> String {
    base.one("SELECT coalesce(string_agg(concat_ws(' ', severity, check_name, detail, hint), '; '), 'well') FROM enrich_health() WHERE severity IN ('error', 'warning')")
}

#[test]
fn that_nobody_asks_is_told_by_diagnosis_health_and_explain() {
    let base = base("nobody");
    attached(&base, &[("expiring", "1 hour")]);
    // thirty wait to be asked, ten to be asked again
    let found = diagnosis(&base);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["fetching_off expiring"]);
    let (severity, affected, share, example, hint) = &found["fetching_off expiring"];
    assert_eq!(
        (severity.as_str(), *affected, share.as_str(), example.as_str()),
        ("warning", Some(400), "0.4", "8.8.0.100")
    );
    assert!(hint.contains("Set enrichment_cache.enabled = on and reload"), "{hint}");
    let health = unwell(&base);
    assert!(
        health.starts_with("warning fetching fetching is switched off") && health.contains("enabled = on"),
        "{health}"
    );
    let said = explained(&base, "8.8.0.99");
    let next = "\nNext: it waits and nobody asks, because fetching is switched off for the whole server (Set enrichment_cache.enabled = on";
    assert!(said.contains(next) && !said.contains("its turn"), "{said}");
    let said = explained(&base, "8.8.0.1");
    assert!(said.contains("; as it stands nobody asks then, because fetching is switched off"), "{said}");
    assert!(explained(&base, "9.9.9.9").contains("it is not in the queue, and nobody asks, because fetching"));

    set(&base, "enrichment_cache.enabled", "on");
    assert!(diagnosis(&base).is_empty(), "{:?}", diagnosis(&base));
    assert_eq!(unwell(&base), "well");
    let said = explained(&base, "8.8.0.99");
    assert!(said.contains("\nNext: the next attempt is at "), "{said}");
    let said = explained(&base, "8.8.0.1");
    assert!(said.ends_with(" UTC.") && !said.contains("nobody"), "{said}");

    set(&base, "enrichment_cache.databases", "another");
    wait_unserved(&base.cluster, &base.name);
    base.wait_for("SELECT state FROM enrichment_worker WHERE database = current_database()", "excluded".to_string());
    // of which nobody has heard yet
    base.run("INSERT INTO session_summaries SELECT 'late' || i, '8.8.1.1', now() FROM generate_series(1, 10) i");
    let found = diagnosis(&base);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["no_worker expiring"]);
    let (severity, affected, share, _, hint) = &found["no_worker expiring"];
    assert_eq!((severity.as_str(), *affected, share.as_str()), ("error", Some(410), "0.4059"));
    assert!(
        hint.contains("no worker serves this database (excluded)") && hint.contains("enrichment_cache.databases"),
        "{hint}"
    );
    let health = unwell(&base);
    assert!(health.starts_with("error worker no worker serves this database: excluded"), "{health}");
    let said = explained(&base, "8.8.0.99");
    assert!(
        said.contains("\nNext: it waits and nobody asks, because no worker serves this database (excluded) (Look"),
        "{said}"
    );

    // it takes them in, and is asked nothing before it is looked at
    set(&base, "enrichment_cache.enabled", "off");
    set(&base, "enrichment_cache.databases", "*");
    wait_served(&base.cluster, &base.name);
    wait_quiet_but_for_the_queue(&base);
    put_off(&base);
    set(&base, "enrichment_cache.enabled", "on");
    assert!(diagnosis(&base).is_empty(), "{:?}", diagnosis(&base));
}

#[test]
fn keys_that_fail_and_a_service_that_is_down_are_told_apart() {
    let base = base("failing");
    attached(&base, &[("expiring", "2 hours"), ("partly", "1 minute")]);
    base.run("UPDATE enrichment_queue SET attempts = 3, last_outcome = 'error', last_error = 'HTTP 500'");
    set(&base, "enrichment_cache.enabled", "on");
    let found = diagnosis(&base);
    // thirty without an answer, ten with one that has expired
    let seen: Vec<_> =
        found.iter().map(|(cause, found)| (cause.as_str(), found.0.as_str(), found.1, found.2.as_str())).collect();
    assert_eq!(
        seen,
        [("failing_keys partly", "warning", Some(400), "0.4"), ("service_down expiring", "error", Some(400), "0.4")]
    );
    let since = format!("No answer since {}. It is tried again by itself", last_answer(&base, "expiring"));
    assert!(found["service_down expiring"].4.starts_with(&since), "{} is not in {found:#?}", since);
    // nothing asks for the expired ones
    base.run("UPDATE enrichment_queue SET last_outcome = NULL; DELETE FROM enrichment_queue WHERE cache_key <= '8.8.0.70' AND cache_key LIKE '8.8.0.__'");
    let found = diagnosis(&base);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["expired expiring", "expired partly"]);
    assert_eq!((found["expired partly"].1, found["expired partly"].2.as_str()), (Some(100), "0.1"));
}
