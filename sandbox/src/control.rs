//! The control API below `/control`, for tests: faults, limits, latency, counters, what to expect of a key.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::Response;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use axum::Router;
use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::{json, Value};

use crate::answer::Answer;
use crate::app::App;
use crate::faults::Order;
use crate::limits::{Limit, Per};
use crate::provider::Provider;

type Shared = State<Arc<App>>;
type Reply = Result<Response<Body>, Refused>;

/// Why an order is not carried out; answered with 400.
struct Refused(String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        Answer::json(400, &json!({"error": self.0})).into_response(false)
    }
}

/// The paths below the prefix.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(|| async { reply(&json!({"status": "ok"})) }))
        .route("/stats", get(stats))
        .route("/calls/{service}", get(calls))
        .route("/reset", post(reset))
        .route("/fault", post(order_fault).get(list_faults).delete(cancel_all))
        .route("/fault/{id}", delete(cancel))
        .route("/limits", post(set_limits).get(list_limits))
        .route("/tell_limits", post(tell_limits))
        .route("/latency", post(set_latency))
        .route("/spur_balance", post(set_balance))
        .route("/expect/{service}/{key}", get(expect))
}

fn reply(body: &Value) -> Response<Body> {
    Answer::json(200, body).into_response(false)
}

fn refuse(why: impl std::fmt::Display) -> Refused {
    Refused(why.to_string())
}

/// Reads a body as JSON whatever its content type says, so that plain curl works.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(refuse)
}

fn services(name: &str) -> Result<Vec<Provider>, Refused> {
    Provider::parse_many(name).map_err(refuse)
}

#[derive(Deserialize)]
struct Named {
    service: String,
}

async fn tell_limits(State(app): Shared, body: Bytes) -> Reply {
    let named: Named = read(&body)?;
    services(&named.service)?.into_iter().for_each(|provider| app.tell_limits(provider));
    Ok(reply(&json!({"telling": named.service})))
}

async fn stats(State(app): Shared) -> Response<Body> {
    reply(&app.stats.all())
}

async fn calls(State(app): Shared, Path(service): Path<String>) -> Reply {
    Ok(reply(&app.stats.calls(Provider::parse(&service).map_err(refuse)?)))
}

async fn reset(State(app): Shared) -> Response<Body> {
    app.reset();
    reply(&json!({"reset": true}))
}

async fn order_fault(State(app): Shared, body: Bytes) -> Reply {
    let order: Order = read(&body)?;
    match order.problem() {
        Some(problem) => Err(refuse(problem)),
        None => Ok(reply(&json!({"id": app.faults.order(order)}))),
    }
}

async fn list_faults(State(app): Shared) -> Response<Body> {
    reply(&app.faults.list())
}

async fn cancel_all(State(app): Shared) -> Response<Body> {
    reply(&json!({"cancelled": app.faults.cancel_all()}))
}

async fn cancel(State(app): Shared, Path(id): Path<u64>) -> Response<Body> {
    let known = app.faults.cancel(id);
    let status = if known { 200 } else { 404 };
    Answer::json(status, &json!({"cancelled": u64::from(known)})).into_response(false)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLimit {
    service: String,
    #[serde(default)]
    max: Option<u32>,
    #[serde(default)]
    per: Option<Per>,
}

async fn set_limits(State(app): Shared, body: Bytes) -> Reply {
    let new: NewLimit = read(&body)?;
    let limits = match (new.max, new.per) {
        (Some(max), Some(per)) => vec![Limit { max, per }],
        (_, None) => Vec::new(),
        (None, Some(_)) => return Err(refuse("max is missing")),
    };
    for provider in services(&new.service)? {
        app.limits.set(provider, limits.clone());
    }
    Ok(reply(&json!({"limits": limits})))
}

async fn list_limits(State(app): Shared) -> Response<Body> {
    let all: serde_json::Map<String, Value> = Provider::ALL
        .into_iter()
        .map(|provider| (provider.name().to_string(), json!(app.limits.get(provider))))
        .collect();
    reply(&Value::Object(all))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLatency {
    service: String,
    ms: u64,
}

async fn set_latency(State(app): Shared, body: Bytes) -> Reply {
    let new: NewLatency = read(&body)?;
    for provider in services(&new.service)? {
        app.set_latency_ms(provider, new.ms);
    }
    Ok(reply(&json!({"ms": new.ms})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBalance {
    queries: i64,
}

async fn set_balance(State(app): Shared, body: Bytes) -> Reply {
    let new: NewBalance = read(&body)?;
    app.set_spur_balance(new.queries);
    Ok(reply(&json!({"queries": new.queries})))
}

async fn expect(State(app): Shared, Path((service, key)): Path<(String, String)>) -> Reply {
    let provider = Provider::parse(&service).map_err(refuse)?;
    Ok(reply(&json!(provider.expect(&app, &key))))
}
