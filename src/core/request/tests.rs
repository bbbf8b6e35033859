//! Requests of the built-in services, keys that try to escape, and secrets that must not show.

use super::*;
use crate::core::key::{normalise, KeyForm, KeyKind};
use crate::core::rules::Rules;
use crate::core::service::ResponseFormat;
use proptest::prelude::*;

#[test]
fn usage_is_asked_at_the_services_own_host_and_only_with_what_is_known() {
    let with = |url: &str, rules: &str| {
        let service = service(KeyKind::Ip, url, &[("token", "{secret}"), ("Content-Type", "a/b")], None, rules);
        build_usage(&service, Some(&Secret::new("s3cret")), "agent", None)
    };
    let rules = |usage: &str, variables: &str| {
        format!(r#"{{"variables":{variables},"usage":{{"url":"{usage}","body":[{{"remaining":"left"}}]}}}}"#)
    };
    let request = with("https://a.example/{key}", &rules("https://a.example/status", "{}")).unwrap().unwrap();
    assert_eq!((request.url.as_str(), request.method), ("https://a.example/status", Method::Get));
    assert_eq!(request.headers, [("token".to_owned(), "s3cret".to_owned())]);
    assert_eq!(with("https://b.example/{key}", &rules("https://a.example/status", "{}")), Ok(None));
    let account = rules("https://a.example/users/{account}", "{}");
    assert_eq!(with("https://a.example/{key}", &account), Ok(None));
    let account = rules("https://a.example/users/{account}", r#"{"default":{"account":"me"}}"#);
    assert_eq!(with("https://a.example/{key}", &account).unwrap().unwrap().url, "https://a.example/users/me");
    assert_eq!(with("https://a.example/{key}", "{}"), Ok(None));
}

fn service(kind: KeyKind, url: &str, headers: &[(&str, &str)], body: Option<&str>, rules: &str) -> Service {
    Service {
        name: "test".into(),
        enabled: true,
        key_kind: kind,
        method: if body.is_some() { Method::Post } else { Method::Get },
        url: url.into(),
        headers: headers.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
        body: body.map(Into::into),
        secret_name: None,
        secret_required: false,
        response_format: ResponseFormat::Json,
        ttl: 1,
        not_found_ttl: 1,
        stale_ttl: 1,
        limits: vec![],
        max_in_flight: 1,
        timeout_ms: 1,
        max_bytes: 1,
        rules: Rules::parse(rules).unwrap(),
    }
}

fn rules_of(name: &str) -> String {
    let all: serde_json::Value = serde_json::from_str(include_str!("../builtin_rules.json")).unwrap();
    all[name].to_string()
}

fn made(service: &Service, raw: &str) -> Request {
    assert_eq!(template_problem(service), None);
    let key = normalise(service.key_kind, raw).unwrap();
    build(service, &key, Some(&Secret::new("s3cret")), "agent/1", Some("me@example.com")).unwrap()
}

#[test]
fn virustotal_asks_by_hash_or_by_address() {
    let url = "https://vt.example/api/v3/{route}/{key}";
    let service = service(KeyKind::FileHashOrIp, url, &[("x-apikey", "{secret}")], None, &rules_of("virustotal"));
    let request = made(&service, "44D88612FEA8A8F36DE82E1278ABB02F");
    assert_eq!(request.url, "https://vt.example/api/v3/files/44d88612fea8a8f36de82e1278abb02f");
    assert_eq!(request.headers, [("x-apikey".to_owned(), "s3cret".to_owned())]);
    let request = made(&service, "2606:4700::1111");
    assert_eq!(request.url, "https://vt.example/api/v3/ip_addresses/2606:4700::1111");
}

#[test]
fn urlhaus_posts_a_form_to_the_route_of_the_key() {
    let url = "https://uh.example/v1/{route}/";
    let headers = [("Auth-Key", "{secret}")];
    let service = service(KeyKind::NetworkIndicator, url, &headers, Some("{field}={key}"), &rules_of("urlhaus"));
    let request = made(&service, "Evil.example");
    assert_eq!(
        (request.url.as_str(), request.body.as_deref()),
        ("https://uh.example/v1/host/", Some("host=evil.example"))
    );
    assert_eq!(request.headers[1], ("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned()));
    let request = made(&service, &"0f".repeat(32));
    assert_eq!(request.url, "https://uh.example/v1/payload/");
    assert_eq!(request.body, Some(format!("sha256_hash={}", "0f".repeat(32))));
    assert_eq!(made(&service, "2606:4700::1111").body.unwrap(), "host=2606%3A4700%3A%3A1111");
}

#[test]
fn a_header_without_its_secret_or_contact_is_left_out_and_a_url_without_it_is_an_error() {
    let headers = [("Token", "{secret}"), ("User-Agent", "{user_agent} ({contact})"), ("Accept", "application/json")];
    let spur = service(KeyKind::Ip, "https://s.example/{key}", &headers, None, "{}");
    let key = normalise(KeyKind::Ip, "8.8.8.8").unwrap();
    let request = build(&spur, &key, None, "agent/1", None).unwrap();
    assert_eq!(request.headers, [("Accept".to_owned(), "application/json".to_owned())]);
    let request = build(&spur, &key, None, "agent/1", Some("me@example.com")).unwrap();
    assert_eq!(request.headers[0].1, "agent/1 (me@example.com)");
    let lite = service(KeyKind::Ip, "https://i.example/{key}?token={secret}", &[], None, "{}");
    assert!(build(&lite, &key, None, "a", None).unwrap_err().contains("not configured"));
    assert_eq!(made(&lite, "8.8.8.8").url, "https://i.example/8.8.8.8?token=s3cret");
}

#[test]
fn a_json_body_is_escaped_as_json() {
    let headers = [("content-type", "application/json")];
    let service = service(KeyKind::Text, "https://x.example/", &headers, Some(r#"{"q":"{key}"}"#), "{}");
    let request = made(&service, r#"a"b\c"#);
    let body: serde_json::Value = serde_json::from_str(&request.body.unwrap()).unwrap();
    assert_eq!(body["q"], r#"a"b\c"#);
    assert_eq!(request.headers.len(), 1);
}

#[test]
fn no_secret_is_shown() {
    let headers = [("Token", "{secret}")];
    let service = service(KeyKind::Text, "https://x.example/{key}?t={secret}", &headers, Some("t={secret}"), "{}");
    let shown = format!("{:?}", made(&service, "k"));
    assert_eq!(shown, "POST https://x.example/k?*** Token: *** Content-Type: *** (8 bytes)");
    let key = normalise(KeyKind::Text, "k").unwrap();
    let why = build(&service, &key, Some(&Secret::new("s3\ncret")), "a", None).unwrap_err();
    assert!(why.contains("Token") && !why.contains("s3"), "{why}");
}

/// URL, headers, body, and a part of the reason.
type Refused<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>, &'a str);

#[test]
fn templates_that_cannot_work_are_refused_with_the_reason() {
    let table: &[Refused] = &[
        ("ftp://x.example/{key}", &[], None, "https://"),
        ("{key}", &[], None, "https://"),
        ("https://{key}.example/", &[], None, "fixed"),
        ("https://x.example:{key}", &[], None, "fixed"),
        ("https://u:p@x.example/{key}", &[], None, "user or password"),
        ("https://x.example/{key}#a", &[], None, "fragment"),
        ("https:///{key}", &[], None, "no host"),
        ("https://?{key}", &[], None, "no host"),
        ("https://\\{key}", &[], None, "no host"),
        ("https://x.example/{secret}/{key}", &[], None, "path"),
        ("https://x.example/", &[], None, "{key}"),
        ("https://x.example/{key}/{rute}", &[], None, "{rute}"),
        ("https://x.example/{key} a", &[], None, "spaces"),
        ("https://x.example:99999/{key}", &[], None, "malformed"),
        ("https://x.example/{key}", &[("a b", "c")], None, "name"),
        ("https://x.example/{key}", &[("Host", "y.example")], None, "client"),
        ("https://x.example/{key}", &[("If-None-Match", "\"a\"")], None, "client"),
        ("https://x.example/{key}", &[("A", "b"), ("a", "c")], None, "twice"),
        ("https://x.example/{key}", &[("A", "{nope}")], None, "{nope}"),
        ("https://x.example/{key}", &[("A", "b\r\nC: d")], None, "characters"),
        ("https://x.example/", &[], Some("x={field}&k={key}"), "{field}"),
    ];
    for &(url, headers, body, why) in table {
        let given = template_problem(&service(KeyKind::Ip, url, headers, body, "{}")).expect(url);
        assert!(given.contains(why), "{url}: {given}");
    }
    let mut get = service(KeyKind::Ip, "https://x.example/{key}", &[], Some("a"), "{}");
    get.method = Method::Get;
    assert_eq!(template_problem(&get).unwrap(), "a GET has no body");
    let headers = [("a", "b")];
    let conditional = r#"{"conditional":true}"#;
    let post = service(KeyKind::Ip, "https://x.example/", &headers, Some("{key}"), conditional);
    assert_eq!(template_problem(&post).unwrap(), "conditional is for a GET only");
    let tested = service(KeyKind::Ip, "https://x.example/{key}", &[], None, r#"{"test_key":"nowhere"}"#);
    assert!(template_problem(&tested).unwrap().starts_with("test_key "));
}

#[test]
fn only_a_service_that_says_so_is_asked_whether_an_answer_has_changed() {
    let hibp = service(KeyKind::HashPrefix, "https://h.example/{key}", &[], None, &rules_of("hibp"));
    let mut request = made(&hibp, "abcde");
    assert_eq!(
        (request.wants.as_slice(), request.is_conditional()),
        (["etag", "last-modified"].map(String::from).as_slice(), false)
    );
    let since = Validators { etag: Some("\"a\"".to_owned()), last_modified: None };
    request.only_if_changed(&since);
    assert!(request.is_conditional());
    assert_eq!(request.headers.last().unwrap(), &("if-none-match".to_owned(), "\"a\"".to_owned()));
    let plain = service(KeyKind::HashPrefix, "https://h.example/{key}", &[], None, "{}");
    assert!(made(&plain, "abcde").wants.is_empty());
}

#[test]
fn a_name_must_be_known_for_every_form_of_key() {
    let rules = r#"{"variables":{"ip":{"route":"ip"}}}"#;
    let service = service(KeyKind::NetworkIndicator, "https://x.example/{route}/{key}", &[], None, rules);
    assert!(template_problem(&service).unwrap().contains("host"));
}

proptest! {
    #[test]
    fn no_key_leaves_its_segment_of_the_path(text in any::<String>()) {
        let service = service(KeyKind::Text, "https://x.example/a/{key}/z", &[], None, "{}");
        let Ok(key) = normalise(KeyKind::Text, &text) else { return Ok(()) };
        match build(&service, &key, None, "a", None) {
            Err(_) => prop_assert!(key.text == "." || key.text == ".."),
            Ok(request) => {
                let url = url::Url::parse(&request.url).unwrap();
                prop_assert_eq!(url.as_str(), &request.url);
                let segments: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 3);
                let decoded = percent_encoding::percent_decode_str(segments[1]).decode_utf8().unwrap();
                prop_assert_eq!(decoded.as_ref(), &key.text);
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }
    }

    #[test]
    fn no_key_adds_a_field_to_a_form(text in any::<String>()) {
        let service = service(KeyKind::Text, "https://x.example/", &[], Some("q={key}"), "{}");
        let Ok(key) = normalise(KeyKind::Text, &text) else { return Ok(()) };
        if let Ok(request) = build(&service, &key, None, "a", None) {
            let fields: Vec<(String, String)> =
                form_urlencoded::parse(request.body.unwrap().as_bytes()).into_owned().collect();
            prop_assert_eq!(fields, [("q".to_owned(), key.text.clone())]);
            prop_assert_eq!(key.form, KeyForm::Text);
        }
    }
}
