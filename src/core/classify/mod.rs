//! What an answer means: the status and the body judged together.
//!
//! The rules of the service come first, HTTP's own meaning after them. Only `Success` and `NotFound` say something about
//! the key; everything else leaves what was known in place. Messages hold the provider's own short error text at most.

mod cause;
mod pause;
mod rule;
#[cfg(test)]
mod tests;

use super::condition::Validators;
use super::hibp;
use super::json_path::Document;
use super::json_text::{make_safe, Safe, Unsafe};
use super::limiter::{read_reports, Report};
use super::redact::{mask_tokens, message_safe, shorten};
use super::service::{ResponseFormat, Service};
use super::{Micros, SECOND};
pub use cause::{Cause, Health};
pub use pause::retry_after;

/// The longest text of a provider in a message, in characters.
const MAX_SAID: usize = 120;

/// An HTTP answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// After decompression.
    pub body: Vec<u8>,
    /// Kept for messages; providers label JSON as anything.
    pub content_type: Option<String>,
    /// The header `Retry-After` as it came.
    pub retry_after: Option<String>,
    /// The headers that the request wanted.
    pub wanted: Vec<(String, String)>,
    /// It was asked for only if it had changed.
    pub conditional: bool,
    /// It repeated the secret that it was sent, which is not in the body any more.
    pub masked: bool,
    pub latency_ms: u32,
}

impl Answer {
    /// What the provider says of its limits in the headers of this answer.
    pub fn reports(&self, service: &Service, now: Micros) -> Vec<Report> {
        let value = |name: &str| {
            let (_, value) = self.wanted.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
            // "500;w=86400" in some drafts of RateLimit headers
            value.split([';', ',']).next()?.trim().parse().ok()
        };
        read_reports(&service.rules.usage.headers, now, value)
    }

    /// What the provider says of its limits in an answer of its own; `None` when this is not one.
    pub fn usage(&self, service: &Service, now: Micros) -> Option<Vec<Report>> {
        let safe = make_safe(&self.body).ok().filter(|_| (200..300).contains(&self.status))?;
        let document = Document::new(&safe.text);
        let value = |path: &str| document.get(path)?.trim_matches('"').parse().ok();
        let reports = read_reports(&service.rules.usage.body, now, value);
        (!reports.is_empty()).then_some(reports)
    }
}

/// Where a call failed that brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportKind {
    Dns,
    Connect,
    Tls,
    Timeout,
    Reset,
    TooLarge,
    /// Refused by our own guard.
    Egress,
    Redirect,
    Protocol,
}

impl TransportKind {
    /// A word for a counter or a column.
    pub fn as_str(self) -> &'static str {
        match self {
            TransportKind::Dns => "dns",
            TransportKind::Connect => "connect",
            TransportKind::Tls => "tls",
            TransportKind::Timeout => "timeout",
            TransportKind::Reset => "reset",
            TransportKind::TooLarge => "too_large",
            TransportKind::Egress => "egress",
            TransportKind::Redirect => "redirect",
            TransportKind::Protocol => "protocol",
        }
    }

    /// Whether the same call may succeed later.
    pub fn may_pass(self) -> bool {
        !matches!(self, TransportKind::TooLarge | TransportKind::Egress)
    }
}

/// A call that brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportFailure {
    pub kind: TransportKind,
    /// Without URL query, headers and secrets.
    pub message: String,
    pub latency_ms: u32,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `payload` is JSON text that `jsonb` takes; `altered` when something had to be replaced for it. Of a hash range that
    /// can be packed, `ranges` holds it and `payload` its summary. `validators`: by what the provider knows its version.
    Success { payload: String, ranges: Option<Vec<u8>>, altered: bool, validators: Option<Validators> },
    /// The answer that is kept still holds.
    Unchanged,
    /// Asked, and the provider knows nothing.
    NotFound,
    /// A wait, not a failed attempt. `used_up`: a balance, not a short window; `asked`: the provider named the time.
    RateLimited { pause_micros: Micros, used_up: bool, asked: bool },
    /// The configuration is wrong: the next key would be refused too.
    Unauthorized { message: String },
    /// An answer that cannot be parsed or trusted. `retry`: as of an error.
    Invalid { message: String, retry: bool },
    /// `retry`: the same call may succeed later.
    Error { message: String, retry: bool },
}

impl Outcome {
    /// Whether it says something about the key, if only that nothing is known of it.
    pub fn answers(&self) -> bool {
        matches!(self, Outcome::Success { .. } | Outcome::Unchanged | Outcome::NotFound)
    }

    /// The value of `enrichment_cache.response_status`.
    pub fn status(&self) -> &'static str {
        match self {
            Outcome::Success { .. } | Outcome::Unchanged => "success",
            Outcome::NotFound => "not_found",
            Outcome::RateLimited { .. } => "rate_limited",
            Outcome::Unauthorized { .. } => "unauthorized",
            Outcome::Invalid { .. } => "invalid",
            Outcome::Error { .. } => "error",
        }
    }

    /// Whether no further call to the service makes sense before somebody has taken note of it.
    pub fn stops(&self) -> bool {
        matches!(self, Outcome::RateLimited { .. } | Outcome::Unauthorized { .. })
    }
}

/// The body of an answer, looked at once.
enum Body {
    /// Begins with `<`: an error page, whatever the status says.
    Page,
    Json(Safe),
    /// Not JSON, or not meant to be.
    Other(Option<Unsafe>),
}

