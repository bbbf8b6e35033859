//! Keys: one text per thing asked about, whatever way it was written.

mod host;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::redact::shorten;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 512;

/// What a service's keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// An IP address.
    Ip,
    /// An MD5, SHA-1 or SHA-256 hash.
    FileHash,
    /// A hash or an IP address.
    FileHashOrIp,
    /// An IP address, a host name, or the SHA-256 of a payload.
    NetworkIndicator,
    /// Five hexadecimal digits.
    HashPrefix,
    /// A host name.
    Host,
    /// Anything of 1 to 512 bytes without control characters.
    Text,
}

impl KeyKind {
    /// Every kind.
    pub const ALL: [KeyKind; 7] = [
        KeyKind::Ip,
        KeyKind::FileHash,
        KeyKind::FileHashOrIp,
        KeyKind::NetworkIndicator,
        KeyKind::HashPrefix,
        KeyKind::Host,
        KeyKind::Text,
    ];

    /// Reads the value of `enrichment_service.key_kind`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The value of `enrichment_service.key_kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyKind::Ip => "ip",
            KeyKind::FileHash => "file_hash",
            KeyKind::FileHashOrIp => "file_hash_or_ip",
            KeyKind::NetworkIndicator => "network_indicator",
            KeyKind::HashPrefix => "hash_prefix",
            KeyKind::Host => "host",
            KeyKind::Text => "text",
        }
    }
}

/// What a key turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyForm {
    Ip,
    Sha256,
    Sha1,
    Md5,
    Host,
    HashPrefix,
    Text,
}

impl KeyForm {
    /// Every form.
    pub const ALL: [KeyForm; 7] =
        [KeyForm::Ip, KeyForm::Sha256, KeyForm::Sha1, KeyForm::Md5, KeyForm::Host, KeyForm::HashPrefix, KeyForm::Text];

    /// The name of the form in a service's rules.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyForm::Ip => "ip",
            KeyForm::Sha256 => "sha256",
            KeyForm::Sha1 => "sha1",
            KeyForm::Md5 => "md5",
            KeyForm::Host => "host",
            KeyForm::HashPrefix => "hash_prefix",
            KeyForm::Text => "text",
        }
    }
}

/// A normalised key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub text: String,
    pub form: KeyForm,
}

/// Why a text cannot be a key; the end of a sentence that begins with "the key".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProblem {
    pub why: String,
}

fn problem<T>(why: impl Into<String>) -> Result<T, KeyProblem> {
    Err(KeyProblem { why: why.into() })
}

/// Brings a text into the one form of its kind. White space (ASCII) around it does not count.
///
/// Addresses become canonical text (RFC 5952; IPv4-mapped ones IPv4; zone and a full-length mask dropped), hashes and
/// host names lower case, hash prefixes upper case. Normalising a normalised key changes nothing.
///
/// # Errors
/// The text cannot be a key of this kind.
pub fn normalise(kind: KeyKind, raw: &str) -> Result<Key, KeyProblem> {
    let text = raw.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
    if text.is_empty() {
        return problem("is empty");
    }
    if text.len() > MAX_KEY {
        return problem(format!("has {} bytes, more than {MAX_KEY}", text.len()));
    }
    match kind {
        KeyKind::Ip => address(text),
        KeyKind::FileHash => file_hash(text),
        KeyKind::FileHashOrIp => match file_hash(text) {
            Ok(key) => Ok(key),
            Err(hash) => match address(text) {
                Ok(key) => Ok(key),
                Err(address) if text.contains(['.', ':']) => Err(address),
                Err(_) => Err(hash),
            },
        },
        KeyKind::NetworkIndicator => indicator(text),
        KeyKind::HashPrefix => hash_prefix(text),
        KeyKind::Host => host::host(text),
        KeyKind::Text => match text.chars().find(|c| c.is_control()) {
            Some(c) => problem(format!("holds the control character U+{:04X}", c as u32)),
            None => Ok(Key { text: text.to_owned(), form: KeyForm::Text }),
        },
    }
}

