//! Tables of keys as they are written in the wild, and what each becomes.

use super::*;
use proptest::prelude::*;

fn key(kind: KeyKind, raw: &str) -> Result<String, String> {
    normalise(kind, raw).map(|key| key.text).map_err(|problem| problem.why)
}

fn good(kind: KeyKind, table: &[(&str, &str, KeyForm)]) {
    for &(raw, text, form) in table {
        assert_eq!(normalise(kind, raw), Ok(Key { text: text.to_owned(), form }), "{raw:?}");
    }
}

fn bad(kind: KeyKind, table: &[(&str, &str)]) {
    for &(raw, why) in table {
        let given = key(kind, raw).expect_err(raw);
        assert!(given.contains(why), "{raw:?}: {given}");
    }
}

const MD5: &str = "44D88612FEA8A8F36DE82E1278ABB02F";
const SHA256: &str = "275A021BBFB6489E54D471899F7DB9D1663FC695EC2FE2A2C4538AABF651FD0F";

#[test]
fn one_address_has_one_text() {
    good(
        KeyKind::Ip,
        &[
            ("8.8.8.8", "8.8.8.8", KeyForm::Ip),
            (" 8.8.8.8\r\n", "8.8.8.8", KeyForm::Ip),
            ("8.8.8.8/32", "8.8.8.8", KeyForm::Ip),
            ("::ffff:8.8.8.8", "8.8.8.8", KeyForm::Ip),
            ("::FFFF:0808:0808", "8.8.8.8", KeyForm::Ip),
            ("::ffff:8.8.8.8/128", "8.8.8.8", KeyForm::Ip),
            ("2001:0DB8:0000:0000:0000:0000:0000:0001", "2001:db8::1", KeyForm::Ip),
            ("2001:db8:0:1:0:0:0:1/128", "2001:db8:0:1::1", KeyForm::Ip),
            ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1", KeyForm::Ip),
            ("fe80::1%eth0", "fe80::1", KeyForm::Ip),
            ("fe80::1%eth0/128", "fe80::1", KeyForm::Ip),
            ("::", "::", KeyForm::Ip),
        ],
    );
}

#[test]
fn what_is_not_one_address_is_refused_with_the_reason() {
    bad(
        KeyKind::Ip,
        &[
            ("", "empty"),
            (" \t", "empty"),
            ("192.168.001.001", "leading zeros"),
            ("010.0.0.1", "leading zeros"),
            ("8.8.8.0/24", "network"),
            ("8.8.8.8/128", "network"),
            ("2001:db8::/32", "network"),
            ("::ffff:8.8.8.8/32", "network"),
            ("8.8.8.8/", "network"),
            ("256.1.1.1", "not an IP address"),
            ("1.2.3", "not an IP address"),
            ("8.8.8.8%eth0", "not an IP address"),
            ("fe80::1%", "empty zone"),
            ("[2001:db8::1]", "not an IP address"),
            ("8.8.8.8:80", "not an IP address"),
            ("example.com", "not an IP address"),
            ("-", "not an IP address"),
            ("unknown", "not an IP address"),
        ],
    );
}

#[test]
fn hashes_are_lower_case_and_of_three_lengths() {
    good(
        KeyKind::FileHash,
        &[
            (MD5, "44d88612fea8a8f36de82e1278abb02f", KeyForm::Md5),
            (SHA256, &SHA256.to_lowercase(), KeyForm::Sha256),
            ("3395856ce81f2b7382dee72602f798b642f14140", "3395856ce81f2b7382dee72602f798b642f14140", KeyForm::Sha1),
        ],
    );
    bad(
        KeyKind::FileHash,
        &[
            ("44d88612", "has 8 characters"),
            ("zz5a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f", "hexadecimal"),
            ("8.8.8.8", "has 7 characters"),
        ],
    );
}

#[test]
fn a_hash_or_an_address_is_told_apart() {
    good(KeyKind::FileHashOrIp, &[(MD5, &MD5.to_lowercase(), KeyForm::Md5), ("::1", "::1", KeyForm::Ip)]);
    bad(KeyKind::FileHashOrIp, &[("1.2.3.04", "leading zeros"), ("abcdef", "has 6 characters")]);
}

#[test]
fn an_indicator_is_an_address_a_payload_or_a_host_and_never_a_malformed_address() {
    good(
        KeyKind::NetworkIndicator,
        &[
            ("8.8.8.8", "8.8.8.8", KeyForm::Ip),
            ("2606:4700::1111", "2606:4700::1111", KeyForm::Ip),
            (SHA256, &SHA256.to_lowercase(), KeyForm::Sha256),
            ("Evil.Example.COM.", "evil.example.com", KeyForm::Host),
            ("_dmarc.example.com", "_dmarc.example.com", KeyForm::Host),
            // an MD5 is a legal label; the provider will say that it knows no such host
            ("d41d8cd98f00b204e9800998ecf8427e.example", "d41d8cd98f00b204e9800998ecf8427e.example", KeyForm::Host),
        ],
    );
    bad(
        KeyKind::NetworkIndicator,
        &[
            ("010.0.0.1", "ends in a number"),
            ("999.1.1.1", "ends in a number"),
            ("8.8.8.0/24", "network"),
            ("http://example.com", "not an IP address"),
            ("example.com:8080", "not an IP address"),
        ],
    );
}

