//! Number tokens: their grammar, and whether PostgreSQL's `numeric` holds them.

/// Digits that `numeric` takes before and after the decimal point (PostgreSQL documentation, "Numeric Types").
const MAX_BEFORE: i64 = 131_072;
const MAX_AFTER: i64 = 16_383;

/// The length of the number token at the start of `bytes`, and the most digits that `numeric` writes it with; `None` when
/// it does not hold it. A few tokens at the border, zero with a huge exponent among them, are said not to fit although they
/// would.
///
/// # Errors
/// The offset at which it stops being a number (RFC 8259, section 6).
pub(super) fn scan(bytes: &[u8]) -> Result<(usize, Option<u64>), usize> {
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(&bytes[at..]);
    if whole == 0 || (whole > 1 && bytes[at] == b'0') {
        return Err(at);
    }
    at += whole;
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        fraction = digits(&bytes[at..]);
        if fraction == 0 {
            return Err(at);
        }
        at += fraction;
    }
    let mut exponent: i64 = 0;
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        let negative = bytes.get(at) == Some(&b'-');
        at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
        let length = digits(&bytes[at..]);
        if length == 0 {
            return Err(at);
        }
        for digit in &bytes[at..at + length] {
            exponent = exponent.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
        }
        exponent = if negative { -exponent } else { exponent };
        at += length;
    }
    let before = (whole as i64).saturating_add(exponent);
    let after = (fraction as i64).saturating_sub(exponent);
    let fits = before <= MAX_BEFORE && after <= MAX_AFTER;
    Ok((at, fits.then(|| before.max(0) as u64 + after.max(0) as u64)))
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::scan;

    #[test]
    fn the_borders_of_numeric_are_kept() {
        for (token, fits) in [
            ("0".to_owned(), true),
            ("-12.5e-3".to_owned(), true),
            ("1e131071".to_owned(), true),
            ("1e131072".to_owned(), false),
            ("1e-16383".to_owned(), true),
            ("1e-16384".to_owned(), false),
            ("1.5e-16383".to_owned(), false),
            ("9".repeat(131_072), true),
            ("9".repeat(131_073), false),
            (format!("0.{}", "1".repeat(16_383)), true),
            (format!("0.{}", "1".repeat(16_384)), false),
            (format!("1e{}", "9".repeat(40)), false),
            (format!("1e-{}", "9".repeat(40)), false),
        ] {
            let shown = &token[..token.len().min(20)];
            let found = scan(token.as_bytes()).map(|(length, digits)| (length, digits.is_some()));
            assert_eq!(found, Ok((token.len(), fits)), "{shown} ({} bytes)", token.len());
        }
    }

    #[test]
    fn malformed_numbers_are_refused() {
        for token in ["-", "01", "1.", "1.e5", "1e", "1e+", "-a", "00"] {
            assert!(scan(token.as_bytes()).is_err(), "{token}");
        }
    }
}