/// The normal form of a key, `None` when it cannot be one; without a copy where it is in that form, as most keys are.
pub fn normal_form(kind: KeyKind, raw: &str) -> Option<Cow<'_, str>> {
    let normal = match kind {
        KeyKind::Ip => is_plain_ipv4(raw),
        KeyKind::FileHash => is_lower_hash(raw),
        KeyKind::FileHashOrIp => is_plain_ipv4(raw) || is_lower_hash(raw),
        KeyKind::NetworkIndicator => is_plain_ipv4(raw),
        KeyKind::HashPrefix | KeyKind::Host | KeyKind::Text => false,
    };
    if normal {
        return Some(Cow::Borrowed(raw));
    }
    normalise(kind, raw).ok().map(|key| Cow::Owned(key.text))
}

/// Four numbers up to 255 without leading zeros, and nothing else.
fn is_plain_ipv4(text: &str) -> bool {
    let (mut dots, mut digits, mut value) = (0, 0, 0);
    for byte in text.bytes() {
        match byte {
            b'.' if digits > 0 => (dots, digits, value) = (dots + 1, 0, 0),
            b'0'..=b'9' if digits == 0 || (value > 0 && value <= 25) => {
                (digits, value) = (digits + 1, value * 10 + u32::from(byte - b'0'));
                if value > 255 {
                    return false;
                }
            }
            _ => return false,
        }
    }
    dots == 3 && digits > 0
}

fn is_lower_hash(text: &str) -> bool {
    matches!(text.len(), 32 | 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The key of an address that is one already, such as a value of type `inet`.
pub fn normalise_address(ip: IpAddr) -> Key {
    Key { text: ip.to_canonical().to_string(), form: KeyForm::Ip }
}

/// The normal form of an address as a key of a kind, `None` when no address is one there: what [`normal_form`] makes of its
/// text, written once and not read again.
pub fn normal_form_of_address(kind: KeyKind, ip: IpAddr) -> Option<String> {
    match kind {
        KeyKind::Ip | KeyKind::FileHashOrIp | KeyKind::NetworkIndicator | KeyKind::Text => {
            Some(normalise_address(ip).text)
        }
        KeyKind::FileHash | KeyKind::HashPrefix | KeyKind::Host => None,
    }
}

fn indicator(text: &str) -> Result<Key, KeyProblem> {
    if text.len() == 64 && is_hex(text) {
        return file_hash(text);
    }
    match address(text) {
        Ok(key) => Ok(key),
        Err(problem) if text.contains([':', '/', '%']) => Err(problem),
        Err(_) => host::host(text),
    }
}

fn address(text: &str) -> Result<Key, KeyProblem> {
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (text, None),
    };
    let (ip, full) = if address.contains(':') {
        let bare = match address.split_once('%') {
            Some((_, "")) => return problem("has an empty zone"),
            Some((bare, _)) => bare,
            None => address,
        };
        (bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6), "128")
    } else {
        (address.parse::<Ipv4Addr>().ok().map(IpAddr::V4), "32")
    };
    let Some(ip) = ip else {
        return problem(if padded(address) {
            "has an octet with leading zeros, which some read as octal"
        } else {
            "is not an IP address"
        });
    };
    match mask {
        Some(mask) if mask != full => problem("is a network, not one address"),
        _ => Ok(normalise_address(ip)),
    }
}

/// Four numbers, one of them written with a leading zero.
fn padded(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit());
    text.split('.').count() == 4
        && text.split('.').all(number)
        && text.split('.').any(|part| part.len() > 1 && part.starts_with('0'))
}

fn file_hash(text: &str) -> Result<Key, KeyProblem> {
    let form = match text.len() {
        32 => KeyForm::Md5,
        40 => KeyForm::Sha1,
        64 => KeyForm::Sha256,
        _ => return problem(format!("has {} characters, not 32, 40 or 64", text.chars().count())),
    };
    if !is_hex(text) {
        return problem("holds other characters than hexadecimal digits");
    }
    Ok(Key { text: text.to_ascii_lowercase(), form })
}

fn hash_prefix(text: &str) -> Result<Key, KeyProblem> {
    if text.len() == 5 && is_hex(text) {
        return Ok(Key { text: text.to_ascii_uppercase(), form: KeyForm::HashPrefix });
    }
    // the rest of a longer one must not be repeated anywhere: it may be the hash of a password
    problem("is not five hexadecimal digits")
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A key as an error message may show it.
pub fn shown(raw: &str) -> String {
    shorten(&raw.escape_debug().to_string(), 60)
}
