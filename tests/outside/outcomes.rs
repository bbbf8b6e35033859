//! What providers do on their bad days, and what becomes of it: the outcome is noted, an answer is never replaced.

use crate::support::{self, address, one, Base, SOON};
use serde_json::{json, Value};
use testbed::wait_until;

fn base(name: &str) -> Base {
    Base::new("outcomes", name)
}

/// Asks for a key and waits until the attempt is over; gives status and message of the cache's row.
fn attempt(base: &Base, service: &str, key: &str) -> (String, Option<String>, Option<i32>) {
    let mut client = base.client();
    let sql = format!("SELECT enrich_request('{service}', '{key}')");
    assert_eq!(one::<String>(&mut client, &sql), "queued", "{key}");
    wait_until("the end of the attempt", SOON, || {
        let row = client
            .query_opt(
                "SELECT c.response_status, c.error_message, c.api_response_code FROM enrichment_cache c
                 LEFT JOIN enrichment_queue q USING (service, cache_key)
                 WHERE c.service = $1 AND c.cache_key = $2 AND (q.id IS NULL OR q.last_outcome IS NOT NULL)",
                &[&service, &key],
            )
            .map_err(|why| support::said(&why))?;
        Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
    })
}

/// State, attempts used up, last outcome, and whether the next attempt lies ahead.
fn request(base: &Base, service: &str, key: &str) -> Option<(String, i32, String, bool)> {
    base.client()
        .query_opt(
            "SELECT state, attempts, last_outcome, next_attempt_at > now() FROM enrichment_queue
             WHERE service = $1 AND cache_key = $2",
            &[&service, &key],
        )
        .expect("the queue")
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
}

/// Cause of the lane's pause and seconds until its end.
fn pause(base: &Base, service: &str) -> Option<(String, f64)> {
    base.client()
        .query_opt(
            "SELECT cause, extract(epoch FROM paused_until - clock_timestamp())::float8 FROM enrichment_lane
             WHERE service = $1 AND paused_until IS NOT NULL",
            &[&service],
        )
        .expect("the lane")
        .map(|row| (row.get(0), row.get(1)))
}

/// Faults after which the same key may be asked again, and those after which that is useless:
/// the order, the status that is noted, a word of the message, whether it is tried again.
fn faults() -> Vec<(Value, &'static str, &'static str, bool)> {
    vec![
        (json!({"kind": "html_200"}), "error", "HTML page", true),
        (json!({"kind": "status", "status": 500}), "error", "HTTP 500", true),
        (json!({"kind": "status", "status": 503}), "error", "HTTP 503", true),
        (json!({"kind": "reset"}), "error", "closed the connection", true),
        (json!({"kind": "eof"}), "error", "", true),
        (json!({"kind": "hang"}), "error", "within 400 ms", true),
        (json!({"kind": "slow", "ms": 5000}), "error", "within 400 ms", true),
        (json!({"kind": "truncated_json"}), "invalid", "", true),
        (json!({"kind": "not_json"}), "invalid", "", true),
        (json!({"kind": "empty_200"}), "invalid", "", true),
        (json!({"kind": "huge_body", "bytes": 3_000_000}), "error", "larger than 1048576 bytes", false),
        (json!({"kind": "huge_body", "bytes": 3_000_000, "gzip": true}), "error", "larger than", false),
        (json!({"kind": "redirect", "to": "http://localhost:1/x"}), "error", "redirect", true),
    ]
}

