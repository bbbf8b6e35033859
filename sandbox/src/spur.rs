//! Spur Context API: `/spur/v2/context/{ip}` and `/spur/status`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use axum::routing::get;
use axum::Router;
use serde_json::{json, Value};

use crate::answer::{Answer, Expected, Verdict};
use crate::app::App;
use crate::draw::Draw;
use crate::fault_answers;
use crate::faults::{Kind, STATUS};
use crate::networks::{self, Network};
use crate::provider::Provider;
use crate::visit::{attend, pause, Caller};

/// The paths below the prefix.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v2/context/{ip}", get(context)).route("/status", get(status))
}

async fn context(State(app): State<Arc<App>>, Path(key): Path<String>, caller: Caller) -> Response<Body> {
    let refusal = refusal(&app, &caller);
    attend(&app, Provider::Spur, &key, &caller, refusal, || answer(&app, &key)).await
}

/// The state of the token as it is when the call comes in; costs no query and is not counted.
async fn status(State(app): State<Arc<App>>, caller: Caller) -> Response<Body> {
    let answer = refusal(&app, &caller).unwrap_or_else(|| {
        let left = app.spur_balance();
        Answer::json(200, &json!({"active": true, "queriesRemaining": left, "serviceTier": "online"}))
    });
    match app.faults.strike(Provider::Spur, STATUS) {
        Some(Kind::Slow { ms }) => pause(ms).await,
        Some(kind) => return fault_answers::respond(kind, Provider::Spur, &caller, || answer).await,
        None => {}
    }
    answer.into_response(false)
}

fn refusal(app: &App, caller: &Caller) -> Option<Answer> {
    (caller.header("token") != app.settings.spur_key).then(wrong_key)
}

/// 401.
pub fn wrong_key() -> Answer {
    Answer::json(401, &json!({"error": "invalid token"}))
}

/// 429 of a short window. A used-up balance says `insufficient queries` and has no `Retry-After`.
pub fn over_limit(wait: Duration) -> Answer {
    Answer::json(429, &json!({"error": "too many requests"})).retry_after(wait)
}

/// What a request for the key brings, as long as there are queries left.
pub fn expect(key: &str) -> Expected {
    let Some(body) = body(key) else {
        return Expected::invalid();
    };
    let infrastructure = body["infrastructure"].as_str();
    let tunnels = body["tunnels"].as_array().map_or(0, Vec::len);
    let mut expected = Expected::success(matches!(infrastructure, Some("DATACENTER" | "VPN")) || tunnels > 0);
    expected.minimal = Some(minimal(key));
    expected
}

fn answer(app: &App, key: &str) -> Answer {
    let Some(body) = body(key) else {
        let error = json!({"error": "IP must be a public IPv4 or IPv6"});
        return Answer::json(400, &error).counted(Verdict::BadRequest);
    };
    match app.spend_spur() {
        None => Answer::json(429, &json!({"error": "insufficient queries"})),
        Some(left) => {
            Answer::json(200, &body).with("x-balance-remaining", &left.to_string()).with("x-result-dt", "20260702")
        }
    }
}

fn minimal(key: &str) -> bool {
    Draw::of("spur", key, "minimal").chance(0.55)
}

fn body(key: &str) -> Option<Value> {
    let ip: IpAddr = key.parse().ok()?;
    if !networks::public(ip) {
        return None;
    }
    let network = networks::owner(ip);
    let mut draw = Draw::of("spur", key, "context");
    let mut body = json!({
        "as": {"number": network.asn, "organization": network.organization},
        "ip": key,
        "location": location(network, &mut draw),
        // The one who uses the address is often not the one who announces it.
        "organization": if draw.chance(0.3) { "Example Networks GmbH & Co. KG" } else { network.organization },
    });
    if !minimal(key) {
        more(&mut body, ip, network, &mut draw);
    }
    Some(body)
}

