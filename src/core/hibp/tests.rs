//! The packed form against what it stands for.

use super::packed::{records, to_json};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Plain = BTreeMap<String, u64>;

const CHUNK: usize = 1996;

fn packed(plain: &Plain) -> Option<Vec<u8>> {
    pack(plain.iter().map(|(suffix, count)| (suffix.as_bytes(), *count)))
}

fn unpacked(packed: &[u8]) -> Plain {
    serde_json::from_str(&to_json(packed)).unwrap()
}

fn as_jsonb(packed: &[u8]) -> Vec<u8> {
    let mut out = vec![0; jsonb_size(packed).unwrap()];
    write_jsonb(packed, &mut out).unwrap();
    out
}

/// As a session reads it: the first guess, and everything when that does not tell. Also says how much the guess was.
fn looked_up(packed: &[u8], wanted: &Suffix, chunk: usize) -> (u64, Option<usize>) {
    let part = first_look(packed.len(), chunk, wanted);
    match find_in_part(&packed[part.clone()], &part, packed.len(), wanted) {
        Some(count) => (count, Some(part.len())),
        None => (find(packed, wanted), None),
    }
}

/// Suffixes as SHA-1 gives them.
fn range_of(n: u32) -> Plain {
    use sha1::{Digest, Sha1};
    let hex = |n: u32| Sha1::digest(n.to_be_bytes()).iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    (0..n).map(|n| (hex(n)[5..].to_owned(), u64::from(n % 50) * u64::from(n) + 1)).collect()
}

fn counts() -> impl Strategy<Value = u64> {
    prop_oneof![0..12_u64, 0..100_000_u64, Just(10_000), Just(100_000_000), 0..1_u64 << 36]
}

#[test]
fn twenty_two_bytes_hold_a_suffix_and_its_count() {
    let plain = Plain::from([("0123456789ABCDEF0123456789ABCDEF012".to_owned(), 0x9_8765_4321)]);
    let packed = packed(&plain).unwrap();
    let hex: String = packed.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(hex, "0123456789ABCDEF0123456789ABCDEF012987654321");
    assert_eq!(packed.len(), RECORD);
}

#[test]
fn what_would_unpack_to_something_else_is_not_packed() {
    let good = "A".repeat(35);
    assert!(packed(&Plain::from([(good.clone(), (1 << 36) - 1)])).is_some());
    for (suffix, count) in [
        (good.clone(), 1 << 36),
        (good.to_lowercase(), 1),
        (good.replacen('A', "a", 1), 1),
        (good.replacen('A', "G", 1), 1),
        ("A".repeat(34), 1),
        ("A".repeat(36), 1),
        ("A".repeat(27), 1),
        (String::new(), 1),
    ] {
        assert_eq!(packed(&Plain::from([(suffix.clone(), count)])), None, "{suffix}: {count}");
    }
    let (a, b) = (good.as_bytes(), "B".repeat(35));
    assert_eq!(pack([(b.as_bytes(), 1), (a, 1)]), None, "out of order");
    assert_eq!(pack([(a, 1), (a, 2)]), None, "repeated");
}

