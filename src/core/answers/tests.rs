//! The shapes in which answers were ever cached, each read as the provider's own.

use super::{spur, urlhaus, virustotal};
use crate::core::jsonb::sample::jsonb;
use crate::core::jsonb::{root, walk, Value};
use crate::core::typed::{self, Item};
use proptest::prelude::*;

fn read<R>(json: &str, reading: impl FnOnce(Value) -> R) -> R {
    let bytes = jsonb(json);
    reading(root(&bytes).unwrap())
}

fn shown(items: Vec<Item>) -> Vec<String> {
    items.iter().map(|item| String::from_utf8_lossy(item).into_owned()).collect()
}

fn text(value: Value) -> Option<String> {
    typed::text(value).map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// The text, or the list, at a path of a Spur answer.
fn spur_value(json: &str, path: &str) -> Option<String> {
    read(json, |payload| {
        let value = spur::answer(payload)?.value(path.split('.').map(str::as_bytes))?;
        text(value).or_else(|| typed::texts(value).map(|items| shown(items).join("+")))
    })
}

fn flagged(json: &str) -> Option<bool> {
    read(json, |payload| spur::answer(payload)?.flagged())
}

const OWN: &str = r#"{"as":{"number":64500,"organization":"AS org"},"organization":"org","infrastructure":"DATACENTER",
    "client":{"behaviors":["b"],"proxies":["p"],"types":["t"],"count":3,"countries":2,"spread":9},
    "location":{"city":"St, Louis","state":"Missouri","country":"US"},"risks":["r"],"services":["s"],
    "tunnels":[{"anonymous":true,"operator":"OP","type":"VPN"}]}"#;
const LIST: &str = r#"["AS org",["b"],"","","",2,3,["p"],9,["t"],"DATACENTER","St, Louis","US","Missouri","org",["r"],["s"],
    [{"anonymous":true,"operator":"OP","type":"VPN"}]]"#;
const LEGACY: &str = r#"["64500","AS org","org","DATACENTER","b","p","t","3","x","2","9","r","s","St, Louis, Missouri, US",
    "true","x","OP","VPN"]"#;

#[test]
fn a_spur_list_in_either_order_is_read_as_the_answer_it_came_from() {
    for path in [
        "as.organization",
        "organization",
        "infrastructure",
        "client.behaviors",
        "client.proxies",
        "client.types",
        "client.count",
        "client.countries",
        "client.spread",
        "location.city",
        "location.state",
        "location.country",
        "risks",
        "services",
        "tunnels.0.anonymous",
        "tunnels.0.operator",
        "tunnels.0.type",
    ] {
        let value = spur_value(OWN, path);
        assert!(value.is_some(), "{path}");
        for list in [LIST, LEGACY] {
            assert_eq!(spur_value(list, path), value, "{path} of {list}");
            assert_eq!(spur_value(&format!("{{\"spur_data\":{list}}}"), path), value, "{path} of {list}");
        }
    }
    assert_eq!(spur_value(LEGACY, "as.number").as_deref(), Some("64500"));
    assert_eq!(spur_value(LIST, "as.number"), None);
    for missing in
        ["ip", "client", "client.nothing", "location", "location.city.0", "tunnels.1.type", "tunnels.0.exits"]
    {
        assert_eq!((spur_value(LIST, missing), spur_value(LEGACY, missing)), (None, None), "{missing}");
    }
    assert_eq!(spur_value(LEGACY, "risks.0"), None);
}

#[test]
fn a_list_of_nothing_is_no_answer() {
    let empty = vec!["\"\""; 18].join(",");
    for json in [format!("[{empty}]"), "[]".into(), "[null,\"\",[]]".into(), format!("{{\"spur_data\":[{empty}]}}")] {
        assert!(read(&json, |payload| spur::answer(payload).is_none()), "{json}");
        assert_eq!(flagged(&json), None);
    }
    for json in ["[0]", "[\" \"]", "[[\"\"]]", "[{}]", "[false]"] {
        assert!(read(json, |payload| spur::answer(payload).is_some()), "{json}");
    }
}

