//! One HTTP call: guarded, bounded in time and size, redirects not followed, every status an answer.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::{self, header, HeaderMap, HeaderName, HeaderValue, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy};

use super::config::ClientConfig;
use super::egress::{self, Guard, Refused};
use super::{failure, trust};
use crate::core::classify::{Answer, TransportFailure, TransportKind};
use crate::core::request::Request;
use crate::core::service::Method;

/// An idle connection is kept this long: below the 60 s after which middle boxes forget a connection in silence.
const MAX_IDLE_AGE: Duration = Duration::from_secs(30);
/// The status line and all headers of an answer, in bytes.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Per connection; the largest header of a request must fit the second.
const INPUT_BUFFER: usize = 64 * 1024;
const OUTPUT_BUFFER: usize = 16 * 1024;
/// Services have few distinct timeouts; past this the agents are made anew.
const MAX_AGENTS: usize = 64;

/// A client shared by the threads of the pool, with its idle connections.
pub struct Client {
    config: ClientConfig,
    proxy: Option<Proxy>,
    roots: Arc<Vec<Certificate<'static>>>,
    idle_connections: usize,
    /// One agent for each timeout in milliseconds: a timeout set on the request instead would make the library
    /// build its TLS settings anew for each connection and never resume a session.
    agents: Mutex<HashMap<u32, Agent>>,
}

impl Client {
    /// Reads the certificate authorities; makes no connection. `threads` is how many calls run at the same time.
    ///
    /// # Errors
    /// `InvalidInput` for a proxy or user agent that is not valid; any error of reading `ca_file`.
    pub fn new(config: ClientConfig, threads: usize) -> io::Result<Self> {
        config.check_user_agent()?;
        let proxy = config.proxy()?;
        let roots = Arc::new(trust::roots(config.ca_file.as_deref())?);
        Ok(Client { config, proxy, roots, idle_connections: threads.max(1), agents: Mutex::default() })
    }

    /// Makes the call. `timeout_ms` bounds all of it, from the name to the last byte; `max_bytes` the body after
    /// decompression. An HTTP status of any kind is an answer.
    ///
    /// # Errors
    /// Why there is no answer; the message holds neither the URL's path and query nor any header.
    pub fn fetch(&self, request: &Request, timeout_ms: u32, max_bytes: u64) -> Result<Answer, TransportFailure> {
        let started = Instant::now();
        let elapsed = || u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
        match self.call(request, timeout_ms, max_bytes) {
            Ok(answer) => Ok(Answer { latency_ms: elapsed(), ..answer }),
            Err(Refused { kind, message }) => Err(TransportFailure { kind, message, latency_ms: elapsed() }),
        }
    }

    /// Ends the calls under way, which then fail. A name lookup or a connect under way is not interrupted.
    pub(super) fn interrupt(&self) {
        let agents = std::mem::take(&mut *self.agents.lock().unwrap_or_else(PoisonError::into_inner));
        agents.into_values().for_each(Agent::shutdown);
    }

    fn call(&self, request: &Request, timeout_ms: u32, max_bytes: u64) -> Result<Answer, Refused> {
        let uri: Uri = request.url.parse().map_err(|_| broken("the url of the request is not valid"))?;
        egress::check(&uri, self.config.allow_private_hosts, self.proxy.is_some())?;
        let host = uri.host().unwrap_or_default().to_owned();
        if self.roots.is_empty() && uri.scheme_str() == Some("https") {
            let message = "this system has no certificate authorities; name a CA file".to_owned();
            return Err(Refused { kind: TransportKind::Tls, message });
        }
        let explain = |error| {
            let proxy = self.proxy.as_ref().map(|proxy| format!("{}:{}", proxy.host(), proxy.port()));
            failure::explain(error, &host, proxy.as_deref(), timeout_ms, max_bytes)
        };
        let response = self.send(request, uri, timeout_ms)?.map_err(explain)?;
        let status = response.status().as_u16();
        let headers = response.headers();
        if let Some(coding) = text(headers, header::CONTENT_ENCODING).filter(|coding| coding != "identity") {
            return Err(broken(&format!("{host} answers in the content coding {coding}, which was not asked for")));
        }
        let (content_type, retry_after) = (text(headers, header::CONTENT_TYPE), text(headers, header::RETRY_AFTER));
        let wanted =
            request.wants.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.to_str().ok()?.to_owned())));
        let wanted = wanted.filter(|(_, value)| !request.masks.are_in(value)).collect();
        let body = read_body(response.into_body(), max_bytes).map_err(explain)?;
        let (body, masked) = request.masks.mask(body);
        let conditional = request.is_conditional();
        Ok(Answer { status, body, content_type, retry_after, wanted, conditional, masked, latency_ms: 0 })
    }

    fn send(&self, request: &Request, uri: Uri, timeout_ms: u32) -> Result<Sent, Refused> {
        let mut http = http::Request::builder().method(request.method.as_str()).uri(uri);
        for (name, value) in &request.headers {
            let (Ok(known), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
                return Err(broken(&format!("the header {name} or its value is not valid")));
            };
            value.set_sensitive(true);
            http = http.header(known, value);
        }
        let agent = self.agent(timeout_ms);
        let invalid = |_| broken("the request is not valid HTTP");
        match (&request.body, request.method) {
            (None, Method::Get) => Ok(agent.run(http.body(()).map_err(invalid)?)),
            (body, _) => Ok(agent.run(http.body(body.as_deref().unwrap_or_default()).map_err(invalid)?)),
        }
    }

    fn agent(&self, timeout_ms: u32) -> Agent {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if agents.len() >= MAX_AGENTS && !agents.contains_key(&timeout_ms) {
            agents.clear();
        }
        agents.entry(timeout_ms).or_insert_with(|| self.new_agent(timeout_ms)).clone()
    }

    fn new_agent(&self, timeout_ms: u32) -> Agent {
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(self.roots.clone())).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!self.config.allow_private_hosts)
            .max_redirects(0)
            // set even when there is none: the default takes one from the environment
            .proxy(self.proxy.clone())
            .tls_config(tls)
            .user_agent(&self.config.user_agent)
            .timeout_global(Some(Duration::from_millis(timeout_ms.into())))
            .max_response_header_size(MAX_HEADER_BYTES)
            .input_buffer_size(INPUT_BUFFER)
            .output_buffer_size(OUTPUT_BUFFER)
            .max_idle_connections(self.idle_connections)
            .max_idle_connections_per_host(self.idle_connections)
            .max_idle_age(MAX_IDLE_AGE)
            .build();
        let guard = Guard {
            allow_private: self.config.allow_private_hosts,
            proxy: self.proxy.as_ref().and_then(|proxy| proxy.uri().authority().cloned()),
            system: DefaultResolver::default(),
        };
        Agent::with_parts(config, DefaultConnector::default(), guard)
    }
}

type Sent = Result<http::Response<Body>, ureq::Error>;

fn broken(why: &str) -> Refused {
    Refused { kind: TransportKind::Protocol, message: why.to_owned() }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The body after decompression; a larger one is not read to its end.
fn read_body(body: Body, max_bytes: u64) -> Result<Vec<u8>, ureq::Error> {
    let too_large = || ureq::Error::BodyExceedsLimit(max_bytes);
    if body.content_length().is_some_and(|announced| announced > max_bytes) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    body.into_reader().take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max_bytes {
        true => Err(too_large()),
        false => Ok(bytes),
    }
}
