//! Answers of the Pwned Passwords range API: lines `SUFFIX:COUNT` (haveibeenpwned.com, API documentation v3).

use std::fmt::Write;

/// Digits of a suffix: SHA-1 (40) or NTLM (32) without the five of the prefix.
const SUFFIX: [usize; 2] = [35, 27];

/// One range: suffixes in upper case, in order, with how often each was seen in breaches (always above 0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub entries: Vec<(String, u64)>,
}

/// Reads a body. CRLF or LF, a stray `\r`, lower case and any order are taken; rows of count 0 are padding and dropped.
///
/// # Errors
/// The body is not a range: a page, no line at all, or any line of another form. The text holds no part of the body.
pub fn parse_range(body: &[u8]) -> Result<Range, String> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if body.trim_ascii_start().starts_with(b"<") {
        return Err("a page in place of a hash range".to_owned());
    }
    let mut entries = Vec::with_capacity(body.len() / 38);
    let mut length = None;
    for (number, line) in body.split(|&b| b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let (suffix, count) =
            parse_line(line).ok_or_else(|| format!("line {} of the hash range is not SUFFIX:COUNT", number + 1))?;
        if *length.get_or_insert(suffix.len()) != suffix.len() {
            return Err(format!("line {} of the hash range has a suffix of another length", number + 1));
        }
        if count > 0 {
            entries.push((suffix, count));
        }
    }
    if length.is_none() {
        return Err("a hash range without any line".to_owned());
    }
    // in order already, except where an old copy or a mock has another order
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    entries.dedup_by(|later, first| later.0 == first.0);
    Ok(Range { entries })
}

fn parse_line(line: &[u8]) -> Option<(String, u64)> {
    let colon = line.iter().position(|&b| b == b':')?;
    let (suffix, count) = (line[..colon].trim_ascii_end(), line[colon + 1..].trim_ascii_start());
    if !SUFFIX.contains(&suffix.len()) || !suffix.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    if count.is_empty() || !count.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(count).ok()?.parse().ok()?;
    let suffix = String::from_utf8(suffix.to_ascii_uppercase()).ok()?;
    Some((suffix, count))
}

impl Range {
    /// The packed form; `None` for suffixes of NTLM.
    pub fn pack(&self) -> Option<Vec<u8>> {
        super::pack(self.entries.iter().map(|(suffix, count)| (suffix.as_bytes(), *count)))
    }

    /// A JSON object of suffixes and counts, in order.
    pub fn to_json(&self) -> String {
        let mut json = String::with_capacity(2 + self.entries.len() * 48);
        json.push('{');
        for (suffix, count) in &self.entries {
            if json.len() > 1 {
                json.push(',');
            }
            // writing to a String does not fail
            let _ = write!(json, "\"{suffix}\":{count}");
        }
        json.push('}');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn suffix(digit: char) -> String {
        digit.to_string().repeat(35)
    }

    #[test]
    fn line_ends_case_order_and_padding_do_not_matter() {
        let (a, b, c) = (suffix('A'), suffix('B'), suffix('C'));
        let body = format!("{}:3\r\n\r\n{a}:52372427\r\r\n{c}:0\n", b.to_lowercase());
        let range = parse_range(body.as_bytes()).unwrap();
        assert_eq!(range.entries, [(a.clone(), 52_372_427), (b.clone(), 3)]);
        assert_eq!(range.to_json(), format!("{{\"{a}\":52372427,\"{b}\":3}}"));
    }

    #[test]
    fn a_range_of_padding_only_is_an_empty_range() {
        let range = parse_range(format!("{}:0", suffix('F')).as_bytes()).unwrap();
        assert_eq!(range.to_json(), "{}");
    }

    #[test]
    fn ntlm_suffixes_are_taken_but_not_mixed() {
        let ntlm = "A".repeat(27);
        assert_eq!(parse_range(format!("{ntlm}:1").as_bytes()).unwrap().entries.len(), 1);
        assert!(parse_range(format!("{ntlm}:1\n{}:1", suffix('B')).as_bytes()).unwrap_err().contains("line 2"));
    }

    #[test]
    fn a_repeated_suffix_keeps_its_higher_count() {
        let body = format!("{0}:1\n{0}:9\n{0}:4", suffix('D'));
        assert_eq!(parse_range(body.as_bytes()).unwrap().entries, [(suffix('D'), 9)]);
    }

    #[test]
    fn what_is_not_a_range_is_an_error_and_is_not_repeated() {
        let good = format!("{}:1\n", suffix('A'));
        for bad in [
            "",
            "\r\n\r\n",
            "  <!DOCTYPE html>",
            "\u{feff}<html>",
            "The hash prefix was not in a valid format",
            &format!("{good}rubbish"),
            &format!("{good}{}:", suffix('B')),
            &format!("{good}{}:-1", suffix('B')),
            &format!("{good}{}:99999999999999999999", suffix('B')),
            &format!("{good}{}", suffix('B')),
            &format!("{good}{}:1", "B".repeat(34)),
            &format!("{good}{}:1", "G".repeat(35)),
        ] {
            let why = parse_range(bad.as_bytes()).expect_err(bad);
            assert!(!why.contains("BBBB") && !why.contains("rubbish"), "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_range(&body);
        }

        #[test]
        fn every_row_above_zero_is_kept(rows in proptest::collection::btree_map("[0-9A-F]{35}", 0..9u64, 1..40)) {
            let body: Vec<String> = rows.iter().rev().map(|(suffix, count)| format!("{suffix}:{count}")).collect();
            let range = parse_range(body.join("\r\n").as_bytes()).unwrap();
            let expected: Vec<(String, u64)> = rows.into_iter().filter(|row| row.1 > 0).collect();
            prop_assert_eq!(&range.entries, &expected);
            let json: std::collections::BTreeMap<String, u64> = serde_json::from_str(&range.to_json()).unwrap();
            prop_assert_eq!(json.into_iter().collect::<Vec<_>>(), expected);
        }
    }
}
