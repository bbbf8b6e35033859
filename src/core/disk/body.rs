//! From the bytes of a file of the cache to what is stored: older shapes are kept as they were found, the values that
//! were written when nothing was learnt are told from answers.

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

use super::recognise::{Found, Layout};
use crate::core::classify::{judge, Answer, Outcome};
use crate::core::hibp;
use crate::core::json_path::Document;
use crate::core::json_text::{make_safe, Safe};
use crate::core::service::{ResponseFormat, Service};
use crate::core::{Micros, SECOND};

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Not there when the provider was asked and knows nothing. Of a hash range the summary.
    pub payload: Option<String>,
    /// A packed hash range.
    pub ranges: Option<Vec<u8>>,
    /// The moment of observation, where the file says it itself; else it is the file's mtime.
    pub observed_at: Option<Micros>,
    /// Whether something had to be replaced for the payload to be taken.
    pub altered: bool,
}

impl Body {
    fn answer(payload: String) -> Self {
        Body { payload: Some(payload), ranges: None, observed_at: None, altered: false }
    }

    fn nothing_known() -> Self {
        Body { payload: None, ranges: None, observed_at: None, altered: false }
    }

    /// The value of `enrichment_cache.response_status`.
    pub fn status(&self) -> &'static str {
        match self.payload {
            Some(_) => "success",
            None => "not_found",
        }
    }
}

const NOTHING_LEARNT: &str = "holds an empty value, which tells that nothing was learnt";

/// Reads the bytes of a file of this service.
///
/// # Errors
/// Why they are no answer, as the end of a sentence that begins with "the file". Holds no part of the body but a short
/// error text of the provider.
pub fn read(service: &Service, found: &Found, bytes: &[u8]) -> Result<Body, String> {
    if bytes.len() as u64 > service.max_bytes {
        return Err(format!(
            "has {} bytes, more than the {} that {} takes",
            bytes.len(),
            service.max_bytes,
            service.name
        ));
    }
    if service.response_format == ResponseFormat::HibpRange {
        return range(bytes);
    }
    let Safe { text, altered } = make_safe(bytes).map_err(|why| format!("is {why}"))?;
    let body = told(service, found, &text)?;
    Ok(Body { altered: body.payload.is_some() && altered, ..body })
}

/// Reads the text of a file.
fn told(service: &Service, found: &Found, text: &str) -> Result<Body, String> {
    let document = Document::new(text);
    if found.layout == Layout::Flat && found.service == "dshield" {
        if let (Some(at), Some(data)) = (document.get("timestamp"), document.get("data")) {
            let observed_at = seconds(at).ok_or("holds a timestamp that is not a time in seconds")?;
            let body = shape(service, found, &Document::new(data), data)?;
            return Ok(Body { observed_at: Some(observed_at), ..body });
        }
    }
    shape(service, found, &document, text.trim())
}

/// Tells the shapes of one service apart.
fn shape(service: &Service, found: &Found, document: &Document, text: &str) -> Result<Body, String> {
    if matches!(text, "null" | "\"\"") || is_hollow(text) {
        return Err(NOTHING_LEARNT.to_owned());
    }
    let keep = || Ok(Body::answer(text.to_owned()));
    match service.name.as_str() {
        "dshield" if document.get("ip").is_some_and(|ip| !Document::new(ip).has("number") && empty(document, "ip")) => {
            Err(NOTHING_LEARNT.to_owned())
        }
        "urlhaus" if text.starts_with('"') => keep(),
        "urlhaus" if !document.has("query_status") && document.get("tags").is_some() => match document.get("tags") {
            Some("null" | "\"\"" | "[]") => Ok(Body::nothing_known()),
            _ => keep(),
        },
        "spur" if text.starts_with('[') => list(text).and_then(|()| keep()),
        "spur" if document.has("spur_data") => list(document.get("spur_data").unwrap_or("null")).and_then(|()| keep()),
        "virustotal" if document.has("data.attributes") => keep(),
        "virustotal" if found.unknown => Ok(Body::nothing_known()),
        "virustotal" if document.has("error") => judged(service, text, 404),
        // the answer without its wrapper, or some of its attributes
        "virustotal" if text.starts_with('{') => keep(),
        _ => judged(service, text, 200),
    }
}

