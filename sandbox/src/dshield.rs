//! DShield: `/dshield/api/ip/{ip}?json`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::Response;
use axum::routing::get;
use axum::Router;
use serde_json::{json, Map, Value};

use crate::answer::{Answer, Expected, Verdict};
use crate::app::App;
use crate::draw::{date, timestamp, Draw, LATEST};
use crate::networks;
use crate::provider::Provider;
use crate::visit::{attend, Caller};

const FEEDS: &[&str] = &[
    "blocklistde22",
    "bruteforceblocker",
    "ciarmy",
    "cybergreen",
    "mastodon",
    "miner",
    "openresolver",
    "rapid7sonar",
    "shadowserver",
    "webpanel",
];

/// The paths below the prefix.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/ip/{ip}", get(ip))
}

async fn ip(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
    caller: Caller,
) -> Response<Body> {
    // The provider asks for an address of contact in the agent's name and blocks some default agents.
    let refusal = (!caller.header("user-agent").contains('@')).then(blocked_agent);
    let wants_json = query.is_some_and(|query| query.split('&').any(|word| word == "json"));
    attend(&app, Provider::Dshield, &key, &caller, refusal, || answer(&key, wants_json)).await
}

/// What an agent without a contact gets.
pub fn blocked_agent() -> Answer {
    Answer::html(403, "403 Forbidden")
}

/// 429 with the five minutes the provider asks for.
pub fn over_limit() -> Answer {
    Answer::new(429, "text/plain", "Too many requests. Please wait five minutes.\n").with("retry-after", "300")
}

/// What a request for the key brings.
pub fn expect(key: &str) -> Expected {
    match body(key) {
        None => Expected::invalid(),
        Some(ip) if !known(&ip) => Expected::not_found(),
        Some(ip) => Expected::success(number(&ip["count"]) > 0 || number(&ip["attacks"]) > 0),
    }
}

fn answer(key: &str, wants_json: bool) -> Answer {
    let Some(ip) = body(key) else {
        let error = json!({"error": "bad IP address"});
        return Answer::php_json(200, "text/json", &error).counted(Verdict::BadRequest);
    };
    let verdict = if known(&ip) { Verdict::Ok } else { Verdict::NotFound };
    if wants_json {
        Answer::php_json(200, "text/json", &json!({"ip": ip})).counted(verdict)
    } else {
        // The default form of the service; a client that meets it has forgotten the query.
        let page = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ip>\n<number>{key}</number>\n<count>{}</count>\n</ip>\n",
            number(&ip["count"])
        );
        Answer::new(200, "text/xml", page).counted(verdict)
    }
}

fn known(ip: &Value) -> bool {
    ip.as_object().is_some_and(|members| members.iter().any(|(name, value)| name != "number" && !blank(value)))
}

fn blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok())).unwrap_or(0)
}

/// The object under `ip`, or None for a key that is no public address.
fn body(key: &str) -> Option<Value> {
    let ip: IpAddr = key.parse().ok()?;
    if !networks::public(ip) {
        return None;
    }
    let mut body = Map::new();
    body.insert("number".into(), json!(key));
    let draw = |subject| Draw::of("dshield", key, subject);
    if draw("empty").chance(0.03) {
        // Nothing is known: half of these answers still list the members, as null.
        if draw("empty members").chance(0.5) {
            for name in ["count", "attacks", "maxdate", "mindate", "updated"] {
                body.insert(name.into(), Value::Null);
            }
        }
        return Some(body.into());
    }
    reports(&mut body, &mut draw("counts"));
    owner(&mut body, ip, &mut draw("owner"));
    feeds(&mut body, &mut draw("feeds"));
    if draw("weblogs").chance(0.1) {
        let seen = date(draw("weblogs seen").moment());
        body.insert(
            "weblogs".into(),
            json!({"count": draw("weblogs count").skewed(5_000), "firstseen": seen, "lastseen": seen}),
        );
    }
    Some(body.into())
}

fn reports(body: &mut Map<String, Value>, draw: &mut Draw) {
    if draw.chance(0.45) {
        let count = draw.skewed(200_000);
        let attacks = draw.between(1, count.min(4_000));
        let first = draw.moment();
        let last = (first + draw.between(0, 400) * 86_400).min(LATEST);
        // Numbers have come as strings in some versions of the service.
        let as_text = draw.chance(0.02);
        let form = |n: i64| {
            if as_text {
                json!(n.to_string())
            } else {
                json!(n)
            }
        };
        body.insert("count".into(), form(count));
        body.insert("attacks".into(), form(attacks));
        body.insert("maxdate".into(), json!(date(last)));
        body.insert("mindate".into(), json!(date(first)));
        body.insert("updated".into(), json!(timestamp(last + 31_604)));
    } else {
        for name in ["count", "attacks", "maxdate", "mindate", "updated"] {
            body.insert(name.into(), Value::Null);
        }
    }
    body.insert("comment".into(), Value::Null);
    let risk = draw.chance(0.05).then(|| draw.between(1, 9));
    body.insert("maxrisk".into(), json!(risk));
}

fn owner(body: &mut Map<String, Value>, ip: IpAddr, draw: &mut Draw) {
    let network = networks::owner(ip);
    // Some answers for IPv6 lack all of these.
    if ip.is_ipv6() && draw.chance(0.4) {
        return;
    }
    let contact = format!("abuse@as{}.invalid", network.asn);
    body.insert("asabusecontact".into(), json!(contact));
    let asn = if draw.chance(0.05) { json!(network.asn.to_string()) } else { json!(network.asn) };
    body.insert("as".into(), asn);
    body.insert("asname".into(), json!(network.as_name));
    body.insert("ascountry".into(), json!(network.country));
    body.insert("assize".into(), json!(draw.between(4, 400_000) * 256));
    body.insert("network".into(), json!(networks::announced(ip)));
}

fn feeds(body: &mut Map<String, Value>, draw: &mut Draw) {
    let feeds = match draw.between(0, 99) {
        0..55 => return,
        55..63 => Value::Null,
        63..65 => json!({}),
        // What PHP makes of an empty array.
        65..66 => json!([]),
        _ => {
            let listed = draw.some(FEEDS, 1, 4);
            listed
                .into_iter()
                .map(|feed| {
                    let first = draw.moment();
                    let last = (first + draw.between(0, 300) * 86_400).min(LATEST);
                    let seen = json!({"lastseen": date(last), "firstseen": date(first)});
                    ((*feed).to_string(), seen)
                })
                .collect::<Map<_, _>>()
                .into()
        }
    };
    body.insert("threatfeeds".into(), feeds);
}
