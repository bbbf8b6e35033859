//! The client against a server on loopback.

use std::io::Write;
use std::net::TcpListener;

use flate2::{write::GzEncoder, Compression};

use super::test_server::{get, json, loopback, Reply, Seen, Server};
use super::{Client, ClientConfig};
use crate::core::classify::{Answer, TransportFailure, TransportKind};
use crate::core::request::Request;
use crate::core::secret::{Masks, Secret};
use crate::core::service::Method;

const MAX: u64 = 10_000;

fn client() -> Client {
    Client::new(loopback(), 2).unwrap()
}

fn fetched(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Result<Answer, TransportFailure> {
    client().fetch(&get(Server::start(reply).url("/v1/x?apikey=hunter2")), 5000, MAX)
}

fn kind(result: Result<Answer, TransportFailure>) -> TransportKind {
    let failure = result.unwrap_err();
    assert!(!failure.message.contains("hunter2") && !failure.message.contains("/v1/x"), "{}", failure.message);
    failure.kind
}

fn gzipped(body: &[u8]) -> impl Fn(&Seen) -> Reply {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    // once, before the call whose time is bounded begins
    let packed = encoder.finish().unwrap();
    move |_| Reply::Answer(200, "Content-Encoding: gzip\r\n".into(), packed.clone())
}

#[test]
fn a_call_brings_status_body_and_the_headers_that_matter() {
    let answer = fetched(|_| {
        let headers = "Content-Type: application/json; charset=utf-8\r\nRetry-After: 7\r\n";
        Reply::Answer(429, headers.into(), b"{\"a\":1}".to_vec())
    })
    .unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (429, b"{\"a\":1}".as_slice()));
    assert_eq!(answer.content_type.as_deref(), Some("application/json; charset=utf-8"));
    assert_eq!(answer.retry_after.as_deref(), Some("7"));
}

#[test]
fn method_path_headers_and_body_arrive_as_given() {
    let server = Server::start(|seen| json(&format!("{}|{}", seen.head.to_ascii_lowercase(), seen.body)));
    let post = Request {
        method: Method::Post,
        headers: vec![("X-Api-Key".into(), "k-1".into())],
        body: Some("hash=ab%26".into()),
        ..get(server.url("/q/2001:db8::1?a=%20b"))
    };
    let seen = String::from_utf8(client().fetch(&post, 5000, MAX).unwrap().body).unwrap();
    assert!(seen.starts_with("post /q/2001:db8::1?a=%20b http/1.1\r\n"), "{seen}");
    for line in ["x-api-key: k-1\r\n", "user-agent: test-agent/1\r\n", "accept-encoding: gzip\r\n"] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
    assert!(seen.ends_with("|hash=ab%26"), "{seen}");
}

#[test]
fn an_answer_that_repeats_the_secret_comes_without_it() {
    let server = Server::start(|_| {
        Reply::Answer(401, "X-Seen: the-s3cret\r\nX-Left: 7\r\n".into(), b"{\"bad\":\"the-s3cret\"}".to_vec())
    });
    let wants = ["x-seen", "x-left"].map(str::to_owned).into();
    let masks = Masks::of(Some(&Secret::new("the-s3cret")));
    let answer = client().fetch(&Request { wants, masks, ..get(server.url("/")) }, 5000, MAX).unwrap();
    assert_eq!((answer.body.as_slice(), answer.masked), (b"{\"bad\":\"***\"}".as_slice(), true));
    assert_eq!(answer.wanted, [("x-left".to_owned(), "7".to_owned())]);
}

#[test]
fn a_gzip_body_is_decompressed() {
    assert_eq!(fetched(gzipped(b"{\"b\":2}")).unwrap().body, b"{\"b\":2}");
}

#[test]
fn a_body_is_measured_after_decompression() {
    assert_eq!(kind(fetched(gzipped(&vec![b'x'; 50_000_000]))), TransportKind::TooLarge);
    assert_eq!(fetched(gzipped(&vec![b'x'; MAX as usize])).unwrap().body.len(), MAX as usize);
    assert_eq!(kind(fetched(gzipped(&vec![b'x'; MAX as usize + 1]))), TransportKind::TooLarge);
}

#[test]
fn a_plain_body_past_the_limit_is_refused_with_and_without_an_announced_length() {
    let over = vec![b'x'; MAX as usize + 1];
    let plain = over.clone();
    assert_eq!(kind(fetched(move |_| Reply::Answer(200, String::new(), plain.clone()))), TransportKind::TooLarge);
    let unannounced = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), over].concat();
    assert_eq!(kind(fetched(move |_| Reply::Raw(unannounced.clone()))), TransportKind::TooLarge);
}

