//! Every kind of fault, as it reaches a client.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{json, Value};

use crate::client::{Client, Reply, HEADERS};

const PATH: &str = "/dshield/api/ip/45.9.1.1?json";

fn struck(client: &Client, fault: Value) -> Reply {
    order(client, fault);
    client.get(PATH)
}

fn order(client: &Client, mut fault: Value) {
    fault["service"] = json!("dshield");
    fault["count"] = json!(1);
    client.order("/control/fault", fault);
}

/// The end of a connection after one request, as the socket sees it.
fn raw_end(client: &Client) -> (String, std::io::Result<usize>) {
    let mut stream = TcpStream::connect(client.sandbox.address()).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    write!(stream, "GET {PATH} HTTP/1.1\r\nHost: sandbox\r\nUser-Agent: a@b\r\n\r\n").expect("request");
    let mut seen = Vec::new();
    let end = stream.read_to_end(&mut seen);
    (String::from_utf8_lossy(&seen).into_owned(), end)
}

#[test]
fn a_slow_answer_is_the_usual_one_but_later() {
    let client = Client::unlimited();
    let usual = client.get(PATH);
    let started = Instant::now();
    let slow = struck(&client, json!({"kind": "slow", "ms": 300}));
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(slow.body, usual.body);
    let stats = client.stats("dshield");
    assert_eq!((&stats["ok"], &stats["faulted"]), (&json!(2), &json!(1)));
}

#[test]
fn a_reset_breaks_the_connection_and_eof_ends_it_too_early() {
    let client = Client::unlimited();
    order(&client, json!({"kind": "reset"}));
    let (_, end) = raw_end(&client);
    assert_eq!(end.expect_err("reset").kind(), ErrorKind::ConnectionReset);
    order(&client, json!({"kind": "eof"}));
    let (seen, end) = raw_end(&client);
    end.expect("an orderly end");
    let (head, body) = seen.split_once("\r\n\r\n").expect("head");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse::<usize>().ok())
        .expect("length");
    assert!(!body.is_empty() && body.len() < length, "{} of {length}", body.len());
    for kind in ["reset", "eof"] {
        order(&client, json!({"kind": kind}));
        assert!(client.get_with(PATH, HEADERS).is_err(), "{kind}");
    }
    assert_eq!(client.get(PATH).status, 200, "the next request is served");
}

#[test]
fn pages_that_are_no_answer_come_with_status_200() {
    let client = Client::unlimited();
    let page = struck(&client, json!({"kind": "html_200"}));
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html") && page.body.starts_with('<'));
    let words = struck(&client, json!({"kind": "not_json"}));
    assert_eq!(words.status, 200);
    assert!(serde_json::from_str::<Value>(&words.body).is_err() && !words.body.starts_with('<'));
    let empty = struck(&client, json!({"kind": "empty_200"}));
    assert_eq!((empty.status, empty.body.as_str()), (200, ""));
    let cut = struck(&client, json!({"kind": "truncated_json"}));
    assert_eq!(cut.status, 200);
    assert!(cut.body.starts_with("{\"ip\""));
    assert!(serde_json::from_str::<Value>(&cut.body).is_err());
}

#[test]
fn a_429_tells_its_time_in_seconds_as_a_date_or_not_at_all() {
    let client = Client::unlimited();
    let seconds = struck(&client, json!({"kind": "retry_after_seconds", "n": 7}));
    assert_eq!((seconds.status, seconds.header("retry-after")), (429, "7"));
    let before = SystemTime::now();
    let date = struck(&client, json!({"kind": "retry_after_date", "n": 90}));
    assert_eq!(date.status, 429);
    let until = httpdate::parse_http_date(date.header("retry-after")).expect("date");
    let ahead = until.duration_since(before).expect("in the future");
    assert!((Duration::from_secs(89)..Duration::from_secs(95)).contains(&ahead), "{ahead:?}");
    let plain = struck(&client, json!({"kind": "429_plain"}));
    assert_eq!((plain.status, plain.header("retry-after")), (429, ""));
    assert_eq!(plain.body, "<title>429</title>429 Too Many Requests");
}

#[test]
fn a_status_a_wrong_key_and_a_redirect_come_as_ordered() {
    let client = Client::unlimited();
    let status = struck(&client, json!({"kind": "status", "status": 503}));
    assert_eq!(status.status, 503);
    assert_eq!(struck(&client, json!({"kind": "wrong_key"})).status, 403);
    let redirect = struck(&client, json!({"kind": "redirect", "to": "http://other.invalid/x"}));
    assert_eq!(redirect.status, 302);
    assert_eq!(redirect.header("location"), "http://other.invalid/x");
    let body = struck(&client, json!({"kind": "body", "status": 402, "body": "{\"plan\": 1}"}));
    assert_eq!((body.status, body.json()["plan"].as_i64()), (402, Some(1)));
}

#[test]
fn a_huge_body_is_as_large_as_ordered_and_a_compressed_one_is_small_on_the_wire() {
    let client = Client::unlimited();
    let huge = struck(&client, json!({"kind": "huge_body", "bytes": 3_000_000}));
    assert!(huge.body.len() >= 3_000_000);
    assert!(huge.json()["padding"].is_string());
    let bomb = json!({"kind": "huge_body", "bytes": 20_000_000, "gzip": true});
    let opened = struck(&client, bomb.clone());
    assert!(opened.json()["padding"].as_str().expect("text").len() == 20_000_000);
    order(&client, bomb);
    let (head, body) = client.raw(PATH, &[HEADERS[3]]);
    assert!(head.contains("content-encoding: gzip"), "{head}");
    assert!(body.len() < 200_000, "{} bytes", body.len());
}

#[test]
fn a_request_that_hangs_is_in_flight_until_its_client_gives_up() {
    let client = Client::unlimited();
    order(&client, json!({"kind": "hang"}));
    let mut stream = TcpStream::connect(client.sandbox.address()).expect("connect");
    write!(stream, "GET {PATH} HTTP/1.1\r\nHost: sandbox\r\nUser-Agent: a@b\r\n\r\n").expect("request");
    let wait_for_in_flight = |wanted: u64| {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let stats = client.stats("dshield");
            if stats["in_flight"] == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "waiting for {wanted}: {stats}");
            std::thread::yield_now();
        }
    };
    wait_for_in_flight(1);
    drop(stream);
    wait_for_in_flight(0);
}

#[test]
fn a_fault_strikes_only_its_key_and_only_so_often() {
    let client = Client::unlimited();
    client.order(
        "/control/fault",
        json!({"service": "spur", "key": "8.8.8.8", "kind": "status", "status": 500, "count": 2}),
    );
    let ask = |key: &str| client.get(&format!("/spur/v2/context/{key}")).status;
    assert_eq!([ask("9.9.9.9"), ask("8.8.8.8"), ask("8.8.8.8"), ask("8.8.8.8")], [200, 500, 500, 200]);
    assert_eq!(client.stats("spur")["faulted"], 2);
}