#[test]
fn a_place_of_the_older_order_is_taken_apart_from_its_end() {
    for (place, city, state, country) in [
        ("St Louis, Missouri, US", Some("St Louis"), Some("Missouri"), Some("US")),
        ("a, b, c, US", Some("a, b"), Some("c"), Some("US")),
        ("Missouri, US", None, None, Some("US")),
        ("US", None, None, Some("US")),
        (", US", None, None, Some("US")),
        (", Missouri, US", None, Some("Missouri"), Some("US")),
        ("x,Missouri, US", None, None, Some("US")),
        ("x, , US", None, None, Some("US")),
        ("x,  , US", Some("x"), Some(" "), Some("US")),
        ("São Paulo, SP, BR", Some("São Paulo"), Some("SP"), Some("BR")),
        ("xUS", None, None, None),
        ("x,US", None, None, None),
        ("St Louis, Missouri, us", None, None, None),
        ("St Louis, Missouri, USA", None, None, None),
        ("U", None, None, None),
        ("é", None, None, None),
        (",", None, None, None),
    ] {
        let json = format!(r#"["1","","","","","","","","","","","","","{place}"]"#);
        let read = |part: &str| spur_value(&json, &format!("location.{part}"));
        let found = (read("city"), read("state"), read("country"));
        let owned = |part: Option<&str>| part.map(str::to_owned);
        assert_eq!(found, (owned(city), owned(state), owned(country)), "{place}");
    }
}

#[test]
fn flagged_are_data_centres_vpns_and_tunnels() {
    for (json, flag) in [
        (OWN, Some(true)),
        (LIST, Some(true)),
        (LEGACY, Some(true)),
        (r#"{"infrastructure":"VPN"}"#, Some(true)),
        (r#"{"infrastructure":"MOBILE"}"#, Some(false)),
        (r#"{"infrastructure":["VPN"]}"#, Some(false)),
        (r#"{"tunnels":[{}]}"#, Some(true)),
        (r#"{"tunnels":[null]}"#, Some(false)),
        (r#"{"tunnels":[]}"#, Some(false)),
        (r#"{"tunnels":{"0":{}}}"#, Some(true)),
        ("{}", Some(false)),
        (r#"["","","","MOBILE"]"#, Some(false)),
        (r#"["","","","VPN"]"#, Some(true)),
        (r#"["1","","","","","","","","","","","","","","","","",""]"#, Some(false)),
        (r#"["1","","","","","","","","","","","","","","","","OP",""]"#, Some(true)),
        (r#"["1","","","","","","","","","","","","","","false"]"#, Some(true)),
        (r#"["1","","","","","","","","","","","","","","",null,[],null]"#, Some(false)),
        ("null", None),
        (r#""VPN""#, None),
        ("12", None),
    ] {
        assert_eq!(flagged(json), flag, "{json}");
    }
}

#[test]
fn attributes_of_virustotal_are_found_with_and_without_their_wrapper() {
    for (json, size) in [
        (r#"{"data":{"attributes":{"size":1},"size":2},"attributes":{"size":3},"size":4}"#, Some("1")),
        (r#"{"data":{"size":2},"attributes":{"size":3},"size":4}"#, Some("3")),
        (r#"{"data":[],"size":4}"#, Some("4")),
        (r#"{"data":{"attributes":null},"attributes":{"size":3},"size":4}"#, None),
        (r#"{"attributes":null,"size":4}"#, None),
        ("null", None),
        ("[]", None),
    ] {
        let found = read(json, |payload| walk(virustotal::attributes(payload), [b"size".as_slice()]).and_then(text));
        assert_eq!(found.as_deref(), size, "{json}");
    }
}

#[test]
fn tags_of_urlhaus_are_those_of_all_its_urls() {
    for (json, tags) in [
        (r#"{"urls":[{"tags":["b","a"]},{"tags":null},{"tags":["a","C"]},{},7]}"#, Some(&["C", "a", "b"][..])),
        (r#"{"urls":[{"tags":"x,y"}],"tags":"z"}"#, Some(&["x", "y"])),
        (r#"{"urls":[],"tags":"z"}"#, Some(&[])),
        (r#"{"urls":[{"tags":null}]}"#, Some(&[])),
        (r#"{"urls":null,"tags":"b, a,b"}"#, Some(&["a", "b"])),
        (r#"{"tags":["b","a","b"]}"#, Some(&["a", "b"])),
        (r#""b,a""#, Some(&["a", "b"])),
        (r#""""#, None),
        (r#"{"tags":[]}"#, None),
        (r#"{"tags":""}"#, None),
        (r#"["b"]"#, None),
        ("{}", None),
        ("null", None),
    ] {
        let found = read(json, |payload| urlhaus::tags(payload).map(shown));
        assert_eq!(found, tags.map(|tags| tags.iter().map(|tag| tag.to_string()).collect()), "{json}");
    }
}

#[test]
fn urls_of_urlhaus_that_are_online_are_counted() {
    for (json, online) in [
        (r#"{"urls":[{"url_status":"online"},{"url_status":"offline"},{"url_status":"online"},{},null]}"#, Some(2)),
        (r#"{"urls":[{"url_status":"Online"}]}"#, Some(0)),
        (r#"{"urls":[]}"#, Some(0)),
        (r#"{"urls":{}}"#, None),
        ("{}", None),
        (r#""online""#, None),
    ] {
        assert_eq!(read(json, urlhaus::online), online, "{json}");
    }
}

proptest! {
    #[test]
    fn no_place_makes_it_panic(place in "[A-Z, é]{0,12}", part in "city|state|country|x") {
        let json = format!(r#"["1","","","","","","","","","","","","","{place}"]"#);
        let _ = spur_value(&json, &format!("location.{part}"));
    }
}
