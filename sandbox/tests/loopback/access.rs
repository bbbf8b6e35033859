//! Who is let in, and what the others are told.

use serde_json::json;

use crate::client::{Client, HEADERS};

const HASH: &str = "44d88612fea8a8f36de82e1278abb02f";
const AGENT: (&str, &str) = ("user-agent", "test");

#[test]
fn virustotal_tells_a_missing_key_from_a_wrong_one() {
    let client = Client::unlimited();
    let path = format!("/virustotal/api/v3/files/{HASH}");
    let missing = client.get_with(&path, &[]).expect("answer");
    assert_eq!(missing.status, 401);
    assert_eq!(missing.json()["error"]["code"], "AuthenticationRequiredError");
    let wrong = client.get_with(&path, &[("X-Apikey", "nobody")]).expect("answer");
    assert_eq!(wrong.status, 401);
    let expected = json!({"error": {"code": "WrongCredentialsError", "message": "Wrong API key"}});
    assert_eq!(wrong.json(), expected);
    assert_eq!(client.stats("virustotal")["unauthorized"], 2);
}

#[test]
fn urlhaus_answers_401_without_a_key_and_403_with_a_wrong_one() {
    let client = Client::unlimited();
    let ask = |headers| client.form_with("/urlhaus/v1/host/", "host", "45.9.1.1", headers);
    let missing = ask(&[]);
    assert_eq!(missing.status, 401);
    assert_eq!(missing.json(), json!({"error": "Unauthorized"}));
    assert_eq!(missing.header("content-type"), "application/octet-stream");
    let wrong = ask(&[("auth-key", "nobody")]);
    assert_eq!(wrong.status, 403);
    assert_eq!(wrong.json(), json!({"query_status": "unknown_auth_key"}));
}

#[test]
fn spur_answers_401_to_a_wrong_token() {
    let client = Client::unlimited();
    for path in ["/spur/v2/context/45.9.1.1", "/spur/status"] {
        let wrong = client.get_with(path, &[("token", "nobody")]).expect("answer");
        assert_eq!(wrong.status, 401);
        assert!(wrong.json()["error"].is_string());
    }
}

#[test]
fn dshield_wants_a_contact_in_the_agent_and_hibp_any_agent() {
    let client = Client::unlimited();
    let path = "/dshield/api/ip/45.9.1.1?json";
    let blocked = client.get_with(path, &[AGENT]).expect("answer");
    assert_eq!(blocked.status, 403);
    assert!(blocked.header("content-type").starts_with("text/html"));
    assert!(blocked.body.starts_with('<'));
    assert_eq!(client.get(path).status, 200);
    let path = "/hibp/range/5BAA6";
    assert_eq!(client.get_with(path, &[AGENT]).expect("answer").status, 200);
    let nameless = client.get_with(path, &[("user-agent", "")]);
    assert_eq!(nameless.expect("answer").status, 403);
}

#[test]
fn urlhaus_refuses_the_wrong_verb_in_words() {
    let client = Client::unlimited();
    let reply = client.get_with("/urlhaus/v1/host/", HEADERS).expect("answer");
    assert_eq!(reply.status, 405);
    assert_eq!(reply.json(), json!({"query_status": "http_post_expected"}));
}