/// What the service's own rules make of an answer as it was received.
fn judged(service: &Service, text: &str, status: u16) -> Result<Body, String> {
    let answer = Answer {
        status,
        body: text.as_bytes().to_vec(),
        content_type: None,
        retry_after: None,
        wanted: Vec::new(),
        conditional: false,
        masked: false,
        latency_ms: 0,
    };
    match judge(service, &answer, 0) {
        Outcome::Success { payload, .. } => Ok(Body::answer(payload)),
        Outcome::NotFound => Ok(Body::nothing_known()),
        Outcome::RateLimited { .. } => Err("holds a refusal for too many requests in place of an answer".to_owned()),
        Outcome::Unauthorized { message } => Err(format!("holds a refusal in place of an answer: {message}")),
        Outcome::Unchanged => Err("holds no answer".to_owned()),
        Outcome::Invalid { message, .. } | Outcome::Error { message, .. } => Err(format!("holds no answer: {message}")),
    }
}

/// Whether the object at a path has no member that tells anything.
fn empty(document: &Document, path: &str) -> bool {
    document.get(path).is_some_and(|value| value.starts_with('{')) && document.empty_except(path, &[])
}

/// `{}` or `[]`, with white space inside or not.
fn is_hollow(text: &str) -> bool {
    let inner = |open, close| text.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    inner('{', '}').or_else(|| inner('[', ']')).is_some_and(|inside| inside.trim().is_empty())
}

/// A list of items of which at least one says something.
fn list(text: &str) -> Result<(), String> {
    let items: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|_| "holds a list that cannot be read")?;
    let says = |item: &serde_json::Value| match item {
        serde_json::Value::Null => false,
        serde_json::Value::String(text) => !text.is_empty(),
        serde_json::Value::Array(inner) => !inner.is_empty(),
        _ => true,
    };
    items.iter().any(says).then_some(()).ok_or_else(|| NOTHING_LEARNT.to_owned())
}

/// Unix seconds, with decimals or not, as a number or a text.
fn seconds(text: &str) -> Option<Micros> {
    let seconds: f64 = text.trim_matches('"').parse().ok()?;
    // from 1970 to the year 9999
    (0.0..253_402_300_800.0).contains(&seconds).then_some((seconds * SECOND as f64) as Micros)
}

/// An object of suffixes and counts, or the provider's own lines.
fn range(bytes: &[u8]) -> Result<Body, String> {
    let range = if bytes.trim_ascii_start().starts_with(b"{") { counts(bytes)? } else { hibp::parse_range(bytes)? };
    if range.entries.is_empty() {
        return Err(NOTHING_LEARNT.to_owned());
    }
    let packed = range.pack();
    let payload = packed.as_deref().map_or_else(|| range.to_json(), hibp::summary);
    Ok(Body { payload: Some(payload), ranges: packed, observed_at: None, altered: false })
}

fn counts(bytes: &[u8]) -> Result<hibp::Range, String> {
    let mut entries = Vec::with_capacity(bytes.len() / 40);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    reader
        .deserialize_map(Counts(&mut entries))
        .and_then(|()| reader.end())
        .map_err(|why| format!("is no object of suffixes and counts (line {}, column {})", why.line(), why.column()))?;
    // padding is no breach
    entries.retain(|(_, count)| *count > 0);
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    entries.dedup_by(|later, first| later.0 == first.0);
    Ok(hibp::Range { entries })
}

struct Counts<'a>(&'a mut Vec<(String, u64)>);

impl<'de> Visitor<'de> for Counts<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of suffixes and counts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(suffix) = map.next_key::<Cow<str>>()? {
            if suffix.len() != 35 || !suffix.bytes().all(|b| b.is_ascii_hexdigit()) {
                map.next_value::<IgnoredAny>()?;
                return Err(serde::de::Error::custom("not a suffix"));
            }
            self.0.push((suffix.to_ascii_uppercase(), map.next_value()?));
        }
        Ok(())
    }
}

/// What the body of a file whose name is a digest says its key is; whether it is, the digest tells.
pub fn candidates(payload: &str) -> Vec<String> {
    const PLACES: [&str; 8] = [
        "ip",
        "host",
        "ip.number",
        "sha256_hash",
        "data.id",
        "data.attributes.sha256",
        "data.attributes.sha1",
        "data.attributes.md5",
    ];
    let document = Document::new(payload);
    PLACES.iter().filter_map(|place| document.string(place)).collect()
}
