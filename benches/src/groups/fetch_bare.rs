//! A client that makes the same calls with the same HTTP library and pool, and drops the answers.

use crate::Result;
use enrichment_cache::core::classify::{Cause, Outcome};
use enrichment_cache::core::key::{normalise, KeyKind};
use enrichment_cache::core::request::build;
use enrichment_cache::core::rules::Rules;
use enrichment_cache::core::service::{Method, ResponseFormat, Service};
use enrichment_cache::io::pool::Performed;
use enrichment_cache::io::{ClientConfig, Job, Pool};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// With a contact, as the worker's own: the provider refuses others.
const AGENT: &str = "enrichment_cache (tests@example.org)";
const LOOK: Duration = Duration::from_millis(1);
const WITHIN: Duration = Duration::from_secs(300);

/// The pool and what it asks.
pub struct Client {
    pool: Pool,
    service: Arc<Service>,
}

impl Client {
    /// With so many threads, which come with the first calls.
    ///
    /// # Errors
    /// As [`Pool::start`].
    pub fn start(base_url: &str, threads: usize) -> Result<Self> {
        let config = ClientConfig {
            user_agent: "enrichment_cache".to_string(),
            allow_private_hosts: true,
            ..ClientConfig::default()
        };
        let pool = Pool::start_with(threads, config, throw_away)?;
        let service = Service {
            name: "dshield".to_string(),
            enabled: true,
            key_kind: KeyKind::Ip,
            method: Method::Get,
            url: format!("{base_url}/dshield/api/ip/{{key}}?json"),
            headers: vec![("user-agent".to_string(), AGENT.to_string())],
            body: None,
            secret_name: None,
            secret_required: false,
            response_format: ResponseFormat::Json,
            ttl: 0,
            not_found_ttl: 0,
            stale_ttl: 0,
            limits: Vec::new(),
            max_in_flight: 1000,
            timeout_ms: 30_000,
            max_bytes: 1 << 20,
            rules: Rules::default(),
        };
        Ok(Self { pool, service: Arc::new(service) })
    }

    /// Makes so many calls; the rate. The requests are ready before.
    ///
    /// # Errors
    /// When a call fails.
    pub fn run(&mut self, requests: u64) -> Result<f64> {
        let jobs: Result<Vec<Job>> = (0..requests).map(|n| self.job(n)).collect();
        let jobs = jobs?;
        let began = Instant::now();
        jobs.into_iter().for_each(|job| self.pool.submit(job));
        let mut answered = 0;
        while answered < requests {
            for done in self.pool.drain() {
                // a refusal is quicker than an answer
                if done.status_code != Some(200) {
                    return Err(format!("the bare client: {:?} {:?}", done.status_code, done.outcome).into());
                }
                answered += 1;
            }
            if began.elapsed() > WITHIN {
                return Err("the bare client does not come to its end".into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(requests as f64 / began.elapsed().as_secs_f64())
    }

    fn job(&self, n: u64) -> Result<Job> {
        let address = std::net::Ipv4Addr::from(0x0808_0000 + n as u32).to_string();
        let key = normalise(KeyKind::Ip, &address).map_err(|problem| problem.why)?;
        let request = build(&self.service, &key, None, "enrichment_cache", None)?;
        Ok(Job { id: n as i64, service: self.service.clone(), key, request, usage: false })
    }
}

/// The call and nothing else.
fn throw_away(job: &Job, client: &enrichment_cache::io::Client) -> Performed {
    let answer = client.fetch(&job.request, job.service.timeout_ms, job.service.max_bytes);
    Performed {
        outcome: Outcome::NotFound,
        cause: Cause::Status(404),
        status_code: answer.as_ref().ok().map(|answer| answer.status),
        failed_at: None,
        latency_ms: 0,
        retry_after: None,
        reports: Vec::new(),
    }
}
