//! A downloaded corpus of Pwned Passwords: the single file, `HASH:COUNT` a line in the order of the hashes, cut into
//! ranges. What cannot be read of a range spoils that range: half of one would call its other half not breached.

use super::{pack, parse_range};

/// Digits of a SHA-1, of the prefix, and what is left.
const HASH: usize = 40;
const PREFIX: usize = 5;
const SUFFIX: usize = HASH - PREFIX;
/// How many ranges a corpus has.
pub const RANGES: u32 = 1 << 20;

/// A range in its packed form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub prefix: String,
    pub records: Vec<u8>,
}

/// What a piece of the file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Piece {
    pub ranges: Vec<Packed>,
    /// Bytes that are done with; the rest belongs to a range that goes on behind the piece.
    pub used: usize,
    /// Rows of count 0, dropped.
    pub padding: u64,
    /// Ranges that were left out, and why; the texts hold a prefix at most.
    pub problems: Vec<String>,
}

/// The text of a prefix by its number.
pub fn prefix(number: u32) -> String {
    format!("{number:05X}")
}

/// One range that stands in a file of its own, `SUFFIX:COUNT` a line.
///
/// # Errors
/// It is no range, or nothing but padding.
pub fn range(prefix: &str, body: &[u8]) -> Result<Packed, String> {
    let range = parse_range(body).map_err(|why| format!("{prefix}: {why}"))?;
    let records = range.pack().ok_or_else(|| format!("{prefix}: not suffixes of SHA-1"))?;
    match records.is_empty() {
        true => Err(format!("{prefix}: nothing but padding")),
        false => Ok(Packed { prefix: prefix.to_string(), records }),
    }
}

struct Open<'a> {
    prefix: &'a [u8],
    start: usize,
    rows: Vec<([u8; SUFFIX], u64)>,
    spoiled: bool,
}

/// Cuts a piece of the file, which begins with a range, into ranges. `last`: nothing comes behind it.
///
/// # Errors
/// The file is not one of SHA-1 in the order of the hashes.
pub fn cut(piece: &[u8], last: bool) -> Result<Piece, String> {
    let mut done = Piece::default();
    let mut open: Option<Open> = None;
    let mut spoil_next = false;
    let mut at = 0;
    while at < piece.len() {
        let end = piece[at..].iter().position(|&byte| byte == b'\n').map(|found| at + found + 1);
        // a line that goes on behind the piece
        let Some(end) = end.or(last.then_some(piece.len())) else { break };
        let line = piece[at..end].trim_ascii();
        let start = std::mem::replace(&mut at, end);
        if line.is_empty() {
            continue;
        }
        let named = line.get(..PREFIX).filter(|prefix| prefix.iter().all(u8::is_ascii_hexdigit));
        let row = read(line);
        let Some(prefix) = named else {
            // which range it was of, nobody knows: the one before, or the one behind
            spoil_next = true;
            if let Some(open) = &mut open {
                open.spoiled = true;
            }
            continue;
        };
        match &open {
            Some(before) if before.prefix.eq_ignore_ascii_case(prefix) => {}
            Some(before) if before.prefix.to_ascii_uppercase() > prefix.to_ascii_uppercase() => {
                return Err("the file is not in the order of the hashes".to_owned());
            }
            _ => {
                if let Some(before) = open.take() {
                    close(before, &mut done);
                }
                open = Some(Open { prefix, start, rows: Vec::new(), spoiled: std::mem::take(&mut spoil_next) });
            }
        }
        let Some(open) = &mut open else { continue };
        match row {
            Some((_, 0)) => done.padding += 1,
            Some(row) => open.rows.push(row),
            None => open.spoiled = true,
        }
    }
    done.used = if last { piece.len() } else { open.as_ref().map_or(at, |open| open.start) };
    if let Some(open) = open.filter(|_| last) {
        if open.prefix.eq_ignore_ascii_case(b"FFFFF") {
            close(open, &mut done);
        } else {
            let prefix = String::from_utf8_lossy(open.prefix).into_owned();
            done.problems.push(format!("{prefix}: the file ends here, so this range may not be whole"));
        }
    }
    Ok(done)
}

fn read(line: &[u8]) -> Option<([u8; SUFFIX], u64)> {
    let (hash, count) = line.split_at_checked(HASH)?;
    let count = count.strip_prefix(b":")?.trim_ascii();
    if !hash.iter().all(u8::is_ascii_hexdigit) || !count.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut suffix: [u8; SUFFIX] = hash[PREFIX..].try_into().ok()?;
    suffix.make_ascii_uppercase();
    Some((suffix, std::str::from_utf8(count).ok()?.parse().ok()?))
}

