//! VirusTotal: `/virustotal/api/v3/files/{hash}`, `/ip_addresses/{ip}` and `/users/{id}/overall_quotas`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use axum::routing::get;
use axum::Router;
use serde_json::json;

use crate::answer::{accepts_gzip, Answer, Expected, Verdict};
use crate::app::App;
use crate::fault_answers;
use crate::faults::{Kind, STATUS};
use crate::limits::Per;
use crate::networks;
use crate::provider::Provider;
use crate::virustotal_address::address;
use crate::virustotal_file::file;
use crate::visit::{attend, pause, Caller};

/// The paths below the prefix.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v3/files/{hash}", get(files))
        .route("/api/v3/ip_addresses/{ip}", get(ip_addresses))
        .route("/api/v3/users/{id}/overall_quotas", get(quotas))
}

async fn files(State(app): State<Arc<App>>, Path(key): Path<String>, caller: Caller) -> Response<Body> {
    let refusal = refusal(&app, &caller);
    attend(&app, Provider::VirusTotal, &key, &caller, refusal, || match file(&key) {
        Some(body) => Answer::pretty_json(200, &body),
        None => error(404, "NotFoundError", &format!("File \"{key}\" not found")).counted(Verdict::NotFound),
    })
    .await
}

async fn ip_addresses(State(app): State<Arc<App>>, Path(key): Path<String>, caller: Caller) -> Response<Body> {
    let refusal = refusal(&app, &caller);
    attend(&app, Provider::VirusTotal, &key, &caller, refusal, || match public_address(&key) {
        Some(ip) => Answer::pretty_json(200, &address(&key, ip)),
        None => error(400, "InvalidArgumentError", &format!("\"{key}\" is not a valid IP address pattern"))
            .counted(Verdict::BadRequest),
    })
    .await
}

/// What the account may ask and has asked. Costs no quota and is not counted. The numbers are those of the moment when the question
/// came, also where a fault holds the answer up.
async fn quotas(State(app): State<Arc<App>>, Path(id): Path<String>, caller: Caller) -> Response<Body> {
    if let Some(refusal) = refusal(&app, &caller) {
        return refusal.into_response(false);
    }
    if id.is_empty() {
        return error(404, "NotFoundError", "User not found").into_response(false);
    }
    let asked = app.stats.get(Provider::VirusTotal);
    let asked = asked.ok + asked.not_found;
    let (day_used, day_allowed) = app
        .limits
        .used(Provider::VirusTotal, Per::Day, Instant::now())
        .map_or((asked, 1_000_000_000), |(used, max)| (used, u64::from(max)));
    let body = json!({"data": {
        "api_requests_hourly": {"user": {"allowed": 60_000_000_000_u64, "used": asked}},
        "api_requests_daily": {
            "user": {"allowed": day_allowed, "used": day_used},
            "group": {"allowed": 99_000_000, "used": day_used, "inherited_from": "sandbox"},
        },
        "api_requests_monthly": {"user": {"allowed": day_allowed.saturating_mul(31), "used": asked}},
    }});
    let told = Answer::pretty_json(200, &body);
    match app.faults.strike(Provider::VirusTotal, STATUS) {
        None => told.into_response(accepts_gzip(&caller.headers)),
        Some(Kind::Slow { ms }) => {
            pause(ms).await;
            told.into_response(accepts_gzip(&caller.headers))
        }
        Some(kind) => fault_answers::respond(kind, Provider::VirusTotal, &caller, || told).await,
    }
}

fn refusal(app: &App, caller: &Caller) -> Option<Answer> {
    match caller.header("x-apikey") {
        "" => Some(error(401, "AuthenticationRequiredError", "X-Apikey header is missing")),
        key if key == app.settings.virustotal_key => None,
        _ => Some(wrong_key()),
    }
}

/// 401 `WrongCredentialsError`.
pub fn wrong_key() -> Answer {
    error(401, "WrongCredentialsError", "Wrong API key")
}

/// 429 `QuotaExceededError`, without `Retry-After`, never compressed.
pub fn over_limit() -> Answer {
    error(429, "QuotaExceededError", "Quota exceeded")
}

/// What a request for the key brings.
pub fn expect(key: &str) -> Expected {
    let body = match public_address(key) {
        Some(ip) => address(key, ip),
        None if key.parse::<IpAddr>().is_ok() => return Expected::invalid(),
        None => match file(key) {
            Some(body) => body,
            None => return Expected::not_found(),
        },
    };
    let malicious = &body["data"]["attributes"]["last_analysis_stats"]["malicious"];
    Expected::success(malicious.as_i64().unwrap_or(0) > 0)
}

fn public_address(key: &str) -> Option<IpAddr> {
    key.parse().ok().filter(|ip| networks::public(*ip))
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::json(status, &json!({"error": {"code": code, "message": message}}))
}
