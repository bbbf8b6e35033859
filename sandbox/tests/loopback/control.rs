//! The control API: counters, reset, cancelling, latency, and bad orders.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, HEADERS};

#[test]
fn counters_tell_requests_keys_and_connections_and_a_reset_clears_them() {
    let client = Client::unlimited();
    for key in ["45.9.1.1", "45.9.1.1", "46.9.1.1"] {
        client.get(&format!("/dshield/api/ip/{key}?json"));
    }
    let stats = client.stats("dshield");
    assert_eq!(stats["requests"], 3);
    assert_eq!(stats["by_key"], json!({"45.9.1.1": 2, "46.9.1.1": 1}));
    assert_eq!(stats["connections"], 1, "the client keeps its connection");
    let calls = client.get("/control/calls/dshield").json();
    let calls: Vec<(i64, String)> = serde_json::from_value(calls).expect("moments and keys");
    assert_eq!(calls.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>(), ["45.9.1.1", "45.9.1.1", "46.9.1.1"]);
    assert!(calls.is_sorted() && calls[0].0 > 1_700_000_000_000_000, "{calls:?}");
    assert_eq!(client.stats("spur")["requests"], 0);
    client.order("/control/fault", json!({"service": "*", "kind": "hang"}));
    client.order("/control/reset", json!({}));
    let stats = client.stats("dshield");
    assert_eq!((&stats["requests"], &stats["by_key"]), (&json!(0), &json!({})));
    assert_eq!(client.get("/dshield/api/ip/45.9.1.1?json").status, 200);
}

#[test]
fn the_most_requests_in_flight_are_counted() {
    let client = Client::unlimited();
    client.order("/control/latency", json!({"service": "hibp", "ms": 10_000}));
    std::thread::scope(|scope| {
        for n in 0..3 {
            let client = &client;
            scope.spawn(move || {
                let short = client.agent.get(client.sandbox.url(&format!("/hibp/range/0000{n}")));
                let short = short.header(HEADERS[3].0, HEADERS[3].1);
                let short = short.config().timeout_global(Some(Duration::from_secs(2))).build();
                assert!(short.call().is_err(), "slower than the client waits");
            });
        }
    });
    assert_eq!(client.stats("hibp")["max_in_flight"], 3);
}

#[test]
fn latency_is_set_per_service() {
    let client = Client::unlimited();
    client.order("/control/latency", json!({"service": "hibp", "ms": 200}));
    let started = Instant::now();
    client.get("/hibp/range/5BAA6");
    assert!(started.elapsed() >= Duration::from_millis(200));
    client.order("/control/latency", json!({"service": "*", "ms": 0}));
    assert_eq!(client.get("/control/health").json(), json!({"status": "ok"}));
}

#[test]
fn a_fault_is_listed_until_it_is_cancelled() {
    let client = Client::unlimited();
    let fault = json!({"service": "spur", "kind": "redirect", "url": "http://other.invalid/"});
    let id = client.order("/control/fault", fault)["id"].as_u64().expect("id");
    let standing = client.get("/control/fault").json();
    assert_eq!(standing[0]["id"], id);
    assert_eq!(standing[0]["kind"], "redirect");
    let cancel = |path: String| client.agent.delete(client.sandbox.url(&path)).call();
    let path = format!("/control/fault/{id}");
    assert_eq!(cancel(path.clone()).expect("answer").status(), 200);
    assert_eq!(cancel(path).expect("answer").status(), 404);
    client.order("/control/fault", json!({"service": "spur", "kind": "hang"}));
    assert_eq!(cancel("/control/fault".to_string()).expect("answer").status(), 200);
    assert_eq!(client.get("/control/fault").json(), json!([]));
}

#[test]
fn an_order_that_cannot_be_understood_says_why() {
    let client = Client::unlimited();
    for (path, body, word) in [
        ("/control/fault", r#"{"service":"shodan","kind":"hang"}"#, "shodan"),
        ("/control/fault", r#"{"service":"spur","kind":"rot"}"#, "rot"),
        ("/control/fault", r#"{"service":"spur","kind":"slow"}"#, "ms"),
        ("/control/limits", r#"{"service":"spur","max":1,"per":"week"}"#, "week"),
        ("/control/latency", "nonsense", "expected"),
    ] {
        let reply = client.order_text(path, body);
        assert_eq!(reply.status, 400, "{body}");
        let error = reply.json()["error"].as_str().expect("text").to_string();
        assert!(error.contains(word), "{error}");
    }
}
