//! A refused secret: its service stops, and says which secret it was and where it came from.

use super::{addresses, base};
use crate::support::{own_cluster, Base};
use std::sync::Arc;

const REASON: &str = "SELECT reason FROM enrichment_lane WHERE service = 'spur' AND cause = 'unauthorized'";
const PAUSED: &str = "SELECT count(*) FROM enrichment_lane WHERE service = 'spur' AND cause = 'unauthorized'";

#[test]
fn a_refused_secret_is_named_with_its_place_and_never_shown() {
    let base = base("refused");
    base.run("UPDATE enrichment_service SET max_in_flight = 1; SELECT enrich_set_secret('spur', 'expired-7391')");
    base.run(&format!("SELECT enrich_request_many('spur', {})", addresses(1, 10)));
    base.wait_for(PAUSED, 1i64);
    let reason: String = base.one(REASON);
    assert!(reason.contains("the secret SPUR_API_KEY comes from the database"), "{reason}");
    assert!(!reason.contains("expired-7391"), "{reason}");
    assert_eq!(base.asked("spur"), 1, "not once for each row");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue WHERE attempts > 0 OR state <> 'waiting'"), 0);
    let waits = "SELECT bool_and(l.next_attempt_at > now() + interval '50 minutes')
        FROM enrichment_queue q, enrich_lookup(q.service, q.cache_key) l";
    assert!(base.one::<bool>(waits));

    // when the hour is over one call finds out, not as many as may be under way
    base.run("UPDATE enrichment_service SET max_in_flight = 8");
    base.sandbox.set_latency("spur", 200);
    base.run("UPDATE enrichment_lane SET paused_until = now() WHERE service = 'spur'; UPDATE enrichment_queue SET next_attempt_at = now(); SELECT enrich_wake()");
    base.wait_for("SELECT count(*) FROM enrichment_lane WHERE service = 'spur' AND failures = 2", 1i64);
    assert_eq!(base.asked("spur"), 2);

    base.run("SELECT enrich_set_secret('spur', 'sandbox-spur-key')");
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    assert_eq!(base.asked("spur"), 12);
}

#[test]
fn a_service_without_a_secret_is_refused_for_something_else() {
    let base = base("refused_agent");
    let body =
        serde_json::json!({"service": "dshield", "kind": "body", "status": 403, "body": "{\"error\": \"blocked\"}"});
    base.sandbox.fault(body);
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 1)));
    let reason =
        "SELECT coalesce(max(reason), '') ~ 'no secret is sent to it' FROM enrichment_lane WHERE service = 'dshield'";
    base.wait_for(reason, true);
}

#[test]
fn a_file_that_holds_another_secret_starts_the_service_again() {
    let cluster = Arc::new(own_cluster("secret_files"));
    let base = Base::in_cluster(&cluster, "secret_files", &["--limits", "none"]);
    let dir: String = base.one("SELECT current_setting('data_directory') || '/secrets'");
    // written by the server, which is who reads it
    let write = |secret: &str| {
        base.run(&format!("COPY (SELECT '{secret}') TO PROGRAM 'mkdir -p {dir} && cat > {dir}/SPUR_API_KEY'"));
    };
    write("old-5512");
    base.run(&format!("ALTER SYSTEM SET enrichment_cache.secrets_dir = '{dir}'"));
    base.run("SELECT pg_reload_conf(); UPDATE enrichment_service SET max_in_flight = 1");
    base.wait_for("SELECT current_setting('enrichment_cache.secrets_dir') <> ''", true);
    base.run(&format!("SELECT enrich_request_many('spur', {})", addresses(1, 5)));
    base.wait_for(PAUSED, 1i64);
    let reason: String = base.one(REASON);
    assert!(reason.contains("SPUR_API_KEY comes from its file in enrichment_cache.secrets_dir"), "{reason}");
    assert!(!reason.contains("old-5512") && !reason.contains(&dir), "{reason}");

    write("sandbox-spur-key");
    // it is looked for again every minute; here at once
    base.run("SELECT enrich_wake()");
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    assert_eq!(base.asked("spur"), 6);
}
