//! Draws that depend on nothing but a provider, a key and a subject: the same question always gets the same answer.

/// The latest moment in any answer, in Unix seconds: 1 July 2026. No provider reports from the future.
pub const LATEST: i64 = 1_782_864_000;

/// A stream of numbers fixed by the words it was started with.
///
/// Each part of an answer draws from a stream of its own, so that adding a member to one part does
/// not change which keys are found.
#[derive(Debug, Clone)]
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The stream of one provider, key and subject.
    pub fn of(provider: &str, key: &str, subject: &str) -> Self {
        // FNV-1a over the words with a separator, then splitmix64 steps (Steele, Lea, Flood 2014).
        let mut state = 0xcbf2_9ce4_8422_2325_u64;
        for word in [provider, key, subject] {
            for byte in word.bytes().chain(std::iter::once(0xff)) {
                state ^= u64::from(byte);
                state = state.wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        let mut draw = Draw { state };
        draw.bits();
        draw
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 (included) to 1 (excluded).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in `share` of all cases (0 to 1).
    pub fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = (high - low + 1).max(1) as u64;
        low + (self.bits() % width) as i64
    }

    /// A number from 1 to `high` in which each power of ten is about as likely as the next.
    pub fn skewed(&mut self, high: i64) -> i64 {
        ((high as f64).powf(self.unit()) as i64).clamp(1, high)
    }

    /// One of the items.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[(self.bits() % items.len() as u64) as usize]
    }

    /// From `low` to `high` different items, in the order of the list.
    pub fn some<'a, T>(&mut self, items: &'a [T], low: usize, high: usize) -> Vec<&'a T> {
        let wanted = (self.between(low as i64, high as i64) as usize).min(items.len());
        let mut taken = 0;
        let mut chosen = Vec::with_capacity(wanted);
        for (place, item) in items.iter().enumerate() {
            let left = items.len() - place;
            if self.bits() % (left as u64) < (wanted - taken) as u64 {
                taken += 1;
                chosen.push(item);
            }
        }
        chosen
    }

    /// `digits` lower-case hexadecimal digits.
    pub fn hex(&mut self, digits: usize) -> String {
        let mut text = String::with_capacity(digits + 16);
        while text.len() < digits {
            text.push_str(&format!("{:016x}", self.bits()));
        }
        text.truncate(digits);
        text
    }

    /// Unix seconds from 2019 to [`LATEST`].
    pub fn moment(&mut self) -> i64 {
        self.between(1_546_300_800, LATEST)
    }
}

/// `YYYY-MM-DD HH:MM:SS` of Unix seconds, UTC.
///
/// The civil-from-days arithmetic of the proleptic Gregorian calendar, for years 1970 to 9999.
pub fn timestamp(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400);
    let mut year = 1970;
    let mut day = days;
    while day >= year_length(year) {
        day -= year_length(year);
        year += 1;
    }
    let mut month = 1;
    while day >= month_length(year, month) {
        day -= month_length(year, month);
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02} {:02}:{:02}:{:02}", day + 1, rest / 3600, rest / 60 % 60, rest % 60)
}

/// `YYYY-MM-DD` of Unix seconds, UTC.
pub fn date(seconds: i64) -> String {
    timestamp(seconds)[..10].to_string()
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn year_length(year: i64) -> i64 {
    365 + i64::from(leap(year))
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_draw_the_same_numbers_and_other_words_do_not() {
        assert_eq!(Draw::of("spur", "1.2.3.4", "as").hex(40), Draw::of("spur", "1.2.3.4", "as").hex(40));
        assert_ne!(Draw::of("spur", "1.2.3.4", "as").hex(40), Draw::of("spur", "1.2.3.5", "as").hex(40));
        assert_ne!(Draw::of("a", "bc", "").bits(), Draw::of("ab", "c", "").bits());
    }

    #[test]
    fn a_chance_holds_over_many_keys() {
        let hits = (0..10_000).filter(|n| Draw::of("dshield", &n.to_string(), "counts").chance(0.45)).count();
        assert!((4_300..4_700).contains(&hits), "{hits}");
    }

    #[test]
    fn moments_are_written_as_dates_of_the_calendar() {
        assert_eq!(timestamp(0), "1970-01-01 00:00:00");
        assert_eq!(timestamp(1_709_210_096), "2024-02-29 12:34:56");
        assert_eq!(date(1_782_864_000), "2026-07-01");
    }

    #[test]
    fn some_items_are_different_and_in_order() {
        let items: Vec<u32> = (0..20).collect();
        for n in 0..200 {
            let chosen = Draw::of("x", &n.to_string(), "").some(&items, 3, 5);
            assert!((3..=5).contains(&chosen.len()));
            assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
