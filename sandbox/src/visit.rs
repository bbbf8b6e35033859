//! The way every request goes: counted, delayed, struck by a fault, checked, limited, answered.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::{request::Parts, HeaderMap, Response};

use crate::answer::{accepts_gzip, Answer};
use crate::app::App;
use crate::fault_answers;
use crate::faults::Kind;
use crate::provider::Provider;
use crate::socket::Connection;

/// Who asks: the headers and the connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// all request headers
    pub headers: HeaderMap,
    /// the connection the request came by
    pub connection: Connection,
}

impl Caller {
    /// The text of a header, empty if it is missing or no text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let connection =
            parts.extensions.get::<ConnectInfo<Connection>>().map(|info| info.0.clone()).unwrap_or_default();
        Ok(Caller { headers: parts.headers.clone(), connection })
    }
}

/// Attends to one request for `key`.
///
/// `refusal` is the answer to a caller that is not let in. A fault strikes before key and limit are
/// looked at, but the call is counted in the limit's windows all the same, as a provider's front
/// end would count it.
pub async fn attend(
    app: &App,
    provider: Provider,
    key: &str,
    caller: &Caller,
    refusal: Option<Answer>,
    answer: impl FnOnce() -> Answer,
) -> Response<Body> {
    let started = Instant::now();
    let _in_flight = app.stats.arrive(provider, key, caller.connection.meets(provider));
    let fits = match refusal {
        Some(_) => Ok(()),
        None => app.limits.take(provider, started),
    };
    let fault = app.faults.strike(provider, key);
    if fault.is_some() {
        app.stats.faulted(provider);
    }
    pause(app.latency_ms(provider)).await;
    let fault = match fault {
        Some(Kind::Slow { ms }) => {
            pause(ms).await;
            None
        }
        other => other,
    };
    let response = match fault {
        Some(kind) => fault_answers::respond(kind, provider, caller, answer).await,
        None => {
            let told = match (refusal, fits) {
                (Some(refusal), _) => {
                    app.stats.unauthorized(provider);
                    refusal
                }
                (None, Err(wait)) => {
                    let told = provider.over_limit(wait);
                    app.stats.answered(provider, told.verdict);
                    told
                }
                (None, Ok(())) => {
                    let told = answer();
                    app.stats.answered(provider, told.verdict);
                    told
                }
            };
            let told = if app.tells_limits(provider) { with_limits(app, provider, told) } else { told };
            told.into_response(accepts_gzip(&caller.headers))
        }
    };
    app.log(|| {
        format!("{} {key:?} {} {} ms", provider.name(), response.status().as_u16(), started.elapsed().as_millis())
    });
    response
}

/// The customary headers; the reset in seconds since 1970, when all calls are there again.
fn with_limits(app: &App, provider: Provider, answer: Answer) -> Answer {
    let Some((max, left, until)) = app.limits.left(provider, Instant::now()) else { return answer };
    let reset = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + until;
    answer
        .with("x-ratelimit-limit", &max.to_string())
        .with("x-ratelimit-remaining", &left.to_string())
        .with("x-ratelimit-reset", &reset.as_millis().div_ceil(1000).to_string())
}

/// Waits.
pub async fn pause(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
