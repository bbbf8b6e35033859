//! Which addresses and names a provider may be asked about: the globally reachable ones.
//!
//! The ranges are those of the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890 and its updates),
//! with multicast (RFC 5771, RFC 4291) and, for IPv6, everything outside 2000::/3, which is not allocated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::key::{Key, KeyForm};

/// Why a key is never sent to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ineligible {
    Private,
    Loopback,
    LinkLocal,
    Multicast,
    Documentation,
    Unspecified,
    SharedCgnat,
    Reserved,
    Benchmarking,
    Broadcast,
    UniqueLocal,
    LocalName,
}

impl Ineligible {
    /// A word for a column or a counter.
    pub fn as_str(self) -> &'static str {
        match self {
            Ineligible::Private => "private",
            Ineligible::Loopback => "loopback",
            Ineligible::LinkLocal => "link_local",
            Ineligible::Multicast => "multicast",
            Ineligible::Documentation => "documentation",
            Ineligible::Unspecified => "unspecified",
            Ineligible::SharedCgnat => "shared_cgnat",
            Ineligible::Reserved => "reserved",
            Ineligible::Benchmarking => "benchmarking",
            Ineligible::Broadcast => "broadcast",
            Ineligible::UniqueLocal => "unique_local",
            Ineligible::LocalName => "local_name",
        }
    }

    /// The end of a sentence that begins with "the key is".
    pub fn words(self) -> &'static str {
        match self {
            Ineligible::Private => "a private address",
            Ineligible::Loopback => "a loopback address",
            Ineligible::LinkLocal => "a link-local address",
            Ineligible::Multicast => "a multicast address",
            Ineligible::Documentation => "an address reserved for documentation",
            Ineligible::Unspecified => "an unspecified address",
            Ineligible::SharedCgnat => "a shared address of a carrier's translator (100.64.0.0/10)",
            Ineligible::Reserved => "a reserved address",
            Ineligible::Benchmarking => "an address reserved for benchmarking",
            Ineligible::Broadcast => "the broadcast address",
            Ineligible::UniqueLocal => "a unique local address (fc00::/7)",
            Ineligible::LocalName => "a name of the local network",
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

/// First address, prefix length, reason. The first range that holds the address decides.
const V4: [(u32, u32, Option<Ineligible>); 19] = [
    (v4(10, 0, 0, 0), 8, Some(Ineligible::Private)),
    (v4(192, 168, 0, 0), 16, Some(Ineligible::Private)),
    (v4(172, 16, 0, 0), 12, Some(Ineligible::Private)),
    (v4(127, 0, 0, 0), 8, Some(Ineligible::Loopback)),
    (v4(0, 0, 0, 0), 8, Some(Ineligible::Unspecified)),
    (v4(100, 64, 0, 0), 10, Some(Ineligible::SharedCgnat)),
    (v4(169, 254, 0, 0), 16, Some(Ineligible::LinkLocal)),
    // the two anycast addresses of 192.0.0.0/24 that are globally reachable (RFC 7723, RFC 8155)
    (v4(192, 0, 0, 9), 32, None),
    (v4(192, 0, 0, 10), 32, None),
    (v4(192, 0, 0, 0), 24, Some(Ineligible::Reserved)),
    (v4(192, 0, 2, 0), 24, Some(Ineligible::Documentation)),
    (v4(198, 51, 100, 0), 24, Some(Ineligible::Documentation)),
    (v4(203, 0, 113, 0), 24, Some(Ineligible::Documentation)),
    // the withdrawn 6to4 relay anycast prefix (RFC 7526)
    (v4(192, 88, 99, 0), 24, Some(Ineligible::Reserved)),
    (v4(198, 18, 0, 0), 15, Some(Ineligible::Benchmarking)),
    (v4(224, 0, 0, 0), 4, Some(Ineligible::Multicast)),
    (v4(255, 255, 255, 255), 32, Some(Ineligible::Broadcast)),
    (v4(240, 0, 0, 0), 4, Some(Ineligible::Reserved)),
    (v4(0, 0, 0, 0), 0, None),
];

const fn v6(high: u64) -> u128 {
    (high as u128) << 64
}

/// As [`V4`]; what carries an IPv4 address has been judged before.
const V6: [(u128, u32, Option<Ineligible>); 24] = [
    (0, 128, Some(Ineligible::Unspecified)),
    (1, 128, Some(Ineligible::Loopback)),
    (v6(0xfe80 << 48), 10, Some(Ineligible::LinkLocal)),
    (v6(0xfc00 << 48), 7, Some(Ineligible::UniqueLocal)),
    (v6(0xff00 << 48), 8, Some(Ineligible::Multicast)),
    // site-local, withdrawn by RFC 3879
    (v6(0xfec0 << 48), 10, Some(Ineligible::Private)),
    // local-use translation (RFC 8215)
    (v6(0x0064_ff9b_0001_0000), 48, Some(Ineligible::Private)),
    (v6(0x2001_0db8_0000_0000), 32, Some(Ineligible::Documentation)),
    (v6(0x3fff_0000_0000_0000), 20, Some(Ineligible::Documentation)),
    (v6(0x2001_0002_0000_0000), 48, Some(Ineligible::Benchmarking)),
    // inside 2001::/23, which is not globally reachable, these are
    (v6(0x2001_0001_0000_0000) | 1, 128, None),
    (v6(0x2001_0001_0000_0000) | 2, 128, None),
    (v6(0x2001_0001_0000_0000) | 3, 128, None),
    (v6(0x2001_0003_0000_0000), 32, None),
    (v6(0x2001_0004_0112_0000), 48, None),
    (v6(0x2001_0020_0000_0000), 28, None),
    (v6(0x2001_0030_0000_0000), 28, None),
    (v6(0x2001_0000_0000_0000), 23, Some(Ineligible::Reserved)),
    (v6(0x2620_004f_8000_0000), 48, None),
    // discard-only (RFC 6666) and dummy (RFC 9780) prefixes, segment routing (RFC 9602)
    (v6(0x0100_0000_0000_0000), 64, Some(Ineligible::Reserved)),
    (v6(0x0100_0000_0000_0001), 64, Some(Ineligible::Reserved)),
    (v6(0x5f00 << 48), 16, Some(Ineligible::Reserved)),
    (v6(0x2000 << 48), 3, None),
    (0, 0, Some(Ineligible::Reserved)),
];

/// Says whether an address is one that a provider can know.
///
/// IPv4-mapped addresses are judged as IPv4; 6to4, Teredo and NAT64 addresses by the IPv4 address they carry.
///
/// # Errors
/// The reason why it is not.
pub fn eligibility(ip: IpAddr) -> Result<(), Ineligible> {
    match ip {
        IpAddr::V4(ip) => eligibility_v4(ip),
        IpAddr::V6(ip) => match carried(ip) {
            Some(inner) => eligibility_v4(inner),
            None => eligibility_v6(ip),
        },
    }
}

fn eligibility_v4(ip: Ipv4Addr) -> Result<(), Ineligible> {
    let bits = ip.to_bits();
    let same = |net: u32, length: u32| (bits ^ net).checked_shr(32 - length).unwrap_or(0) == 0;
    match V4.iter().find(|&&(net, length, _)| same(net, length)) {
        Some(&(_, _, Some(reason))) => Err(reason),
        _ => Ok(()),
    }
}

fn eligibility_v6(ip: Ipv6Addr) -> Result<(), Ineligible> {
    let bits = ip.to_bits();
    let same = |net: u128, length: u32| (bits ^ net).checked_shr(128 - length).unwrap_or(0) == 0;
    match V6.iter().find(|&&(net, length, _)| same(net, length)) {
        Some(&(_, _, Some(reason))) => Err(reason),
        _ => Ok(()),
    }
}

/// The IPv4 address inside a mapped, NAT64 (RFC 6052), 6to4 (RFC 3056) or Teredo (RFC 4380) address.
fn carried(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = ip.to_bits();
    let last = bits as u32;
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(Ipv4Addr::from_bits(last)),
        [0x2002, ..] => Some(Ipv4Addr::from_bits((bits >> 80) as u32)),
        // the client's address, with all bits inverted
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!last)),
        _ => None,
    }
}

