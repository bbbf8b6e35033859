//! A file of the cache as the import takes it: whose it is, what it says, since when.

use super::body::{self, candidates, Body};
use super::known::{hash_prefix, Known};
use super::recognise::{recognise, Found, Layout, Named, VIRUSTOTAL_UNKNOWN};
use super::{digest, hex, parse_digest};
use crate::core::hash::cache_key_hash;
use crate::core::key::{self, KeyKind};
use crate::core::service::Service;
use crate::core::{jsonb, ttl, Micros};
use base64::prelude::{Engine as _, BASE64_STANDARD as BASE64};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The services of the registry by name.
pub type Services = BTreeMap<String, Arc<Service>>;

/// One file, looked at.
pub struct Item {
    /// Relative to the root.
    pub path: Vec<u8>,
    pub bytes: u64,
    pub what: What,
}

pub enum What {
    Answer(Box<Answer>),
    /// Why it is no answer, as the end of a sentence that begins with "the file".
    Malformed(String),
    /// Why it could not be read, in the same way.
    Unreadable(String),
}

/// An answer on its way into the cache.
pub struct Answer {
    pub service: Arc<Service>,
    pub key: Whose,
    pub body: Body,
    /// The payload as `jsonb`, where it was made beside the session; the text of it is empty then.
    pub jsonb: Option<Vec<u8>>,
    pub fetched_at: Micros,
}

impl What {
    /// With the `jsonb` of an answer, for a database in UTF-8.
    #[must_use]
    pub fn built(mut self) -> Self {
        if let What::Answer(answer) = &mut self {
            if let Some(text) = &mut answer.body.payload {
                answer.jsonb = jsonb::build(text);
                if answer.jsonb.is_some() {
                    *text = String::new();
                }
            }
        }
        self
    }
}

/// The key of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// In its normal form.
    Key(String),
    /// The SHA-256 of the key; or the hash that has this value is the key itself.
    Digest { digest: [u8; 32], or_hash: Option<String> },
}

impl Whose {
    /// The key in its normal form, where it is known.
    pub fn resolve<'a>(&'a self, service: &Service, known: &Known) -> Option<Cow<'a, str>> {
        match self {
            Whose::Key(key) => Some(Cow::Borrowed(key)),
            Whose::Digest { digest, or_hash } => {
                let named = known.by_digest(digest).and_then(|raw| key::normalise(service.key_kind, raw).ok());
                if let Some(key) = named {
                    return Some(Cow::Owned(key.text));
                }
                or_hash.as_deref().filter(|hash| known.holds(hash)).map(Cow::Borrowed)
            }
        }
    }
}

/// The key (in its normal form) of an answer that was kept under a digest, where it is known by now: by its own digest, or as
/// the hash that the digest may be (see [`digests`]).
pub fn key_of(service: &Service, digest: &[u8; 32], known: &Known) -> Option<String> {
    let or_hash = key::normalise(service.key_kind, &hex(digest)).ok().map(|key| key.text);
    Whose::Digest { digest: *digest, or_hash }.resolve(service, known).map(Cow::into_owned)
}

/// When an answer that was kept under a digest expires, now that its key is known: keys spread their expiry.
pub fn expiry_with_key(service: &str, key: &str, fetched_at: Micros, expires_at: Micros) -> Micros {
    ttl::expires_at(fetched_at, expires_at.saturating_sub(fetched_at), &cache_key_hash(service, key))
}

/// What the bytes of a file are worth; `modified_at` is the time of observation, unless the file knows better.
pub fn look(path: &[u8], bytes: &[u8], modified_at: Micros, services: &Services) -> What {
    let found = match recognise(path) {
        Ok(found) => found,
        Err(why) => return What::Malformed(why.to_owned()),
    };
    let Some(service) = services.get(&found.service) else {
        return What::Malformed(format!("is of a service that is not registered: {}", found.service));
    };
    let body = match body::read(service, &found, bytes) {
        Ok(body) => body,
        Err(why) => return What::Malformed(why),
    };
    match whose(service, &found, bytes) {
        Ok(key) => {
            let fetched_at = body.observed_at.unwrap_or(modified_at);
            What::Answer(Box::new(Answer { service: service.clone(), key, body, jsonb: None, fetched_at }))
        }
        Err(why) => What::Malformed(format!("is named after a key that {why}")),
    }
}

