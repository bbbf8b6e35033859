//! Numbers as they are read: three digits that count, groups of three.

/// `1,234`, `12.3`, `0.123`, `0.0123`; large ones lose what is below three or four digits.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_string();
    }
    let size = value.abs();
    if size >= 100.0 {
        // what comes after four digits is noise
        let unit = 10f64.powi((size.log10().floor() as i32 - 3).max(0));
        return grouped((value / unit).round() * unit);
    }
    let decimals = match size {
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// A ratio: two digits after the point.
pub fn ratio(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_string();
    }
    if value.abs() >= 100.0 {
        return grouped(value.round());
    }
    format!("{value:.2}")
}

/// A whole number in groups of three.
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

/// Bytes in the unit that fits.
pub fn bytes(value: f64) -> String {
    let units = ["B", "kB", "MB", "GB"];
    let (mut value, mut unit) = (value, 0);
    while value.abs() >= 10_000.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", number(value), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_that_count() {
        let texts = [0.01234, 0.5, 1.234, 12.34, 195.4, 1_234.0, 61_234.5, 1_234_567.0, -1_234.0].map(number);
        assert_eq!(texts, ["0.0123", "0.500", "1.23", "12.3", "195", "1,234", "61,230", "1,235,000", "-1,234"]);
        assert_eq!(number(f64::NAN), "-");
    }

    #[test]
    fn ratios_have_two_digits() {
        assert_eq!([0.654, 1.0, 123.4].map(ratio), ["0.65", "1.00", "123"]);
    }

    #[test]
    fn bytes_have_a_unit() {
        assert_eq!([812.0, 25_000.0, 3.5e9].map(bytes), ["812 B", "24.4 kB", "3,338 MB"]);
    }
}
