//! Shodan InternetDB: `/internetdb/{ip}`, without a key.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use axum::routing::get;
use axum::Router;
use serde_json::json;

use crate::answer::{Answer, Expected, Verdict};
use crate::app::App;
use crate::draw::Draw;
use crate::networks;
use crate::provider::Provider;
use crate::visit::{attend, Caller};

/// The paths below the prefix.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/{ip}", get(host))
}

async fn host(State(app): State<Arc<App>>, Path(key): Path<String>, caller: Caller) -> Response<Body> {
    attend(&app, Provider::InternetDb, &key, &caller, None, || answer(&key)).await
}

/// 429 of the network in front of the service; it names no time, and lasts an hour.
pub fn over_limit() -> Answer {
    Answer::new(429, "text/plain", "Rate limit exceeded.")
}

/// What a request brings.
pub fn expect(key: &str) -> Expected {
    match address(key) {
        Some(_) if known(key) => Expected::success(false),
        Some(_) => Expected::not_found(),
        None => Expected::invalid(),
    }
}

fn address(key: &str) -> Option<IpAddr> {
    key.parse().ok().filter(|ip| networks::public(*ip))
}

fn known(key: &str) -> bool {
    Draw::of("internetdb", key, "known").chance(0.4)
}

fn answer(key: &str) -> Answer {
    if address(key).is_none() {
        return Answer::json(422, &json!({"detail": "invalid address"})).counted(Verdict::BadRequest);
    }
    if !known(key) {
        return Answer::json(404, &json!({"detail": "No information available"})).counted(Verdict::NotFound);
    }
    let mut draw = Draw::of("internetdb", key, "answer");
    let body = json!({
        "ip": key,
        "ports": draw.some(&[22, 25, 80, 443, 3389, 8080], 1, 3),
        "hostnames": [],
        "cpes": draw.some(&["cpe:/a:openbsd:openssh", "cpe:/a:f5:nginx"], 0, 2),
        "tags": draw.some(&["cloud", "vpn", "self-signed"], 0, 2),
        "vulns": draw.some(&["CVE-2023-38408", "CVE-2021-41617"], 0, 2),
    });
    Answer::json(200, &body).with("cache-control", "public, max-age=432000")
}
