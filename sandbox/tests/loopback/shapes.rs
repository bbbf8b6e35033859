//! The shapes of the answers, over many keys, and that the control API foretells them.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{json, Value};

use crate::client::{Client, HEADERS};

/// Addresses spread over many networks, IPv6 among them.
fn addresses(count: u32) -> Vec<String> {
    (0..count)
        .map(|n| match n % 10 {
            9 => format!("2a0{:x}:{:x}::{:x}", n % 8, n * 7 + 1, n + 1),
            _ => format!("{}.{}.{}.7", 11 + n % 80, n * 31 % 256, n % 256),
        })
        .collect()
}

fn expect(client: &Client, service: &str, key: &str) -> Value {
    client.get(&format!("/control/expect/{service}/{key}")).json()
}

#[test]
fn dshield_answers_have_counts_nulls_and_escaped_slashes() {
    let client = Client::unlimited();
    let (mut counted, mut empty, mut text_as, mut escaped) = (0, 0, 0, 0);
    for key in addresses(400) {
        let reply = client.get(&format!("/dshield/api/ip/{key}?json"));
        assert_eq!((reply.status, reply.header("content-type")), (200, "text/json"));
        let ip = &reply.json()["ip"];
        assert_eq!(ip["number"], key.as_str());
        let expected = expect(&client, "dshield", &key);
        counted += u32::from(!ip["count"].is_null());
        assert_eq!(expected["flagged"], !ip["count"].is_null(), "{key}");
        let nothing = ip
            .as_object()
            .expect("object")
            .iter()
            .all(|(name, value)| name == "number" || value.is_null() || *value == json!({}) || *value == json!([]));
        empty += u32::from(nothing);
        let outcome = if nothing { "not_found" } else { "success" };
        assert_eq!(expected["outcome"], outcome, "{key}");
        text_as += u32::from(ip["as"].is_string());
        escaped += u32::from(reply.body.contains("\\/16"));
        assert!(!reply.body.contains("0/16"));
    }
    assert!((140..220).contains(&counted), "{counted}");
    assert!((4..40).contains(&empty), "{empty}");
    assert!(text_as > 4, "{text_as}");
    assert!(escaped > 300, "{escaped}");
}

#[test]
fn dshield_calls_a_private_address_bad() {
    let client = Client::unlimited();
    for key in ["192.168.1.1", "10.0.0.1", "nonsense", "045.9.1.1"] {
        let reply = client.get(&format!("/dshield/api/ip/{key}?json"));
        assert_eq!(reply.status, 200);
        assert_eq!(reply.json(), json!({"error": "bad IP address"}));
        assert_eq!(expect(&client, "dshield", key)["outcome"], "invalid");
    }
    assert_eq!(client.stats("dshield")["bad_request"], 4);
}

#[test]
fn urlhaus_knows_few_hosts_and_writes_every_number_as_text() {
    let client = Client::unlimited();
    let (mut found, mut null_tags) = (0, 0);
    for key in addresses(600) {
        let reply = client.form("/urlhaus/v1/host/", "host", &key);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), "application/octet-stream");
        let body = reply.json();
        let expected = expect(&client, "urlhaus", &key);
        if body["query_status"] == "no_results" {
            assert_eq!(body, json!({"query_status": "no_results"}));
            assert_eq!(expected, json!({"outcome": "not_found", "flagged": false}));
            continue;
        }
        found += 1;
        assert_eq!(body["query_status"], "ok");
        assert!(body["url_count"].is_string());
        let urls = body["urls"].as_array().expect("urls");
        assert!((1..=100).contains(&urls.len()));
        assert!(urls.iter().all(|url| url["id"].is_string() && url["larted"].is_string()));
        null_tags += urls.iter().filter(|url| url["tags"].is_null()).count();
        let tagged = urls.iter().any(|url| url["tags"].is_array());
        assert_eq!(expected, json!({"outcome": "success", "flagged": tagged}));
    }
    assert!((18..60).contains(&found), "{found} of 600");
    assert!(null_tags > 0);
}

#[test]
fn urlhaus_judges_hosts_and_hashes_by_their_form() {
    let client = Client::unlimited();
    let host = |key: &str| client.form("/urlhaus/v1/host/", "host", key).json();
    assert_eq!(host("not a host"), json!({"query_status": "invalid_host"}));
    assert_eq!(host("2a01:4f8::1"), json!({"query_status": "no_results"}));
    let payload = |field: &str, key: &str| client.form("/urlhaus/v1/payload/", field, key).json();
    assert_eq!(payload("sha256_hash", "abc"), json!({"query_status": "invalid_sha256"}));
    let known = (0..20)
        .map(|n| format!("{n:064x}"))
        .map(|hash| payload("sha256_hash", &hash))
        .filter(|body| body["query_status"] == "ok")
        .inspect(|body| assert!(body["file_size"].is_string() && body["urls"].is_array()))
        .count();
    assert!((1..20).contains(&known), "{known}");
}

