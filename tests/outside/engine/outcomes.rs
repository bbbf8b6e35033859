//! Each way in which a call can end, for each of the five providers: what is noted, whether it is an attempt, what it
//! does to the service, and under what it is counted.

use super::base;
use crate::support::{self, address, Base, SOON};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::ops::Range;
use testbed::wait_until;

/// What one call is to come to.
struct Case {
    name: &'static str,
    fault: Value,
    outcome: &'static str,
    cause: &'static str,
    after: After,
}

/// What becomes of the request.
#[derive(Clone, Debug, PartialEq)]
enum After {
    /// It is answered.
    Gone,
    /// It waits for another attempt.
    Again,
    /// It rests.
    Dead,
    /// The service waits this many seconds, and no attempt is used up.
    Paused(&'static str, Range<i64>),
}
use After::{Again, Dead, Gone, Paused};

fn case(name: &'static str, fault: Value, outcome: &'static str, cause: &'static str, after: After) -> Case {
    Case { name, fault, outcome, cause, after }
}

fn body(status: u16, body: &str) -> Value {
    json!({"kind": "body", "status": status, "body": body})
}

/// What is the same for all of them.
fn common() -> Vec<Case> {
    vec![
        case("page_403", json!({"kind": "status", "status": 403}), "error", "html_page", Again),
        case("page_200", json!({"kind": "html_200"}), "error", "html_page", Again),
        case("page_503", body(503, " \n<html>busy</html>"), "error", "html_page", Again),
        case("failed_500", body(500, r#"{"error": "internal"}"#), "error", "http_5xx", Again),
        case("failed_502", body(502, "bad gateway"), "error", "http_5xx", Again),
        case("timeout_408", body(408, "{}"), "error", "http_4xx", Again),
        case("refused_422", body(422, r#"{"detail": "no"}"#), "error", "http_4xx", Dead),
        case("reset", json!({"kind": "reset"}), "error", "reset", Again),
        case("ends_early", json!({"kind": "eof"}), "error", "reset", Again),
        case("hangs", json!({"kind": "hang"}), "error", "timeout", Again),
        case("malformed", json!({"kind": "not_json"}), "invalid", "malformed", Again),
        case("empty", json!({"kind": "empty_200"}), "invalid", "malformed", Again),
        case("large", json!({"kind": "huge_body", "bytes": 3_000_000}), "error", "too_large", Dead),
        case("large_gzip", json!({"kind": "huge_body", "bytes": 3_000_000, "gzip": true}), "error", "too_large", Dead),
        case("redirect", json!({"kind": "redirect", "to": "http://127.0.0.1:1/x"}), "error", "redirect", Again),
        case("answer", json!({"kind": "slow", "ms": 1}), "success", "http_2xx", Gone),
    ]
}

const HOUR: Range<i64> = 3_590..3_601;

/// What each says in its own words. `pause` is how long it is left alone where it names no time.
fn own(service: &str) -> Vec<Case> {
    let (limited, cause, pause) = match service {
        "virustotal" => ("rate_limited", "limited", 58..61),
        "dshield" => ("rate_limited", "limited", 298..301),
        "urlhaus" => ("rate_limited", "limited", 58..61),
        "spur" => ("used_up", "used_up", HOUR),
        _ => ("rate_limited", "limited", 8..11),
    };
    let wait = |seconds: Range<i64>| Paused(limited, seconds);
    // what VirusTotal says with a time is that a quota is used up
    let (asked, asked_cause) = if service == "virustotal" { ("used_up", "used_up") } else { (limited, cause) };
    let asked = || Paused(asked, 36..41);
    let mut cases = vec![
        case("wait_seconds", json!({"kind": "retry_after_seconds", "n": 40}), "rate_limited", asked_cause, asked()),
        case("wait_date", json!({"kind": "retry_after_date", "n": 40}), "rate_limited", asked_cause, asked()),
        case("wait_unsaid", json!({"kind": "429_plain"}), "rate_limited", cause, wait(pause.clone())),
    ];
    let refused = || Paused("unauthorized", HOUR);
    // its lines are no JSON, in which a rule could look
    if service != "hibp" {
        // a rule of the user's own: these providers say so nowhere in their documents
        let limited = body(200, r#"{"query_status": "rate_limited"}"#);
        let pause = if service == "spur" { 58..61 } else { pause.clone() };
        cases.push(case("limit_at_200", limited, "rate_limited", "limited", Paused("rate_limited", pause)));
    }
    cases.extend(match service {
        "virustotal" => vec![
            case(
                "quota",
                body(429, r#"{"error": {"code": "QuotaExceededError"}}"#),
                "rate_limited",
                "used_up",
                Paused("used_up", 298..301),
            ),
            case(
                "too_many",
                body(429, r#"{"error": {"code": "TooManyRequestsError"}}"#),
                "rate_limited",
                cause,
                wait(pause),
            ),
            case("wrong_key", json!({"kind": "wrong_key"}), "unauthorized", "http_401", refused()),
            case(
                "forbidden",
                body(403, r#"{"error": {"code": "ForbiddenError"}}"#),
                "unauthorized",
                "http_403",
                refused(),
            ),
            case("unknown", body(404, r#"{"error": {"code": "NotFoundError"}}"#), "not_found", "http_4xx", Gone),
            case("foreign_404", body(404, "{}"), "error", "http_4xx", Again),
            case("cut_off", json!({"kind": "truncated_json"}), "invalid", "malformed", Again),
            case("no_data", body(200, r#"{"data": {"id": "x"}}"#), "invalid", "malformed", Again),
            case("transient", body(503, r#"{"error": {"code": "TransientError"}}"#), "error", "http_5xx", Again),
        ],
        "dshield" => vec![
            case("agent", body(403, r#"{"error": "blocked"}"#), "unauthorized", "http_403", refused()),
            case(
                "unknown",
                body(200, r#"{"ip": {"number": "8.8.8.8", "count": null}}"#),
                "not_found",
                "http_2xx",
                Gone,
            ),
            case("bad_address", body(200, r#"{"error": "bad IP address"}"#), "error", "http_2xx", Dead),
            case("other_error", body(200, r#"{"error": "database down"}"#), "error", "http_2xx", Again),
            case("gone", body(404, "{}"), "not_found", "http_4xx", Gone),
            case("refused", body(401, "{}"), "unauthorized", "http_401", refused()),
            case("cut_off", json!({"kind": "truncated_json"}), "invalid", "malformed", Again),
        ],
        "urlhaus" => vec![
            case("wrong_key", json!({"kind": "wrong_key"}), "unauthorized", "http_403", refused()),
            case("no_key", body(401, r#"{"error": "Unauthorized"}"#), "unauthorized", "http_401", refused()),
            case(
                "key_at_200",
                body(200, r#"{"query_status": "unknown_auth_key"}"#),
                "unauthorized",
                "http_2xx",
                refused(),
            ),
            case("unknown", body(200, r#"{"query_status": "no_results"}"#), "not_found", "http_2xx", Gone),
            case("refused", body(200, r#"{"query_status": "invalid_host"}"#), "error", "http_2xx", Dead),
            case("unheard_of", body(200, r#"{"query_status": "maintenance"}"#), "error", "http_2xx", Again),
            case("missing", body(404, "{}"), "not_found", "http_4xx", Gone),
            case("cut_off", json!({"kind": "truncated_json"}), "invalid", "malformed", Again),
        ],
        "spur" => vec![
            case("balance", body(429, r#"{"error": "insufficient queries"}"#), "rate_limited", cause, wait(pause)),
            case("wrong_key", json!({"kind": "wrong_key"}), "unauthorized", "http_401", refused()),
            case("no_access", body(403, r#"{"error": "no access"}"#), "unauthorized", "http_403", refused()),
            case("unknown", body(404, r#"{"error": "not found"}"#), "not_found", "http_4xx", Gone),
            case("bare", body(200, r#"{"ip": "8.8.8.8"}"#), "not_found", "http_2xx", Gone),
            case("cut_off", json!({"kind": "truncated_json"}), "invalid", "malformed", Again),
        ],
        _ => vec![
            case("ban", body(409, "{}"), "rate_limited", cause, wait(pause)),
            case("missing", body(404, "not there"), "error", "http_4xx", Again),
            case("refused", body(401, "{}"), "unauthorized", "http_401", refused()),
            case("forbidden", body(403, "{}"), "unauthorized", "http_403", refused()),
            case(
                "cut_off",
                body(200, "0018A45C4D1DEF81644B54AB7F969B88D65:1\r\n00D4F6E8FA6"),
                "invalid",
                "malformed",
                Again,
            ),
        ],
    });
    cases
}

const SERVICES: [&str; 5] = ["virustotal", "dshield", "urlhaus", "spur", "hibp"];

/// A service of its own for each case, so that none waits for another's trouble. None asks its provider for its usage: the
/// sandbox would tell of a balance of which it has just said that it is used up.
fn prepare(base: &Base, service: &str, cases: &[Case], first_key: u32) -> Vec<(String, String)> {
    let rule = r#"{"status": [200], "path": "query_status", "equals": ["rate_limited"], "outcome": "rate_limited"}"#;
    let mut asked = Vec::new();
    for (n, case) in (first_key..).zip(cases) {
        let name = format!("{service}_{}", case.name);
        // only what waits for it may take its time: the machine may be busy
        let timeout_ms = if case.name == "hangs" { 1_000 } else { 60_000 };
        base.run(&format!(
            "INSERT INTO enrichment_service (name, key_kind, method, url, headers, body, secret_name, secret_required,
                response_format, ttl, not_found_ttl, limits, timeout_ms, max_bytes, rules)
             SELECT '{name}', key_kind, method, url, headers, body, secret_name, secret_required, response_format, ttl,
                '1 hour', '[]', {timeout_ms}, 1048576, CASE response_format WHEN 'json'
                    THEN jsonb_insert(rules, '{{outcomes,0}}', '{rule}') ELSE rules END #- '{{usage,url}}' #- '{{usage,body}}'
             FROM enrichment_service WHERE name = '{service}'"
        ));
        let key = match service {
            "hibp" => format!("{n:05X}"),
            _ => address(n),
        };
        let mut order = case.fault.clone();
        order["service"] = json!(service);
        order["key"] = json!(key);
        base.sandbox.fault(order);
        asked.push((name, key));
    }
    asked
}

/// What became of a request: outcome, cause, what happens next, seconds of its service's pause, life of an answer.
type Seen = (String, String, After, Option<i64>, f64);

fn seen(base: &Base) -> BTreeMap<String, Seen> {
    let sql = "SELECT s.service, s.outcome, s.cause, q.state, q.attempts, l.cause, l.reason,
            round(extract(epoch FROM l.paused_until - q.last_attempt_at))::bigint,
            extract(epoch FROM c.expires_at - c.fetched_at)::float8, s.attempts, q.last_outcome, q.last_error, r.secret_name
        FROM enrichment_attempt_stats s
        JOIN enrichment_service r ON r.name = s.service
        LEFT JOIN enrichment_queue q ON q.service = s.service
        LEFT JOIN enrichment_lane l ON l.service = s.service AND l.paused_until > now()
        LEFT JOIN enrichment_cache c ON c.service = s.service";
    let rows = base.client().query(sql, &[]).expect("what was noted");
    let mut seen = BTreeMap::new();
    for row in rows {
        let service: String = row.get(0);
        let (outcome, cause): (String, String) = (row.get(1), row.get(2));
        assert_eq!(row.get::<_, i64>(9), 1, "{service}: asked once");
        let (state, used): (Option<String>, Option<i32>) = (row.get(3), row.get(4));
        let pause: Option<i64> = row.get(7);
        let after = match (state.as_deref(), used) {
            (None, _) => Gone,
            (Some("dead"), Some(1)) => Dead,
            (Some("waiting"), Some(1)) => Again,
            (Some("waiting"), Some(0)) => Paused(known(&row.get::<_, Option<String>>(5).unwrap_or_default()), 0..0),
            other => panic!("{service}: {other:?}"),
        };
        if after != Gone {
            assert_eq!(row.get::<_, Option<String>>(10).as_deref(), Some(outcome.as_str()), "{service}");
            let error: String = row.get(11);
            let reason: String = row.get::<_, Option<String>>(6).unwrap_or_default();
            assert!(!error.is_empty(), "{service}");
            if let Some(secret) = row.get::<_, Option<String>>(12).filter(|_| outcome == "unauthorized") {
                assert!(reason.contains(&format!("the secret {secret} comes from ")), "{service}: {reason}");
            }
            assert!(!format!("{error} {reason}").contains("sandbox-"), "{service}: a secret in {error} or {reason}");
        }
        seen.insert(service, (outcome, cause, after, pause, row.get::<_, Option<f64>>(8).unwrap_or(0.0)));
    }
    seen
}

/// One of the words that are expected, or none.
fn known(cause: &str) -> &'static str {
    ["rate_limited", "used_up", "unauthorized"].into_iter().find(|known| *known == cause).unwrap_or("")
}

#[test]
fn each_outcome_of_each_provider_does_what_it_must_and_nothing_else() {
    let base = Base::in_cluster(
        &support::shared_cluster("engine"),
        "each_outcome",
        &["--limits", "none", "--urlhaus-found", "1"],
    );
    base.run("ALTER SYSTEM SET enrichment_cache.concurrency = 300");
    base.run("SELECT pg_reload_conf()");
    let mut wanted = BTreeMap::new();
    let mut asked = Vec::new();
    for (n, service) in SERVICES.into_iter().enumerate() {
        let mut cases = common();
        cases.extend(own(service));
        asked.extend(prepare(&base, service, &cases, 0x100 + 0x100 * n as u32));
        wanted.extend(cases.into_iter().map(|case| (format!("{service}_{}", case.name), case)));
    }
    let requests: Vec<String> =
        asked.iter().map(|(service, key)| format!("SELECT enrich_request('{service}', '{key}')")).collect();
    base.run(&requests.join(";"));
    wait_until("every call to end", SOON * 2, || {
        let ended: i64 = support::ask(&mut base.client(), "SELECT count(*) FROM enrichment_attempt_stats")?;
        support::same(ended, &(wanted.len() as i64))
    });
    let seen = seen(&base);
    let mut wrong = Vec::new();
    for (name, case) in &wanted {
        let Some((outcome, cause, after, pause, life)) = seen.get(name) else { panic!("nothing is noted of {name}") };
        let as_wanted = match (&case.after, after) {
            (Paused(cause, seconds), Paused(seen, _)) => {
                cause == seen && pause.is_some_and(|pause| seconds.contains(&pause))
            }
            (wanted, seen) => wanted == seen && pause.is_none(),
        };
        // a short life of its own for what is not known: an hour, five per cent more or less
        let lives = *outcome != "not_found" || (3_400.0..3_800.0).contains(life);
        if (outcome.as_str(), cause.as_str()) != (case.outcome, case.cause) || !as_wanted || !lives {
            wrong.push(format!(
                "{name}: {outcome} ({cause}), {after:?} with a pause of {pause:?} s and a life of {life} s, in place of {} ({}), {:?}",
                case.outcome, case.cause, case.after
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // nothing of it was stored as an answer, nothing is left in flight, and the figures agree
    let answers = "SELECT count(*) FROM enrichment_cache WHERE payload IS NOT NULL";
    assert_eq!(base.one::<i64>(answers), 5);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue WHERE state = 'in_flight'"), 0);
    assert_eq!(base.one::<i64>("SELECT sum(api_calls)::bigint FROM enrichment_cache_stats"), wanted.len() as i64);
    let one_failure_opens_nothing = "SELECT count(*) FROM enrichment_breaker WHERE state <> 'closed'";
    assert_eq!(base.one::<i64>(one_failure_opens_nothing), 0);
}

#[test]
fn attempts_are_counted_by_service_day_and_cause_where_monitoring_reads_them() {
    let base = base("counted");
    let keys = base.known("dshield", 6);
    for key in &keys[..2] {
        base.sandbox.fault(json!({"service": "dshield", "key": key, "kind": "not_json"}));
    }
    base.sandbox.fault(json!({"service": "dshield", "key": keys[2], "kind": "reset"}));
    base.run(&format!("SELECT enrich_request_many('dshield', '{{{}}}')", keys.join(",")));
    base.wait_for("SELECT sum(attempts)::bigint FROM enrichment_attempt_stats", 6i64);
    base.run("CREATE ROLE watcher IN ROLE pg_monitor");
    let figures = "SET ROLE watcher; ";
    let mut client = base.client();
    support::run(&mut client, figures);
    let counted: String = support::one(
        &mut client,
        "SELECT string_agg(concat_ws(' ', service, outcome, cause, attempts), ', ' ORDER BY outcome, cause)
         FROM enrichment_attempt_stats WHERE day = (now() AT TIME ZONE 'UTC')::date",
    );
    assert_eq!(counted, "dshield error reset 1, dshield invalid malformed 2, dshield success http_2xx 3");
    support::run(
        &mut client,
        "SELECT * FROM enrichment_breaker; SELECT * FROM enrichment_dead_letter; RESET ROLE; DROP ROLE watcher",
    );
}

#[test]
fn the_log_names_each_kind_of_failure_once_and_no_key() {
    let base = base("hushed");
    super::set_rules(&base, "dshield", r#"{"breaker": {"failures": 0}}"#);
    base.sandbox.fault(
        json!({"service": "dshield", "kind": "body", "status": 500, "body": "{\"error\": \"said-by-provider\"}"}),
    );
    let before = base.cluster.log().len();
    base.run(&format!("SELECT enrich_request_many('dshield', {})", super::addresses(1, 60)));
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE attempts > 0", 60i64);
    let log = base.cluster.log()[before..].to_string();
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("dshield: an attempt ended with error (http_5xx, HTTP 500)")).collect();
    // a second one, with the number of those that were not said, when a minute has gone by
    assert!((1..=2).contains(&lines.len()), "{lines:?}");
    assert!(!log.contains("said-by-provider"), "a provider's words in the log");
    assert!((1..=60).all(|n| lines.iter().all(|line| !line.contains(&address(n)))), "a key in the log: {lines:?}");
}
