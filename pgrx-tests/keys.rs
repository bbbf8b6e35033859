//! Keys in SQL: one text per thing, however it was written, and which are never sent to a provider.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{holds, quoted, refused, text, value};
    use pgrx::prelude::*;

    fn normal(kind: &str, key: &str) -> Option<String> {
        value(&format!("SELECT enrich_normalize_key('{kind}', {})", quoted(key)))
    }

    #[pg_test]
    fn keys_have_one_form_however_they_are_written() {
        let sha256 = "A".repeat(64);
        let lower = sha256.to_lowercase();
        for (kind, key, expected) in [
            ("ip", " 9.40.0.1\n", "9.40.0.1"),
            ("ip", "9.40.0.1/32", "9.40.0.1"),
            ("ip", "::ffff:9.40.0.1", "9.40.0.1"),
            ("ip", "::FFFF:0928:0001", "9.40.0.1"),
            ("ip", "2606:4700:0000::0001/128", "2606:4700::1"),
            ("ip", "FE80::1%eth0", "fe80::1"),
            ("file_hash", &sha256, &lower),
            ("file_hash", "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            ("file_hash_or_ip", "D41D8CD98F00B204E9800998ECF8427E", "d41d8cd98f00b204e9800998ecf8427e"),
            ("file_hash_or_ip", "::ffff:9.40.0.1", "9.40.0.1"),
            ("network_indicator", "WWW.Example.COM.", "www.example.com"),
            ("network_indicator", &sha256, &lower),
            ("network_indicator", "9.40.0.1", "9.40.0.1"),
            ("host", "_dmarc.Example.com", "_dmarc.example.com"),
            ("hash_prefix", "5baa6", "5BAA6"),
            ("text", "  Any Thing ", "Any Thing"),
        ] {
            assert_eq!(normal(kind, key).as_deref(), Some(expected), "{kind} {key:?}");
            assert_eq!(normal(kind, expected).as_deref(), Some(expected), "{kind} {expected:?} again");
        }
    }

    #[pg_test]
    fn keys_that_cannot_be_one_are_null() {
        for (kind, key) in [
            ("ip", ""),
            ("ip", "9.40.0.0/24"),
            ("ip", "9.40.0.1/0"),
            ("ip", "009.40.0.1"),
            ("ip", "9.40.1"),
            ("ip", "example.com"),
            ("file_hash", "9.40.0.1"),
            ("file_hash", "da39a3ee"),
            ("file_hash_or_ip", "example.com"),
            ("network_indicator", "999.40.0.1"),
            ("host", "-a.example"),
            ("host", "a..example"),
            ("hash_prefix", "5BAA"),
            ("hash_prefix", "5BAA61"),
            ("text", "a\u{1}b"),
        ] {
            assert_eq!(normal(kind, key), None, "{kind} {key:?}");
        }
        holds("enrich_normalize_key('text', repeat('x', 513)) IS NULL");
        holds("enrich_normalize_key('text', repeat('x', 512)) IS NOT NULL");
    }

    #[pg_test]
    fn keys_that_are_never_sent_say_why() {
        for (kind, key, why) in [
            ("ip", "10.1.2.3", Some("a private address")),
            ("ip", "::ffff:192.168.1.1", Some("a private address")),
            ("ip", "127.0.0.1", Some("a loopback address")),
            ("ip", "::1", Some("a loopback address")),
            ("ip", "fe80::1", Some("a link-local address")),
            ("ip", "224.0.0.1", Some("a multicast address")),
            ("ip", "203.0.113.9", Some("an address reserved for documentation")),
            ("ip", "2001:db8::1", Some("an address reserved for documentation")),
            ("ip", "0.0.0.0", Some("an unspecified address")),
            ("ip", "::", Some("an unspecified address")),
            ("ip", "9.40.0.1", None),
            ("ip", "2606:4700::1", None),
            ("network_indicator", "printer.local", Some("a name of the local network")),
            ("network_indicator", "example.com", None),
            ("hash_prefix", "5BAA6", None),
            ("ip", "dirt", Some("no key, it is not an IP address")),
        ] {
            assert_eq!(value(&format!("SELECT enrich_ineligible('{kind}', '{key}')")).as_deref(), why, "{kind} {key}");
        }
    }

    #[pg_test]
    fn keys_of_an_unknown_kind_are_an_error_with_the_known_ones() {
        for call in ["enrich_normalize_key('ipv4', 'x')", "enrich_ineligible('ipv4', 'x')"] {
            refused(&format!("SELECT {call}")).says("22023", "unknown key kind \"ipv4\"", "Use one of: ip, file_hash,");
        }
    }

    #[pg_test]
    fn keys_are_hashed_as_the_contract_says() {
        holds(
            "enrich_key_hash('dshield', '9.40.0.1') =
            encode(substr(sha256('dshield'::bytea || '\\x00'::bytea || '9.40.0.1'::bytea), 1, 16), 'hex')::uuid",
        );
        // the zero byte keeps the two parts apart
        holds("enrich_key_hash('ab', 'c') <> enrich_key_hash('a', 'bc')");
    }

    #[pg_test]
    fn keys_functions_are_immutable_so_that_indexes_and_constraints_may_use_them() {
        assert_eq!(
            text("SELECT string_agg(DISTINCT provolatile::text || proparallel::text, ' ') FROM pg_proc WHERE proname IN
                ('enrich_key_hash', 'enrich_normalize_key', 'enrich_ineligible', 'enrich_hibp_prefix', 'enrich_hibp_suffix')"),
            "is"
        );
    }
}