#[test]
fn hosts_follow_rfc_1123() {
    let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    assert_eq!(longest.len(), 253);
    assert_eq!(key(KeyKind::Host, &longest), Ok(longest.clone()));
    assert_eq!(key(KeyKind::Host, &format!("{longest}.")), Ok(longest.clone()));
    good(
        KeyKind::Host,
        &[("xn--bcher-kva.example", "xn--bcher-kva.example", KeyForm::Host), ("3com.com", "3com.com", KeyForm::Host)],
    );
    bad(
        KeyKind::Host,
        &[
            (&format!("{longest}x"), "more than the 253"),
            (&format!("{}.com", "a".repeat(64)), "64 characters"),
            ("a..b", "empty label"),
            ("a.b..", "empty label"),
            (".", "empty label"),
            ("-a.com", "hyphen"),
            ("a-.com", "hyphen"),
            ("bücher.example", "xn--"),
            ("a b.com", "' '"),
            ("a.com/x", "'/'"),
            ("1.2.3.4", "ends in a number"),
            ("host.0x7f", "ends in a number"),
        ],
    );
}

#[test]
fn range_prefixes_are_upper_case_and_a_longer_hash_is_not_repeated() {
    good(KeyKind::HashPrefix, &[("5baa6", "5BAA6", KeyForm::HashPrefix)]);
    let full = "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8";
    bad(KeyKind::HashPrefix, &[("5BAA", "five"), ("5BAAG", "five"), (full, "five")]);
    assert!(!key(KeyKind::HashPrefix, full).unwrap_err().contains("1E4C9"));
}

#[test]
fn texts_are_bounded_and_free_of_control_characters() {
    let longest = "x".repeat(MAX_KEY);
    assert_eq!(key(KeyKind::Text, &longest), Ok(longest.clone()));
    assert_eq!(key(KeyKind::Text, " CVE-2024-3094 "), Ok("CVE-2024-3094".to_owned()));
    bad(
        KeyKind::Text,
        &[(&format!("{longest}x"), "513 bytes"), ("a\u{0}b", "U+0000"), ("a\nb", "U+000A"), ("a\u{85}b", "U+0085")],
    );
}

#[test]
fn kinds_and_forms_read_back() {
    for kind in KeyKind::ALL {
        assert_eq!(KeyKind::parse(kind.as_str()), Some(kind));
    }
    assert_eq!(KeyKind::parse("IP"), None);
    assert_eq!(KeyForm::ALL.map(KeyForm::as_str).len(), 7);
}

#[test]
fn a_key_in_a_message_is_short_and_on_one_line() {
    assert_eq!(shown("a\n\u{0}"), "a\\n\\0");
    assert_eq!(shown(&"é".repeat(99)).chars().count(), 60);
}

fn kinds() -> impl Strategy<Value = KeyKind> {
    proptest::sample::select(KeyKind::ALL.to_vec())
}

proptest! {
    #[test]
    fn normalising_twice_is_normalising_once(
        kind in kinds(),
        raw in prop_oneof![
            any::<String>(),
            "[ \t]?[0-9a-fA-F]{5}[ ]?",
            "[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9A-Fa-f]{64}",
            "[a-zA-Z0-9_.-]{1,40}",
            any::<[u8; 4]>().prop_map(|b| IpAddr::from(b).to_string()),
            any::<[u8; 16]>().prop_map(|b| IpAddr::from(b).to_string().to_uppercase()),
            "[0-9a-f:.%/]{2,30}",
        ],
    ) {
        if let Ok(once) = normalise(kind, &raw) {
            prop_assert_eq!(normalise(kind, &once.text), Ok(once.clone()));
            prop_assert!(once.text.len() <= MAX_KEY && !once.text.is_empty());
            prop_assert!(!once.text.chars().any(char::is_control));
        }
    }

    #[test]
    fn the_short_way_to_a_normal_form_leads_to_the_same_form(
        kind in kinds(),
        raw in prop_oneof![
            any::<String>(),
            "[0-9]{1,4}[.][0-9]{1,4}[.][0-9]{1,4}[.][0-9]{1,4}",
            "[0-9]{1,3}([.][0-9]{0,3}){2,4}",
            any::<[u8; 4]>().prop_map(|b| IpAddr::from(b).to_string()),
            "[0-9a-fA-F]{31,33}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9A-Fa-f]{64}|[0-9a-f]{64}|[0-9a-g]{64}",
            "[0-9A-F]{5}",
        ],
    ) {
        prop_assert_eq!(normal_form(kind, &raw).map(Cow::into_owned), normalise(kind, &raw).ok().map(|key| key.text));
    }

    #[test]
    fn an_address_and_its_text_give_the_same_key(kind in kinds(), bits in any::<u128>(), v4 in any::<u32>()) {
        let (v6, v4) = (Ipv6Addr::from_bits(bits), Ipv4Addr::from_bits(v4));
        #[allow(deprecated)] // "compatible" ones are no IPv4 addresses, and begin as the mapped ones do
        for ip in [v6.into(), v4.into(), v4.to_ipv6_mapped().into(), v4.to_ipv6_compatible().into()] {
            let key = normalise_address(ip);
            prop_assert_eq!(normalise(KeyKind::Ip, &IpAddr::to_string(&ip)), Ok(key.clone()));
            let by_text = normalise(kind, &key.text).ok().map(|key| key.text);
            prop_assert_eq!(normal_form_of_address(kind, ip), by_text);
        }
    }
}
