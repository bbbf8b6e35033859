//! enrich_test: one live call, told in steps that say what works and what does not.

use crate::support::{address, own_cluster, run, said, Base};
use postgres::Client;
use std::sync::Arc;

/// The steps of a test: name, whether it works, detail, hint.
type Step = (String, Option<bool>, String, Option<String>);

#[track_caller]
fn test(client: &mut Client, service: &str) -> Vec<Step> {
    let rows = client.query("SELECT step, ok, detail, hint FROM enrich_test($1)", &[&service]);
    let rows = rows.unwrap_or_else(|why| panic!("{service}: {}", said(&why)));
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

/// The one step that fails, and that all before it work.
#[track_caller]
fn failing(steps: &[Step]) -> &Step {
    let at = steps.iter().position(|step| step.1 == Some(false)).unwrap_or_else(|| panic!("nothing fails: {steps:?}"));
    assert!(steps[..at].iter().all(|step| step.1 == Some(true)), "{steps:?}");
    assert!(steps[at].3.is_some(), "a hint says what to do: {steps:?}");
    &steps[at]
}

#[test]
fn each_built_in_service_is_tested_with_a_key_that_its_provider_knows() {
    let base = Base::new("trial", "trial_all");
    let mut client = base.client();
    for service in ["virustotal", "dshield", "urlhaus", "spur", "hibp"] {
        let steps = test(&mut client, service);
        assert!(steps.iter().all(|step| step.1 == Some(true) && step.3.is_none()), "{service}: {steps:?}");
        let names: Vec<&str> = steps.iter().map(|step| step.0.as_str()).filter(|name| *name != "credential").collect();
        let expected = ["enabled", "secret", "limit", "egress", "dns", "connection", "tls", "answer", "outcome"];
        assert_eq!(names, expected, "{service}");
        assert_eq!(base.asked(service), 1, "{service}: one live call");
        let counted = format!("SELECT api_calls FROM enrichment_cache_stats WHERE service = '{service}'");
        assert_eq!(base.one::<i64>(&counted), 1, "{service}: and it counts");
        assert!(!format!("{steps:?}").contains(&format!("sandbox-{service}-key")), "{steps:?}");
    }
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_cache"), 0, "the answer of a test is not kept");
    crate::support::refused(&mut client, "SELECT enrich_test('virustotl')", "42704", "virustotal");
}

#[test]
fn a_missing_and_a_wrong_secret_are_told_apart_and_a_right_one_has_its_place() {
    let base = Base::new("trial", "trial_secrets");
    let mut client = base.client();
    let steps = test(&mut client, "spur");
    assert!(steps[1].2.contains("SPUR_API_KEY is kept in the database"), "{steps:?}");
    run(&mut client, "SELECT enrich_set_secret('spur', NULL)");
    let steps = test(&mut client, "spur");
    assert_eq!((failing(&steps).0.as_str(), base.asked("spur")), ("secret", 1), "{steps:?}: nothing is asked");
    run(&mut client, "SELECT enrich_set_secret('spur', 'wrong-secret-of-spur')");
    let steps = test(&mut client, "spur");
    let (step, _, detail, _) = failing(&steps);
    assert_eq!(step, "credential");
    assert!(detail.contains("HTTP 401") && !format!("{steps:?}").contains("wrong-secret"), "{steps:?}");
}

#[test]
fn a_test_keeps_the_limits_and_says_how_long_they_last() {
    let base = Base::new("trial", "trial_limits");
    let mut client = base.client();
    run(
        &mut client,
        "UPDATE enrichment_service SET limits = '[{\"max\": 1, \"per\": \"day\"}]' WHERE name = 'dshield'",
    );
    assert!(test(&mut client, "dshield").iter().all(|step| step.1 == Some(true)));
    let steps = test(&mut client, "dshield");
    let (step, _, detail, _) = failing(&steps);
    assert!(step == "limit" && detail.contains("the limit of the day is reached"), "{steps:?}");
    run(&mut client, &format!("SELECT enrich_request('dshield', '{}')", address(1)));
    crate::support::let_the_worker_look(&base);
    assert_eq!(base.asked("dshield"), 1, "neither the second test nor a request passes the limit");
    let spent = "SELECT spent FROM enrichment_quota_status WHERE service = 'dshield' AND per = 'day'";
    assert_eq!(base.one::<i64>(spent), 1);
}

#[test]
fn the_step_that_fails_is_named_whatever_it_is() {
    let cluster = Arc::new(own_cluster("trial_steps"));
    let base = Base::in_cluster(&cluster, "trial_steps", &["--limits", "none"]);
    let mut client = base.client();
    let here = base.sandbox.base_url();
    let secure = here.replace("http://", "https://");
    for (name, url, rules, fails, words) in [
        ("refuses", "http://127.0.0.1:1/{key}".to_string(), "{}", "connection", "no connection to 127.0.0.1"),
        ("plain", format!("{secure}/{{key}}"), "{}", "tls", "no secure connection to 127.0.0.1"),
        ("moved", format!("{here}/nowhere/{{key}}"), "{}", "outcome", "HTML page"),
        ("keyless", format!("{here}/{{key}}"), "{}", "key", "no well-known key"),
        ("named", format!("{here}/dshield/api/ip/{{key}}?json"), r#"{"test_key": "8.8.4.4"}"#, "", ""),
    ] {
        let kind = if matches!(name, "keyless" | "named") { "text" } else { "ip" };
        let insert = "INSERT INTO enrichment_service (name, key_kind, url, headers, rules) VALUES ($1, $2, $3, '{\"user-agent\": \"a@b.example\"}', $4::text::jsonb)";
        client.execute(insert, &[&name, &kind, &url, &rules]).unwrap_or_else(|why| panic!("{}", said(&why)));
        let steps = test(&mut client, name);
        if fails.is_empty() {
            assert!(steps.iter().all(|step| step.1 == Some(true)), "{steps:?}");
            assert_eq!(base.asked_for("dshield", "8.8.4.4"), 1, "the key of its rules is asked for");
            continue;
        }
        let (step, _, detail, _) = failing(&steps);
        assert!(step == fails && detail.contains(words), "{name}: {steps:?}");
    }
    cluster.set("enrichment_cache.allow_private_hosts", "off");
    base.wait_for("SELECT current_setting('enrichment_cache.allow_private_hosts')", "off".to_string());
    // the worker hears of it as this session does, but not at the same moment
    testbed::wait_until("the guard", crate::support::SOON, || {
        let steps = test(&mut client, "dshield");
        let egress = steps.iter().find(|step| step.0 == "egress").cloned();
        Ok(egress.filter(|step| step.1 == Some(false) && step.3.is_some()))
    });
}

#[test]
fn a_limit_of_the_provider_is_told_in_words() {
    let base = Base::new("trial", "trial_limited");
    let mut client = base.client();
    let used_up = serde_json::json!({"service": "virustotal", "kind": "body", "status": 429, "body": r#"{"error": {"code": "QuotaExceededError"}}"#});
    base.sandbox.fault(used_up);
    base.sandbox.fault(serde_json::json!({"service": "dshield", "kind": "429_plain"}));
    base.sandbox.fault(serde_json::json!({"service": "hibp", "kind": "status", "status": 503}));
    for (service, words, advice) in [
        ("virustotal", "the provider says that the balance is used up", "buy more"),
        ("dshield", "the provider asks to wait", "Lower the limits of the service"),
        ("hibp", "HTTP 503", ""),
    ] {
        let steps = test(&mut client, service);
        let (step, _, detail, hint) = failing(&steps);
        assert!(step == "outcome" && detail.contains(words), "{service}: {steps:?}");
        assert!(hint.as_ref().is_some_and(|hint| hint.contains(advice)), "{service}: {steps:?}");
    }
}

#[test]
fn a_test_ends_with_its_time_or_a_cancel_and_gives_its_place_back() {
    let base = Base::new("trial", "trial_time");
    let mut client = base.client();
    base.sandbox.fault(serde_json::json!({"service": "dshield", "kind": "hang"}));
    run(&mut client, "UPDATE enrichment_service SET timeout_ms = 600000, max_in_flight = 4 WHERE name = 'dshield'");
    for _ in 0..10 {
        let rows = client.query("SELECT step, ok FROM enrich_test('dshield', '20 ms')", &[]).expect("an end");
        let last: (String, Option<bool>) = rows.last().map(|row| (row.get(0), row.get(1))).expect("a step");
        assert_eq!(last, ("timeout".to_string(), Some(false)));
    }
    run(&mut client, "SET statement_timeout = '100ms'");
    for _ in 0..10 {
        crate::support::refused(&mut client, "SELECT * FROM enrich_test('dshield')", "57014", "");
    }
    run(&mut client, "RESET statement_timeout");
    assert!(test(&mut client, "hibp").iter().all(|step| step.1 == Some(true)), "others are tested meanwhile");
}
