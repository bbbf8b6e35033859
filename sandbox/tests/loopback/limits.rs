//! Limits: real ones, ordered ones, Spur's balance, and each provider's way to say 429.

use enrichment_sandbox::Settings;
use serde_json::json;

use crate::client::{Client, Reply};

fn ask(client: &Client, service: &str) -> Reply {
    match service {
        "virustotal" => client.get("/virustotal/api/v3/files/44d88612fea8a8f36de82e1278abb02f"),
        "dshield" => client.get("/dshield/api/ip/45.9.1.1?json"),
        "urlhaus" => client.form("/urlhaus/v1/host/", "host", "45.9.1.1"),
        "spur" => client.get("/spur/v2/context/45.9.1.1"),
        _ => client.get("/hibp/range/5BAA6"),
    }
}

#[test]
fn the_real_limits_are_in_force_by_default() {
    let client = Client::with(Settings::default());
    let limits = client.get("/control/limits").json();
    let per = |max: u32, per: &str| json!({"max": max, "per": per});
    assert_eq!(limits["virustotal"], json!([per(4, "minute"), per(500, "day")]));
    assert_eq!(limits["dshield"], json!([per(1, "second")]));
    assert_eq!(limits["urlhaus"], json!([per(2, "second")]));
    assert_eq!(limits["spur"], json!([per(1, "second")]));
    assert_eq!(limits["hibp"], json!([per(10, "second")]));
    for call in 0..6 {
        let status = ask(&client, "virustotal").status;
        assert_eq!(status == 429, call >= 4, "call {call}: {status}");
    }
    assert_eq!(client.stats("virustotal")["limited"], 2);
}

#[test]
fn each_provider_says_429_in_its_own_words() {
    let client = Client::unlimited();
    client.order("/control/limits", json!({"service": "*", "max": 1, "per": "day"}));
    let over = |service: &str| {
        ask(&client, service);
        let reply = ask(&client, service);
        assert_eq!(reply.status, 429, "{service}");
        assert_eq!(reply.header("content-encoding"), "", "{service}");
        assert_eq!(client.stats(service)["limited"], 1, "{service}");
        reply
    };
    let virustotal = over("virustotal");
    assert_eq!(virustotal.json()["error"]["code"], "QuotaExceededError");
    assert_eq!(virustotal.header("retry-after"), "");
    let dshield = over("dshield");
    assert_eq!(dshield.header("retry-after"), "300");
    assert!(dshield.header("content-type").starts_with("text/"));
    assert_eq!(over("urlhaus").header("retry-after"), "86400");
    let spur = over("spur");
    assert_eq!(spur.header("retry-after"), "86400");
    assert_ne!(spur.json()["error"], "insufficient queries");
    assert_eq!(over("hibp").header("retry-after"), "86400");
}

#[test]
fn a_used_up_balance_of_spur_is_a_429_without_a_time() {
    let client = Client::with(Settings { real_limits: false, spur_balance: 2, ..Settings::default() });
    for left in ["1", "0"] {
        assert_eq!(ask(&client, "spur").header("x-balance-remaining"), left);
    }
    let empty = ask(&client, "spur");
    assert_eq!(empty.status, 429);
    assert_eq!(empty.json(), json!({"error": "insufficient queries"}));
    assert_eq!(empty.header("retry-after"), "");
    let status = client.get("/spur/status").json();
    assert_eq!(status["queriesRemaining"], 0);
    client.order("/control/spur_balance", json!({"queries": 10}));
    assert_eq!(ask(&client, "spur").status, 200);
}

#[test]
fn an_ordered_limit_stands_in_place_of_the_own_one_and_null_lifts_it() {
    let limit = enrichment_sandbox::limits::parse("dshield=3/day").expect("limit");
    let client = Client::with(Settings { limits: vec![limit], ..Settings::default() });
    let statuses = |calls: usize| -> Vec<u16> { (0..calls).map(|_| ask(&client, "dshield").status).collect() };
    assert_eq!(statuses(4), [200, 200, 200, 429]);
    client.order("/control/reset", json!({}));
    assert_eq!(statuses(4), [200, 200, 200, 429]);
    client.order("/control/limits", json!({"service": "dshield", "per": null}));
    assert_eq!(statuses(5), [200; 5]);
}