/// Says whether a key may be sent to a provider: global addresses and public names; hashes and texts always.
///
/// # Errors
/// The reason why it may not.
pub fn key_eligibility(key: &Key) -> Result<(), Ineligible> {
    match key.form {
        KeyForm::Ip => match key.text.parse() {
            Ok(ip) => eligibility(ip),
            Err(_) => Ok(()),
        },
        KeyForm::Host if local_name(&key.text) => Err(Ineligible::LocalName),
        _ => Ok(()),
    }
}

/// Names that never leave a network: single labels, and the suffixes of RFC 6761, RFC 6762, RFC 8375, RFC 9476
/// and of custom.
fn local_name(host: &str) -> bool {
    let Some((rest, top)) = host.rsplit_once('.') else {
        return true;
    };
    match top {
        "localhost" | "local" | "internal" | "lan" | "intranet" | "localdomain" | "test" | "invalid" | "alt" => true,
        "arpa" => rest == "home" || rest.ends_with(".home"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Option<&'static str> {
        eligibility(text.parse().unwrap()).err().map(Ineligible::as_str)
    }

    #[test]
    fn every_special_range_is_refused_at_both_its_ends() {
        for (first, last, word) in [
            ("0.0.0.0", "0.255.255.255", "unspecified"),
            ("10.0.0.0", "10.255.255.255", "private"),
            ("100.64.0.0", "100.127.255.255", "shared_cgnat"),
            ("127.0.0.0", "127.255.255.255", "loopback"),
            ("169.254.0.0", "169.254.255.255", "link_local"),
            ("172.16.0.0", "172.31.255.255", "private"),
            ("192.0.0.0", "192.0.0.255", "reserved"),
            ("192.0.2.0", "192.0.2.255", "documentation"),
            ("192.88.99.0", "192.88.99.255", "reserved"),
            ("192.168.0.0", "192.168.255.255", "private"),
            ("198.18.0.0", "198.19.255.255", "benchmarking"),
            ("198.51.100.0", "198.51.100.255", "documentation"),
            ("203.0.113.0", "203.0.113.255", "documentation"),
            ("224.0.0.0", "239.255.255.255", "multicast"),
            ("240.0.0.0", "255.255.255.254", "reserved"),
            ("255.255.255.255", "255.255.255.255", "broadcast"),
            ("::", "::", "unspecified"),
            ("::1", "::1", "loopback"),
            ("::2", "::fffe:ffff:ffff", "reserved"),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "private"),
            ("100::", "100::ffff:ffff:ffff:ffff", "reserved"),
            ("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", "reserved"),
            ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "benchmarking"),
            ("2001:10::", "2001:1f:ffff::", "reserved"),
            ("2001:1ff::", "2001:1ff:ffff::1", "reserved"),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"),
            ("4000::", "fbff::", "reserved"),
            ("5f00::", "5f00:ffff::", "reserved"),
            ("fc00::", "fdff:ffff::1", "unique_local"),
            ("fe80::", "febf:ffff::1", "link_local"),
            ("fec0::", "feff:ffff::1", "private"),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"),
        ] {
            assert_eq!(judged(first), Some(word), "{first}");
            assert_eq!(judged(last), Some(word), "{last}");
        }
    }

    #[test]
    fn the_neighbours_of_special_ranges_are_eligible() {
        for text in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.0.9",
            "192.0.0.10",
            "192.0.1.0",
            "192.0.3.0",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "192.175.48.1",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "8.8.8.8",
            "2000::",
            "2001:1::1",
            "2001:1::3",
            "2001:3::1",
            "2001:4:112::1",
            "2001:20::1",
            "2001:2f:ffff::",
            "2001:30::1",
            "2001:200::1",
            "2001:db7:ffff::",
            "2001:db9::",
            "2606:4700:4700::1111",
            "2620:4f:8000::1",
            "3ffe::1",
            "3fff:1000::",
        ] {
            assert_eq!(judged(text), None, "{text}");
        }
        assert_eq!(judged("2001:1::4"), Some("reserved"));
    }

    #[test]
    fn an_address_that_carries_an_ipv4_address_is_judged_by_it() {
        for (text, word) in [
            ("::ffff:10.0.0.1", Some("private")),
            ("::ffff:8.8.8.8", None),
            ("64:ff9b::7f00:1", Some("loopback")),
            ("64:ff9b::808:808", None),
            ("2002:c0a8:101::1", Some("private")),
            ("2002:808:808::1", None),
            // Teredo: the client 192.168.1.1 and 8.8.8.8, inverted
            ("2001:0:4136:e378:8000:63bf:3f57:fefe", Some("private")),
            ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", None),
        ] {
            assert_eq!(judged(text), word, "{text}");
        }
    }

    #[test]
    fn local_names_are_not_sent_and_public_names_and_hashes_are() {
        let judge = |text: &str, form| key_eligibility(&Key { text: text.into(), form });
        for name in ["localhost", "router", "printer.local", "db.prod.internal", "nas.lan", "home.arpa", "a.home.arpa"]
        {
            assert_eq!(judge(name, KeyForm::Host), Err(Ineligible::LocalName), "{name}");
        }
        for name in ["example.com", "local.example.com", "athome.arpa.com", "1.0.0.127.in-addr.arpa", "nothome.arpa"] {
            assert_eq!(judge(name, KeyForm::Host), Ok(()), "{name}");
        }
        assert_eq!(judge("192.168.1.1", KeyForm::Ip), Err(Ineligible::Private));
        assert_eq!(judge("localhost", KeyForm::Text), Ok(()));
        assert_eq!(judge("ABCDE", KeyForm::HashPrefix), Ok(()));
    }
}