#[test]
fn a_summary_counts_what_was_seen() {
    let packed = |entries: &[(&str, u64)]| packed(&entries.iter().map(|e| (e.0.repeat(35), e.1)).collect()).unwrap();
    assert_eq!(summary(&packed(&[("A", 7), ("B", 0), ("C", 52_372_427)])), r#"{"suffixes":2,"most_seen":52372427}"#);
    assert_eq!(summary(&packed(&[("A", 0)])), r#"{"suffixes":0,"most_seen":0}"#);
    assert_eq!(summary(&packed(&[])), r#"{"suffixes":0,"most_seen":null}"#);
}

#[test]
fn a_fetched_range_is_packed_and_one_of_ntlm_is_not() {
    let body = format!("{}:3\r\n{}:52372427\r\n{}:0", "C".repeat(35), "A".repeat(35), "B".repeat(35));
    let range = parse_range(body.as_bytes()).unwrap();
    assert_eq!(to_json(&range.pack().unwrap()), range.to_json());
    assert_eq!(parse_range(format!("{}:1", "A".repeat(27)).as_bytes()).unwrap().pack(), None);
}

#[test]
fn the_first_look_reads_two_chunks_of_22_and_is_mostly_enough() {
    let plain = range_of(2000);
    let packed = packed(&plain).unwrap();
    let wanted = range_of(6000);
    let (mut missed, mut read) = (0, 0);
    for suffix in wanted.keys() {
        let suffix_ = Suffix::parse(suffix.as_bytes()).unwrap();
        let (count, guess) = looked_up(&packed, &suffix_, CHUNK);
        assert_eq!(count, plain.get(suffix).copied().unwrap_or(0), "{suffix}");
        missed += usize::from(guess.is_none());
        read += guess.unwrap_or(0);
    }
    assert!(missed * 100 < wanted.len() * 5, "{missed} of {} had to read everything", wanted.len());
    assert!(read < wanted.len() * 2 * CHUNK, "{} bytes on average", read / wanted.len());
}

#[test]
fn bytes_that_are_no_range_are_read_as_what_they_are_worth() {
    let wanted = Suffix::parse("A".repeat(35).as_bytes()).unwrap();
    for junk in [vec![], vec![1; 21], vec![0xaa; 22 * 3 + 5], vec![0xff; 2 * 1996]] {
        let part = first_look(junk.len(), CHUNK, &wanted);
        let _ = find_in_part(&junk[part.clone()], &part, junk.len(), &wanted);
        let _ = (find(&junk, &wanted), summary(&junk), to_json(&junk));
    }
    // the same suffix three times: jsonb keeps one of them, so that is left to the server
    assert_eq!(jsonb_size(&[0xaa; 22 * 3]), None);
    assert_eq!(write_jsonb(&packed(&range_of(3)).unwrap(), &mut [0; 20]), None);
}

#[test]
fn other_jsonb_is_not_packed() {
    let good = as_jsonb(&packed(&range_of(40)).unwrap());
    assert!(pack_jsonb(&good).is_some());
    let with = |at: usize, mask: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= mask;
        pack_jsonb(&bytes)
    };
    // an array or a scalar in place of the object; more pairs than there are; a value of another type
    let top = if cfg!(target_endian = "little") { 3 } else { 0 };
    assert_eq!(with(top, 0x60), None);
    assert_eq!(with(top, 0x10), None);
    assert_eq!(with(1, 0x7f), None);
    assert_eq!(with(4 + 4 * 70 + top, 0x10), None);
    for length in 0..good.len() {
        assert_eq!(pack_jsonb(&good[..length]), None, "{length} bytes of {}", good.len());
    }
}

proptest! {
    #[test]
    fn ranges_come_back_as_they_were(plain in proptest::collection::btree_map("[0-9A-F]{35}", counts(), 0..70)) {
        let packed = packed(&plain).unwrap();
        prop_assert_eq!(packed.len(), plain.len() * RECORD);
        prop_assert_eq!(records(&packed).len(), plain.len());
        prop_assert_eq!(&unpacked(&packed), &plain);
        prop_assert_eq!(pack_jsonb(&as_jsonb(&packed)), Some(packed));
    }

    #[test]
    fn every_suffix_is_found_wherever_the_guess_falls(
        // from few beginnings, so that the guess falls too early or too late
        plain in prop_oneof![
            proptest::collection::btree_map("[0-3]{3}[0-9A-F]{32}", 1..9_u64, 0..60),
            proptest::collection::btree_map("[C-F]{3}[0-9A-F]{32}", 1..9_u64, 0..60),
        ],
        others in proptest::collection::vec("([0-4]|[b-fB-F]){3}[0-9a-fA-F]{32}", 8),
        chunk in 1..150_usize,
    ) {
        let packed = packed(&plain).unwrap();
        for suffix in plain.keys().chain(&others) {
            let wanted = Suffix::parse(suffix.as_bytes()).unwrap();
            let expected = plain.get(&suffix.to_uppercase()).copied().unwrap_or(0);
            prop_assert_eq!(find(&packed, &wanted), expected);
            prop_assert_eq!(looked_up(&packed, &wanted, chunk).0, expected);
            let first = first_look(packed.len(), chunk, &wanted);
            prop_assert!([first.start, first.end].iter().all(|at| at.is_multiple_of(RECORD) && *at <= packed.len()));
        }
    }

    #[test]
    fn no_bytes_make_reading_jsonb_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = pack_jsonb(&bytes);
    }

    #[test]
    fn one_wrong_byte_in_jsonb_packs_to_nothing_or_to_a_range(at in 0..800_usize, byte: u8) {
        let mut bytes = as_jsonb(&packed(&range_of(16)).unwrap());
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Some(packed) = pack_jsonb(&bytes) {
            prop_assert!(jsonb_size(&packed).is_some());
        }
    }
}

#[test]
fn a_range_of_zeros_holds_nothing() {
    let (a, b) = ("A".repeat(35), "B".repeat(35));
    let packed = |counts: [u64; 2]| pack([(a.as_bytes(), counts[0]), (b.as_bytes(), counts[1])]).unwrap();
    assert!(!seen_any(&[]) && !seen_any(&packed([0, 0])));
    assert!(seen_any(&packed([0, 1])) && seen_any(&packed([7, 0])));
}
