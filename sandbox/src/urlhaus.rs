//! URLhaus: `POST /urlhaus/v1/host/` and `/urlhaus/v1/payload/`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Form, State};
use axum::http::Response;
use axum::routing::post;
use axum::Router;
use serde_json::{json, Value};

use crate::answer::{Answer, Expected, Verdict};
use crate::app::App;
use crate::draw::{timestamp, Draw};
use crate::provider::Provider;
use crate::visit::{attend, Caller};

const TYPE: &str = "application/octet-stream";
const TAGS: &[&str] = &[
    "32-bit", "64-bit", "arm", "ascii", "botnet", "bashlite", "elf", "gafgyt", "hajime", "mips", "mirai", "mozi", "sh",
    "ua-wget", "xmrig", "xorddos",
];
const NAMES: &[&str] = &[
    "bin.sh",
    "mozi.m",
    "i",
    "arm7",
    "x86_64",
    "wget.sh",
    "bins/mirai.mips",
    "a%20b.exe",
    "j'et.sh",
    "mail?to=someone@mail.invalid",
    "ohshit.sh",
    "curl.sh",
];
const REPORTERS: &[&str] = &["tolisec", "lrz_urlhaus", "geenensp", "anonymous", "r3dbU7z"];

type Fields = Form<HashMap<String, String>>;

/// The paths below the prefix.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/host/", post(host).fallback(wrong_verb))
        .route("/v1/payload/", post(payload).fallback(wrong_verb))
}

async fn wrong_verb() -> Response<Body> {
    let body = json!({"query_status": "http_post_expected"});
    Answer::json(405, &body).into_response(false)
}

async fn host(State(app): State<Arc<App>>, caller: Caller, Form(fields): Fields) -> Response<Body> {
    let key = fields.get("host").cloned().unwrap_or_default();
    let refusal = refusal(&app, &caller);
    attend(&app, Provider::Urlhaus, &key, &caller, refusal, || judged(host_body(&key, app.settings.urlhaus_found)))
        .await
}

async fn payload(State(app): State<Arc<App>>, caller: Caller, Form(fields): Fields) -> Response<Body> {
    let field = ["sha256_hash", "md5_hash"].into_iter().find(|name| fields.contains_key(*name));
    let key = field.map_or_else(String::new, |name| fields[name].clone());
    let refusal = refusal(&app, &caller);
    attend(&app, Provider::Urlhaus, &key, &caller, refusal, || {
        let right_length = match field {
            Some("md5_hash") => 32,
            _ => 64,
        };
        judged(if key.len() == right_length && is_hex(&key) {
            payload_body(&key)
        } else if right_length == 32 {
            json!({"query_status": "invalid_md5"})
        } else {
            json!({"query_status": "invalid_sha256"})
        })
    })
    .await
}

fn refusal(app: &App, caller: &Caller) -> Option<Answer> {
    match caller.header("auth-key") {
        "" => {
            let body = json!({"error": "Unauthorized"});
            Some(Answer::php_json(401, TYPE, &body))
        }
        key if key == app.settings.urlhaus_key => None,
        _ => Some(wrong_key()),
    }
}

/// 403 `unknown_auth_key`.
pub fn wrong_key() -> Answer {
    Answer::php_json(403, TYPE, &json!({"query_status": "unknown_auth_key"}))
}

/// 429 with `Retry-After`; the provider publishes no number and no body.
pub fn over_limit(wait: Duration) -> Answer {
    Answer::html(429, "429 Too Many Requests").retry_after(wait)
}

/// What a request for the key brings; `found` is the share of hosts that are known.
pub fn expect(key: &str, found: f64) -> Expected {
    let body = if is_hex(key) && matches!(key.len(), 32 | 64) { payload_body(key) } else { host_body(key, found) };
    match body["query_status"].as_str() {
        Some("ok") => {
            Expected::success(body["urls"].as_array().is_some_and(|urls| urls.iter().any(|url| url["tags"].is_array())))
        }
        Some("no_results") => Expected::not_found(),
        _ => Expected::invalid(),
    }
}

fn judged(body: Value) -> Answer {
    let verdict = match body["query_status"].as_str() {
        Some("ok") => Verdict::Ok,
        Some("no_results") => Verdict::NotFound,
        _ => Verdict::BadRequest,
    };
    Answer::php_json(200, TYPE, &body).counted(verdict)
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn looks_like_a_host(key: &str) -> bool {
    // IPv6 is not documented; it is answered as unknown.
    key.parse::<std::net::IpAddr>().is_ok()
        || (key.contains('.')
            && key.len() <= 253
            && key.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            }))
}

