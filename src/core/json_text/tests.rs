//! Texts that `jsonb` refuses and what becomes of them; properties against serde_json as an independent reader.

use super::*;
use proptest::prelude::*;
use serde::de::IgnoredAny;

fn safe(text: &str) -> String {
    make_safe(text.as_bytes()).unwrap().text
}

#[test]
fn a_null_escape_is_replaced_and_an_escaped_backslash_in_front_is_told_apart() {
    for (given, expected) in [
        (r#""\u0000""#, r#""\ufffd""#),
        (r#""\\u0000""#, r#""\\u0000""#),
        (r#""\\\u0000""#, r#""\\\ufffd""#),
        (r#""\\\\u0000""#, r#""\\\\u0000""#),
        (r#""a\u0000\u0000b""#, r#""a\ufffd\ufffdb""#),
        (r#"{"k\u0000":1}"#, r#"{"k\ufffd":1}"#),
        (r#""\u0001\u001f\u007f""#, r#""\u0001\u001f\u007f""#),
        (r#"["x","\u0000"] "#, r#"["x","\ufffd"] "#),
    ] {
        assert_eq!(safe(given), expected);
        assert_eq!(make_safe(given.as_bytes()).unwrap().altered, given != expected);
    }
}

#[test]
fn lone_surrogates_are_replaced_and_pairs_are_kept() {
    for (given, expected) in [
        (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
        (r#""\uD83D\uDE00""#, r#""\uD83D\uDE00""#),
        (r#""\ud83d""#, r#""\ufffd""#),
        (r#""\ude00""#, r#""\ufffd""#),
        (r#""\ud83dx\ude00""#, r#""\ufffdx\ufffd""#),
        (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
        (r#""\ud83d\u0000""#, r#""\ufffd\ufffd""#),
        (r#""\ud83d\\ude00""#, r#""\ufffd\\ude00""#),
    ] {
        assert_eq!(safe(given), expected, "{given}");
    }
}

#[test]
fn broken_utf8_is_replaced_inside_strings_and_refused_outside() {
    let repaired = make_safe(b"\"a\xffb\"").unwrap();
    assert_eq!((repaired.text.as_str(), repaired.altered), ("\"a\u{fffd}b\"", true));
    assert!(matches!(make_safe(b"{\xff}"), Err(Unsafe::NotJson { at: 1, .. })));
    assert_eq!(make_safe(b"\"\xc3\xa9\"").unwrap(), Safe { text: "\"é\"".into(), altered: false });
}

#[test]
fn a_byte_order_mark_is_dropped() {
    assert_eq!(safe("\u{feff}{}"), "{}");
    assert_eq!(make_safe("\u{feff} \n".as_bytes()), Err(Unsafe::Empty));
    assert_eq!(make_safe(b""), Err(Unsafe::Empty));
}

#[test]
fn numbers_beyond_numeric_become_strings() {
    assert_eq!(safe("[1e999999, 1e5, -1E-20000]"), r#"["1e999999", 1e5, "-1E-20000"]"#);
    assert_eq!(safe("60000000000"), "60000000000");
}

#[test]
fn what_is_not_json_is_refused_where_it_stops_being_it() {
    for (given, at) in [
        ("<html>", 0),
        ("{", 1),
        ("[1,]", 3),
        ("[,1]", 1),
        ("{\"a\" 1}", 5),
        ("{\"a\":}", 5),
        ("{\"a\":1,}", 7),
        ("{a:1}", 1),
        ("{]", 1),
        ("[}", 1),
        ("1 2", 2),
        ("nul", 0),
        ("'a'", 0),
        ("\"a", 2),
        ("\"a\tb\"", 2),
        ("\"a long plain run\tand another one\"", 17),
        ("\"a long plain run\u{1f}and another one\"", 17),
        ("\"\\x\"", 1),
        ("\"\\u00g0\"", 1),
        ("\"\\u00", 1),
        ("[NaN]", 1),
        ("01", 0),
        ("}", 0),
        ("{\"a\":1}}", 7),
    ] {
        match make_safe(given.as_bytes()) {
            Err(Unsafe::NotJson { at: found, .. }) => assert_eq!(found, at, "{given}"),
            other => panic!("{given}: {other:?}"),
        }
    }
}

#[test]
fn nesting_is_taken_to_512_levels_and_no_stack_is_used_for_it() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(safe(&nested(512)), nested(512));
    assert_eq!(make_safe(nested(513).as_bytes()), Err(Unsafe::TooDeep { depth: 512 }));
    assert_eq!(make_safe("[".repeat(1_000_000).as_bytes()), Err(Unsafe::TooDeep { depth: 512 }));
    let mixed = format!("{}1{}", "{\"a\":[".repeat(256), "]}".repeat(256));
    assert_eq!(safe(&mixed), mixed);
}

#[test]
fn duplicate_and_empty_names_stay_as_they_came_and_a_duplicate_is_said() {
    let text = "{ \"\" : 1,\n\"a\":1 ,\"a\":\t2.50, \"\\/\": \"\\\"\" }\n";
    assert_eq!(make_safe(text.as_bytes()), Ok(Safe { text: text.to_owned(), altered: true }));
    for (text, repeated) in [
        (r#"{"a":{"a":[{"a":1},{"a":2}]},"b":1}"#, false),
        (r#"{"a":1,"b":{"a":1},"\u0061":2}"#, true),
        (r#"[{"a":1},{"a":1,"b":[],"b":{}}]"#, true),
        (r#"{"":1,"":2}"#, true),
    ] {
        assert_eq!(make_safe(text.as_bytes()).unwrap().altered, repeated, "{text}");
    }
}

#[test]
fn numbers_that_would_fill_memory_when_they_are_written_out_become_strings() {
    let text = format!("[{}1]", "1e131071,".repeat(100));
    let out = safe(&text);
    assert_eq!(out.matches("\"1e131071\"").count(), 92, "a megabyte of digits holds eight of them");
    assert_eq!(safe(&format!("[{}1]", "1e15,".repeat(1000))), format!("[{}1]", "1e15,".repeat(1000)));
}

#[test]
fn what_is_nasty_is_made_safe_once_or_refused_with_a_reason() {
    let mut taken = 0;
    for body in corpus::kept().into_iter().chain((0..5000).map(corpus::made)) {
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        match make_safe(&body) {
            Ok(safe) => {
                taken += 1;
                let again = make_safe(safe.text.as_bytes()).unwrap();
                assert_eq!(again.text, safe.text, "{shown}");
                let as_it_was = safe.text.as_bytes() == body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
                assert!(safe.altered || as_it_was, "{shown}");
                let ascii = for_encoding(safe, Keeps::Characters(&|_| false));
                assert!(ascii.text.is_ascii() && make_safe(ascii.text.as_bytes()).is_ok(), "{shown}");
            }
            Err(why) => assert!(!why.to_string().is_empty()),
        }
    }
    assert!(taken > 4000, "{taken}: most are to be JSON");
}

/// Texts made of the tokens that matter, most of them nearly JSON.
fn near_json() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just(" "),
        Just("\"a\""),
        Just("\"\""),
        Just("null"),
        Just("true"),
        Just("1"),
        Just("-0.5e2"),
        Just("\\"),
        Just("\""),
        Just("\\u0000"),
        Just("\\ud800"),
        Just("\\udc00"),
        Just("\"\\\\u0000\\u0000\""),
        Just("é"),
        Just("\u{0}"),
    ];
    proptest::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

/// Well-formed texts, with strings that need replacement.
fn json() -> impl Strategy<Value = String> {
    let string = proptest::collection::vec(
        prop_oneof![
            Just("\\u0000".to_owned()),
            Just("\\\\".to_owned()),
            Just("u0000".to_owned()),
            Just("\\ud83d".to_owned()),
            Just("\\ude00".to_owned()),
            Just("\\\"".to_owned()),
            "[ !#-\\[\\]-~é😀]{0,12}",
        ],
        0..6,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let leaf = prop_oneof![string.clone(), any::<i64>().prop_map(|n| n.to_string()), Just("null".to_owned())];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(" , "))),
            proptest::collection::vec((string.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = make_safe(&bytes);
    }

    #[test]
    fn it_takes_what_an_independent_reader_takes(text in near_json()) {
        let reference = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        prop_assert_eq!(make_safe(text.as_bytes()).is_ok(), reference, "{}", text);
    }

    #[test]
    fn a_safe_text_is_json_without_null_characters_and_stays_as_it_is(text in json()) {
        let safe = make_safe(text.as_bytes()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&safe.text).unwrap();
        prop_assert!(!holds_null(&value));
        let again = make_safe(safe.text.as_bytes()).unwrap();
        prop_assert_eq!(&again.text, &safe.text);
        prop_assert!(safe.altered || safe.text == text);
        // what is left to jsonb, a name given twice, is said again
        prop_assert!(safe.altered || !again.altered);
    }

    #[test]
    fn a_text_that_needs_nothing_is_kept_byte_for_byte(value in "[a-zA-Z\\\\/ é😀]{0,60}") {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "a": [value, 1.5, null] })).unwrap();
        prop_assert_eq!(make_safe(text.as_bytes()).unwrap(), Safe { text, altered: false });
    }
}

fn holds_null(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(holds_null),
        serde_json::Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains('\0') || holds_null(value))
        }
        _ => false,
    }
}
