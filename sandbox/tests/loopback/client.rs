//! A sandbox of its own for each test, and a client that follows nothing and raises nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use enrichment_sandbox::{Sandbox, Settings};
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

/// The accepted keys and an agent with a contact.
pub const HEADERS: &[(&str, &str)] = &[
    ("x-apikey", "sandbox-virustotal-key"),
    ("auth-key", "sandbox-urlhaus-key"),
    ("token", "sandbox-spur-key"),
    ("user-agent", "enrichment-sandbox-tests (someone@example.org)"),
];

/// A sandbox and a client for it.
pub struct Client {
    pub sandbox: Sandbox,
    pub agent: Agent,
}

/// What came back, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("header text"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Client {
    /// Without limits.
    pub fn unlimited() -> Self {
        Self::with(Settings { real_limits: false, ..Settings::default() })
    }

    pub fn with(settings: Settings) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        Client { sandbox: Sandbox::start(settings).expect("sandbox"), agent }
    }

    /// GET with good keys.
    pub fn get(&self, path: &str) -> Reply {
        self.get_with(path, HEADERS).expect("answer")
    }

    /// GET with just these headers.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Reply, ureq::Error> {
        let mut request = self.agent.get(self.sandbox.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(request.call()?)
    }

    /// GET over a socket of its own: head and body as they come over the wire.
    pub fn raw(&self, path: &str, headers: &[(&str, &str)]) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.sandbox.address()).expect("connect");
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n{headers}\r\n").expect("request");
        let mut wire = Vec::new();
        stream.read_to_end(&mut wire).expect("answer");
        let end = wire.windows(4).position(|four| four == b"\r\n\r\n").expect("head");
        let body = wire.split_off(end + 4);
        (String::from_utf8(wire).expect("head is text"), body)
    }

    /// POST of a form with good keys.
    pub fn form(&self, path: &str, field: &str, value: &str) -> Reply {
        self.form_with(path, field, value, HEADERS)
    }

    /// POST of a form with just these headers.
    pub fn form_with(&self, path: &str, field: &str, value: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = self.agent.post(self.sandbox.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send_form([(field, value)]).expect("answer");
        read(answer).expect("body")
    }

    /// POST of JSON to the control API; it must be taken.
    pub fn order(&self, path: &str, body: Value) -> Value {
        let reply = self.order_text(path, &body.to_string());
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    pub fn order_text(&self, path: &str, body: &str) -> Reply {
        let answer = self.agent.post(self.sandbox.url(path)).send(body);
        read(answer.expect("answer")).expect("body")
    }

    pub fn stats(&self, service: &str) -> Value {
        self.get("/control/stats").json()[service].clone()
    }
}

fn read(mut answer: Response<Body>) -> Result<Reply, ureq::Error> {
    Ok(Reply {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        body: answer.body_mut().with_config().limit(64 << 20).read_to_string()?,
    })
}
