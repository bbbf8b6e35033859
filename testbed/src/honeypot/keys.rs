//! SSH keys planted by intruders: the few that return in many sessions.

use super::passwords::sha256_hex;
use super::session::STREAM_KEYS;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) struct Key {
    pub(super) kind: &'static str,
    pub(super) bits: u32,
    pub(super) data: String,
    pub(super) comment: String,
}

impl Key {
    /// The line as it stands in `authorized_keys`.
    pub(super) fn full(&self) -> String {
        format!("{} {} {}", self.kind, self.data, self.comment)
    }

    /// SHA-256 of the key's data, lower-case hex.
    pub(super) fn hash(&self) -> String {
        sha256_hex(&self.data)
    }
}

/// `count` keys, by `seed` alone. The data only looks like a key.
pub(super) fn generate(count: usize, seed: u64) -> Vec<Key> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(STREAM_KEYS);
    (0..count)
        .map(|n| {
            let (kind, bits, prefix, length) = match n % 3 {
                0 => ("ssh-ed25519", 256, "AAAAC3NzaC1lZDI1NTE5AAAAI", 43),
                _ => ("ssh-rsa", 2048, "AAAAB3NzaC1yc2EAAAADAQABAAABAQ", 342),
            };
            let tail = (0..length).map(|_| char::from(BASE64[rng.random_range(0..BASE64.len())]));
            Key { kind, bits, data: prefix.chars().chain(tail).collect(), comment: format!("key{n}@host") }
        })
        .collect()
}
