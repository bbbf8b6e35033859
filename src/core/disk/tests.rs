//! Every layout and every shape that the disk caches in use hold, and files that are none.

use super::body::{candidates, read, Body};
use super::recognise::{recognise, Found, Layout, Named};
use super::*;
use crate::core::key::KeyKind;
use crate::core::rules::Rules;
use crate::core::service::{Method, ResponseFormat, Service};
use proptest::prelude::*;

fn found(path: &str) -> Found {
    recognise(path.as_bytes()).unwrap_or_else(|why| panic!("{path} {why}"))
}

fn key(path: &str) -> (String, String, Layout) {
    let Found { service, named: Named::Key(key), layout, .. } = found(path) else { panic!("{path}") };
    (service, key, layout)
}

#[test]
fn every_layout_of_a_known_key_is_recognised() {
    let sha = "a".repeat(64);
    for (path, service, wanted, layout) in [
        ("dshield/1/2/3/4.json", "dshield", "1.2.3.4", Layout::Sharded),
        ("dshield/1.2.3.4/1.2.3.4.json", "dshield", "1.2.3.4", Layout::Planned),
        ("dshield/1_2_3_4/1.2.3.4.json", "dshield", "1.2.3.4", Layout::Planned),
        ("dshield/2001_db8__1/2001:db8::1.json", "dshield", "2001:db8::1", Layout::Planned),
        ("hibp/AB/CD/E/ABCDE.json", "hibp", "ABCDE", Layout::Sharded),
        ("hibp/ab/abcde.json", "hibp", "ABCDE", Layout::Planned),
        (&format!("virustotal/aa/aa/aa/aa/{sha}.json"), "virustotal", &sha, Layout::Sharded),
        (&format!("virustotal/bb/bb/bb/bb/{}.json", "B".repeat(32)), "virustotal", &"b".repeat(32), Layout::Sharded),
        (&format!("virustotal/cc/{}.json", "c".repeat(40)), "virustotal", &"c".repeat(40), Layout::Planned),
        (&sha, "virustotal", &sha, Layout::Flat),
        (&format!("vt_{sha}.json"), "virustotal", &sha, Layout::Flat),
        ("dshield_1.2.3.4.json", "dshield", "1.2.3.4", Layout::Flat),
        ("uh_1.2.3.4", "urlhaus", "1.2.3.4", Layout::Flat),
        ("spur_2001_db8__1.json", "spur", "2001:db8::1", Layout::Flat),
    ] {
        assert_eq!(key(path), (service.to_owned(), wanted.to_owned(), layout), "{path}");
    }
}

#[test]
fn what_virustotal_did_not_know_is_told_by_its_directory() {
    let path = format!("virustotal_unknown/aa/aa/aa/aa/{}.json", "a".repeat(64));
    let found = found(&path);
    assert!(found.unknown);
    assert_eq!(found.service, "virustotal");
}

#[test]
fn a_name_by_digest_is_a_digest_for_every_service() {
    for service in ["dshield", "urlhaus", "spur", "hibp", "assets"] {
        let digest = digest("2001:db8::1");
        let name = hex(&digest);
        let found = found(&format!("{service}/{}/{name}.json", &name[..2]));
        assert_eq!((found.named, found.layout), (Named::Digest(digest), Layout::Digest), "{service}");
    }
}

#[test]
fn sixty_four_digits_one_level_down_may_be_a_hash_or_its_digest() {
    let name = hex(&digest(&"a".repeat(64)));
    let found = found(&format!("virustotal/{}/{name}.json", &name[..2]));
    assert_eq!(found.named, Named::KeyOrDigest(name.clone(), parse_digest(&name).unwrap()));
}

