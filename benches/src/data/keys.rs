//! The keys of the cache, by number: addresses and file hashes.
//!
//! pgbench knows numbers only. So an IPv4 address is an arithmetic function of its number, the same here and in the
//! scripts ([`PGBENCH_ADDRESS`]): number times [`STEP`] modulo a prime, plus 32.0.0.0. All lie in 32.0.0.0 to
//! 99.255.255.255, which is ordinary public space, distinct for any number below the prime.

use super::dice::Dice;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The largest prime below 68 * 2^24.
const PRIME: u64 = 1_140_850_681;
const STEP: u64 = 1_103_515_245;
const FIRST: u64 = 32 << 24;
/// One address of so many is IPv6, the last ones of each hundred.
const V6_OF_HUNDRED: u64 = 5;

/// pgbench: a random address of those with numbers below `:addresses`, as the number of an IPv4 address in `:a`.
/// A number whose address is IPv6 is replaced by one a hundred times its share lower, which is IPv4.
pub const PGBENCH_ADDRESS: &str = "\\set n random(0, :addresses - 1)\n\
     \\set n :n - case when :n % 100 >= 95 then 5 else 0 end\n\
     \\set a 536870912 + (:n * 1103515245) % 1140850681\n";

/// SQL: the text of the address whose number is in pgbench's `:a`.
pub const SQL_ADDRESS: &str = "host('0.0.0.0'::inet + :a)";

/// Address number `n`, in canonical text.
pub fn address(n: u64) -> String {
    if n % 100 >= 100 - V6_OF_HUNDRED {
        let mut dice = Dice::new("v6", n);
        let group = |value: u64| value as u16;
        // the number in the middle keeps them distinct
        return Ipv6Addr::new(
            0x2a02,
            group(dice.below(65_536)),
            group(n >> 16),
            group(n),
            0,
            0,
            0,
            group(dice.between(1, 65_535)),
        )
        .to_string();
    }
    Ipv4Addr::from((FIRST + n * STEP % PRIME) as u32).to_string()
}

/// The SHA-256 of file number `n`, which no file has.
pub fn file_hash(n: u64) -> String {
    Dice::new("file", n).hex(64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn addresses_are_distinct_and_some_are_ipv6() {
        let all: HashSet<String> = (0..100_000).map(address).collect();
        assert_eq!(all.len(), 100_000);
        assert_eq!(all.iter().filter(|text| text.contains(':')).count(), 5_000);
    }

    #[test]
    fn ipv4_addresses_lie_where_they_are_said_to() {
        for n in (0..10_000_000).step_by(9_973).filter(|n| n % 100 < 95) {
            let address: Ipv4Addr = address(n).parse().unwrap();
            assert!((32..100).contains(&address.octets()[0]), "{address}");
        }
    }

    #[test]
    fn pgbench_is_told_the_same_numbers() {
        for constant in [FIRST, STEP, PRIME] {
            assert!(PGBENCH_ADDRESS.contains(&constant.to_string()), "{constant}");
        }
        assert_eq!(V6_OF_HUNDRED, 5);
        assert!(PGBENCH_ADDRESS.contains(">= 95 then 5"));
    }
}