#[test]
fn a_connection_closed_before_or_within_the_answer_is_a_reset() {
    assert_eq!(kind(fetched(|_| Reply::Raw(vec![]))), TransportKind::Reset);
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    assert_eq!(kind(fetched(move |_| Reply::Raw(cut.into()))), TransportKind::Reset);
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Encoding: gzip\r\n\r\n\u{1f}";
    assert_eq!(kind(fetched(move |_| Reply::Raw(cut.into()))), TransportKind::Reset);
}

#[test]
fn what_is_not_http_or_not_gzip_is_a_protocol_failure() {
    assert_eq!(kind(fetched(|_| Reply::Raw(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()))), TransportKind::Protocol);
    let wrong = |coding: &str, body: &str| Reply::Answer(200, format!("Content-Encoding: {coding}\r\n"), body.into());
    assert_eq!(kind(fetched(move |_| wrong("gzip", "{\"plain\":1}"))), TransportKind::Protocol);
    assert_eq!(kind(fetched(move |_| wrong("br", "{}"))), TransportKind::Protocol);
}

#[test]
fn silence_is_a_timeout_and_so_is_half_a_body() {
    let server = Server::start(|_| Reply::Hang);
    let failure = client().fetch(&get(server.url("/")), 150, MAX).unwrap_err();
    assert_eq!(failure.kind, TransportKind::Timeout);
    assert_eq!(failure.message, "no complete answer from 127.0.0.1 within 150 ms");
    assert!((100..5000).contains(&failure.latency_ms), "{} ms", failure.latency_ms);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let half = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").unwrap();
        stream
    });
    assert_eq!(kind(client().fetch(&get(url), 150, MAX)), TransportKind::Timeout);
    drop(half.join());
}

#[test]
fn a_port_nobody_listens_on_is_a_connect_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(kind(client().fetch(&get(url), 5000, MAX)), TransportKind::Connect);
}

#[test]
fn a_redirect_is_an_answer_and_is_not_followed_so_no_secret_goes_elsewhere() {
    for status in [301, 302, 303, 307, 308] {
        let target = Server::start(|_| json("{}"));
        let location = target.url("/elsewhere");
        let server = Server::start(move |_| Reply::Answer(status, format!("Location: {location}\r\n"), vec![]));
        let request = Request {
            method: Method::Post,
            headers: vec![("x-key".into(), "hunter2".into()), ("authorization".into(), "Bearer hunter2".into())],
            body: Some("key=hunter2".into()),
            ..get(server.url("/?key=hunter2"))
        };
        let answer = client().fetch(&request, 5000, MAX).unwrap();
        assert_eq!((answer.status, target.connections()), (status, 0));
    }
}

#[test]
fn without_permission_private_hosts_and_plain_http_are_refused_before_any_connection() {
    let server = Server::start(|_| json("{}"));
    let guarded = Client::new(ClientConfig { allow_private_hosts: false, ..loopback() }, 1).unwrap();
    let https = server.url("/v1/x?k=hunter2").replace("http:", "https:");
    for url in [server.url("/"), https.clone(), https.replace("127.0.0.1", "localhost")] {
        assert_eq!(kind(guarded.fetch(&get(url), 5000, MAX)), TransportKind::Egress);
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_name_that_does_not_exist_is_a_dns_failure() {
    let request = get("https://no-such-name.invalid/v1/x?k=hunter2".into());
    let failure = client().fetch(&request, 5000, MAX).unwrap_err();
    // where no name server answers at all, the time runs out first
    assert!([TransportKind::Dns, TransportKind::Timeout].contains(&failure.kind), "{failure:?}");
    assert!(failure.message.contains("no-such-name.invalid") && !failure.message.contains("hunter2"));
}

#[test]
fn a_header_with_a_line_end_is_refused_without_showing_its_value() {
    let server = Server::start(|_| json("{}"));
    let headers = vec![("X-Key".to_owned(), "hunter2\r\nX-Injected: 1".to_owned())];
    assert_eq!(kind(client().fetch(&Request { headers, ..get(server.url("/")) }, 5000, MAX)), TransportKind::Protocol);
    assert_eq!(server.connections(), 0);
}

#[test]
fn calls_go_through_the_proxy_even_when_it_stands_on_a_private_address() {
    let proxy = Server::start(|_| Reply::Raw(b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec()));
    let config = ClientConfig { allow_private_hosts: false, http_proxy: Some(proxy.url("")), ..loopback() };
    let through = Client::new(config, 1).unwrap();
    assert_eq!(kind(through.fetch(&get("https://api.example.com/v1/x".into()), 5000, MAX)), TransportKind::Connect);
    assert_eq!(proxy.connections(), 1);
    assert_eq!(kind(through.fetch(&get("https://10.0.0.1/v1/x".into()), 5000, MAX)), TransportKind::Egress);
    assert_eq!(proxy.connections(), 1);
}