#[test]
fn spur_answers_are_minimal_for_half_of_the_addresses() {
    let client = Client::unlimited();
    let (mut minimal, mut whole, mut fraction, mut text, mut objects) = (0, 0, 0, 0, 0);
    for key in addresses(500) {
        let reply = client.get(&format!("/spur/v2/context/{key}"));
        assert_eq!(reply.status, 200);
        assert!(reply.header("x-balance-remaining").parse::<u32>().is_ok());
        let body = reply.json();
        assert_eq!(body["ip"], key.as_str());
        let expected = expect(&client, "spur", &key);
        let names: BTreeSet<&str> = body.as_object().expect("object").keys().map(String::as_str).collect();
        if names == BTreeSet::from(["as", "ip", "location", "organization"]) {
            minimal += 1;
            assert_eq!(expected["flagged"], false);
        }
        let density = &body["client"]["concentration"]["density"];
        whole += u32::from(density.is_i64());
        fraction += u32::from(density.is_f64());
        for tunnel in body["tunnels"].as_array().into_iter().flatten() {
            assert_eq!(expected["flagged"], true);
            for entry in tunnel["entries"].as_array().into_iter().flatten() {
                text += u32::from(entry.is_string());
                objects += u32::from(entry["ip"].is_string());
            }
        }
    }
    assert!((240..320).contains(&minimal), "{minimal}");
    for (what, count) in [("whole", whole), ("fraction", fraction), ("text", text), ("objects", objects)] {
        assert!(count > 3, "{what}: {count}");
    }
    let private = client.get("/spur/v2/context/10.0.0.1");
    assert_eq!(private.status, 400);
    assert_eq!(private.json(), json!({"error": "IP must be a public IPv4 or IPv6"}));
}

#[test]
fn virustotal_compresses_when_asked_and_says_what_it_does_not_know() {
    let client = Client::unlimited();
    let mut unknown = 0;
    for n in 0..40_u32 {
        let key = format!("{:064x}", n * 977 + 5);
        let reply = client.get(&format!("/virustotal/api/v3/files/{key}"));
        let expected = expect(&client, "virustotal", &key);
        if reply.status == 404 {
            unknown += 1;
            assert_eq!(reply.json()["error"]["code"], "NotFoundError");
            assert_eq!(expected, json!({"outcome": "not_found", "flagged": false}));
            continue;
        }
        let data = &reply.json()["data"];
        assert_eq!((&data["type"], &data["id"]), (&json!("file"), &json!(key)));
        let malicious = data["attributes"]["last_analysis_stats"]["malicious"].as_i64();
        assert_eq!(expected["flagged"], malicious.expect("number") > 0);
        let path = format!("/virustotal/api/v3/files/{key}");
        let (head, body) = client.raw(&path, &[HEADERS[0], ("accept-encoding", "br, gzip")]);
        assert!(head.contains("content-encoding: gzip"), "{head}");
        let mut opened = String::new();
        GzDecoder::new(body.as_slice()).read_to_string(&mut opened).expect("gzip");
        assert_eq!(opened, reply.body);
        let (head, body) = client.raw(&path, &[HEADERS[0]]);
        assert!(!head.contains("content-encoding"), "{head}");
        assert_eq!(body, reply.body.as_bytes());
    }
    assert!((3..20).contains(&unknown), "{unknown}");
}

#[test]
fn virustotal_knows_addresses_and_its_own_quota() {
    let client = Client::with(enrichment_sandbox::Settings::default());
    let address = client.get("/virustotal/api/v3/ip_addresses/45.9.1.1").json();
    assert_eq!(address["data"]["type"], "ip_address");
    let stats = address["data"]["attributes"]["last_analysis_stats"].as_object();
    assert_eq!(stats.expect("stats").len(), 5);
    let bad = client.get("/virustotal/api/v3/ip_addresses/nonsense");
    assert_eq!(bad.status, 400);
    let quota = client.get("/virustotal/api/v3/users/someone/overall_quotas").json();
    let daily = &quota["data"]["api_requests_daily"]["user"];
    assert_eq!(*daily, json!({"allowed": 500, "used": 2}));
}

#[test]
fn a_hibp_range_is_sorted_has_crlf_between_lines_and_knows_common_passwords() {
    let client = Client::unlimited();
    let reply = client.get("/hibp/range/5baa6");
    assert_eq!(reply.header("content-type"), "text/plain");
    let lines: Vec<&str> = reply.body.split("\r\n").collect();
    assert!((380..=801).contains(&lines.len()), "{}", lines.len());
    assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(lines.iter().all(|line| line.len() > 36 && &line[35..36] == ":"));
    assert!(lines.contains(&"1E4C9B93F3F0682250B6CF8331B7EE68FD8:52372427"));
    let expected = expect(&client, "hibp", "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8");
    assert_eq!(expected, json!({"outcome": "success", "flagged": true, "prevalence": 52_372_427}));
    let novel = expect(&client, "hibp", &"0".repeat(40));
    assert_eq!(novel, json!({"outcome": "success", "flagged": false, "prevalence": 0}));
    let bad = client.get("/hibp/range/5BAAZ");
    assert_eq!((bad.status, bad.body.as_str()), (400, "The hash prefix was not in a valid format"));
}

#[test]
fn hibp_padding_comes_last_unsorted_with_count_0_and_a_known_tag_gets_304() {
    let client = Client::unlimited();
    let path = "/hibp/range/00000";
    let real = client.get(path);
    let ask = |name, value| client.get_with(path, &[HEADERS[3], (name, value)]).expect("answer");
    let padded = ask("add-padding", "true");
    let padding: Vec<&str> =
        padded.body.strip_prefix(&real.body).expect("the real rows come first").trim_start().split("\r\n").collect();
    assert!((10..=209).contains(&padding.len()));
    assert!(padding.iter().all(|line| line.len() == 37 && line.ends_with(":0")));
    assert!(padding.windows(2).any(|pair| pair[0] > pair[1]));
    let again = ask("if-none-match", real.header("etag"));
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(ask("if-none-match", "\"other\"").body, real.body);
}