#[test]
fn what_stands_in_no_layout_is_told_apart() {
    let digest = hex(&digest("x"));
    for path in [
        "",
        "README.txt",
        "dshield/1/2/3/x.json",
        "dshield/1/2/3.json",
        "dshield/1/2/3/4.txt",
        "hibp/AB/CD/F/ABCDE.json",
        "hibp/ABCDE.json",
        "virustotal/aa/bb/cc/dd/aaaaaaaa.json",
        "urlhaus/1.2.3.4.json",
        &format!("urlhaus/zz/{digest}.json"),
        "spur_nobody.json",
        "dshield/1/2/3/.4.json",
        "dshield/1/2/3/4.json.tmp",
        "virustotal/é/é.json",
    ] {
        assert!(recognise(path.as_bytes()).is_err(), "{path}");
    }
    assert_eq!(recognise(b"dshield/\xff.json"), Err("has a name that is not UTF-8"));
}

pub(crate) fn service(name: &str) -> Service {
    let all: serde_json::Value = serde_json::from_str(include_str!("../builtin_rules.json")).unwrap();
    Service {
        name: name.into(),
        enabled: true,
        key_kind: KeyKind::Text,
        method: Method::Get,
        url: String::new(),
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
        max_bytes: 4096,
        rules: all.get(name).map_or_else(Rules::default, |rules| Rules::parse(&rules.to_string()).unwrap()),
    }
}

fn at(service: &str, layout: Layout, unknown: bool) -> Found {
    Found { service: service.into(), named: Named::Key("k".into()), layout, unknown }
}

fn said(name: &str, text: &str) -> Result<Body, String> {
    read(&service(name), &at(name, Layout::Sharded, false), text.as_bytes())
}

/// A list of 18 items of Spur, all empty but one.
fn spur_list(place: usize, item: &str) -> String {
    let items: Vec<String> = (0..18).map(|at| if at == place { item.to_owned() } else { "\"\"".to_owned() }).collect();
    format!("[{}]", items.join(","))
}

