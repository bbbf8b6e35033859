//! What each reading makes of which value: the tables, and that nothing makes it panic.

use super::*;
use crate::core::jsonb::root;
use crate::core::jsonb::sample::jsonb;
use proptest::prelude::*;
use serde_json::Value as Json;

fn read<R>(json: &str, reading: impl FnOnce(Value) -> R) -> R {
    let bytes = jsonb(json);
    reading(root(&bytes).unwrap())
}

fn said(json: &str) -> String {
    Json::from(json).to_string()
}

fn list(json: &str, reading: impl Fn(Value) -> Option<Vec<Item>>) -> Option<Vec<String>> {
    let shown = |items: Vec<Item>| items.iter().map(|item| String::from_utf8_lossy(item).into_owned()).collect();
    read(json, |value| reading(value).map(shown))
}

#[test]
fn a_text_is_that_of_any_scalar_but_an_empty_one() {
    for (json, text) in [
        (r#""x""#, Some("x")),
        (r#"" ""#, Some(" ")),
        (r#""0""#, Some("0")),
        (r#""""#, None),
        ("12.5", Some("12.5")),
        ("true", Some("true")),
        ("false", Some("false")),
        ("null", None),
        ("[]", None),
        (r#"["x"]"#, None),
        ("{}", None),
    ] {
        let found = read(json, |value| super::text(value).map(|text| String::from_utf8(text.into_owned()).unwrap()));
        assert_eq!(found.as_deref(), text, "{json}");
    }
}

#[test]
fn a_whole_number_comes_from_numbers_and_from_texts_that_are_one() {
    for (text, number) in [
        ("12", Some(12)),
        ("-12", Some(-12)),
        ("+12", Some(12)),
        ("012", Some(12)),
        ("12.", Some(12)),
        ("12.99", Some(12)),
        ("-0.9", Some(0)),
        (" \t\n\u{b}\u{c}\r12 ", Some(12)),
        ("0000000000000000012", Some(12)),
        ("00000000000000000012", None),
        ("9223372036854775807", Some(i64::MAX)),
        ("9223372036854775807.5", Some(i64::MAX)),
        ("9223372036854775808", None),
        ("-9223372036854775808", Some(i64::MIN)),
        ("-9223372036854775809", None),
        ("99999999999999999999", None),
        ("", None),
        (" ", None),
        ("+", None),
        ("+-1", None),
        ("- 1", None),
        (".5", None),
        ("1e3", None),
        ("1,000", None),
        ("1 2", None),
        ("1.2.3", None),
        ("0x1f", None),
        ("NaN", None),
        ("Infinity", None),
        ("\u{661}", None),
        ("1\u{a0}", None),
    ] {
        assert_eq!(read(&said(text), bigint), number, "{text:?}");
    }
    for (json, number) in
        [("12", Some(12)), ("12.99", Some(12)), ("-12.99", Some(-12)), ("1e3", Some(1000)), ("1e19", None)]
    {
        assert_eq!(read(json, bigint), number, "{json}");
    }
    for json in ["null", "true", "[1]", "{\"a\":1}"] {
        assert_eq!(read(json, bigint), None, "{json}");
    }
}

#[test]
fn a_number_of_an_autonomous_system_may_have_its_letters() {
    for (text, number) in [
        ("3320", Some(3320)),
        ("AS3320", Some(3320)),
        ("as003320", Some(3320)),
        ("AS3320.", Some(3320)),
        ("3320.00", Some(3320)),
        ("2147483647", Some(i32::MAX)),
        ("2147483648", None),
        ("00002147483647", Some(i32::MAX)),
        ("99999999999", None),
        ("As3320", None),
        ("ASAS1", None),
        ("AS 3320", None),
        (" 3320", None),
        ("3320.5", None),
        ("-3320", None),
        ("AS", None),
        ("AS0", None),
        ("0", None),
        ("", None),
        ("3320 Telekom", None),
    ] {
        assert_eq!(read(&said(text), asn), number, "{text:?}");
    }
    for (json, number) in [
        ("3320", Some(3320)),
        ("3320.9", Some(3320)),
        ("0.9", None),
        ("0", None),
        ("-1", None),
        ("2147483647.9", Some(i32::MAX)),
        ("2147483648", None),
        ("1e300", None),
        ("null", None),
        ("true", None),
        ("[3320]", None),
    ] {
        assert_eq!(read(json, asn), number, "{json}");
    }
}

#[test]
fn a_truth_value_is_said_in_many_ways() {
    for (json, truth) in [
        ("true", Some(true)),
        ("false", Some(false)),
        ("1", Some(true)),
        ("0", Some(false)),
        ("1.0", None),
        ("2", None),
        ("-1", None),
        (r#""TRUE""#, Some(true)),
        (r#""t""#, Some(true)),
        (r#""Yes""#, Some(true)),
        (r#""y""#, Some(true)),
        (r#""on""#, Some(true)),
        (r#""1""#, Some(true)),
        (r#""oFF""#, Some(false)),
        (r#""no""#, Some(false)),
        (r#""N""#, Some(false)),
        (r#""F""#, Some(false)),
        (r#""0""#, Some(false)),
        (r#""tr""#, None),
        (r#"" true""#, None),
        (r#""""#, None),
        ("null", None),
        ("[true]", None),
        ("{}", None),
    ] {
        assert_eq!(read(json, boolean), truth, "{json}");
    }
}

const SPRING: Micros = 1_772_506_496 * super::super::SECOND; // 2026-03-03 02:54:56 UTC

#[test]
fn a_moment_comes_from_seconds_and_from_dates_in_one_order_only() {
    for (text, moment) in [
        ("2026-03-03 02:54:56", Some(SPRING)),
        ("2026-03-03T02:54:56Z", Some(SPRING)),
        ("2026-03-03 02:54:56 UTC", Some(SPRING)),
        ("2026-03-03 02:54:56GMT", Some(SPRING)),
        ("2026-03-03T04:54:56+02:00", Some(SPRING)),
        ("2026-03-03 08:24:56 +0530", Some(SPRING)),
        ("2026-03-02 19:24:56-07:30", Some(SPRING)),
        ("2026-03-03 17:53:56+14:59", Some(SPRING)),
        ("2026-03-03 02:54:56.5", Some(SPRING + 500_000)),
        ("2026-03-03 02:54:56.000001", Some(SPRING + 1)),
        ("2026-03-03 02:54:56.0000005", Some(SPRING)),
        ("2026-03-03 02:54:56.0000015", Some(SPRING + 2)),
        ("2026-03-03 02:54:55.9999999", Some(SPRING)),
        ("2026-03-03 02:54:56.123456789", Some(SPRING + 123_457)),
        ("2026-03-03 02:54", Some(SPRING - 56_000_000)),
        ("2026-03-03 02:54Z", Some(SPRING - 56_000_000)),
        ("2026-03-03", Some(SPRING - 10_496_000_000)),
        ("1772506496", Some(SPRING)),
        ("100000000", Some(100_000_000_000_000)),
        ("99999999999", Some(99_999_999_999_000_000)),
        ("2024-02-29", Some(1_709_164_800_000_000)),
        ("2000-02-29", Some(951_782_400_000_000)),
        ("1000-01-01", Some(-30_610_224_000_000_000)),
        ("9999-12-31 23:59:59.999999", Some(253_402_300_799_999_999)),
        ("2026-02-29", None),
        ("1900-02-29", None),
        ("2026-02-30", None),
        ("2026-04-31", None),
        ("2026-13-01", None),
        ("2026-00-01", None),
        ("2026-01-00", None),
        ("2026-01-32", None),
        ("0999-01-01", None),
        ("2026-1-1", None),
        ("26-01-01", None),
        ("2026/01/01", None),
        ("01-02-2026", None),
        ("2026-03-03 ", None),
        (" 2026-03-03", None),
        ("2026-03-03T", None),
        ("2026-03-03t02:54", None),
        ("2026-03-03 02", None),
        ("2026-03-03 24:00", None),
        ("2026-03-03 02:60", None),
        ("2026-03-03 02:54:60", None),
        ("2026-03-03 02:54:56.", None),
        ("2026-03-03 02:54:56.1234567890", None),
        ("2026-03-03 02:54:56 ", None),
        ("2026-03-03 02:54:56  Z", None),
        ("2026-03-03 02:54:56+15:00", None),
        ("2026-03-03 02:54:56+02:60", None),
        ("2026-03-03 02:54:56+02", None),
        ("2026-03-03 02:54:56+02:00Z", None),
        ("2026-03-03 02:54:56 CET", None),
        ("2026-03-03 UTC", None),
        ("2026-03-03Z", None),
        ("12345678", None),
        ("123456789012", None),
        ("-100000000", None),
        ("1772506496.5", None),
        ("now", None),
        ("infinity", None),
        ("", None),
    ] {
        assert_eq!(read(&said(text), super::moment), moment, "{text:?}");
    }
    for (json, moment) in [
        ("1772506496", Some(SPRING)),
        ("1772506496.25", Some(SPRING + 250_000)),
        ("0", Some(0)),
        ("-1", None),
        ("-0.1", None),
        ("253402300799.5", Some(253_402_300_799_500_000)),
        ("253402300800", None),
        ("1e300", None),
        ("true", None),
        ("null", None),
        ("[1772506496]", None),
    ] {
        assert_eq!(read(json, super::moment), moment, "{json}");
    }
}

#[test]
fn a_day_is_that_of_the_moment_in_utc() {
    for (json, number) in [
        (r#""1970-01-01""#, Some(0)),
        (r#""1970-01-02 00:30:00+01:00""#, Some(0)),
        (r#""1969-12-31 23:59:59""#, Some(-1)),
        ("86400", Some(1)),
        (r#""1970-02-30""#, None),
    ] {
        assert_eq!(read(json, day), number, "{json}");
    }
}

#[test]
fn a_list_is_an_array_or_a_text_with_commas_or_one_as_python_prints_it() {
    for (json, items) in [
        (r#"["a","",null,1.5,true,["b"],{"c":1},"d "]"#, Some(&["a", "1.5", "true", "d "][..])),
        ("[]", Some(&[])),
        ("[null]", Some(&[])),
        (r#""a""#, Some(&["a"])),
        (r#""a,b, c ,d""#, Some(&["a", "b", "c", "d"])),
        (r#""  a b ,, c  ""#, Some(&["a b", "c"])),
        (r#""a\t,\nb\u000b""#, Some(&["a", "b\u{b}"])),
        (r#""\t""#, Some(&["\t"])),
        (r#""'a','b'""#, Some(&["'a'", "'b'"])),
        (r#""['a', \"b\", c]""#, Some(&["a", "b", "c"])),
        (r#""['a' , 'b']""#, Some(&["a", "b"])),
        (r#""['a','','b']""#, Some(&["a", "b"])),
        (r#""[a''', '''b]""#, Some(&["a''", "''b"])),
        (r#""['a ', ' b']""#, Some(&["a ", " b"])),
        (r#""[[a],[b]]""#, Some(&["a]", "[b"])),
        (r#""[\t,]""#, Some(&[])),
        (r#""[]""#, None),
        (r#""['', '']""#, None),
        (r#""[""#, Some(&["["])),
        (r#""[a""#, Some(&["[a"])),
        (r#""""#, None),
        (r#"" , ,""#, None),
        ("null", None),
        ("12", None),
        ("true", None),
        (r#"{"a":1}"#, None),
    ] {
        let expected = items.map(|items| items.iter().map(|item| item.to_string()).collect::<Vec<_>>());
        assert_eq!(list(json, texts), expected, "{json}");
        if !json.starts_with('{') {
            assert_eq!(list(json, names), expected, "{json}");
        }
    }
    let names_of = |json| list(json, names);
    assert_eq!(names_of(r#"{"b":null,"aa":1,"B":{},"":2}"#).unwrap(), ["", "B", "aa", "b"]);
    assert_eq!(names_of("{}").unwrap(), Vec::<String>::new());
}

#[test]
fn a_sum_is_that_of_the_members_that_are_numbers() {
    for (json, total) in [
        (r#"{"a":1,"b":"2","c":null,"d":"x","e":3.9}"#, Some(6)),
        (r#"{"a":9223372036854775807,"b":1}"#, None),
        (r#"{"a":9223372036854775807,"b":1,"c":-1}"#, Some(i64::MAX)),
        (r#"{"a":null}"#, None),
        ("{}", None),
        ("[1,2]", None),
        ("3", None),
    ] {
        assert_eq!(read(json, sum), total, "{json}");
    }
}

fn odd() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,40}", "[-+0-9.: TZ]{0,30}", "(AS|as)?[0-9.]{0,14}", "[\\[\\]'\", a]{0,20}"]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in odd()) {
        let json = said(&text);
        let _ = (read(&json, bigint), read(&json, asn), read(&json, boolean), read(&json, super::moment), read(&json, day));
        let _ = (list(&json, texts), list(&json, names), read(&json, sum));
    }

    #[test]
    fn every_number_of_64_bits_is_read_back(number: i64) {
        prop_assert_eq!(read(&number.to_string(), bigint), Some(number));
        prop_assert_eq!(read(&said(&format!(" {number}.5 ")), bigint), Some(number));
    }

    #[test]
    fn every_moment_is_read_back(micros in -30_610_224_000_000_000i64..253_402_300_800_000_000) {
        let moment = jiff::Timestamp::from_microsecond(micros).unwrap();
        prop_assert_eq!(read(&said(&format!("{moment:.6}")), super::moment), Some(micros));
        if micros >= 0 {
            let seconds = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            let bytes = crate::core::jsonb::sample::numeric(&seconds, false);
            prop_assert_eq!(crate::core::jsonb::Number::read(&bytes).unwrap().micros(), Some(micros));
        }
    }
}