fn close(mut open: Open, done: &mut Piece) {
    let prefix = String::from_utf8_lossy(open.prefix).to_ascii_uppercase();
    open.rows.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    open.rows.dedup_by(|later, first| later.0 == first.0);
    let packed = match (open.spoiled, open.rows.is_empty()) {
        (true, _) => Err("a line is not HASH:COUNT"),
        (false, true) => Err("nothing but padding"),
        (false, false) => {
            pack(open.rows.iter().map(|(suffix, count)| (&suffix[..], *count))).ok_or("a count is too large")
        }
    };
    match packed {
        Ok(records) => done.ranges.push(Packed { prefix, records }),
        Err(why) => done.problems.push(format!("{prefix}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{find, Suffix};
    use super::*;
    use proptest::prelude::*;

    fn row(prefix: &str, digit: char, count: u64) -> String {
        format!("{prefix}{}:{count}\r\n", digit.to_string().repeat(SUFFIX))
    }

    fn seen(packed: &Packed, digit: char) -> u64 {
        find(&packed.records, &Suffix::parse(digit.to_string().repeat(SUFFIX).as_bytes()).unwrap())
    }

    #[test]
    fn a_file_is_cut_where_the_prefix_changes_and_padding_is_dropped() {
        let text = [
            row("00000", 'B', 4),
            row("00000", 'A', 3),
            row("00000", 'C', 0),
            row("0000a", 'F', 9),
            row("FFFFF", '1', 2),
        ]
        .concat();
        let done = cut(text.as_bytes(), true).unwrap();
        assert_eq!(done.ranges.iter().map(|one| one.prefix.as_str()).collect::<Vec<_>>(), ["00000", "0000A", "FFFFF"]);
        assert_eq!((seen(&done.ranges[0], 'A'), seen(&done.ranges[0], 'B'), seen(&done.ranges[0], 'C')), (3, 4, 0));
        assert_eq!((done.padding, done.used, done.problems.len()), (1, text.len(), 0));
    }

    #[test]
    fn a_range_that_goes_on_behind_the_piece_is_left_for_the_next() {
        let text = [row("00000", 'A', 3), row("00001", 'A', 3), row("00001", 'B', 3)].concat();
        let done = cut(&text.as_bytes()[..text.len() - 9], false).unwrap();
        assert_eq!((done.ranges.len(), done.used), (1, row("00000", 'A', 3).len()));
        assert_eq!(cut(row("00000", 'A', 3).as_bytes(), false).unwrap().used, 0);
    }

    #[test]
    fn what_cannot_be_read_spoils_its_range_and_no_other() {
        let good = |prefix| row(prefix, 'A', 3);
        for bad in [
            "00001rubbish\n".to_string(),
            row("00001", 'G', 1),
            "00001:4\n".into(),
            format!("00001{}\n", "A".repeat(SUFFIX)),
            row("00001", 'B', 1 << 40),
        ] {
            let text = [good("00000"), good("00001"), bad.clone(), good("00002"), good("FFFFF")].concat();
            let done = cut(text.as_bytes(), true).unwrap();
            assert_eq!(
                done.ranges.iter().map(|one| one.prefix.as_str()).collect::<Vec<_>>(),
                ["00000", "00002", "FFFFF"],
                "{bad}"
            );
            assert_eq!(done.problems.len(), 1, "{bad}");
            assert!(done.problems[0].starts_with("00001: ") && done.problems[0].len() < 60);
        }
        // of a line without a prefix nobody knows which range it was of
        let text = [good("00000"), good("00001"), "?\n".into(), good("00002"), good("00003"), good("FFFFF")].concat();
        assert_eq!(cut(text.as_bytes(), true).unwrap().ranges.len(), 3);
    }

    #[test]
    fn the_last_range_of_a_file_that_was_cut_off_is_not_taken() {
        let text = [row("00000", 'A', 3), row("00001", 'A', 3)].concat();
        let done = cut(text.as_bytes(), true).unwrap();
        assert_eq!((done.ranges.len(), done.used), (1, text.len()));
        assert!(done.problems[0].contains("may not be whole"));
    }

    #[test]
    fn a_file_in_another_order_is_refused() {
        let text = [row("00001", 'A', 3), row("00000", 'A', 3)].concat();
        assert!(cut(text.as_bytes(), true).unwrap_err().contains("order"));
    }

    #[test]
    fn a_range_in_a_file_of_its_own_is_taken_whole_or_not_at_all() {
        let body = |count| format!("{}:{count}\r\n", "A".repeat(SUFFIX));
        assert_eq!(seen(&range("5BAA6", body(7).as_bytes()).unwrap(), 'A'), 7);
        for bad in [body(0), "<html>".into(), String::new(), format!("{}x", body(7)), format!("{}:1", "A".repeat(27))] {
            assert!(range("5BAA6", bad.as_bytes()).unwrap_err().starts_with("5BAA6: "), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_hold_what_the_whole_holds(sizes in proptest::collection::vec(1usize..4, 1..9), step in 1usize..300) {
            let text: String = sizes.iter().enumerate().flat_map(|(n, rows)| (0..*rows).map(move |digit|
                row(&prefix(if n + 1 == 9 { RANGES - 1 } else { n as u32 }), ['A', 'B', 'C'][digit], 1 + digit as u64))).collect::<Vec<_>>().concat() + &row("FFFFF", 'D', 5);
            let whole = cut(text.as_bytes(), true).unwrap().ranges;
            let (mut at, mut room, mut got) = (0, step, Vec::new());
            while at < text.len() {
                let end = (at + room).min(text.len());
                let done = cut(&text.as_bytes()[at..end], end == text.len()).unwrap();
                room = if done.used == 0 { room * 2 } else { step };
                at += done.used;
                got.extend(done.ranges);
            }
            prop_assert_eq!(got, whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), last in any::<bool>()) {
            if let Ok(done) = cut(&bytes, last) {
                prop_assert!(done.used <= bytes.len());
            }
        }
    }
}