#[test]
fn each_fault_has_its_outcome_and_replaces_no_answer() {
    let base = base("faults");
    // so many failures in a row would open its breaker
    base.run(
        "UPDATE enrichment_service SET rules = rules || '{\"breaker\": {\"failures\": 0}}' WHERE name = 'dshield'",
    );
    let keys = base.known("dshield", 2 * faults().len());
    for (n, (order, status, word, again)) in faults().into_iter().enumerate() {
        let (fresh, stale) = (&keys[2 * n], &keys[2 * n + 1]);
        base.run(&format!(
            "SELECT enrich_store('dshield', '{stale}', '{{\"ip\": {{\"n\": {n}}}}}', '1 hour', fetched_at => now() - interval '2 hours')"
        ));
        let row = "SELECT (payload -> 'ip' ->> 'n', response_status, fetched_at, expires_at)::text FROM enrichment_cache WHERE cache_key = ";
        let before: String = base.one(&format!("{row}'{stale}'"));
        // only what waits for it may take its time: the machine may be busy
        let waits = ["hang", "slow"].contains(&order["kind"].as_str().unwrap_or_default());
        let timeout_ms = if waits { 400 } else { 60_000 };
        base.run(&format!("UPDATE enrichment_service SET timeout_ms = {timeout_ms} WHERE name = 'dshield'"));
        for key in [fresh, stale] {
            let mut order = order.clone();
            order["service"] = json!("dshield");
            order["key"] = json!(key);
            base.sandbox.fault(order);
        }

        let (noted, message, _) = attempt(&base, "dshield", fresh);
        assert_eq!(noted, status, "{order}: {message:?}");
        let message = message.unwrap_or_default();
        assert!(!message.is_empty() && message.contains(word), "{order}: {message}");
        let state = if again { "waiting" } else { "dead" };
        assert_eq!(request(&base, "dshield", fresh), Some((state.into(), 1, status.into(), true)), "{order}");
        assert!(base.one::<bool>(&format!("SELECT payload IS NULL FROM enrichment_cache WHERE cache_key = '{fresh}'")));

        let (kept, message, _) = attempt(&base, "dshield", stale);
        assert_eq!((kept.as_str(), message.is_some()), ("success", true), "{order}");
        assert_eq!(base.one::<String>(&format!("{row}'{stale}'")), before, "{order}");
        assert_eq!(base.one::<String>(&format!("SELECT state FROM enrich_lookup('dshield', '{stale}')")), "stale");
    }
    assert_eq!(pause(&base, "dshield"), None, "one key's trouble is not the provider's refusal");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_history"), 0);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue WHERE state = 'in_flight'"), 0);
}

#[test]
fn a_redirect_to_another_host_is_not_followed() {
    let base = base("redirect");
    let other = testbed::Sandbox::start(&[]);
    let key = &base.known("dshield", 1)[0];
    let to = format!("{}/dshield/api/ip/{key}?json", other.base_url());
    base.sandbox.fault(json!({"service": "dshield", "kind": "redirect", "to": to}));
    let (status, message, code) = attempt(&base, "dshield", key);
    assert_eq!((status.as_str(), code), ("error", Some(302)), "{message:?}");
    assert_eq!(other.stats()["dshield"]["requests"], 0);
}

#[test]
fn a_failed_key_is_asked_again_and_then_answered() {
    let base = base("again");
    let key = &base.known("dshield", 1)[0];
    base.sandbox.fault(json!({"service": "dshield", "kind": "status", "status": 500, "count": 2}));
    attempt(&base, "dshield", key);
    let sooner = "UPDATE enrichment_queue SET next_attempt_at = now(); SELECT enrich_wake()";
    base.run(sooner);
    base.wait_for("SELECT attempts FROM enrichment_queue", 2);
    base.run(sooner);
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    let row = "SELECT response_status || ' ' || coalesce(error_message, 'no error') FROM enrichment_cache";
    assert_eq!(base.one::<String>(row), "success no error");
    assert_eq!(base.asked_for("dshield", key), 3);
}

#[test]
fn waits_grow_and_the_last_attempt_is_followed_by_rest() {
    let base = base("rest");
    let key = &base.known("dshield", 1)[0];
    base.sandbox.fault(json!({"service": "dshield", "kind": "status", "status": 500}));
    attempt(&base, "dshield", key);
    let ahead = "SELECT extract(epoch FROM next_attempt_at - clock_timestamp())::float8 FROM enrichment_queue";
    let mut last = base.one::<f64>(ahead);
    assert!((15.0..40.0).contains(&last), "{last}");
    for attempt in 2..=8 {
        base.run("UPDATE enrichment_queue SET next_attempt_at = now(); SELECT enrich_wake()");
        base.wait_for("SELECT attempts FROM enrichment_queue", attempt);
        let next = base.one::<f64>(ahead);
        assert!(next > last * 1.1, "attempt {attempt}: {next} s after {last} s");
        last = next;
    }
    assert_eq!(base.one::<String>("SELECT state FROM enrichment_queue"), "dead");
    assert_eq!(base.one::<String>(&format!("SELECT state FROM enrich_lookup('dshield', '{key}')")), "error");
    base.sandbox.clear_faults();
    base.run(&format!("SELECT enrich_request('dshield', '{key}')"));
    base.wait_for("SELECT response_status FROM enrichment_cache", "success".to_string());
}

