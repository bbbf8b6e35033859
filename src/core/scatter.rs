//! Numbers for indexes: rows that lie far apart though they come one after the other, and terms of payloads that are few.

/// Bits of a row's number: more rows than a sequence gives in eight thousand years of a thousand a second, and few enough
/// for a number of JSON.
const ROW_BITS: u32 = 48;
/// The golden ratio of those bits: multiples of it fall into the widest gap that those before have left.
const GOLDEN: u64 = 0x9E37_79B9_7F4B;

/// The number of the row that is the `number`th: odd factors only change places, so each number comes once.
///
/// Rows of the cache come and go at random. In an index in the order of their coming each page would keep the few that
/// stay, and new ones would take new pages; scattered, new ones go where others have left.
pub fn scattered(number: i64) -> i64 {
    let mask = (1u64 << ROW_BITS) - 1;
    ((number as u64).wrapping_mul(GOLDEN) & mask) as i64
}

/// Bits of a term of the index on payloads.
const TERM_BITS: u32 = 18;

/// A term as the index keeps it, from the 32 bits that `jsonb_path_ops` makes of a path and its value.
///
/// An entry of a GIN index stays when its last row is gone, and a refresh brings new dates and counts each time: with all
/// bits the index would grow with every one of them. With these there are at most 262,144 entries, and what they find too
/// much is compared with the row and left out.
pub fn coarse(term: u32) -> u32 {
    term & ((1 << TERM_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_row_has_a_number_of_its_own_that_json_can_hold() {
        let numbers: HashSet<i64> = (0..100_000).map(scattered).collect();
        assert_eq!(numbers.len(), 100_000);
        assert!(numbers.iter().all(|number| (0..1 << 53).contains(number)));
        assert_eq!(GOLDEN % 2, 1, "an even factor would give numbers twice");
    }

    #[test]
    fn rows_that_come_one_after_the_other_leave_no_wide_gap() {
        let mut numbers: Vec<i64> = (1..=1_000).map(scattered).collect();
        numbers.sort_unstable();
        let widest = numbers.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(widest < (1 << ROW_BITS) / 300, "{widest}");
    }

    #[test]
    fn a_term_is_one_of_a_quarter_of_a_million() {
        assert_eq!(coarse(u32::MAX), 262_143);
        assert_eq!(coarse(5), 5);
    }
}
