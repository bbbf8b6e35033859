//! Requests that rest after their last attempt: seen, and asked again when somebody says so.

use super::{addresses, base};
use crate::support::{one, refused, run};
use serde_json::json;

#[test]
fn what_rests_is_listed_with_its_reason_and_asked_again_on_demand() {
    let base = base("dead");
    base.sandbox.fault(json!({"service": "dshield", "kind": "huge_body", "bytes": 3_000_000}));
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 5)));
    base.wait_for("SELECT count(*) FROM enrichment_dead_letter", 5i64);
    let listed = "SELECT bool_and(service = 'dshield' AND outcome = 'error' AND error ~ 'larger than' AND attempts = 1
        AND last_attempt_at >= requested_at) FROM enrichment_dead_letter";
    assert!(base.one::<bool>(listed));
    assert_eq!(base.one::<i64>("SELECT dead FROM enrichment_queue_status WHERE service = 'dshield'"), 5);
    let health: String =
        base.one("SELECT detail || ' ' || hint FROM enrich_health() WHERE check_name = 'queue dshield'");
    assert!(health.contains("5 requests rest") && health.contains("enrich_retry('dshield')"), "{health}");

    let mut client = base.client();
    let key: String = one(&mut client, "SELECT cache_key FROM enrichment_dead_letter ORDER BY 1 LIMIT 1");
    base.sandbox.clear_faults();
    assert_eq!(one::<i64>(&mut client, &format!("SELECT enrich_retry('dshield', '::ffff:{key}')")), 1);
    base.wait_for("SELECT count(*) FROM enrichment_queue", 4i64);
    assert_eq!(base.asked_for("dshield", &key), 2);
    assert_eq!(one::<i64>(&mut client, &format!("SELECT enrich_retry('dshield', '{key}')")), 0, "it rests no more");
    assert_eq!(one::<i64>(&mut client, "SELECT enrich_retry('hibp')"), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT enrich_retry('dshield')"), 4);
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    assert_eq!(base.asked("dshield"), 10);

    refused(&mut client, "SELECT enrich_retry('dsheild')", "42704", "Perhaps you meant \"dshield\"");
    refused(&mut client, "SELECT enrich_retry('dshield', 'nonsense')", "22023", "IPv4 or IPv6");
    refused(&mut client, "SELECT enrich_retry(NULL)", "22023", "");
}

#[test]
fn a_request_that_is_made_anew_begins_with_its_first_attempt() {
    let base = base("begins");
    base.sandbox.fault(json!({"service": "dshield", "kind": "not_json"}));
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 1)));
    base.wait_for("SELECT attempts FROM enrichment_queue", 1);
    let mut client = base.client();
    run(&mut client, "UPDATE enrichment_queue SET attempts = 8, state = 'dead'; SELECT enrich_retry('dshield')");
    base.wait_for(
        "SELECT state || ' ' || attempts || ' ' || last_outcome FROM enrichment_queue",
        "waiting 1 invalid".to_string(),
    );
}