fn location(network: &Network, draw: &mut Draw) -> Value {
    let mut location = json!({"country": network.country});
    if !network.city.is_empty() && draw.chance(0.9) {
        location["city"] = json!(network.city);
    }
    if !network.state.is_empty() && draw.chance(0.9) {
        location["state"] = json!(network.state);
    }
    location
}

fn more(body: &mut Value, ip: IpAddr, network: &Network, draw: &mut Draw) {
    let hosting = if network.hosting { 0.9 } else { 0.25 };
    if draw.chance(hosting) {
        body["infrastructure"] = json!("DATACENTER");
    } else if draw.chance(0.3) {
        body["infrastructure"] = json!(draw.pick(&["MOBILE", "SATELLITE", "GOOGLE", "VPN"]));
    }
    let tunnelled = draw.chance(0.35);
    if tunnelled {
        body["tunnels"] = (0..draw.between(1, 2)).map(|_| tunnel(ip, draw)).collect();
    }
    let mut risks: Vec<&str> = draw
        .some(&["CALLBACK_PROXY", "GEO_MISMATCH", "LOGIN_BRUTEFORCE", "WEB_SCRAPING"], 0, 2)
        .into_iter()
        .copied()
        .collect();
    if tunnelled {
        risks.push("TUNNEL");
    }
    if !risks.is_empty() {
        body["risks"] = json!(risks);
    }
    if draw.chance(0.5) {
        let services = ["HTTP", "IPSEC", "OPENVPN", "PPTP", "SOCKS", "SOCKS5", "WIREGUARD"];
        body["services"] = json!(draw.some(&services, 1, 3));
    }
    if draw.chance(0.6) {
        body["client"] = client(network, draw);
    }
    if draw.chance(0.03) {
        body["ai"] = json!({"operator": "EXAMPLE_BOT", "types": ["SCRAPER"]});
    }
}

fn client(network: &Network, draw: &mut Draw) -> Value {
    let mut client = json!({
        "behaviors": draw.some(&["FILE_SHARING", "TOR_PROXY_USER"], 0, 2),
        "count": draw.skewed(5_000),
        "countries": draw.between(1, 30),
        "proxies": draw.some(&["LUMINATI_PROXY", "OXYLABS_PROXY", "SHIFTER_PROXY"], 0, 2),
        "spread": draw.skewed(44_364_550),
        "types": draw.some(&["DESKTOP", "HEADLESS", "IOT", "MOBILE"], 1, 3),
    });
    if draw.chance(0.6) {
        // A whole number comes without a decimal point.
        let density = if draw.chance(0.2) { json!(1) } else { json!(draw.between(1, 999) as f64 / 1000.0) };
        client["concentration"] = json!({
            "city": network.city,
            "country": network.country,
            "density": density,
            "geohash": draw.hex(3),
            "skew": draw.between(0, 9_000),
            "state": network.state,
        });
    }
    client
}

fn tunnel(ip: IpAddr, draw: &mut Draw) -> Value {
    let kind = *draw.pick(&["VPN", "VPN", "PROXY", "TOR"]);
    let mut tunnel = json!({"anonymous": draw.chance(0.8), "type": kind});
    if kind != "TOR" && draw.chance(0.8) {
        tunnel["operator"] = json!(draw.pick(&["MULLVAD_VPN", "NORD_VPN", "PROTON_VPN", "OXYLABS_PROXY"]));
    }
    let objects = draw.chance(0.3);
    for end in ["entries", "exits"] {
        if draw.chance(0.7) {
            tunnel[end] = (0..draw.between(1, 3))
                .map(|_| {
                    let near = neighbour(ip, draw);
                    if objects {
                        let network = networks::owner(ip);
                        json!({
                            "ip": near,
                            "location": {"country": network.country},
                            "as": {"number": network.asn, "organization": network.organization},
                        })
                    } else {
                        json!(near)
                    }
                })
                .collect();
        }
    }
    tunnel
}

fn neighbour(ip: IpAddr, draw: &mut Draw) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.{}", draw.between(1, 254))
        }
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            format!("{a:x}:{b:x}::{:x}", draw.between(1, 0xffff))
        }
    }
}