#[test]
fn a_429_is_not_a_failed_attempt_and_pauses_as_long_as_it_asks() {
    let kinds = [
        (json!({"kind": "retry_after_seconds", "n": 40}), 38.0..41.0),
        (json!({"kind": "retry_after_date", "n": 40}), 36.0..41.0),
        // DShield asks for five minutes of silence and says so nowhere in the answer
        (json!({"kind": "429_plain"}), 298.0..301.0),
    ];
    for (n, (mut order, seconds)) in kinds.into_iter().enumerate() {
        let base = base(&format!("limited_{n}"));
        let key = &base.known("dshield", 1)[0];
        order["service"] = json!("dshield");
        base.sandbox.fault(order.clone());
        let (status, _, code) = attempt(&base, "dshield", key);
        assert_eq!((status.as_str(), code), ("rate_limited", Some(429)), "{order}");
        assert_eq!(request(&base, "dshield", key), Some(("waiting".into(), 0, "rate_limited".into(), true)), "{order}");
        let (cause, left) = pause(&base, "dshield").expect("a pause");
        assert!(cause == "rate_limited" && seconds.contains(&left), "{order}: {cause} for {left} s");
        // the whole lane is silent, the others are not
        base.run(&format!("SELECT enrich_request('dshield', '{}'), enrich_request('hibp', '00001')", address(9000)));
        base.wait_for("SELECT count(*) FROM enrichment_cache WHERE service = 'hibp' AND payload IS NOT NULL", 1i64);
        assert_eq!(base.asked("dshield"), 1, "{order}");
    }
}

#[test]
fn after_the_pause_of_a_429_everything_is_answered() {
    let base = base("goes_on");
    let key = &base.known("dshield", 1)[0];
    base.sandbox.fault(json!({"service": "dshield", "kind": "retry_after_seconds", "n": 1, "count": 1}));
    base.run(&format!("SELECT enrich_request('dshield', '{key}')"));
    base.wait_for("SELECT response_status FROM enrichment_cache", "success".to_string());
    assert_eq!(base.asked_for("dshield", key), 2);
    base.wait_for("SELECT count(*) FROM enrichment_lane WHERE paused_until IS NOT NULL", 0i64);
}

#[test]
fn a_refused_credential_stops_its_lane_until_another_is_set() {
    for service in ["virustotal", "urlhaus", "spur"] {
        let base = base(&format!("refused_{service}"));
        base.run(&format!("UPDATE enrichment_service SET max_in_flight = 1 WHERE name = '{service}'; SELECT enrich_set_secret('{service}', 'expired')"));
        let keys: Vec<String> = (1..=20).map(address).collect();
        let list = keys.join(",");
        base.run(&format!("SELECT enrich_request_many('{service}', '{{{list}}}'), enrich_request('hibp', 'ABCDE')"));
        base.wait_for("SELECT count(*) FROM enrichment_cache WHERE service = 'hibp' AND payload IS NOT NULL", 1i64);
        base.wait_for(
            &format!("SELECT count(*) FROM enrichment_lane WHERE service = '{service}' AND cause = 'unauthorized'"),
            1i64,
        );
        assert_eq!(base.asked(service), 1, "{service}: not once for each row");
        let failed = "SELECT count(*) FROM enrichment_queue WHERE attempts > 0 OR state <> 'waiting'";
        assert_eq!(base.one::<i64>(failed), 0, "{service}: no attempt is used up");
        let said = "SELECT string_agg(concat_ws(' ', c.error_message, l.reason), ' ') FROM enrichment_cache c, enrichment_lane l";
        assert!(!base.one::<String>(said).contains("expired"), "{service}: the secret is in no message");
        let noted = format!("SELECT response_status FROM enrichment_cache WHERE service = '{service}'");
        assert_eq!(base.one::<String>(&noted), "unauthorized");

        base.run(&format!("SELECT enrich_set_secret('{service}', 'sandbox-{service}-key')"));
        base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
        let answered = format!("SELECT count(*) FROM enrichment_cache WHERE service = '{service}' AND response_status IN ('success', 'not_found')");
        assert_eq!(base.one::<i64>(&answered), 20);
        assert_eq!(base.asked(service), 21);
    }
}

