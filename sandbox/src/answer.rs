//! An answer before it becomes HTTP: status, headers, body, and what it means.

use std::cell::RefCell;
use std::time::Duration;

use axum::body::Body;
use axum::http::{header, HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use serde::Serialize;
use serde_json::Value;

/// How an answer is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// the provider knows something
    Ok,
    /// the provider was asked and knows nothing
    NotFound,
    /// the question was not a valid one
    BadRequest,
    /// refused: wrong key, over the limit, or a fault
    Refused,
}

/// What the control API foretells of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// `success`, `not_found`, or `invalid` for a key the provider refuses
    pub outcome: &'static str,
    /// DShield: count or attacks above 0; URLhaus: a tag; Spur: data centre, VPN or tunnel;
    /// VirusTotal: a malicious verdict; HIBP: a full SHA-1 that is in its range
    pub flagged: bool,
    /// Spur: only the owner and the place of the address are known
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimal: Option<bool>,
    /// HIBP, when asked for a full SHA-1: how often the password was seen
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prevalence: Option<u64>,
}

impl Expected {
    /// An answer that knows something.
    pub fn success(flagged: bool) -> Self {
        Self::new("success", flagged)
    }

    /// An answer that knows nothing.
    pub fn not_found() -> Self {
        Self::new("not_found", false)
    }

    /// A key the provider refuses.
    pub fn invalid() -> Self {
        Self::new("invalid", false)
    }

    fn new(outcome: &'static str, flagged: bool) -> Self {
        Expected { outcome, flagged, minimal: None, prevalence: None }
    }
}

/// One answer of a provider.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status
    pub status: StatusCode,
    /// headers besides length and encoding
    pub headers: HeaderMap,
    /// the body before any compression
    pub body: Vec<u8>,
    /// how it is counted
    pub verdict: Verdict,
    /// compressed when the client asks for it; the 429 answers of VirusTotal never are
    pub compressible: bool,
}

impl Answer {
    /// A body of the given content type.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Answer {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers,
            body: body.into(),
            verdict: if status < 300 { Verdict::Ok } else { Verdict::Refused },
            compressible: status != 429,
        }
    }

    /// Compact JSON.
    pub fn json(status: u16, value: &Value) -> Self {
        Self::new(status, "application/json", value.to_string())
    }

    /// JSON as PHP writes it: with escaped slashes.
    pub fn php_json(status: u16, content_type: &'static str, value: &Value) -> Self {
        // A slash stands only inside strings, so the text can be changed as a whole.
        Self::new(status, content_type, value.to_string().replace('/', "\\/"))
    }

    /// JSON indented by two blanks.
    pub fn pretty_json(status: u16, value: &Value) -> Self {
        let mut body = Vec::with_capacity(32 * 1024);
        let format = serde_json::ser::PrettyFormatter::with_indent(b"  ");
        let mut writer = serde_json::Serializer::with_formatter(&mut body, format);
        // Writing a Value to memory has no way to fail.
        let written = value.serialize(&mut writer).is_ok();
        debug_assert!(written);
        Self::new(status, "application/json", body)
    }

    /// A small error page.
    pub fn html(status: u16, title: &str) -> Self {
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n<body><h1>{title}</h1></body></html>\n"
        );
        Self::new(status, "text/html; charset=utf-8", page)
    }

    /// The same answer, counted otherwise.
    pub fn counted(mut self, verdict: Verdict) -> Self {
        self.verdict = verdict;
        self
    }

    /// The same answer with one more header; a value that cannot be one is left out.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// The same answer with `Retry-After` in whole seconds, rounded up, at least 1 (RFC 9110, 10.2.3).
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = (wait.as_millis().div_ceil(1000)).max(1);
        self.with("retry-after", &seconds.to_string())
    }

    /// The answer as HTTP, compressed if that is wanted and allowed.
    pub fn into_response(self, gzip: bool) -> Response<Body> {
        let mut headers = self.headers;
        let mut body = self.body;
        if gzip && self.compressible && body.len() >= 256 {
            if let Some(smaller) = gzipped(&body) {
                body = smaller;
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }
}

/// Whether the client takes gzip: the word in `Accept-Encoding`, without `q=0`.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"))
                && !parts.any(|part| part.replace(' ', "") == "q=0")
        })
}

/// RFC 1952: no name, no time, no operating system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

// A compressor's state has some 300 kB. Made anew for each answer it was half of what an answer cost, and the two processors of
// a measurement are shared with whom it measures.
fn gzipped(body: &[u8]) -> Option<Vec<u8>> {
    thread_local! {
        static DEFLATE: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
    }
    let mut packed = Vec::with_capacity(body.len() + body.len() / 8 + 64);
    packed.extend(GZIP_HEADER);
    DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        let end = deflate.compress_vec(body, &mut packed, FlushCompress::Finish).ok()?;
        (end == Status::StreamEnd).then_some(())
    })?;
    let mut check = Crc::new();
    check.update(body);
    packed.extend(check.sum().to_le_bytes());
    packed.extend(check.amount().to_le_bytes());
    Some(packed)
}