fn host_body(key: &str, found: f64) -> Value {
    if !looks_like_a_host(key) {
        return json!({"query_status": "invalid_host"});
    }
    if key.parse::<std::net::Ipv6Addr>().is_ok() || !Draw::of("urlhaus", key, "found").chance(found) {
        return json!({"query_status": "no_results"});
    }
    let mut draw = Draw::of("urlhaus", key, "host");
    let count = draw.skewed(600);
    let first = draw.moment();
    let dbl = *draw.pick(&["not listed", "not listed", "botnet_cc_domain", "abused_legit_malware"]);
    let surbl = *draw.pick(&["not listed", "listed"]);
    let urls: Vec<Value> = (0..count.min(100)).map(|_| url(key, &mut draw)).collect();
    let mut body = json!({
        "query_status": "ok",
        "urlhaus_reference": format!("https://urlhaus.abuse.ch/host/{key}/"),
        "host": key,
        "firstseen": format!("{} UTC", timestamp(first)),
        "url_count": count.to_string(),
        "urls": urls,
    });
    // Documented as absent for addresses, recorded as present: both happen.
    if draw.chance(0.8) {
        body["blacklists"] = json!({"spamhaus_dbl": dbl, "surbl": surbl});
    }
    body
}

fn url(host: &str, draw: &mut Draw) -> Value {
    let id = draw.between(1_000_000, 3_900_000).to_string();
    let tags = if draw.chance(0.2) { Value::Null } else { json!(draw.some(TAGS, 1, 5)) };
    let takedown = if draw.chance(0.4) { Value::Null } else { json!(draw.skewed(9_000_000).to_string()) };
    json!({
        "id": id,
        "urlhaus_reference": format!("https://urlhaus.abuse.ch/url/{id}/"),
        "url": format!("http://{host}:{}/{}", draw.between(1_024, 65_535), draw.pick(NAMES)),
        "url_status": draw.pick(&["online", "offline", "offline", "unknown"]),
        "date_added": format!("{} UTC", timestamp(draw.moment())),
        "threat": "malware_download",
        "reporter": draw.pick(REPORTERS),
        "larted": draw.pick(&["true", "false"]),
        "takedown_time_seconds": takedown,
        "tags": tags,
    })
}

fn payload_body(key: &str) -> Value {
    if !Draw::of("urlhaus", key, "found").chance(0.3) {
        return json!({"query_status": "no_results"});
    }
    let mut draw = Draw::of("urlhaus", key, "payload");
    let (md5, sha256) = match key.len() {
        32 => (key.to_string(), draw.hex(64)),
        _ => (draw.hex(32), key.to_string()),
    };
    let urls: Vec<Value> = (0..draw.skewed(40)).map(|_| payload_url(&mut draw)).collect();
    let signature = draw.pick(&[json!("Mirai"), json!("Mozi"), Value::Null, json!("null")]).clone();
    json!({
        "query_status": "ok",
        "md5_hash": md5,
        "sha256_hash": sha256,
        "file_type": draw.pick(&["elf", "sh", "exe", "unknown"]),
        "file_size": draw.skewed(4_000_000).to_string(),
        "signature": signature,
        "firstseen": timestamp(draw.moment()),
        "lastseen": draw.pick(&[Value::Null, json!(""), json!("2026-02-03 04:05:06")]),
        "url_count": urls.len().to_string(),
        "urlhaus_download": format!("https://urlhaus-api.abuse.ch/v1/download/{sha256}/"),
        "virustotal": null,
        "imphash": null,
        "ssdeep": format!("96:{}:{}", draw.hex(24), draw.hex(16)),
        "tlsh": null,
        "magika": "elf",
        "urls": urls,
    })
}

fn payload_url(draw: &mut Draw) -> Value {
    let id = draw.between(1_000_000, 3_900_000).to_string();
    let host =
        format!("{}.{}.{}.{}", draw.between(1, 223), draw.between(0, 255), draw.between(0, 255), draw.between(1, 254));
    json!({
        "url_id": id,
        "url": format!("http://{host}/{}", draw.pick(NAMES)),
        "url_status": draw.pick(&["online", "offline"]),
        "urlhaus_reference": format!("https://urlhaus.abuse.ch/url/{id}/"),
        "filename": Value::Null,
        "firstseen": timestamp(draw.moment()),
        "lastseen": Value::Null,
    })
}
