//! Every line of the providers' fact sheet as an answer and what it is judged to be, with the rules as they stand in
//! the registry. Bodies are our own.

use super::*;
use crate::core::key::KeyKind;
use crate::core::rules::Rules;
use crate::core::service::Method;
use crate::core::SECOND;
use proptest::prelude::*;

const NOW: Micros = 1_790_000_000 * SECOND;

fn service(name: &str, rules: Rules) -> Service {
    Service {
        name: name.into(),
        enabled: true,
        key_kind: KeyKind::Text,
        method: Method::Get,
        url: "https://provider.example/{key}".into(),
        headers: vec![],
        body: None,
        secret_name: None,
        secret_required: false,
        response_format: if name == "hibp" { ResponseFormat::HibpRange } else { ResponseFormat::Json },
        ttl: 1,
        not_found_ttl: 1,
        stale_ttl: 1,
        limits: vec![],
        max_in_flight: 1,
        timeout_ms: 1,
        max_bytes: 1,
        rules,
    }
}

fn builtin(name: &str) -> Service {
    let all: serde_json::Value = serde_json::from_str(include_str!("../builtin_rules.json")).unwrap();
    service(name, Rules::parse(&all[name].to_string()).unwrap())
}

fn answer(status: u16, body: &str, retry_after: Option<&str>) -> Answer {
    Answer {
        wanted: Vec::new(),
        conditional: false,
        masked: false,
        status,
        body: body.as_bytes().to_vec(),
        content_type: None,
        retry_after: retry_after.map(Into::into),
        latency_ms: 1,
    }
}

/// An outcome in short: its status, with what matters of the rest.
fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::RateLimited { pause_micros, used_up, asked } => {
            let (used_up, asked) = (if *used_up { " used_up" } else { "" }, if *asked { " asked" } else { "" });
            format!("rate_limited {}{used_up}{asked}", pause_micros / SECOND)
        }
        Outcome::Error { retry, .. } => format!("error {}", if *retry { "retry" } else { "final" }),
        other => other.status().to_owned(),
    }
}

fn check(service: &Service, table: &[(u16, &str, &str)]) {
    for &(status, body, expected) in table {
        let outcome = judge(service, &answer(status, body, None), NOW);
        assert_eq!(short(&outcome), expected, "{}: {status} {body}: {outcome:?}", service.name);
    }
}

const PAGE: &str = "\r\n<!DOCTYPE html><title>Just a moment...</title>";

