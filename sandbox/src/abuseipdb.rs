//! AbuseIPDB: `/abuseipdb/api/v2/check?ipAddress=&maxAgeInDays=`, with two headers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::Response;
use axum::routing::get;
use axum::Router;
use serde::Deserialize;
use serde_json::json;

use crate::answer::{Answer, Expected, Verdict};
use crate::app::App;
use crate::draw::{timestamp, Draw};
use crate::limits::Per;
use crate::networks;
use crate::provider::Provider;
use crate::visit::{attend, Caller};

/// The accepted key.
pub const KEY: &str = "sandbox-abuseipdb-key";
const PER_DAY: u32 = 1000;

/// The paths below the prefix.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/v2/check", get(check))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "ipAddress", default)]
    address: String,
    #[serde(rename = "maxAgeInDays", default)]
    age: Option<u16>,
}

async fn check(State(app): State<Arc<App>>, Query(asked): Query<Asked>, caller: Caller) -> Response<Body> {
    let refusal = if caller.header("key") == KEY {
        None
    } else if caller.header("accept").contains("json") {
        Some(wrong_key())
    } else {
        Some(Answer::html(401, "Unauthorized"))
    };
    attend(&app, Provider::AbuseIpdb, &asked.address, &caller, refusal, || {
        let (used, max) =
            app.limits.used(Provider::AbuseIpdb, Per::Day, std::time::Instant::now()).unwrap_or((0, PER_DAY));
        answer(&asked)
            .with("x-ratelimit-limit", &max.to_string())
            .with("x-ratelimit-remaining", &u64::from(max).saturating_sub(used).to_string())
    })
    .await
}

/// 401.
pub fn wrong_key() -> Answer {
    error(401, "Authentication failed. Your API key is either missing, incorrect, or revoked.")
}

/// 429 of a used-up day.
pub fn over_limit(wait: Duration) -> Answer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    error(429, "Daily rate limit of 1000 requests exceeded for this endpoint. See headers for additional details.")
        .retry_after(wait)
        .with("x-ratelimit-limit", &PER_DAY.to_string())
        .with("x-ratelimit-remaining", "0")
        .with("x-ratelimit-reset", &(now + wait).as_secs().to_string())
}

/// An error as the service words it.
pub fn error(status: u16, detail: &str) -> Answer {
    Answer::json(status, &json!({"errors": [{"detail": detail, "status": status}]}))
}

/// What a request brings: an answer for every public address.
pub fn expect(key: &str) -> Expected {
    match address(key) {
        Some(_) => Expected::success(score(key) > 0),
        None => Expected::invalid(),
    }
}

fn address(key: &str) -> Option<IpAddr> {
    key.parse().ok().filter(|ip| networks::public(*ip))
}

fn score(key: &str) -> i64 {
    let mut draw = Draw::of("abuseipdb", key, "score");
    if draw.chance(0.5) {
        0
    } else {
        draw.between(1, 100)
    }
}

fn answer(asked: &Asked) -> Answer {
    let Some(ip) = address(&asked.address) else {
        let detail = "The ip address must be a valid IPv4 or IPv6 address (e.g. 8.8.8.8 or 2001:4860:4860::8888).";
        return error(422, detail).counted(Verdict::BadRequest);
    };
    if !asked.age.is_none_or(|days| (1..=365).contains(&days)) {
        return error(422, "The max age in days must be between 1 and 365.").counted(Verdict::BadRequest);
    }
    let (network, score) = (networks::owner(ip), score(&asked.address));
    let mut draw = Draw::of("abuseipdb", &asked.address, "answer");
    let reports = if score == 0 { 0 } else { draw.skewed(2_000) };
    let body = json!({"data": {
        "ipAddress": asked.address,
        "isPublic": true,
        "ipVersion": if ip.is_ipv4() { 4 } else { 6 },
        "isWhitelisted": if draw.chance(0.5) { json!(null) } else { json!(false) },
        "abuseConfidenceScore": score,
        "countryCode": network.country,
        "usageType": if network.hosting { json!("Data Center/Web Hosting/Transit") } else { json!(null) },
        "isp": network.organization,
        "domain": null,
        "hostnames": [],
        "isTor": draw.chance(0.05),
        "totalReports": reports,
        "numDistinctUsers": reports.min(40),
        "lastReportedAt": if reports == 0 { json!(null) } else { json!(timestamp(draw.moment())) },
    }});
    Answer::json(200, &body)
}
