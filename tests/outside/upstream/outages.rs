//! Failures of providers taken for answers, and of limits: 6, 7, 8, 9, 15 (an outage), 16.

use crate::sources_support::{insert_sessions, make_sessions, wait_quiet, ATTACH_SESSIONS};
use crate::support::{address, one, run, same, Base, SOON};
use serde_json::json;
use std::time::{Duration, Instant};
use testbed::wait_until;

const ATTACH_DSHIELD: &str = "SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')";

fn base(name: &str) -> Base {
    Base::new("upstream", name)
}

/// The time of the next attempt has come.
fn time_passes(base: &Base) {
    base.run("UPDATE enrichment_queue SET next_attempt_at = now() WHERE state = 'waiting'; SELECT enrich_wake()");
}

fn coverage(base: &Base, service: &str, column: &str) -> i64 {
    base.one(&format!("SELECT {column}::int8 FROM enrichment_coverage WHERE service = '{service}'"))
}

#[test]
fn failure_06_without_a_spur_key_nothing_counts_as_answered() {
    let base = base("f06");
    let keys = base.known("dshield", 5);
    make_sessions(&base, "jsonb", &keys);
    base.run("SELECT enrich_set_secret('spur', NULL)");
    base.run(ATTACH_SESSIONS);
    base.run("CALL enrich_refresh()");
    assert_eq!(coverage(&base, "dshield", "percent"), 100);
    assert_eq!((coverage(&base, "spur", "percent"), coverage(&base, "spur", "answered")), (0, 0));
    let spur = "SELECT count(*) FROM session_summaries WHERE enrichment ? 'spur' OR enrichment -> '_meta' ? 'spur'";
    assert_eq!(base.one::<i64>(spur), 0);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_cache WHERE service = 'spur'"), 0);
    assert_eq!(base.asked("spur"), 0);
    assert_eq!(base.one::<String>(&format!("SELECT enrich_request('spur', '{}')", keys[0])), "no_credential");
    let health: String =
        base.one("SELECT detail || ' ' || hint FROM enrich_health() WHERE check_name = 'service spur'");
    assert!(health.contains("no_credential") && health.contains("enrich_set_secret('spur'"), "{health}");
    // the key makes it go on at once
    base.run("SELECT enrich_set_secret('spur', 'sandbox-spur-key')");
    base.wait_for("SELECT count(*) FROM session_summaries WHERE enrichment ? 'spur'", 5i64);
}

#[test]
fn failure_07_no_failure_is_stored_as_an_answer_and_each_is_tried_again() {
    let base = base("f07");
    make_sessions(&base, "jsonb", &[]);
    base.run(ATTACH_DSHIELD);
    wait_quiet(&base);
    let faults = ["status", "html_200", "not_json", "empty_200", "truncated_json", "reset", "wrong_key", "429_plain"];
    let keys = base.known("dshield", faults.len());
    for (n, (kind, key)) in faults.iter().zip(&keys).enumerate() {
        base.sandbox.fault(json!({ "service": "dshield", "kind": kind, "status": 503, "key": key, "count": 1 }));
        let id = format!("f{n}");
        base.run(&format!("INSERT INTO session_summaries (session_id, source_ip) VALUES ('{id}', '{key}')"));
        let tried =
            format!("SELECT count(*) FROM enrichment_queue WHERE cache_key = '{key}' AND last_outcome IS NOT NULL");
        base.wait_for(&tried, 1i64);
        let row = format!(
            "SELECT enrichment IS NULL AND enrichment_at IS NULL FROM session_summaries WHERE session_id = '{id}'"
        );
        assert!(base.one::<bool>(&row), "{kind} was written into the row");
        assert!(base.one::<bool>(&format!("SELECT enrich_get('dshield', '{key}') IS NULL")), "{kind}");
        assert_eq!(coverage(&base, "dshield", "answered"), n as i64, "{kind} counts as an answer");
        base.run("DELETE FROM enrichment_lane");
        time_passes(&base);
        base.wait_for(&format!("SELECT enrichment ? 'dshield' FROM session_summaries WHERE session_id = '{id}'"), true);
        assert_eq!(base.asked_for("dshield", key), 2, "{kind}");
    }
}