#[test]
fn virustotal_is_judged_by_status_and_error_code() {
    let table = [
        (200, r#"{"data":{"id":"x","type":"file","attributes":{"last_analysis_stats":{"malicious":3}}}}"#, "success"),
        (200, r#"{"data":{"attributes":{}}}"#, "success"),
        (200, "{}", "invalid"),
        (200, r#"{"data":null}"#, "invalid"),
        (200, r#"{"data":{"id":"x"}}"#, "invalid"),
        (200, "", "invalid"),
        (200, "not json", "invalid"),
        (200, PAGE, "error retry"),
        (404, r#"{"error":{"code":"NotFoundError","message":"File \"x\" not found"}}"#, "not_found"),
        (404, r#"{"error":{"code":"OtherError"}}"#, "error retry"),
        (404, "no such route", "error retry"),
        (404, PAGE, "error retry"),
        (401, r#"{"error":{"code":"WrongCredentialsError","message":"Wrong API key"}}"#, "unauthorized"),
        (401, r#"{"error":{"code":"AuthenticationRequiredError"}}"#, "unauthorized"),
        (401, r#"{"error":{"code":"UserNotActiveError"}}"#, "unauthorized"),
        (403, r#"{"error":{"code":"ForbiddenError"}}"#, "unauthorized"),
        (403, PAGE, "error retry"),
        (429, r#"{"error":{"code":"QuotaExceededError","message":"Quota exceeded"}}"#, "rate_limited 300 used_up"),
        (429, r#"{"error":{"code":"TooManyRequestsError"}}"#, "rate_limited 60"),
        (429, "<title>429</title>429 Too Many Requests", "rate_limited 60"),
        (400, r#"{"error":{"code":"BadRequestError"}}"#, "error final"),
        (400, r#"{"error":{"code":"InvalidArgumentError"}}"#, "error final"),
        (400, r#"{"error":{"code":"NotAvailableYet"}}"#, "error retry"),
        (409, r#"{"error":{"code":"AlreadyExistsError"}}"#, "error final"),
        (424, r#"{"error":{"code":"FailedDependencyError"}}"#, "error retry"),
        (503, r#"{"error":{"code":"TransientError"}}"#, "error retry"),
        (504, r#"{"error":{"code":"DeadlineExceededError"}}"#, "error retry"),
        (204, "", "invalid"),
        (301, PAGE, "error retry"),
    ];
    check(&builtin("virustotal"), &table);
}

#[test]
fn dshield_is_judged_by_its_body_and_a_null_count_is_an_answer() {
    let unknown =
        r#"{"ip":{"number":"192.0.2.1","count":null,"attacks":null,"as":4812,"asname":"X","ascountry":"CN"}}"#;
    let table = [
        (
            200,
            r#"{"ip":{"number":"192.0.2.1","count":9903,"attacks":49,"as":13335,"network":"192.0.2.0\/24"}}"#,
            "success",
        ),
        (200, unknown, "success"),
        (200, r#"{"ip":{"number":"::1","count":null,"attacks":null,"threatfeeds":null}}"#, "not_found"),
        (200, r#"{"ip":{"number":"::1","count":null,"threatfeeds":[],"ssh":{}}}"#, "not_found"),
        (200, r#"{"ip":{"asname":"","ascountry":""}}"#, "not_found"),
        (200, r#"{"ip":{"number":"::1","count":"0"}}"#, "success"),
        (200, r#"{"error":"bad IP address"}"#, "error final"),
        (200, r#"{"error":"database is down"}"#, "error retry"),
        (200, "{}", "invalid"),
        (200, "null", "invalid"),
        (200, r#"{"ip":null}"#, "invalid"),
        (200, r#"["", "", ""]"#, "invalid"),
        (200, PAGE, "error retry"),
        (403, PAGE, "error retry"),
        (403, "blocked", "unauthorized"),
        (429, "slow down", "rate_limited 300"),
        (429, PAGE, "rate_limited 300"),
        (301, "", "error retry"),
        (502, PAGE, "error retry"),
    ];
    check(&builtin("dshield"), &table);
}

#[test]
fn urlhaus_is_judged_by_its_query_status_whatever_the_status() {
    let table = [
        (200, r#"{"query_status":"ok","host":"h.example","url_count":"1","urls":[{"id":"1","tags":null}]}"#, "success"),
        (200, r#"{"query_status":"ok","md5_hash":"a","sha256_hash":"b","urls":[]}"#, "success"),
        (200, r#"{"query_status":"no_results"}"#, "not_found"),
        (200, r#"{"query_status":"ok"}"#, "not_found"),
        (200, r#"{"query_status":"ok","md5_hash":null,"sha256_hash":null,"url_count":null,"urls":null}"#, "not_found"),
        (200, r#"{"query_status":"ok","host":"h.example","urls":[],"blacklists":{"surbl":"not listed"}}"#, "not_found"),
        (200, r#"{"query_status":"invalid_host"}"#, "error final"),
        (200, r#"{"query_status":"invalid_sha256"}"#, "error final"),
        (200, r#"{"query_status":"something_new"}"#, "error retry"),
        (200, r#"{"query_status":null}"#, "error retry"),
        (200, "{}", "invalid"),
        (200, "[]", "invalid"),
        (200, r#"{"query_status":"unknown_auth_key","data":"see the documentation"}"#, "unauthorized"),
        (403, r#"{"query_status":"unknown_auth_key"}"#, "unauthorized"),
        (401, r#"{"error":"Unauthorized"}"#, "unauthorized"),
        (405, r#"{"query_status":"http_post_expected"}"#, "error final"),
        (400, PAGE, "error retry"),
        (502, PAGE, "error retry"),
        (429, r#"{"query_status":"rate_limited"}"#, "rate_limited 60"),
    ];
    check(&builtin("urlhaus"), &table);
}

#[test]
fn spur_minimal_data_is_an_answer_and_its_429_is_a_used_up_balance() {
    let table = [
        (200, r#"{"ip":"192.0.2.1","as":{"number":2532,"organization":"L"},"location":{"country":"US"}}"#, "success"),
        (200, r#"{"ip":"192.0.2.1","infrastructure":"DATACENTER","tunnels":[{"type":"VPN"}]}"#, "success"),
        (200, r#"{"ip":"192.0.2.1"}"#, "not_found"),
        (200, r#"{"ip":"192.0.2.1","as":{},"tunnels":[]}"#, "not_found"),
        (200, "{}", "invalid"),
        (404, r#"{"error":"not found"}"#, "not_found"),
        (400, r#"{"error":"IP must be a public IPv4 or IPv6"}"#, "error final"),
        (401, r#"{"error":"invalid token"}"#, "unauthorized"),
        (403, r#"{"error":"no access to the Context API"}"#, "unauthorized"),
        (403, PAGE, "error retry"),
        (429, r#"{"error":"insufficient queries"}"#, "rate_limited 3600 used_up"),
        (429, PAGE, "rate_limited 3600 used_up"),
        (500, r#"{"error":"internal"}"#, "error retry"),
    ];
    check(&builtin("spur"), &table);
}

#[test]
fn hibp_is_a_range_or_an_error_and_an_outage_is_never_an_empty_range() {
    let a = "0018A45C4D1DEF81644B54AB7F969B88D65";
    let good = format!("{a}:10\r\n00D4F6E8FA6EECAD2A3AA415EEC418D38EC:0");
    let table = [
        (200, good.as_str(), "success"),
        (200, "", "invalid"),
        (200, "rubbish", "invalid"),
        (200, "{}", "invalid"),
        (200, PAGE, "error retry"),
        (404, "The hash prefix was not found", "error retry"),
        (400, "The hash prefix was not in a valid format", "error final"),
        (403, "", "unauthorized"),
        (403, PAGE, "error retry"),
        (405, "", "error final"),
        (409, "", "rate_limited 10"),
        (429, PAGE, "rate_limited 10"),
        (500, "Something went wrong.", "error retry"),
    ];
    let hibp = builtin("hibp");
    check(&hibp, &table);
    let Outcome::Success { payload, ranges: Some(ranges), altered: false, validators: None } =
        judge(&hibp, &answer(200, &good, None), NOW)
    else {
        panic!("a range is packed");
    };
    assert_eq!(payload, r#"{"suffixes":1,"most_seen":10}"#);
    assert_eq!(hibp::to_json(&ranges), format!("{{\"{a}\":10}}"));
    let payload = format!("{{\"{}\":10}}", &a[..27]);
    let ntlm = judge(&builtin("hibp"), &answer(200, &format!("{}:10", &a[..27]), None), NOW);
    assert_eq!(ntlm, Outcome::Success { payload, ranges: None, altered: false, validators: None });
}

#[test]
fn a_304_renews_what_was_asked_conditionally_and_is_no_answer_otherwise() {
    let hibp = builtin("hibp");
    let unchanged = Answer { conditional: true, ..answer(304, "", None) };
    assert_eq!(judge(&hibp, &unchanged, NOW), Outcome::Unchanged);
    assert!(matches!(judge(&hibp, &answer(304, "", None), NOW), Outcome::Invalid { .. }));
    let wanted = vec![("etag".to_owned(), "\"a\"".to_owned())];
    let tagged = Answer { wanted, ..answer(200, &format!("{}:1", "0".repeat(35)), None) };
    let validators_of = |service: &Service| match judge(service, &tagged, NOW) {
        Outcome::Success { validators, .. } => validators,
        other => panic!("{other:?}"),
    };
    assert_eq!(validators_of(&hibp).unwrap().etag.as_deref(), Some("\"a\""));
    let careless = Service { rules: Rules { conditional: false, ..hibp.rules.clone() }, ..hibp };
    assert_eq!(validators_of(&careless), None);
}

#[test]
fn a_provider_without_rules_is_judged_by_http() {
    let table = [
        (200, "{}", "success"),
        (201, "\u{feff}[1]", "success"),
        (200, " \r\n", "invalid"),
        (100, "", "error final"),
        (302, "", "error retry"),
        (401, "", "unauthorized"),
        (402, "{}", "error final"),
        (404, "", "not_found"),
        (404, PAGE, "error retry"),
        (407, "", "error retry"),
        (408, "", "error retry"),
        (422, r#"{"errors":[{"detail":"bad ip"}]}"#, "error final"),
        (425, "", "error retry"),
        (429, "", "rate_limited 60"),
        (500, "", "error retry"),
        (999, "", "error final"),
    ];
    check(&service("plain", Rules::default()), &table);
}

#[test]
fn a_rule_can_make_a_404_with_a_body_a_success_and_compare_numbers_by_value() {
    let rules = r#"{"outcomes":[
        {"status":[404],"path":"noise","exists":true,"outcome":"success"},
        {"path":"pulses","equals":[0],"outcome":"not_found"},
        {"path":"","equals":[[]],"outcome":"not_found"},
        {"status":[200],"path":"limited","equals":[true],"outcome":"rate_limited"},
        {"status":[410],"outcome":"not_found"},
        {"status":[451],"outcome":"unauthorized"},
        {"status":[503],"outcome":"error"}],"require":["ip"]}"#;
    let table = [
        (404, r#"{"ip":"1.1.1.1","noise":false}"#, "success"),
        (404, r#"{"noise":false}"#, "invalid"),
        (404, PAGE, "error retry"),
        (200, r#"{"ip":"1.1.1.1","pulses":0.0}"#, "not_found"),
        (200, r#"{"ip":"1.1.1.1","pulses":"0"}"#, "success"),
        (200, "[ ]", "not_found"),
        (200, r#"{"limited":true}"#, "rate_limited 60"),
        (410, "gone", "not_found"),
        (410, PAGE, "error retry"),
        (451, "", "unauthorized"),
        (451, PAGE, "error retry"),
        (503, "", "error retry"),
    ];
    check(&service("own", Rules::parse(rules).unwrap()), &table);
}

#[test]
fn retry_after_is_honoured_by_rules_and_by_default() {
    for (name, expected) in [("virustotal", "rate_limited 7 asked"), ("spur", "rate_limited 7 used_up asked")] {
        assert_eq!(short(&judge(&builtin(name), &answer(429, "", Some("7")), NOW)), expected);
    }
}

#[test]
fn a_null_character_is_replaced_and_the_answer_kept() {
    let body = r#"{"data":{"attributes":{"s":"a\u0000b"}}}"#;
    let payload = r#"{"data":{"attributes":{"s":"a\ufffdb"}}}"#.to_owned();
    let outcome = judge(&builtin("virustotal"), &answer(200, body, None), NOW);
    assert_eq!(outcome, Outcome::Success { payload, ranges: None, altered: true, validators: None });
}

#[test]
fn an_answer_nested_deeper_than_a_tree_can_be_is_judged_all_the_same() {
    let deep = format!("{{\"data\":{{\"attributes\":{}{}}}}}", "[".repeat(400), "]".repeat(400));
    check(&builtin("virustotal"), &[(200, &deep, "success")]);
    check(&builtin("virustotal"), &[(200, &"[".repeat(600), "invalid")]);
}

#[test]
fn messages_say_what_the_provider_says_and_nothing_that_looks_like_a_key() {
    let message = |name: &str, status, body: &str| match judge(&builtin(name), &answer(status, body, None), NOW) {
        Outcome::Unauthorized { message } | Outcome::Error { message, .. } | Outcome::Invalid { message, .. } => {
            message
        }
        other => panic!("{other:?}"),
    };
    let key = "0123456789abcdef".repeat(4);
    let body = format!(r#"{{"error":{{"message":"Wrong API key {key}\n"}}}}"#);
    assert_eq!(
        message("virustotal", 401, &body),
        "the provider does not accept the credential (HTTP 401): Wrong API key ***"
    );
    assert_eq!(message("urlhaus", 200, r#"{"query_status":"x"}"#), "an unknown query_status (HTTP 200): x");
    assert_eq!(message("spur", 200, r#"{"a":"payload"}"#), r#"the answer lacks "ip" (HTTP 200)"#);
    assert_eq!(message("virustotal", 200, r#"{"a":"payload"}"#), r#"the answer lacks "data.attributes""#);
    assert_eq!(message("virustotal", 200, "payload"), "the answer is not json: expected a value at byte 0");
    let long = format!(r#"{{"error":"{}"}}"#, "no ".repeat(1000));
    assert!(message("spur", 500, &long).chars().count() < 200);
}

#[test]
fn a_call_without_an_answer_is_an_error_and_passes_unless_we_refused_it() {
    for (kind, word, retry) in [
        (TransportKind::Dns, "dns", true),
        (TransportKind::Connect, "connect", true),
        (TransportKind::Tls, "tls", true),
        (TransportKind::Timeout, "timeout", true),
        (TransportKind::Reset, "reset", true),
        (TransportKind::Protocol, "protocol", true),
        (TransportKind::TooLarge, "too_large", false),
        (TransportKind::Egress, "egress", false),
        (TransportKind::Redirect, "redirect", true),
    ] {
        assert_eq!(kind.as_str(), word);
        let failure = TransportFailure { kind, message: "m".into(), latency_ms: 1 };
        assert_eq!(judge_failure(&failure), Outcome::Error { message: "m".into(), retry });
    }
}

#[test]
fn what_is_nested_too_deep_is_final_and_says_nothing_of_the_provider() {
    let deep = format!("{}1{}", "[".repeat(513), "]".repeat(513));
    let given = answer(200, &deep, None);
    let outcome = judge(&builtin("dshield"), &given, NOW);
    assert!(matches!(outcome, Outcome::Invalid { retry: false, .. }), "{outcome:?}");
    let cause = Cause::of(&given, &outcome);
    assert_eq!((cause.as_str(), Health::of(&outcome, cause)), ("too_deep", Health::Works));
    let cut_off = judge(&builtin("dshield"), &answer(200, "[[", None), NOW);
    assert!(matches!(cut_off, Outcome::Invalid { retry: true, .. }), "{cut_off:?}");
}

proptest! {
    #[test]
    fn every_answer_gets_an_outcome_and_every_payload_is_json(
        status in any::<u16>(),
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100),
            "[{}\\[\\]\",:a0 ]{0,40}".prop_map(String::into_bytes),
        ],
        retry_after in proptest::option::of(any::<String>()),
    ) {
        for name in ["virustotal", "dshield", "urlhaus", "spur", "hibp"] {
            let given = Answer { body: body.clone(), ..answer(status, "", retry_after.as_deref()) };
            let outcome = judge(&builtin(name), &given, NOW);
            if let Outcome::Success { payload, .. } = &outcome {
                prop_assert!(serde_json::from_str::<serde_json::Value>(payload).is_ok());
                prop_assert!((200..300).contains(&status));
            }
        }
    }
}
