//! The recipes of the guide, each by its own INSERT alone with nothing but the host changed, against providers that answer as
//! documented.

use crate::support::{one, said, Base, SOON};
use serde_json::json;
use testbed::wait_until;

/// The INSERT of a service as the guide prints it, asking the sandbox.
fn insert(base: &Base, service: &str, host: &str) -> String {
    let guide =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide/providers.md")).expect("the guide");
    let block = guide
        .split("```sql\n")
        .filter_map(|block| block.split("```").next())
        .find(|block| block.starts_with("INSERT INTO enrichment_service") && block.contains(&format!("('{service}'")))
        .unwrap_or_else(|| panic!("the guide has no recipe for {service}"));
    assert_eq!(block.matches("INSERT").count(), 1, "one INSERT alone: {block}");
    assert!(block.contains(host), "{block}");
    block.replace(host, &format!("{}/{service}", base.sandbox.base_url()))
}

fn base(service: &'static str, name: &str, host: &str) -> Base {
    let base = Base::new("recipes", name);
    base.run(&insert(&base, service, host));
    base
}

/// Asks for a key and waits until the attempt is over: status, message, and the request's state if it is still there.
fn attempt(base: &Base, service: &str, key: &str) -> (String, String, Option<String>) {
    let mut client = base.client();
    assert_eq!(one::<String>(&mut client, &format!("SELECT enrich_request('{service}', '{key}')")), "queued", "{key}");
    wait_until("the end of the attempt", SOON, || {
        let row = client
            .query_opt(
                "SELECT c.response_status, coalesce(c.error_message, ''), q.state FROM enrichment_cache c
                 LEFT JOIN enrichment_queue q USING (service, cache_key)
                 WHERE c.service = $1 AND c.cache_key = $2 AND (q.id IS NULL OR q.last_outcome IS NOT NULL)",
                &[&service, &key],
            )
            .map_err(|why| said(&why))?;
        Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
    })
}

fn succeeded(outcome: (String, String, Option<String>), status: &str) {
    assert_eq!(outcome, (status.to_string(), String::new(), None));
}

/// Cause of the lane's pause and its length in seconds, rounded to the nearest ten.
fn pause(base: &Base, service: &str) -> String {
    base.one(&format!(
        "SELECT cause || ' ' || round(extract(epoch FROM paused_until - clock_timestamp()) / 10) * 10
         FROM enrichment_lane WHERE service = '{service}'"
    ))
}

/// An address of which the provider says this, a flag or an outcome.
fn address(base: &Base, service: &str, member: &str, value: serde_json::Value) -> String {
    let says = |key: &String| base.sandbox.expect(service, key)[member] == value;
    (1..).map(crate::support::address).find(says).expect("endless")
}

#[test]
fn greynoise_works_by_its_insert_alone_and_a_404_with_a_body_is_an_answer() {
    let base = base("greynoise", "greynoise", "https://api.greynoise.io");
    let payload =
        |key: &str, path: &str| base.one::<String>(&format!("SELECT enrich_get('greynoise', '{key}') ->> '{path}'"));
    let (noisy, quiet) =
        (address(&base, "greynoise", "flagged", json!(true)), address(&base, "greynoise", "flagged", json!(false)));
    // without a key
    succeeded(attempt(&base, "greynoise", &noisy), "success");
    assert_eq!(payload(&noisy, "noise"), "true");
    base.run("SELECT enrich_set_secret('greynoise', 'sandbox-greynoise-key')");
    succeeded(attempt(&base, "greynoise", &quiet), "success");
    assert_eq!((payload(&quiet, "noise"), payload(&quiet, "riot")), ("false".into(), "false".into()));
    assert_eq!(
        base.one::<i32>(&format!("SELECT api_response_code FROM enrichment_cache WHERE cache_key = '{quiet}'")),
        404
    );

    let (status, message, state) = attempt(&base, "greynoise", "2606:4700::1111");
    assert_eq!((status.as_str(), state.as_deref()), ("error", Some("dead")), "{message}");
    assert!(message.contains("IPv4 addresses only"), "{message}");
    base.sandbox.fault(json!({"service": "greynoise", "kind": "status", "status": 404, "count": 1}));
    let (status, _, state) = attempt(&base, "greynoise", "9.9.9.1");
    assert_eq!(
        (status.as_str(), state.as_deref()),
        ("error", Some("waiting")),
        "an error page says nothing of the key"
    );

    base.sandbox.set_limit("greynoise", 0, "hour");
    let (status, _, state) = attempt(&base, "greynoise", "9.9.9.2");
    assert_eq!((status.as_str(), state.as_deref()), ("rate_limited", Some("waiting")));
    assert_eq!(pause(&base, "greynoise"), "rate_limited 86400");
}

