//! Faults as they go over the wire.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::{header, HeaderName, HeaderValue, Response};
use flate2::write::GzEncoder;
use flate2::Compression;
use futures_util::stream;

use crate::abuseipdb;
use crate::answer::{accepts_gzip, Answer};
use crate::faults::Kind;
use crate::provider::Provider;
use crate::visit::Caller;

const CHUNK: usize = 64 * 1024;

/// Answers with the fault; `usual` gives the answer that is damaged by it.
pub async fn respond(
    kind: Kind,
    provider: Provider,
    caller: &Caller,
    usual: impl FnOnce() -> Answer,
) -> Response<Body> {
    let plain = |answer: Answer| answer.into_response(false);
    match kind {
        Kind::Slow { .. } => usual().into_response(accepts_gzip(&caller.headers)),
        Kind::Reset => {
            caller.connection.end_by_reset();
            broken_off(usual())
        }
        Kind::Eof => broken_off(usual()),
        Kind::Html200 => plain(Answer::html(200, "Just a moment...")),
        Kind::WrongKey => plain(provider.wrong_key()),
        Kind::Status { status } => plain(error_page(provider, status)),
        Kind::RetryAfterSeconds { n } => plain(too_many(provider).with("retry-after", &n.to_string())),
        Kind::RetryAfterDate { n } => {
            let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(n));
            plain(too_many(provider).with("retry-after", &date))
        }
        Kind::Plain429 => plain(Answer::new(429, "text/html", "<title>429</title>429 Too Many Requests")),
        Kind::HugeBody { bytes, gzip } => huge(bytes, gzip),
        Kind::Redirect { to } => plain(Answer::html(302, "Found").with("location", &to)),
        Kind::TruncatedJson => {
            let mut answer = usual();
            answer.body.truncate(answer.body.len() / 2);
            plain(answer)
        }
        Kind::NotJson => plain(Answer::new(200, "application/json", "service is busy\n")),
        Kind::Empty200 => plain(Answer::new(200, "application/json", "")),
        Kind::Body { status, body, headers } => {
            let mut answer = Answer::new(status, "application/json", body);
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                    answer.headers.insert(name, value);
                }
            }
            plain(answer)
        }
        Kind::Hang => std::future::pending().await,
    }
}

/// The provider's 429 without its own `Retry-After`.
fn too_many(provider: Provider) -> Answer {
    let mut answer = provider.over_limit(Duration::from_secs(1));
    answer.headers.remove(header::RETRY_AFTER);
    answer
}

fn error_page(provider: Provider, status: u16) -> Answer {
    let json = |code: &str, message: &str| {
        let body = serde_json::json!({"error": {"code": code, "message": message}});
        Answer::pretty_json(status, &body)
    };
    match (provider, status) {
        (Provider::VirusTotal, 503) => json("TransientError", "Transient server error, try again"),
        (Provider::VirusTotal, 504) => json("DeadlineExceededError", "Deadline exceeded"),
        (Provider::VirusTotal, 500..) => json("ServerError", "Server error"),
        (Provider::Spur, 500) => Answer::json(status, &serde_json::json!({"error": "internal error"})),
        (Provider::AbuseIpdb, 422) => abuseipdb::error(422, "The ip address must be a valid IPv4 or IPv6 address."),
        (Provider::AbuseIpdb, 402) => abuseipdb::error(402, "This endpoint is not part of your plan."),
        _ => Answer::html(status, &format!("{status} error")),
    }
}

/// Announces the whole body, sends the first half, and ends the connection.
fn broken_off(answer: Answer) -> Response<Body> {
    let whole = answer.body.len().max(2);
    let half = Bytes::from(answer.body[..answer.body.len() / 2].to_vec());
    let steps = stream::unfold(Some(half), |half| async move {
        match half {
            Some(half) => Some((Ok(half), None)),
            None => {
                // The server writes what it has only while the body keeps it waiting.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Err(io::Error::other("broken off on order")), None))
            }
        }
    });
    let mut response = Response::new(Body::from_stream(steps));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(whole));
    response
}

enum Step {
    Padding(u64),
    Done,
}

/// `{"padding":"AAAA…"}`, made while it is sent.
fn huge(bytes: u64, gzip: bool) -> Response<Body> {
    let mut sink = Sink::new(gzip);
    let opened = sink.put(br#"{"padding":""#);
    let steps = stream::unfold((opened.map(|()| Step::Padding(bytes)), sink), |(step, mut sink)| async move {
        let next = match step {
            Err(error) => return Some((Err(error), (Ok(Step::Done), sink))),
            Ok(Step::Done) => return None,
            Ok(Step::Padding(0)) => sink.put(br#""}"#).and_then(|()| sink.close()).map(|last| (last, Step::Done)),
            Ok(Step::Padding(left)) => sink.put_padding(left).map(|(chunk, left)| (chunk, Step::Padding(left))),
        };
        match next {
            Ok((chunk, step)) => Some((Ok(Bytes::from(chunk)), (Ok(step), sink))),
            Err(error) => Some((Err(error), (Ok(Step::Done), sink))),
        }
    });
    let mut response = Response::new(Body::from_stream(steps));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

enum Sink {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Sink {
    fn new(gzip: bool) -> Self {
        if gzip {
            Sink::Gzip(GzEncoder::new(Vec::new(), Compression::best()))
        } else {
            Sink::Plain(Vec::new())
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Plain(buffer) => buffer.write_all(bytes),
            Sink::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    /// Adds padding until there is something to send; gives that and what is left to add.
    fn put_padding(&mut self, mut left: u64) -> io::Result<(Vec<u8>, u64)> {
        let padding = [b'A'; CHUNK];
        loop {
            let now = left.min(CHUNK as u64);
            self.put(&padding[..now as usize])?;
            left -= now;
            let ready = match self {
                Sink::Plain(buffer) => std::mem::take(buffer),
                Sink::Gzip(encoder) => std::mem::take(encoder.get_mut()),
            };
            if !ready.is_empty() || left == 0 {
                return Ok((ready, left));
            }
        }
    }

    fn close(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Sink::Plain(buffer) => Ok(std::mem::take(buffer)),
            Sink::Gzip(encoder) => {
                encoder.try_finish()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }
}
