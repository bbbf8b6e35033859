//! GreyNoise Community: `/greynoise/v3/community/{ipv4}`. What it does not know is a 404 with a whole answer.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use axum::routing::get;
use axum::Router;
use serde_json::json;

use crate::answer::{Answer, Expected, Verdict};
use crate::app::App;
use crate::draw::{date, Draw};
use crate::networks;
use crate::provider::Provider;
use crate::visit::{attend, Caller};

/// The accepted key; none is accepted too.
pub const KEY: &str = "sandbox-greynoise-key";

/// The paths below the prefix.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v3/community/{ip}", get(community))
}

async fn community(State(app): State<Arc<App>>, Path(key): Path<String>, caller: Caller) -> Response<Body> {
    let given = caller.header("key");
    let refusal = (!given.is_empty() && given != KEY).then(wrong_key);
    attend(&app, Provider::GreyNoise, &key, &caller, refusal, || answer(&key)).await
}

/// 401.
pub fn wrong_key() -> Answer {
    Answer::json(401, &json!({"message": "Invalid API key"}))
}

/// 429; it names no time.
pub fn over_limit() -> Answer {
    let message = "You have hit your weekly rate-limit of 50 lookups";
    Answer::json(429, &json!({"plan": "unauthenticated", "rate-limit": "50-lookups/week", "message": message}))
}

/// What a request brings: an answer for every public IPv4 address.
pub fn expect(key: &str) -> Expected {
    match address(key) {
        Some(_) => Expected::success(seen(key)),
        None => Expected::invalid(),
    }
}

fn address(key: &str) -> Option<Ipv4Addr> {
    key.parse().ok().filter(|ip: &Ipv4Addr| networks::public((*ip).into()))
}

fn seen(key: &str) -> bool {
    Draw::of("greynoise", key, "seen").chance(0.3)
}

fn answer(key: &str) -> Answer {
    if address(key).is_none() {
        let message = "Request is not a valid routable IPv4 address";
        return Answer::json(400, &json!({"ip": key, "message": message})).counted(Verdict::BadRequest);
    }
    if !seen(key) {
        let message = "IP not observed scanning the internet.";
        let body = json!({"ip": key, "noise": false, "riot": false, "message": message});
        return Answer::json(404, &body).counted(Verdict::NotFound);
    }
    let mut draw = Draw::of("greynoise", key, "answer");
    let body = json!({
        "ip": key,
        "noise": true,
        "riot": draw.chance(0.1),
        "classification": draw.pick(&["malicious", "benign", "unknown"]),
        "name": "unknown",
        "link": format!("https://viz.greynoise.io/ip/{key}"),
        "last_seen": date(draw.moment()),
        "message": "Success",
    });
    Answer::json(200, &body)
}
