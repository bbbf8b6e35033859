//! Keys found again by their SHA-256: those that the tables of the database hold, and every hash prefix there can be.

use super::digest;
use hashbrown::HashTable;
use std::sync::OnceLock;

/// The most keys that are held: about 120 MB of addresses. What lies beyond is found when it is asked for.
pub const MOST: usize = 4_000_000;
/// Hash prefixes are numbers of five hexadecimal digits.
const PREFIXES: u32 = 1 << 20;

/// Keys by the first eight bytes of their digest; the whole digest is compared by computing it again.
#[derive(Default)]
pub struct Known {
    texts: String,
    /// Where each text ends.
    ends: Vec<u32>,
    table: HashTable<(u64, u32)>,
}

fn head(digest: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

impl Known {
    /// Adds a key; one that is there already is not added again. False when there is no room for more.
    pub fn add(&mut self, key: &str) -> bool {
        if self.ends.len() >= MOST || self.texts.len() + key.len() > u32::MAX as usize {
            return false;
        }
        let digest = digest(key);
        if self.by_digest(&digest).is_none() {
            let number = self.ends.len() as u32;
            self.texts.push_str(key);
            self.ends.push(self.texts.len() as u32);
            let head = head(&digest);
            self.table.insert_unique(head, (head, number), |entry| entry.0);
        }
        true
    }

    fn text(&self, number: u32) -> &str {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.texts[start..self.ends[number] as usize]
    }

    /// The key with this digest.
    pub fn by_digest(&self, wanted: &[u8; 32]) -> Option<&str> {
        let head = head(wanted);
        let same = |entry: &(u64, u32)| entry.0 == head && digest(self.text(entry.1)) == *wanted;
        self.table.find(head, same).map(|entry| self.text(entry.1))
    }

    /// Whether this key is among them.
    pub fn holds(&self, key: &str) -> bool {
        self.by_digest(&digest(key)).is_some()
    }
}

/// The hash prefix with this digest. There are a million, so all of them are hashed when the first is looked for.
pub fn hash_prefix(wanted: &[u8; 32]) -> Option<String> {
    static ALL: OnceLock<Vec<(u64, u32)>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all: Vec<(u64, u32)> =
            (0..PREFIXES).map(|number| (head(&digest(&format!("{number:05X}"))), number)).collect();
        all.sort_unstable();
        all
    });
    let at = all.partition_point(|entry| entry.0 < head(wanted));
    let prefix = format!("{:05X}", all.get(at)?.1);
    (digest(&prefix) == *wanted).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_their_digest_and_nothing_else_is() {
        let mut known = Known::default();
        for n in 0..1000 {
            assert!(known.add(&format!("10.0.{}.{}", n / 250, n % 250)));
        }
        assert!(known.add("10.0.0.7"));
        assert_eq!(known.ends.len(), 1000, "the same key twice");
        for n in 0..1000 {
            let key = format!("10.0.{}.{}", n / 250, n % 250);
            assert_eq!(known.by_digest(&digest(&key)), Some(key.as_str()));
        }
        assert!(!known.holds("10.1.0.0"));
        let mut near = digest("10.0.0.7");
        near[31] ^= 1;
        assert_eq!(known.by_digest(&near), None, "the whole digest counts");
    }

    #[test]
    fn every_hash_prefix_is_known() {
        for prefix in ["00000", "5BAA6", "FFFFF"] {
            assert_eq!(hash_prefix(&digest(prefix)).as_deref(), Some(prefix));
        }
        assert_eq!(hash_prefix(&digest("100000")), None);
    }
}
