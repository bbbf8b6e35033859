//! Test support: a tiny HTTP/1.1 server on loopback, a scratch directory, a service to call.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use super::ClientConfig;
use crate::core::key::{Key, KeyForm, KeyKind};
use crate::core::request::Request;
use crate::core::rules::Rules;
use crate::core::secret::Masks;
use crate::core::service::{Method, ResponseFormat, Service};

/// What the server does with a request.
pub(super) enum Reply {
    /// Status, extra header lines, body.
    Answer(u16, String, Vec<u8>),
    /// Bytes sent as they are, then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, until the client goes away.
    Hang,
}

/// A request as it came: the request line and the header lines, and the body.
pub(super) struct Seen {
    pub(super) head: String,
    pub(super) body: String,
}

pub(super) struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(super) fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, reply) = (connections.clone(), Arc::new(reply));
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let reply = reply.clone();
                thread::spawn(move || converse(stream.unwrap(), &*reply));
            }
        });
        Server { port, connections }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A 200 with a JSON body.
pub(super) fn json(body: &str) -> Reply {
    Reply::Answer(200, "Content-Type: application/json\r\n".into(), body.into())
}

fn converse(mut stream: TcpStream, reply: &dyn Fn(&Seen) -> Reply) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(seen) = read_request(&mut reader) {
        let bytes = match reply(&seen) {
            Reply::Answer(status, headers, body) => {
                let head = format!("HTTP/1.1 {status} Told\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
                [head.into_bytes(), body].concat()
            }
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                return;
            }
            Reply::Hang => {
                let _ = reader.read(&mut [0; 1]);
                return;
            }
        };
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

pub(super) fn read_request(reader: &mut impl BufRead) -> Option<Seen> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { head, body: String::from_utf8(body).unwrap() })
}

/// Settings under which the server above may be called.
pub(super) fn loopback() -> ClientConfig {
    ClientConfig { user_agent: "test-agent/1".into(), allow_private_hosts: true, ca_file: None, http_proxy: None }
}

pub(super) fn get(url: String) -> Request {
    Request { method: Method::Get, url, headers: vec![], body: None, wants: vec![], masks: Masks::default() }
}

pub(super) fn service(timeout_ms: u32) -> Service {
    Service {
        name: "sample".into(),
        enabled: true,
        key_kind: KeyKind::Text,
        method: Method::Get,
        url: String::new(),
        headers: vec![],
        body: None,
        secret_name: None,
        secret_required: false,
        response_format: ResponseFormat::Json,
        ttl: 0,
        not_found_ttl: 0,
        stale_ttl: 0,
        limits: vec![],
        max_in_flight: 100,
        timeout_ms,
        max_bytes: 10_000,
        rules: Rules::parse("{}").unwrap(),
    }
}

pub(super) fn key(text: &str) -> Key {
    Key { text: text.into(), form: KeyForm::Text }
}

/// A directory of its own, removed in the end.
pub(super) struct ScratchDir(PathBuf);

impl ScratchDir {
    pub(super) fn new(what: &str) -> ScratchDir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("enrichment-{what}-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        ScratchDir(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