#[test]
fn failure_08_a_refused_key_and_a_limit_are_told_apart() {
    let base = base("f08");
    let keys = base.known("dshield", 2);
    make_sessions(&base, "jsonb", &keys[..1]);
    base.run("SELECT enrich_set_secret('spur', 'an expired key')");
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{spur}', 'enrichment')");
    let pause = "SELECT coalesce(max(cause), '') FROM enrichment_lane WHERE service = 'spur' AND paused_until > now()";
    base.wait_for(pause, "unauthorized".to_string());
    let health: String = base.one("SELECT hint FROM enrich_health() WHERE check_name = 'service spur'");
    assert!(health.contains("Give the right secret"), "{health}");
    assert_eq!(base.one::<String>("SELECT state || ' ' || attempts FROM enrichment_queue"), "waiting 0");
    base.run("SELECT enrich_set_secret('spur', 'sandbox-spur-key')");
    base.wait_for("SELECT count(*) FROM session_summaries WHERE enrichment ? 'spur'", 1i64);

    // a limit is waited for as long as the provider says, and is nobody's failure
    base.sandbox.fault(json!({ "service": "spur", "kind": "retry_after_seconds", "n": 1, "count": 1 }));
    base.sandbox.fault(json!({ "service": "dshield", "kind": "retry_after_seconds", "n": 2, "count": 1 }));
    base.run(&format!("SELECT enrich_request('dshield', '{}')", keys[1]));
    let limited = "SELECT cause FROM enrichment_lane WHERE service = 'dshield' AND paused_until > now()";
    let began = Instant::now();
    base.wait_for(&format!("SELECT coalesce(({limited}), '')"), "rate_limited".to_string());
    let waiting =
        format!("SELECT attempts || ' ' || last_outcome FROM enrichment_queue WHERE cache_key = '{}'", keys[1]);
    assert_eq!(base.one::<String>(&waiting), "0 rate_limited");
    let state = format!("SELECT state FROM enrich_lookup('dshield', '{}')", keys[1]);
    assert_ne!(base.one::<String>(&state), "hit");
    base.wait_for(&state, "hit".to_string());
    assert!(
        began.elapsed() > Duration::from_millis(1500),
        "asked again before the provider said: {:?}",
        began.elapsed()
    );
    assert_eq!(base.asked_for("dshield", &keys[1]), 2);
}

#[test]
fn failure_09_one_limit_holds_for_all_calls_and_dshield_gets_its_silence() {
    let base = base("f09");
    // the provider counts a little more generously than we do, because calls may bunch up on their way
    base.sandbox.set_limit("dshield", 5, "second");
    base.run("UPDATE enrichment_service SET limits = '[{\"max\": 4, \"per\": \"second\"}]' WHERE name = 'dshield'");
    make_sessions(&base, "jsonb", &[]);
    base.run(ATTACH_DSHIELD);
    let began = Instant::now();
    for n in 1..=5u32 {
        // each time another session, another statement, another way
        let key = address(n);
        base.run(&format!("SELECT enrich_request('dshield', '{key}')"));
        base.run(&format!(
            "INSERT INTO session_summaries (session_id, source_ip) VALUES ('i{n}', '{}')",
            address(100 + n)
        ));
        base.run(&format!("SELECT enrich_request_many('dshield', '{{{},{}}}')", address(200 + n), address(300 + n)));
    }
    wait_quiet(&base);
    assert!(began.elapsed() > Duration::from_secs(3), "20 calls at 4 a second took {:?}", began.elapsed());
    let stats = base.sandbox.stats();
    assert_eq!((stats["dshield"]["requests"].as_i64(), stats["dshield"]["limited"].as_i64()), (Some(20), Some(0)));
    assert_eq!(stats["dshield"]["unauthorized"], 0, "the agent names no contact");

    // five minutes of silence after a 429, for this provider alone
    base.sandbox.fault(json!({ "service": "dshield", "kind": "429_plain", "count": 1 }));
    base.run(&format!("SELECT enrich_request('dshield', '{}')", address(50)));
    base.wait_for("SELECT count(*) FROM enrichment_lane WHERE service = 'dshield' AND cause = 'rate_limited'", 1i64);
    let silence = "SELECT paused_until - now() BETWEEN interval '270 s' AND interval '330 s' FROM enrichment_lane WHERE service = 'dshield'";
    assert!(base.one::<bool>(silence));
    let requests = base.asked("dshield");
    insert_sessions(&base, &[address(60)]);
    time_passes(&base);
    base.run(&format!("SELECT enrich_request('urlhaus', '{}')", address(60)));
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE service = 'urlhaus'", 1i64);
    assert_eq!(base.asked("dshield"), requests, "the silence was broken");
}