/// Judges an answer. Pure: the same answer at the same time is always judged the same.
pub fn judge(service: &Service, answer: &Answer, now: Micros) -> Outcome {
    if answer.status == 304 && answer.conditional {
        return Outcome::Unchanged;
    }
    let body = look(service, &answer.body);
    let document = match &body {
        Body::Json(safe) => Some(Document::new(&safe.text)),
        _ => None,
    };
    let document = document.as_ref();
    let page = matches!(body, Body::Page);
    let rule = service.rules.outcomes.iter().find(|rule| rule::holds(rule, answer.status, page, document));
    let other_than_success = match rule {
        Some(rule) => rule::outcome(rule, service, answer, document, now),
        None => by_status(service, answer, page, document, now),
    };
    match other_than_success.or_else(|| lacking(service, document)) {
        Some(outcome) => outcome,
        None => keep(answer, body, Validators::read(&answer.wanted).filter(|_| service.rules.conditional)),
    }
}

/// What a call that brought no answer came to.
pub fn judge_failure(failure: &TransportFailure) -> Outcome {
    Outcome::Error { message: failure.message.clone(), retry: failure.kind.may_pass() }
}

fn look(service: &Service, body: &[u8]) -> Body {
    let bare = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    if bare.starts_with(b"<") {
        return Body::Page;
    }
    if service.response_format == ResponseFormat::HibpRange {
        return Body::Other(None);
    }
    match make_safe(body) {
        Ok(safe) => Body::Json(safe),
        Err(why) => Body::Other(Some(why)),
    }
}

/// What the status says where no rule holds; `None` is a success.
fn by_status(
    service: &Service,
    answer: &Answer,
    page: bool,
    document: Option<&Document<'_>>,
    now: Micros,
) -> Option<Outcome> {
    let status = answer.status;
    let message = |words: &str| message(words, status, document);
    Some(match status {
        429 => limited(service, answer, false, now),
        304 => invalid(message("\"not modified\" to a question without a condition")),
        // it may lead to a page that says when the maintenance is over
        300..=399 => Outcome::Error { message: message("a redirect, which is not followed"), retry: true },
        // also a 401, 403 or 404 that a proxy or a challenge in front of the provider wrote
        _ if page => Outcome::Error { message: message("an HTML page in place of an answer"), retry: true },
        200..=299 => return None,
        401 => Outcome::Unauthorized { message: message("the provider does not accept the credential") },
        403 => Outcome::Unauthorized { message: message("the provider does not allow the request") },
        404 => Outcome::NotFound,
        400..=499 => Outcome::Error { message: message("the provider refused the request"), retry: passes(status) },
        500..=599 => Outcome::Error { message: message("the provider failed"), retry: true },
        _ => Outcome::Error { message: message("an unexpected status"), retry: false },
    })
}

/// Statuses that say that the same request may succeed later. 407 is our own proxy, not the provider.
fn passes(status: u16) -> bool {
    matches!(status, 407 | 408 | 425 | 500..=599)
}

fn limited(service: &Service, answer: &Answer, used_up: bool, now: Micros) -> Outcome {
    let rules = &service.rules;
    let default = if used_up { rules.used_up_pause_seconds } else { rules.limited_pause_seconds };
    let asked = answer.retry_after.as_deref().and_then(|text| retry_after(text, now));
    let pause_micros = asked.unwrap_or(Micros::from(default.max(1)) * SECOND);
    Outcome::RateLimited { pause_micros, used_up, asked: asked.is_some() }
}

/// A success must have what the service's rules require.
fn lacking(service: &Service, document: Option<&Document<'_>>) -> Option<Outcome> {
    let document = document?;
    let path = service.rules.require.iter().find(|path| !document.has(path))?;
    Some(invalid(format!("the answer lacks \"{path}\"")))
}

/// A success, unless the body cannot be read.
fn keep(answer: &Answer, body: Body, validators: Option<Validators>) -> Outcome {
    let no_answer = |why: String, retry| Outcome::Invalid { message: format!("the answer is {why}"), retry };
    match body {
        Body::Json(Safe { text, altered }) => {
            Outcome::Success { payload: text, ranges: None, altered: altered || answer.masked, validators }
        }
        Body::Page => no_answer("an HTML page".to_owned(), true),
        // what is known of the key is nested as deep the next time
        Body::Other(Some(why)) => no_answer(why.to_string(), !matches!(why, Unsafe::TooDeep { .. })),
        Body::Other(None) => match hibp::parse_range(&answer.body) {
            Ok(range) => {
                let ranges = range.pack();
                let payload = ranges.as_deref().map_or_else(|| range.to_json(), hibp::summary);
                Outcome::Success { payload, ranges, altered: false, validators }
            }
            Err(why) => no_answer(why, true),
        },
    }
}

fn invalid(message: String) -> Outcome {
    Outcome::Invalid { message, retry: true }
}

/// A message with the status and what the provider says itself.
fn message(words: &str, status: u16, document: Option<&Document<'_>>) -> String {
    match document.and_then(said) {
        Some(said) => format!("{words} (HTTP {status}): {said}"),
        None => format!("{words} (HTTP {status})"),
    }
}

/// The short error text that providers send, in one of the customary places.
fn said(document: &Document<'_>) -> Option<String> {
    const PLACES: [&str; 7] =
        ["error.message", "error", "message", "detail", "errors.0.detail", "errors.0.message", "query_status"];
    let text = PLACES.iter().find_map(|place| document.string(place).filter(|text| !text.trim().is_empty()))?;
    // a provider may repeat the credential that it was sent
    Some(shorten(&mask_tokens(&message_safe(&text, &[])), MAX_SAID))
}
