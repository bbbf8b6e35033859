//! Reading `jsonb`: paths, numbers, and bytes that are none.

use super::sample::{bytes, jsonb, numeric};
use super::*;
use proptest::prelude::*;
use serde_json::{json, Value as Json};

fn show(value: Value) -> String {
    let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => text(&number.text()),
        Value::Text(string) => format!("{:?}", text(string)),
        Value::Array(array) => format!("[{}]", array.elements().map(show).collect::<Vec<_>>().join(",")),
        Value::Object(object) => {
            let members = object.members().map(|(key, value)| format!("{:?}:{}", text(key), show(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    }
}

fn at(document: &str, path: &[&str]) -> Option<String> {
    let bytes = jsonb(document);
    let found = walk(root(&bytes)?, path.iter().map(|step| step.as_bytes()))?;
    let alone = standalone(&found);
    assert_eq!(show(root(&alone).unwrap()), show(found), "{document} {path:?} by itself");
    Some(show(found))
}

#[test]
fn paths_lead_as_jsonb_extract_path_does() {
    let document = r#"{"a":{"b":[10,{"c":"x"},null,true]},"":{"":0},"é":"ü","e":{},"z":[]}"#;
    for (path, value) in [
        (&["a", "b", "0"][..], Some("10")),
        (&["a", "b", "1", "c"], Some("\"x\"")),
        (&["a", "b", "2"], Some("null")),
        (&["a", "b", "-1"], Some("true")),
        (&["a", "b", "-4"], Some("10")),
        (&["a", "b", " +1"], Some("{\"c\":\"x\"}")),
        (&["a", "b", "01", "c"], Some("\"x\"")),
        (&["a", "b", "\u{b}\t3"], Some("true")),
        (&["a", "b", "-5"], None),
        (&["a", "b", "4"], None),
        (&["a", "b", ""], None),
        (&["a", "b", "1 "], None),
        (&["a", "b", "1x"], None),
        (&["a", "b", "- 1"], None),
        (&["a", "b", "-2147483648"], None),
        (&["a", "b", "2147483648"], None),
        (&["a", "b", "0", "0"], None),
        (&["a", "b", "2", "x"], None),
        (&["a", "c"], None),
        (&["A"], None),
        (&["", ""], Some("0")),
        (&["é"], Some("\"ü\"")),
        (&["e"], Some("{}")),
        (&["z"], Some("[]")),
        (&["z", "0"], None),
    ] {
        assert_eq!(at(document, path).as_deref(), value, "{path:?}");
    }
    assert_eq!(at(document, &[]).unwrap().len(), show(root(&jsonb(document)).unwrap()).len());
    for scalar in ["null", "true", "-1.5", "\"text\"", "\"\""] {
        assert_eq!(at(scalar, &[]).as_deref(), Some(scalar));
        assert_eq!(at(scalar, &["0"]), None, "{scalar}");
    }
}

#[test]
fn every_key_of_an_object_of_any_size_is_found_and_no_other() {
    for size in [1, 2, 31, 32, 33, 47, 48, 49, 64, 65, 100, 1000] {
        let object: serde_json::Map<String, Json> =
            (0..size).map(|n| (format!("{}{n}", "k".repeat(n % 7)), json!(n))).collect();
        let bytes = bytes(&Json::Object(object.clone()));
        let Some(Value::Object(found)) = root(&bytes) else { panic!("no object") };
        assert_eq!(found.len(), size);
        for (key, value) in &object {
            assert_eq!(found.member(key.as_bytes()).map(show), Some(value.to_string()), "{key} of {size}");
        }
        for missing in ["", "k", "0000", "zzzz", "kkkkkkkkkkkkkk"] {
            assert_eq!(found.member(missing.as_bytes()), None, "{missing} of {size}");
        }
    }
}

#[test]
fn numbers_are_read_in_both_forms() {
    for (text, trunc, micros) in [
        ("0", Some(0), Some(0)),
        ("12", Some(12), Some(12_000_000)),
        ("-12.75", Some(-12), None),
        ("0.5", Some(0), Some(500_000)),
        ("0.00000049", Some(0), Some(0)),
        ("0.0000005", Some(0), Some(1)),
        ("0.9999999", Some(0), Some(1_000_000)),
        ("1.9999994", Some(1), Some(1_999_999)),
        ("-0.00001", Some(0), None),
        ("0.00000000000012", Some(0), Some(0)),
        ("10000", Some(10_000), Some(10_000_000_000)),
        ("100000000.0001", Some(100_000_000), Some(100_000_000_000_100)),
        ("9223372036854775807", Some(i64::MAX), None),
        ("9223372036854775807.9", Some(i64::MAX), None),
        ("9223372036854775808", None, None),
        ("-9223372036854775808", Some(i64::MIN), None),
        ("-9223372036854775808.5", Some(i64::MIN), None),
        ("-9223372036854775809", None, None),
        ("99999999999999999999", None, None),
        ("1e400", None, None),
        ("1e-400", Some(0), Some(0)),
        ("12e3", Some(12_000), Some(12_000_000_000)),
    ] {
        for long in [false, true] {
            let bytes = numeric(text, long);
            let number = Number::read(&bytes).unwrap();
            assert_eq!((number.trunc(), number.micros()), (trunc, micros), "{text}, long form: {long}");
        }
    }
}

#[test]
fn numbers_are_written_as_postgresql_writes_them() {
    let zeros = |n: usize| "0".repeat(n);
    for (text, written) in [
        ("12", "12".to_owned()),
        ("-12.50", "-12.50".to_owned()),
        ("0.00", "0.00".to_owned()),
        ("1.0", "1.0".to_owned()),
        ("0.0001", "0.0001".to_owned()),
        ("0.00001", "0.00001".to_owned()),
        ("10000.00001", "10000.00001".to_owned()),
        ("12345678901234567890", "12345678901234567890".to_owned()),
        ("-100000000000000000000.5", "-100000000000000000000.5".to_owned()),
        ("1e400", format!("1{}", zeros(400))),
        ("1e-20", format!("0.{}1", zeros(19))),
        ("1.5e3", "1500".to_owned()),
    ] {
        assert_eq!(String::from_utf8(Number::read(&numeric(text, false)).unwrap().text()).unwrap(), written, "{text}");
    }
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(Json::from),
        "\\PC{0,12}".prop_map(Json::String),
    ];
    leaf.prop_recursive(4, 120, 40, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..40).prop_map(Json::Array),
            proptest::collection::btree_map("\\PC{0,4}", inner, 0..60)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

fn same(value: Value, json: &Json) -> bool {
    match (value, json) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(value), Json::Bool(json)) => value == *json,
        (Value::Number(value), Json::Number(json)) => value.text() == json.to_string().as_bytes(),
        (Value::Text(value), Json::String(json)) => value == json.as_bytes(),
        (Value::Array(value), Json::Array(json)) => {
            value.len() == json.len() && value.elements().zip(json).all(|(value, json)| same(value, json))
        }
        (Value::Object(value), Json::Object(json)) => {
            let member = |(key, json): (&String, &Json)| value.member(key.as_bytes()).is_some_and(|v| same(v, json));
            value.len() == json.len() && json.iter().all(member)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn all_of_a_document_is_read(document in json()) {
        let bytes = bytes(&document);
        let value = root(&bytes).unwrap();
        prop_assert!(same(value, &document));
        prop_assert!(same(root(&standalone(&value)).unwrap(), &document));
    }

    #[test]
    fn a_document_with_wrong_bytes_in_it_never_makes_it_panic(
        document in json(),
        wrong in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = bytes(&document);
        for (at, byte) in wrong {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Some(value) = root(bytes) {
                let _ = walk(value, [b"a".as_slice(), b"0"]);
                // members may now point to themselves
                if let Value::Object(object) | Value::Array(object) = value {
                    let _ = object.members().take(1000).count() + object.elements().take(1000).count();
                }
            }
        }
    }
}

fn number(token: &str) -> Vec<u8> {
    let numeric = numeric(token, false);
    let head = [1 | SCALAR | ARRAY, NUMBER | IS_END | numeric.len() as u32];
    [head.map(u32::to_ne_bytes).concat(), numeric].concat()
}

/// What is built is what the slow way of the tests makes; that PostgreSQL makes the same, tests in the database show.
#[test]
fn texts_become_the_bytes_that_postgresql_writes() {
    let nested = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let wide: String = (0..100).map(|n| format!("\"{}{n}\" : {n},", "k".repeat(n % 7))).collect();
    let wide = format!("\t{{{}}}\r\n", wide.trim_end_matches(','));
    for text in ["null", " true ", "false", "\"\"", "[]", "{}", "[[],{} , {\"\":[ ]}]", &nested, &wide] {
        assert_eq!(build(text), Some(jsonb(text)), "{text}");
    }
    let escaped = r#"{"\u0041\n\"\\\/\b\f\r\t":"\ud83d\uDe00é","a":1,"a":2,"b":{"a":0},"a":[3]}"#;
    assert_eq!(build(escaped), Some(jsonb(escaped)));
    for token in
        ["0", "-0", "-0.0", "0.00", "1e3", "1.50", "100000000", "0.0001", "1e-300", "12345678901234567890.5e-3"]
    {
        assert_eq!(build(token), Some(number(token)), "{token}");
    }
}

#[test]
fn what_is_no_json_or_too_much_is_left_to_postgresql() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let long = "1".repeat(5000);
    let texts = [
        "",
        "[",
        "[1",
        "[1,",
        "[1 2]",
        "{",
        "{\"a\"}",
        "{\"a\":1",
        "{\"a\":1,}",
        "{1:2}",
        "nul",
        "tru",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u00\"",
        "\"\\u00é\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "-",
        "1 1",
        "1e99999",
        "1e-99999",
        "1e99999999999",
        ".5",
        "1e",
        "--1",
        "1.2.3",
        "1.",
        "01",
        "-01.5",
        "[,]",
        "+1",
        &deep,
        &long,
    ];
    for text in texts {
        assert_eq!(build(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_number_becomes_its_numeric(
        whole in "-?(0|[1-9][0-9]{0,30})", fraction in "(\\.[0-9]{1,30})?", exponent in "([eE][+-]?[0-9]{1,3})?",
    ) {
        let token = format!("{whole}{fraction}{exponent}");
        prop_assert_eq!(build(&token), Some(number(&token)), "{}", token);
    }

    #[test]
    fn any_document_becomes_the_same_bytes(document in json()) {
        prop_assert_eq!(build(&document.to_string()), Some(bytes(&document)));
    }

    #[test]
    fn an_object_of_parts_is_the_bytes_of_the_whole(parts in proptest::collection::vec(("[a-z_]{0,6}", json()), 0..6)) {
        let built: Vec<Vec<u8>> = parts.iter().map(|(_, part)| build(&part.to_string()).unwrap()).collect();
        let mut members: Vec<(&str, Part)> =
            parts.iter().zip(&built).map(|((key, _), bytes)| (key.as_str(), Part::Jsonb(bytes))).collect();
        let inner = members.clone();
        members.push(("Texts", Part::Object(vec![("b", Part::Text("x y")), ("aa", Part::Null)])));
        members.push(("Inner", Part::Object(inner)));
        let inner: Json = parts.iter().cloned().collect::<serde_json::Map<_, _>>().into();
        let mut whole: serde_json::Map<_, _> = parts.iter().cloned().collect();
        whole.insert("Texts".to_string(), json!({"b": "x y", "aa": null}));
        whole.insert("Inner".to_string(), inner);
        prop_assert_eq!(object(members), build(&Json::from(whole).to_string()));
    }

    #[test]
    fn parts_that_are_no_jsonb_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = object(vec![("a", Part::Jsonb(&bytes)), ("b", Part::Text("x"))]);
    }

    #[test]
    fn no_text_does_harm(text in "\\PC{0,40}|[\\[\\]{}\",:0-9eE.\\\\u-]{0,40}") {
        if let Some(built) = build(&text) {
            prop_assert!(root(&built).is_some());
        }
    }
}

#[test]
fn a_value_holds_nothing_when_nothing_in_it_does() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    for (document, hollow) in [
        ("null", true),
        (r#""""#, true),
        ("{}", true),
        ("[]", true),
        (r#"{"ip": {"asname": "", "ascountry": ""}, "x": [[], {}, null, [""]]}"#, true),
        (deep.as_str(), true),
        ("0", false),
        ("false", false),
        (r#"{"a": {"b": [[], [null, {"c": 0}]]}, "z": ""}"#, false),
        (r#"["", "", " "]"#, false),
    ] {
        assert_eq!(is_hollow(root(&jsonb(document)).unwrap()), hollow, "{document}");
    }
    // the binary form may be deeper than the stack
    let array = |rest: u32| [ARRAY | 1, CONTAINER | (8 * rest + 4)];
    let words = (0..200_000).rev().flat_map(array).chain([ARRAY]);
    let nested: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
    assert!(is_hollow(root(&nested).unwrap()));
}