#[test]
fn failure_15_an_outage_of_hibp_says_nothing_about_a_password() {
    let base = base("f15_outage");
    base.run("CREATE TABLE password_tracking (password_text text, breached bool, breach_prevalence int, last_hibp_check timestamptz)");
    base.sandbox.fault(json!({ "service": "hibp", "kind": "html_200" }));
    base.run("SELECT enrich_attach('password_tracking', 'password_text', '{hibp}')");
    base.run("INSERT INTO password_tracking VALUES ('password'), ('surely novel'); INSERT INTO password_tracking VALUES ('letmein', true, 5)");
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE attempts > 0", 3i64);
    let mut client = base.client();
    let said = "SELECT string_agg(coalesce(breached::text, 'unknown') || coalesce(last_hibp_check::text, ''), ' ' ORDER BY password_text)
        FROM password_tracking";
    assert_eq!(one::<String>(&mut client, said), "true unknown unknown");
    let asked =
        client.query_one("SELECT breached, prevalence, status FROM enrich_password('password')", &[]).expect("a row");
    assert_eq!((asked.get::<_, Option<bool>>(0), asked.get::<_, Option<i64>>(1)), (None, None));
    assert!(["queued", "error"].contains(&asked.get::<_, &str>(2)), "{}", asked.get::<_, &str>(2));
    base.sandbox.clear_faults();
    run(&mut client, "DELETE FROM enrichment_lane");
    time_passes(&base);
    base.wait_for(
        "SELECT string_agg(breached::text, ' ' ORDER BY password_text) FROM password_tracking",
        "true true false".to_string(),
    );
}

#[test]
fn failure_16_the_quota_of_virustotal_is_read_where_it_stands() {
    let base = base("f16");
    base.sandbox.set_limit("virustotal", 1000, "day");
    base.run(
        r#"UPDATE enrichment_service SET limits = '[{"max": 500, "per": "day"}]',
             rules = jsonb_set(jsonb_set(rules, '{usage,every_seconds}', '1'), '{variables,default,account}', '"me"')
           WHERE name = 'virustotal'"#,
    );
    let ask = |keys: std::ops::Range<u32>| {
        let keys: Vec<String> = keys.map(|n| format!("{n:064x}")).collect();
        base.run(&format!("SELECT enrich_request_many('virustotal', '{{{}}}')", keys.join(",")));
    };
    let said =
        "SELECT concat_ws(' ', provider_max, provider_spent > 0 AND provider_spent <= 30) FROM enrichment_quota_status
        WHERE service = 'virustotal' AND per = 'day'";
    // it is asked at most once a second, beside calls, and the first time perhaps before the first of them has arrived
    let (mut next, mut asked, mut client) = (1, None::<Instant>, base.client());
    wait_until("what the provider says", SOON, || {
        if next < 25 && asked.is_none_or(|at| at.elapsed() > Duration::from_millis(1100)) {
            ask(next..next + 1);
            (next, asked) = (next + 1, Some(Instant::now()));
        }
        same(
            client.query_opt(said, &[]).map_err(|why| why.to_string())?.map(|row| row.get(0)),
            &Some("1000 t".to_string()),
        )
    });
    // hardly used is not used up: no hour of sleep for each file
    ask(next..31);
    wait_quiet(&base);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_cache WHERE service = 'virustotal'"), 30);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_lane WHERE paused_until > now()"), 0);
}
