//! The sandbox providers as a process of their own, and their control interface.

use crate::clock::Clock;
use serde_json::{json, Value};
use std::borrow::Borrow;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const PROGRAM: &str = "enrichment-sandbox";
const UP_WITHIN: Duration = Duration::from_secs(30);
const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);

/// Running sandbox providers; they end with this value, or with this program however it ends.
pub struct Sandbox {
    child: Child,
    base_url: String,
    agent: ureq::Agent,
}

impl Sandbox {
    /// Starts them with these arguments on a free port of 127.0.0.1; returns once they listen.
    ///
    /// # Panics
    /// When they do not come up.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        match Self::try_start(arguments) {
            Ok(sandbox) => sandbox,
            Err(why) => panic!("{why}"),
        }
    }

    /// As [`Sandbox::start`], going by this clock. Their own limits go by the real time all the same.
    ///
    /// # Panics
    /// When they do not come up.
    #[track_caller]
    pub fn start_by(clock: &Clock, arguments: &[&str]) -> Self {
        Self::launch(arguments, clock.environment()).unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`Sandbox::start`], for callers that have something better to do than to panic.
    ///
    /// # Errors
    /// When the program is missing, or does not listen within 30 seconds.
    pub fn try_start(arguments: &[&str]) -> Result<Self, String> {
        Self::launch(arguments, Vec::new())
    }

    fn launch(arguments: &[&str], environment: Vec<(String, String)>) -> Result<Self, String> {
        let program = program();
        let mut child = Command::new(&program)
            .arg("--die-with-stdin")
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| format!("cannot run {}: {why}", program.display()))?;
        match address(&mut child) {
            Ok(address) => {
                let config = ureq::Agent::config_builder()
                    .timeout_global(Some(CONTROL_TIMEOUT))
                    .proxy(None)
                    .http_status_as_error(false)
                    .build();
                Ok(Self { child, base_url: format!("http://{address}"), agent: config.into() })
            }
            Err(why) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("{PROGRAM} {}: {why}", arguments.join(" ")))
            }
        }
    }

    /// `http://127.0.0.1:<port>`, without a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// What was asked and how it was answered, by provider.
    #[track_caller]
    pub fn stats(&self) -> Value {
        self.get("/control/stats")
    }

    /// When each request to a provider arrived, in microseconds since 1970, and for which key.
    #[track_caller]
    pub fn calls(&self, service: &str) -> Vec<(i64, String)> {
        match serde_json::from_value(self.get(&format!("/control/calls/{service}"))) {
            Ok(calls) => calls,
            Err(why) => panic!("the sandbox does not say when it was asked: {why}"),
        }
    }

    /// Orders a fault; returns its number.
    #[track_caller]
    pub fn fault(&self, order: impl Borrow<Value>) -> u64 {
        let answer = self.post("/control/fault", order.borrow());
        match answer["id"].as_u64() {
            Some(id) => id,
            None => panic!("the sandbox gave the fault no number: {answer}"),
        }
    }

    /// Takes back every fault.
    #[track_caller]
    pub fn clear_faults(&self) {
        self.obey(self.agent.delete(self.url("/control/fault")).call());
    }

    /// Forgets counters, faults and calls made; limits and latency stay as they were set.
    #[track_caller]
    pub fn reset(&self) {
        self.post("/control/reset", &json!({}));
    }

    /// Replaces the limits of a provider (or `*`) by one; `per` is `second`, `minute`, `hour` or `day`.
    #[track_caller]
    pub fn set_limit(&self, service: &str, max: u32, per: &str) {
        self.post("/control/limits", &json!({ "service": service, "max": max, "per": per }));
    }

    /// Lets a provider (or `*`) answer as often as it is asked.
    #[track_caller]
    pub fn lift_limit(&self, service: &str) {
        self.post("/control/limits", &json!({ "service": service }));
    }

    /// Has a provider (or `*`) say in `X-RateLimit` headers of each answer what is left of its limit.
    #[track_caller]
    pub fn tell_limits(&self, service: &str) {
        self.post("/control/tell_limits", &json!({ "service": service }));
    }

    /// Milliseconds a provider (or `*`) takes for every answer.
    #[track_caller]
    pub fn set_latency(&self, service: &str, milliseconds: u64) {
        self.post("/control/latency", &json!({ "service": service, "ms": milliseconds }));
    }

    /// How many queries Spur has left for the token.
    #[track_caller]
    pub fn set_spur_balance(&self, queries: i64) {
        self.post("/control/spur_balance", &json!({ "queries": queries }));
    }

    /// What the provider would answer to this key.
    #[track_caller]
    pub fn expect(&self, service: &str, key: &str) -> Value {
        self.get(&format!("/control/expect/{service}/{}", path_segment(key)))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        self.obey(self.agent.get(self.url(path)).call())
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.obey(self.agent.post(self.url(path)).send_json(body))
    }

    #[track_caller]
    fn obey(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
        let answered = answer.and_then(|mut answer| Ok((answer.status(), answer.body_mut().read_to_string()?)));
        match answered {
            Ok((status, text)) if status.is_success() => serde_json::from_str(&text).unwrap_or(Value::Null),
            Ok((status, text)) => panic!("the sandbox does not obey: {status} {text}"),
            Err(why) => panic!("the sandbox at {} does not answer: {why}", self.base_url),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `ENRICHMENT_SANDBOX`, or the one built beside the running program, or the workspace's.
fn program() -> PathBuf {
    if let Some(given) = std::env::var_os("ENRICHMENT_SANDBOX").filter(|given| !given.is_empty()) {
        return given.into();
    }
    let running = std::env::current_exe().unwrap_or_default();
    running
        .ancestors()
        .skip(1)
        .take(3)
        .map(|directory| directory.join(PROGRAM))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| crate::place::workspace().join("target/debug").join(PROGRAM))
}

/// RFC 3986, section 3.3: everything but the unreserved characters is escaped.
fn path_segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Reads the program's output up to the line that tells where it listens, and the rest in a
/// thread, so that it never waits for a reader.
fn address(child: &mut Child) -> Result<String, String> {
    let output = child.stdout.take().ok_or("it has no output")?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("listening on ") {
                let _ = tell.send(address.trim().to_string());
            }
        }
    });
    told.recv_timeout(UP_WITHIN).map_err(|_| "it does not say where it listens".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_one_segment_of_a_path() {
        assert_eq!(path_segment("2001:db8::1/64 é"), "2001%3Adb8%3A%3A1%2F64%20%C3%A9");
    }
}