#[test]
fn greynoise_with_a_wrong_key_stops() {
    let base = base("greynoise", "greynoise_key", "https://api.greynoise.io");
    base.run("SELECT enrich_set_secret('greynoise', 'another-key')");
    let (status, message, _) = attempt(&base, "greynoise", "9.9.9.9");
    assert_eq!(status, "unauthorized", "{message}");
    assert_eq!(pause(&base, "greynoise"), "unauthorized 3600");
}

#[test]
fn abuseipdb_works_by_its_insert_alone_with_a_query_parameter_and_two_headers() {
    let base = base("abuseipdb", "abuseipdb", "https://api.abuseipdb.com");
    let mut client = base.client();
    assert_eq!(one::<String>(&mut client, "SELECT enrich_request('abuseipdb', '9.9.9.9')"), "no_credential");
    base.run("SELECT enrich_set_secret('abuseipdb', 'sandbox-abuseipdb-key')");
    for key in [address(&base, "abuseipdb", "flagged", json!(true)), "2606:4700::1111".to_string()] {
        succeeded(attempt(&base, "abuseipdb", &key), "success");
        let read = format!("SELECT enrich_get('abuseipdb', '{key}') #>> '{{data,ipAddress}}'");
        assert_eq!(base.one::<String>(&read), key);
    }
    let said = "SELECT provider_max || ' ' || provider_remaining FROM enrichment_quota_status WHERE service = 'abuseipdb' AND per = 'day'";
    assert_eq!(base.one::<String>(said), "1000 1000", "what its headers say is shown");

    base.sandbox.fault(json!({"service": "abuseipdb", "kind": "status", "status": 422, "count": 1}));
    let (status, message, state) = attempt(&base, "abuseipdb", "9.9.9.1");
    assert_eq!((status.as_str(), state.as_deref()), ("error", Some("dead")));
    assert!(message.contains("refused the address (HTTP 422): The ip address must be"), "{message}");

    base.sandbox.set_limit("abuseipdb", 0, "minute");
    let (status, _, state) = attempt(&base, "abuseipdb", "9.9.9.2");
    assert_eq!((status.as_str(), state.as_deref()), ("rate_limited", Some("waiting")));
    let as_asked = "SELECT cause = 'rate_limited' AND paused_until BETWEEN now() AND now() + interval '61 s' FROM enrichment_lane WHERE service = 'abuseipdb'";
    assert!(base.one::<bool>(as_asked), "the pause is the one of Retry-After: {}", pause(&base, "abuseipdb"));
}

#[test]
fn abuseipdb_with_a_wrong_key_or_plan_stops() {
    for (name, fault, words) in [
        ("abuse_key", json!({"kind": "wrong_key"}), "Authentication failed"),
        ("abuse_plan", json!({"kind": "status", "status": 402}), "the plan of this key"),
    ] {
        let base = base("abuseipdb", name, "https://api.abuseipdb.com");
        base.run("SELECT enrich_set_secret('abuseipdb', 'sandbox-abuseipdb-key')");
        let mut fault = fault;
        fault["service"] = json!("abuseipdb");
        base.sandbox.fault(fault);
        let (status, message, _) = attempt(&base, "abuseipdb", "9.9.9.9");
        assert_eq!(status, "unauthorized", "{message}");
        assert!(message.contains(words), "{message}");
        assert_eq!(pause(&base, "abuseipdb"), "unauthorized 3600");
    }
}

#[test]
fn internetdb_works_by_its_insert_alone_and_without_a_key() {
    let base = base("internetdb", "internetdb", "https://internetdb.shodan.io");
    let known = address(&base, "internetdb", "outcome", json!("success"));
    let unknown = address(&base, "internetdb", "outcome", json!("not_found"));
    succeeded(attempt(&base, "internetdb", &known), "success");
    let ports = format!("SELECT jsonb_array_length(enrich_get('internetdb', '{known}') -> 'ports') > 0");
    assert!(base.one::<bool>(&ports));
    succeeded(attempt(&base, "internetdb", &unknown), "not_found");
    assert_eq!(base.one::<String>(&format!("SELECT state FROM enrich_lookup('internetdb', '{unknown}')")), "not_found");

    base.sandbox.set_limit("internetdb", 0, "hour");
    let (status, _, state) = attempt(&base, "internetdb", "9.9.9.2");
    assert_eq!((status.as_str(), state.as_deref()), ("rate_limited", Some("waiting")));
    assert_eq!(pause(&base, "internetdb"), "rate_limited 3600");
}
