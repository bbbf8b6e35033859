//! Source addresses: distinct, mostly public IPv4, some IPv6, and a few that no provider may be asked about.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const IPV6_SHARE: f64 = 0.05;
const INELIGIBLE_SHARE: f64 = 0.02;

/// First octets whose whole /8 is ordinary public unicast space (IANA IPv4 Special-Purpose Address Registry).
const PUBLIC_OCTETS: &[u8] = &[
    2, 5, 14, 23, 27, 31, 36, 37, 39, 42, 43, 45, 46, 49, 51, 52, 54, 58, 59, 60, 61, 62, 77, 78, 79, 80, 81, 82, 83,
    84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 101, 103, 104, 106, 109, 110, 111, 112, 113, 114, 115, 116, 117,
    118, 119, 120, 121, 122, 123, 124, 125, 134, 137, 138, 139, 141, 146, 152, 157, 159, 161, 162, 165, 167, 170, 175,
    176, 177, 178, 179, 180, 181, 182, 183, 185, 186, 187, 188, 189, 190, 193, 194, 195, 196, 197, 200, 201, 202, 206,
    209, 210, 211, 212, 213, 216, 217, 218, 219, 220, 221, 222,
];

/// First groups of allocated, public IPv6 space.
const PUBLIC_GROUPS: &[u16] = &[
    0x2400, 0x2402, 0x2405, 0x2409, 0x2600, 0x2604, 0x2607, 0x2803, 0x2804, 0x2a00, 0x2a01, 0x2a02, 0x2a03, 0x2a06,
    0x2a0c,
];

/// An address in canonical text, and whether a provider may be asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) text: String,
    pub(super) public: bool,
}

/// `count` distinct addresses, by `seed` alone.
pub(super) fn generate(count: usize, seed: u64) -> Vec<Address> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(super::session::STREAM_ADDRESSES);
    let mut seen = HashSet::with_capacity(count);
    let mut addresses = Vec::with_capacity(count);
    while addresses.len() < count {
        let kind: f64 = rng.random();
        let public = kind >= INELIGIBLE_SHARE;
        let address = if !public {
            ineligible(&mut rng)
        } else if kind < INELIGIBLE_SHARE + IPV6_SHARE {
            public_v6(&mut rng)
        } else {
            public_v4(&mut rng)
        };
        if seen.insert(address) {
            addresses.push(Address { text: address.to_string(), public });
        }
    }
    addresses
}

fn public_v4(rng: &mut ChaCha8Rng) -> IpAddr {
    let first = PUBLIC_OCTETS[rng.random_range(0..PUBLIC_OCTETS.len())];
    IpAddr::V4(Ipv4Addr::new(first, rng.random(), rng.random(), rng.random_range(1..=254)))
}

fn public_v6(rng: &mut ChaCha8Rng) -> IpAddr {
    let first = PUBLIC_GROUPS[rng.random_range(0..PUBLIC_GROUPS.len())];
    IpAddr::V6(Ipv6Addr::new(first, rng.random(), rng.random(), 0, 0, 0, 0, rng.random_range(1..=0xffff)))
}

/// Private, shared, link-local, documentation (RFC 1918, 6598, 3927, 5737, 3849, 4193) and, rarely, loopback.
fn ineligible(rng: &mut ChaCha8Rng) -> IpAddr {
    let (b, c, d): (u8, u8, u8) = (rng.random(), rng.random(), rng.random_range(1..=254));
    let v6 = |first, second| IpAddr::V6(Ipv6Addr::new(first, second, b.into(), 0, 0, 0, c.into(), d.into()));
    match rng.random_range(0..12) {
        0..=3 => Ipv4Addr::new(10, b, c, d).into(),
        4 | 5 => Ipv4Addr::new(192, 168, c, d).into(),
        6 => Ipv4Addr::new(172, 16 + b % 16, c, d).into(),
        7 => Ipv4Addr::new(198, 51, 100, d).into(),
        8 => Ipv4Addr::new(127, 0, 0, d).into(),
        9 => Ipv4Addr::new(169, 254, c, d).into(),
        10 => v6(0x2001, 0xdb8),
        _ => v6(0xfd00, 0x1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_distinct_and_follow_the_seed() {
        let one = generate(20_000, 1);
        assert_eq!(one, generate(20_000, 1));
        assert_ne!(one, generate(20_000, 2));
        assert_eq!(one.iter().map(|a| &a.text).collect::<HashSet<_>>().len(), 20_000);
    }

    #[test]
    fn addresses_have_the_documented_shares() {
        let all = generate(20_000, 3);
        let share = |count: usize| count as f64 / all.len() as f64;
        let closed = share(all.iter().filter(|a| !a.public).count());
        let v6 = share(all.iter().filter(|a| a.text.contains(':')).count());
        assert!((0.015..0.025).contains(&closed), "{closed}");
        assert!((0.04..0.065).contains(&v6), "{v6}");
    }
}
