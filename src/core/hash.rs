//! Digests: the hash of a cache key, and the SHA-1 of a password for the range API.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The hash under which a cache row is found: the first 16 bytes of SHA-256 over the service, a zero byte and the key.
///
/// No service name holds a zero byte, so two pairs never give the same text.
pub fn cache_key_hash(service: &str, key: &str) -> [u8; 16] {
    let mut digest = Sha256::new();
    digest.update(service.as_bytes());
    digest.update([0]);
    digest.update(key.as_bytes());
    let full: [u8; 32] = digest.finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&full[..16]);
    first
}

/// What tells the budgets of a cluster apart: a digest of the provider's host and the secret it is asked with. The
/// cluster's own number keeps it from being compared with that of another cluster.
pub fn budget_key(cluster: u64, host: &str, secret: &str) -> [u8; 16] {
    let mut digest = Sha256::new();
    digest.update(b"enrichment_cache budget\0");
    digest.update(cluster.to_be_bytes());
    digest.update(host.as_bytes());
    digest.update([0]);
    digest.update(secret.as_bytes());
    let full: [u8; 32] = digest.finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&full[..16]);
    first
}

/// A short hash that stands for a text within one run, where a set of the texts themselves would be too large.
pub fn short(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// SHA-1 of a password as 40 upper-case hexadecimal digits, the form of the Pwned Passwords API.
pub fn sha1_hex_upper(password: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digest: [u8; 20] = Sha1::digest(password).into();
    let mut hex = String::with_capacity(40);
    for byte in digest {
        hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
        hex.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    hex
}

/// The range prefix (5 digits, the only part that leaves the server) and the suffix (35) of a password.
pub fn hibp_split(password: &[u8]) -> (String, String) {
    let mut prefix = sha1_hex_upper(password);
    let suffix = prefix.split_off(5);
    (prefix, suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_cache_key_is_the_start_of_a_sha256() {
        // sha256sum of `dshield`, 0x00, `1.2.3.4`
        let expected = "d144916682d78171ece983a6cb36954f";
        let hex: String = cache_key_hash("dshield", "1.2.3.4").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn the_border_between_service_and_key_counts() {
        assert_ne!(cache_key_hash("ab", "c"), cache_key_hash("a", "bc"));
    }

    #[test]
    fn a_password_is_split_after_five_digits() {
        let (prefix, suffix) = hibp_split(b"password");
        assert_eq!((prefix.as_str(), suffix.as_str()), ("5BAA6", "1E4C9B93F3F0682250B6CF8331B7EE68FD8"));
        assert_eq!(sha1_hex_upper(b""), "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709");
    }
}