#[test]
fn answers_are_kept_as_they_were_found() {
    let list = spur_list(10, "\"DATACENTER\"");
    for (name, text) in [
        ("dshield", r#"{"ip": {"number": "1.2.3.4", "count": 3, "ascountry": "NL"}}"#),
        ("dshield", r#"{"ip": {"asname": "X", "ascountry": ""}}"#),
        ("urlhaus", r#"{"tags": "a,b"}"#),
        ("urlhaus", r#"{"tags": ["a", "b"]}"#),
        ("urlhaus", r#""a, b""#),
        ("urlhaus", r#"{"query_status": "ok", "urls": [{"tags": null}]}"#),
        ("spur", list.as_str()),
        ("spur", &format!("{{\"spur_data\": {list}}}")),
        ("spur", r#"{"ip": "1.2.3.4", "infrastructure": "VPN"}"#),
        ("virustotal", r#"{"data": {"attributes": {"type_description": "ELF"}}}"#),
        ("virustotal", r#"{"attributes": {"type_description": "ELF"}}"#),
        ("virustotal", r#"{"last_analysis_stats": {"malicious": 3}}"#),
        ("assets", r#"{"owner": "dns"}"#),
    ] {
        let body = said(name, text).unwrap_or_else(|why| panic!("{name} {text}: {why}"));
        assert_eq!((body.payload.as_deref(), body.status()), (Some(text), "success"), "{name}");
    }
}

#[test]
fn asked_and_unknown_is_not_an_answer_and_not_a_failure() {
    for (name, text) in [
        ("dshield", r#"{"ip": {"number": "1.2.3.4", "count": null, "asname": ""}}"#),
        ("urlhaus", r#"{"tags": ""}"#),
        ("urlhaus", r#"{"tags": null}"#),
        ("urlhaus", r#"{"query_status": "no_results"}"#),
        ("spur", r#"{"ip": "1.2.3.4"}"#),
        ("virustotal", r#"{"error": {"code": "NotFoundError"}}"#),
    ] {
        let body = said(name, text).unwrap_or_else(|why| panic!("{name} {text}: {why}"));
        assert_eq!(body.status(), "not_found", "{name} {text}");
    }
    let unknown = read(&service("virustotal"), &at("virustotal", Layout::Sharded, true), br#"{"response_code": 0}"#);
    assert_eq!(unknown.unwrap().status(), "not_found");
    let known = br#"{"data": {"attributes": {"x": 1}}}"#;
    let since = read(&service("virustotal"), &at("virustotal", Layout::Sharded, true), known);
    assert_eq!(since.unwrap().status(), "success", "an answer in the directory of unknown ones is an answer");
}

#[test]
fn values_that_tell_that_nothing_was_learnt_are_no_answers() {
    let nothing = spur_list(0, "\"\"");
    for (name, text) in [
        ("dshield", r#"{"ip": {"asname": "", "ascountry": ""}}"#),
        ("dshield", "{}"),
        ("dshield", "null"),
        ("urlhaus", "\"\""),
        ("spur", nothing.as_str()),
        ("spur", &format!("{{\"spur_data\": {nothing}}}")),
        ("spur", "[ ]"),
        ("virustotal", "{ }"),
        ("hibp", "{}"),
        ("hibp", &format!("{{\"{}\": 0}}", "A".repeat(35))),
    ] {
        let why = said(name, text).expect_err(text);
        assert!(why.contains("nothing was learnt"), "{name} {text}: {why}");
    }
}

#[test]
fn refusals_and_broken_files_say_what_is_wrong() {
    for (name, text, words) in [
        ("dshield", "", "empty"),
        ("dshield", "{\"ip\": {", "not json"),
        ("dshield", "\u{feff}<html>", "not json"),
        ("dshield", r#"{"error": "bad IP address"}"#, "no answer"),
        ("urlhaus", r#"{"query_status": "unknown_auth_key"}"#, "refusal"),
        ("virustotal", r#"{"error": {"code": "QuotaExceededError"}}"#, "no answer"),
        ("virustotal", "17", "lacks"),
        ("hibp", "{\"A\": 1}", "suffixes and counts"),
        ("hibp", "{\"", "suffixes and counts"),
        ("hibp", "hello", "SUFFIX:COUNT"),
        ("spur", &format!("[\"{}\"]", "x".repeat(5000)), "more than the 4096"),
    ] {
        let why = said(name, text).expect_err(text);
        assert!(why.contains(words), "{name} {text}: {why}");
    }
}

#[test]
fn the_age_inside_an_old_file_wins() {
    let found = at("dshield", Layout::Flat, false);
    let inside = |stamp: &str| {
        let text =
            format!("{{\"timestamp\": {stamp}, \"data\": {{\"ip\": {{\"number\": \"1.2.3.4\", \"count\": 1}}}}}}");
        read(&service("dshield"), &found, text.as_bytes())
    };
    let body = inside("1700000000.5").unwrap();
    assert_eq!(body.observed_at, Some(1_700_000_000_500_000));
    assert_eq!(body.payload.as_deref(), Some(r#"{"ip": {"number": "1.2.3.4", "count": 1}}"#));
    assert_eq!(inside("\"1700000000\"").unwrap().observed_at, Some(1_700_000_000_000_000));
    for bad in ["-1", "null", "\"yesterday\"", "1e300"] {
        assert!(inside(bad).unwrap_err().contains("timestamp"), "{bad}");
    }
    let bare = read(&service("dshield"), &found, br#"{"ip": {"number": "1.2.3.4", "count": 1}}"#).unwrap();
    assert_eq!(bare.observed_at, None);
}

#[test]
fn ranges_are_packed_without_padding_whichever_way_they_were_written() {
    let (a, b) = ("A".repeat(35), "B".repeat(35));
    let object = said("hibp", &format!("{{\"{}\": 7, \"{a}\": 3, \"{}\": 0}}", b.to_lowercase(), "C".repeat(35)));
    let lines = said("hibp", &format!("{b}:7\r\n{a}:3\r\n{}:0", "C".repeat(35)));
    assert_eq!(object, lines);
    let body = object.unwrap();
    assert_eq!(crate::core::hibp::to_json(body.ranges.as_deref().unwrap()), format!("{{\"{a}\":3,\"{b}\":7}}"));
    assert_eq!(body.payload.as_deref(), Some(r#"{"suffixes":2,"most_seen":7}"#));
}

#[test]
fn a_body_names_the_keys_it_may_belong_to() {
    let sha = "a".repeat(64);
    let vt = format!(r#"{{"data": {{"id": "{sha}", "attributes": {{"md5": "m"}}}}}}"#);
    assert_eq!(candidates(&vt), [sha, "m".to_owned()]);
    assert_eq!(candidates(r#"{"ip": {"number": "1.2.3.4"}}"#), ["1.2.3.4"]);
    assert_eq!(candidates(r#"{"ip": "1.2.3.4", "as": 1}"#), ["1.2.3.4"]);
    assert!(candidates(r#"{"tags": "a"}"#).is_empty());
}

#[test]
fn every_path_that_is_tried_for_a_key_is_recognised_as_its() {
    let sha = "ab".repeat(32);
    for (service, key) in [
        ("dshield", "1.2.3.4"),
        ("dshield", "2001:db8::1"),
        ("urlhaus", "1.2.3.4"),
        ("urlhaus", "www.example.com"),
        ("spur", "2001:db8::1"),
        ("hibp", "ABCDE"),
        ("virustotal", sha.as_str()),
        ("virustotal", &sha[..32]),
        ("assets", "a b/c"),
    ] {
        for path in layout::tried(service, key) {
            let found = found(&path);
            assert_eq!(found.service, service, "{path}");
            assert_eq!(found.unknown, path.starts_with("virustotal_unknown/"), "{path}");
            let own = match &found.named {
                Named::Key(named) => named == key,
                Named::Digest(named) => *named == digest(key),
                Named::KeyOrDigest(named, as_digest) => named == key || *as_digest == digest(key),
            };
            assert!(own, "{path} of {key} is {found:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_path_and_no_bytes_make_it_panic(
        path in proptest::collection::vec(any::<u8>(), 0..80),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = recognise(&path);
        for name in ["dshield", "urlhaus", "spur", "virustotal", "hibp", "assets"] {
            let _ = read(&service(name), &at(name, Layout::Flat, false), &bytes);
        }
    }
}

#[test]
fn what_is_written_under_a_digest_reads_back_as_the_same() {
    let digest = digest("2001:DB8::1");
    for (name, nothing, payload) in [
        ("dshield", true, r#"{"ip":{"number":"x","count":7}}"#),
        ("urlhaus", true, r#"{"tags":"elf"}"#),
        ("spur", true, r#"{"ip":"x","infrastructure":"VPN"}"#),
        ("virustotal", true, r#"{"data":{"attributes":{"a":1}}}"#),
        ("hibp", false, r#"{"0123456789ABCDEF0123456789ABCDEF012":7}"#),
    ] {
        let read_back = |file: (String, String)| {
            let found = found(&file.0);
            assert_eq!(found.service, name);
            assert!(matches!(found.named, Named::Digest(d) | Named::KeyOrDigest(_, d) if d == digest), "{found:?}");
            read(&service(name), &found, file.1.as_bytes()).unwrap_or_else(|why| panic!("{name} {why}"))
        };
        let answer = read_back(written::file_by_digest(name, &digest, "success", Some(payload)).unwrap());
        let kept = match answer.ranges {
            Some(packed) => crate::core::hibp::to_json(&packed),
            None => answer.payload.unwrap(),
        };
        assert_eq!(kept, payload);
        let empty = written::file_by_digest(name, &digest, "not_found", None);
        assert_eq!(empty.is_some(), nothing, "{name}");
        if let Some(file) = empty {
            assert!(candidates(&file.1).iter().all(String::is_empty), "it names no key");
            assert_eq!(read_back(file).payload, None, "{name}");
        }
        assert_eq!(written::file_by_digest(name, &digest, "error", None), None);
    }
    assert_eq!(written::file_by_digest("..", &digest, "success", Some("{}")), None);
}
