//! Pwned Passwords: `/hibp/range/{prefix}`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::Response;
use axum::routing::get;
use axum::Router;

use crate::answer::{Answer, Expected, Verdict};
use crate::app::App;
use crate::draw::Draw;
use crate::passwords;
use crate::provider::Provider;
use crate::visit::{attend, Caller};

const TEXT: &str = "text/plain";
const CHANGED: &str = "Wed, 01 Jul 2026 00:00:00 GMT";

/// What the caller has already: a tag counts before a date (RFC 9110, 13.2.2).
struct Known<'a> {
    tag: &'a str,
    date: &'a str,
}

impl Known<'_> {
    fn is(&self, tag: &str) -> bool {
        match self.tag {
            "" => self.date == CHANGED,
            known => known.split(',').any(|known| known.trim() == tag),
        }
    }
}

/// The paths below the prefix.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/range/{prefix}", get(range))
}

async fn range(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
    caller: Caller,
) -> Response<Body> {
    let refusal = caller.header("user-agent").is_empty().then(blocked_agent);
    let ntlm = query.is_some_and(|query| query.split('&').any(|word| word == "mode=ntlm"));
    let padded = caller.header("add-padding").eq_ignore_ascii_case("true");
    let known = Known { tag: caller.header("if-none-match"), date: caller.header("if-modified-since") };
    attend(&app, Provider::Hibp, &key, &caller, refusal, || answer(&key, ntlm, padded, &known)).await
}

/// What a request without an agent gets.
pub fn blocked_agent() -> Answer {
    Answer::html(403, "403 Forbidden")
}

/// 429 of the network in front of the service, which itself has no limit.
pub fn over_limit(wait: Duration) -> Answer {
    Answer::new(429, TEXT, "error code: 1015").retry_after(wait)
}

/// What a request brings: for a prefix that it is answered, for a full SHA-1 also whether it is in the range.
pub fn expect(key: &str) -> Expected {
    match key.len() {
        5 if is_hex(key) => Expected::success(false),
        40 if is_hex(key) => {
            let key = key.to_ascii_uppercase();
            let seen = rows(&key[..5], false)
                .into_iter()
                .find(|(suffix, _)| *suffix == key[5..])
                .map_or(0, |(_, count)| count);
            Expected { prevalence: Some(seen), ..Expected::success(seen > 0) }
        }
        _ => Expected::invalid(),
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn answer(key: &str, ntlm: bool, padded: bool, known: &Known<'_>) -> Answer {
    if key.len() != 5 || !is_hex(key) {
        let text = "The hash prefix was not in a valid format";
        return Answer::new(400, TEXT, text).counted(Verdict::BadRequest);
    }
    let prefix = key.to_ascii_uppercase();
    let mut lines: Vec<String> =
        rows(&prefix, ntlm).into_iter().map(|(suffix, count)| format!("{suffix}:{count}")).collect();
    if padded {
        let mut draw = Draw::of("hibp", &prefix, "padding");
        for _ in 0..draw.between(10, 209) {
            lines.push(format!("{}:0", draw.hex(width(ntlm)).to_uppercase()));
        }
        return Answer::new(200, TEXT, lines.join("\r\n"))
            .with("cache-control", "no-store")
            .with("vary", "add-padding");
    }
    let tag = format!("\"0x8D{}\"", Draw::of("hibp", &prefix, "tag").hex(13).to_uppercase());
    let answer = if known.is(&tag) {
        Answer::new(304, TEXT, "").counted(Verdict::Ok)
    } else {
        Answer::new(200, TEXT, lines.join("\r\n"))
    };
    answer.with("cache-control", "public, max-age=2678400").with("last-modified", CHANGED).with("etag", &tag)
}

fn width(ntlm: bool) -> usize {
    if ntlm {
        27
    } else {
        35
    }
}

/// Suffixes and counts, sorted; the common passwords among them.
fn rows(prefix: &str, ntlm: bool) -> Vec<(String, u64)> {
    let mode = if ntlm { "ntlm" } else { "sha1" };
    let mut draw = Draw::of("hibp", prefix, mode);
    let mut rows: Vec<(String, u64)> = (0..draw.between(400, 800))
        .map(|_| {
            let suffix = draw.hex(width(ntlm)).to_uppercase();
            (suffix, draw.skewed(3_000) as u64)
        })
        .collect();
    if !ntlm {
        rows.extend(passwords::in_range(prefix));
    }
    rows.sort();
    rows.dedup_by(|later, earlier| later.0 == earlier.0);
    rows
}