/// What a row of the older table is worth.
pub fn look_at_row(
    service: Option<&str>,
    key: Option<&str>,
    value: Option<&str>,
    created_at: Option<Micros>,
    services: &Services,
) -> What {
    let malformed = |why: &str| What::Malformed(why.to_owned());
    let (Some(name), Some(key)) = (service, key) else { return malformed("has no service or no cache_key") };
    let Some(value) = value else { return malformed("has no cache_value") };
    let Some(fetched_at) = created_at else { return malformed("has no created_at that is a moment") };
    let unknown = name == VIRUSTOTAL_UNKNOWN;
    let name = if unknown { "virustotal" } else { name };
    let Some(service) = services.get(name) else {
        return What::Malformed(format!("is of a service that is not registered: {}", shown(name.as_bytes())));
    };
    let named = Named::Key(key.to_owned());
    let found = Found { service: name.to_owned(), named, layout: Layout::Sharded, unknown };
    match body::read(service, &found, value.as_bytes()) {
        Err(why) => What::Malformed(why),
        Ok(body) => match key::normalise(service.key_kind, key) {
            Ok(key) => {
                let key = Whose::Key(key.text);
                What::Answer(Box::new(Answer { service: service.clone(), key, body, jsonb: None, fetched_at }))
            }
            Err(problem) => What::Malformed(format!("has a cache_key that {}", problem.why)),
        },
    }
}

/// A file that a client sent: its path (or the bytes of it, `\x` and hex digits), its time of change, its bytes in base64 or
/// why there are none.
pub fn look_at_sent(
    path: &str,
    modified_at: Option<Micros>,
    base64: Result<&str, Option<&str>>,
    services: &Services,
) -> Item {
    let hex = path.strip_prefix("\\x").and_then(unhex);
    let path = hex.unwrap_or_else(|| path.as_bytes().to_vec());
    let path = path.strip_prefix(b"./").map_or_else(|| path.clone(), <[u8]>::to_vec);
    let (bytes, what) = match (base64.map(|base64| BASE64.decode(base64.trim())), modified_at) {
        (Err(why), _) => {
            (0, What::Unreadable(why.map_or_else(|| "was not sent".to_owned(), |why| shown(why.as_bytes()))))
        }
        (Ok(Err(_)), _) => (0, What::Malformed("was not sent in base64".to_owned())),
        (Ok(Ok(bytes)), None) => (bytes.len(), What::Malformed("was sent with an mtime that is no time".to_owned())),
        (Ok(Ok(bytes)), Some(at)) => (bytes.len(), look(&path, &bytes, at, services)),
    };
    Item { path, bytes: bytes as u64, what }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    (digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .then(|| digits.as_bytes().chunks(2).map(byte).collect())?
}

fn whose(service: &Service, found: &Found, bytes: &[u8]) -> Result<Whose, String> {
    let normal = |raw: &str| key::normalise(service.key_kind, raw);
    // the body may name the key, and the digest proves it
    let own = |is: &dyn Fn(&str) -> bool| -> Option<Whose> {
        let own = candidates(std::str::from_utf8(bytes).ok()?).into_iter().find(|candidate| is(candidate))?;
        normal(&own).ok().map(|key| Whose::Key(key.text))
    };
    match &found.named {
        Named::Key(raw) => normal(raw).map(|key| Whose::Key(key.text)).map_err(|problem| problem.why),
        Named::Digest(wanted) if service.key_kind == KeyKind::HashPrefix => {
            Ok(hash_prefix(wanted).map_or(Whose::Digest { digest: *wanted, or_hash: None }, Whose::Key))
        }
        Named::Digest(wanted) => {
            Ok(own(&|candidate| digest(candidate) == *wanted)
                .unwrap_or(Whose::Digest { digest: *wanted, or_hash: None }))
        }
        Named::KeyOrDigest(hash, wanted) => {
            let own = own(&|candidate| candidate.eq_ignore_ascii_case(hash) || digest(candidate) == *wanted);
            Ok(own.unwrap_or_else(|| Whose::Digest { digest: *wanted, or_hash: Some(hash.clone()) }))
        }
    }
}

/// Under which digests a file of this key may have been kept: that of the key, and for a hash that is one the hash itself
/// (see [`Named::KeyOrDigest`]).
pub fn digests(key: &str) -> Vec<[u8; 32]> {
    [Some(digest(key)), parse_digest(key)].into_iter().flatten().collect()
}

/// A path as a message and a table may show it.
pub fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let shown: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    crate::core::redact::shorten(&shown, 1000)
}