#[test]
fn a_used_up_balance_is_a_wait_and_no_refused_credential() {
    let base = base("balance");
    // as if it did not tell how much is left (what it tells is believed: limits/reported.rs)
    base.run("UPDATE enrichment_service SET max_in_flight = 1, rules = rules - 'usage' WHERE name = 'spur'");
    base.sandbox.set_spur_balance(2);
    let list = (1..=5).map(address).collect::<Vec<_>>().join(",");
    base.run(&format!("SELECT enrich_request_many('spur', '{{{list}}}')"));
    base.wait_for("SELECT cause FROM enrichment_lane WHERE service = 'spur'", "used_up".to_string());
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue WHERE state = 'waiting' AND attempts = 0"), 3);
    assert_eq!(base.asked("spur"), 3);
}

#[test]
fn one_poisonous_key_does_not_stop_the_others() {
    let base = base("poison");
    // stands for whatever the database refuses of an answer that was judged good
    base.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.payload IS NOT NULL THEN RAISE 'poison' USING ERRCODE = '22P05'; END IF; RETURN NEW; END $$;",
    );
    let keys = base.known("dshield", 40);
    base.run(&format!(
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON enrichment_cache FOR EACH ROW
         WHEN (NEW.cache_key = '{}') EXECUTE FUNCTION refuse();
         SELECT enrich_request_many('dshield', '{{{}}}')",
        keys[17],
        keys.join(",")
    ));
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE response_status = 'success'", 39i64);
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE state = 'waiting' AND last_outcome = 'invalid'", 1i64);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue"), 1);
    assert_eq!(request(&base, "dshield", &keys[17]), Some(("waiting".into(), 1, "invalid".into(), true)));
    base.run("DROP TRIGGER refuse ON enrichment_cache; UPDATE enrichment_queue SET next_attempt_at = now(); SELECT enrich_wake()");
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE response_status = 'success'", 40i64);
}

#[test]
fn bodies_with_escaped_zeros_are_stored_and_can_be_queried() {
    let base = base("zeros");
    let hashes: Vec<String> = (1..=150).map(|n| format!("{n:064x}")).collect();
    base.run(&format!("SELECT enrich_request_many('virustotal', '{{{}}}')", hashes.join(",")));
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    let statuses = "SELECT string_agg(DISTINCT response_status, ' ' ORDER BY response_status) FROM enrichment_cache";
    assert_eq!(base.one::<String>(statuses), "not_found success");
    // the sandbox sends "libc\u0000start" in some of these answers
    let found = "SELECT count(*) FROM enrichment_cache WHERE payload::text LIKE '%libc%start%'";
    assert!(base.one::<i64>(found) > 0);
    let every_text = "SELECT count(payload #>> '{data,attributes,type_description}') > 0 FROM enrichment_cache, jsonb_path_query(payload, '$.**') v WHERE v #>> '{}' IS NOT NULL";
    assert!(base.one::<bool>(every_text));
}

#[test]
fn a_row_that_somebody_holds_locked_loses_no_answer() {
    let base = base("locked");
    let keys = base.known("dshield", 3);
    base.run(&format!("SELECT enrich_store('dshield', '{}', '{{}}', '0 s')", keys[0]));
    let mut holder = base.client();
    support::run(&mut holder, "BEGIN; SELECT FROM enrichment_cache FOR UPDATE");
    base.run(&format!("SELECT enrich_request_many('dshield', '{{{}}}')", keys.join(",")));
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE payload ? 'ip'", 2i64);
    // longer than the worker waits for a lock
    let worker = format!("[{}]", base.worker());
    wait_until("the worker to try in vain", SOON, || {
        let in_vain = |line: &str| line.contains(&worker) && line.contains("could not be stored together");
        support::same(base.cluster.log().lines().any(in_vain), &true)
    });
    support::run(&mut holder, "COMMIT");
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE payload ? 'ip'", 3i64);
    assert_eq!(base.asked_for("dshield", &keys[0]), 1, "the answer that was there is not asked for again");
}
