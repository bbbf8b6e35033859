//! One public key: its kind, digests and size, all read from the key itself.

use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD as PADDED, STANDARD_NO_PAD};
use base64::engine::DecodePaddingMode;
use base64::Engine;
use sha2::{Digest, Sha256};
use ssh_key::public::KeyData;
use ssh_key::{EcdsaCurve, Mpint, PublicKey};

/// Padding may be missing, and the last digit may hold bits that mean nothing.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A public key as OpenSSH reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its algorithm's name, such as `ssh-ed25519`.
    pub kind: &'static str,
    /// Base64 of the key with padding: the second word of its line.
    pub data: String,
    /// SHA-256 of the key in base64 without padding, as `ssh-keygen -l` shows it behind `SHA256:`.
    pub fingerprint: String,
    /// SHA-256 of kind, a space and `data`, lower-case hex: by this honeypot tables tell keys apart.
    pub hash: String,
    /// Bits of the modulus (RSA), of the prime (DSA), of the curve.
    pub bits: u32,
}

impl Key {
    /// Reads the two words of a key's line; `None` when they are none that a server would take.
    pub fn read(kind: &str, data: &str) -> Option<Self> {
        let blob = decode(data)?;
        let parsed = PublicKey::from_bytes(&blob).ok()?;
        let (name, bits) = name_and_bits(parsed.key_data())?;
        if name != kind {
            return None;
        }
        let data = PADDED.encode(&blob);
        let hash = Sha256::digest(format!("{name} {data}").as_bytes());
        Some(Key {
            kind: name,
            fingerprint: STANDARD_NO_PAD.encode(Sha256::digest(&blob)),
            hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            data,
            bits,
        })
    }
}

/// Bytes of a base64 text, with or without padding.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    LENIENT.decode(text).ok()
}

fn name_and_bits(data: &KeyData) -> Option<(&'static str, u32)> {
    Some(match data {
        KeyData::Rsa(key) => {
            bits(&key.e)?;
            ("ssh-rsa", bits(&key.n)?)
        }
        KeyData::Dsa(key) => {
            let (p, _, _, _) = (bits(&key.p)?, bits(&key.q)?, bits(&key.g)?, bits(&key.y)?);
            ("ssh-dss", p)
        }
        KeyData::Ed25519(_) => ("ssh-ed25519", 256),
        KeyData::Ecdsa(key) => match key.curve() {
            EcdsaCurve::NistP256 => ("ecdsa-sha2-nistp256", 256),
            EcdsaCurve::NistP384 => ("ecdsa-sha2-nistp384", 384),
            EcdsaCurve::NistP521 => ("ecdsa-sha2-nistp521", 521),
        },
        KeyData::SkEd25519(_) => ("sk-ssh-ed25519@openssh.com", 256),
        KeyData::SkEcdsaSha2NistP256(_) => ("sk-ecdsa-sha2-nistp256@openssh.com", 256),
        _ => return None,
    })
}

/// Bits of a positive number; OpenSSH takes no other.
fn bits(number: &Mpint) -> Option<u32> {
    let bytes = number.as_positive_bytes()?;
    let first = bytes.first()?;
    Some(bytes.len() as u32 * 8 - first.leading_zeros())
}
