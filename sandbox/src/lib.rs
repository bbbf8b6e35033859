//! Threat-intelligence providers on loopback: their shapes, their limits, their bad days.
//!
//! A service's URL is used by replacing scheme and host with `http://127.0.0.1:PORT/PREFIX`:
//!
//! | path | key by |
//! |---|---|
//! | `GET /virustotal/api/v3/files/{md5, sha1 or sha256}` | header `x-apikey` |
//! | `GET /virustotal/api/v3/ip_addresses/{ip}` | header `x-apikey` |
//! | `GET /virustotal/api/v3/users/{id}/overall_quotas` | header `x-apikey`; costs no quota |
//! | `GET /dshield/api/ip/{ip}?json` | a User-Agent with an `@` (a contact) |
//! | `POST /urlhaus/v1/host/` with form `host=` | header `Auth-Key` |
//! | `POST /urlhaus/v1/payload/` with form `sha256_hash=` or `md5_hash=` | header `Auth-Key` |
//! | `GET /spur/v2/context/{ip}`, `GET /spur/status` | header `Token` |
//! | `GET /hibp/range/{5 hex digits}[?mode=ntlm]` | any User-Agent; `Add-Padding: true`, `If-None-Match`, `If-Modified-Since` |
//! | `GET /greynoise/v3/community/{ipv4}` | header `key`, or none |
//! | `GET /abuseipdb/api/v2/check?ipAddress={ip}&maxAgeInDays={1 to 365}` | header `Key`; `Accept: application/json` |
//! | `GET /internetdb/{ip}` | |
//!
//! The accepted keys are `sandbox-virustotal-key`, `sandbox-urlhaus-key`, `sandbox-spur-key`, `sandbox-greynoise-key` and
//! `sandbox-abuseipdb-key`.
//! An answer depends on the key alone ([`draw`]), so it is the same in every run; only limits, faults,
//! Spur's balance and the quota page have a memory.
//!
//! # The program
//!
//! It prints `listening on 127.0.0.1:PORT` when it is ready. `--port N` (0 picks a free one), `--limits real|none`,
//! `--limit service=N/second|minute|hour|day` (repeatable, in place of the service's own), `--latency-ms N`,
//! `--spur-balance N`, `--urlhaus-found SHARE`, `--virustotal-key`, `--urlhaus-key`, `--spur-key`, `--log` (one line per
//! request), `--die-with-stdin`. It ends at SIGTERM and SIGINT at once, without waiting for requests.
//!
//! # The control API
//!
//! | request | body or answer |
//! |---|---|
//! | `GET /control/health` | `{"status":"ok"}` |
//! | `GET /control/stats` | per service: `requests`, `ok`, `limited`, `unauthorized`, `not_found`, `bad_request`, `faulted`, `in_flight`, `max_in_flight`, `connections`, `by_key` |
//! | `GET /control/calls/{service}` | when each request arrived and for which key: `[[microseconds since 1970, key], …]` |
//! | `POST /control/reset` | clears counters, faults, windows of calls and Spur's spending; limits and latency stay as set |
//! | `GET /control/expect/{service}/{key}` | `{"outcome":"success"\|"not_found"\|"invalid","flagged":bool}`; Spur adds `minimal`, HIBP with a full SHA-1 `prevalence` |
//! | `POST /control/fault` | an [`faults::Order`]: `{"service":"dshield"\|"*","key":…,"count":…,"share":…,"kind":…}`; answers `{"id":n}` |
//! | `GET /control/fault`, `DELETE /control/fault`, `DELETE /control/fault/{id}` | the orders that stand; cancels all; cancels one |
//! | `POST /control/limits` | `{"service":…,"max":n,"per":"second"\|"minute"\|"hour"\|"day"\|null}`; null lifts all limits of the service |
//! | `GET /control/limits` | the limits in force |
//! | `POST /control/tell_limits` | `{"service":…}`: each answer says in `X-RateLimit` headers what is left of the first limit |
//! | `POST /control/latency` | `{"service":…,"ms":n}` |
//! | `POST /control/spur_balance` | `{"queries":n}` |
//!
//! Kinds of faults: `slow` (`ms`), `reset`, `eof`, `html_200`, `wrong_key`, `status` (`status`), `retry_after_seconds` (`n`),
//! `retry_after_date` (`n`), `429_plain`, `huge_body` (`bytes`, `gzip`), `redirect` (`to`), `truncated_json`, `not_json`, `empty_200`, `body` (`status`, `body`),
//! `hang`. Of several that fit, the one ordered first strikes. A fault strikes before key and limit are looked at.

pub mod abuseipdb;
pub mod answer;
pub mod app;
pub mod control;
pub mod draw;
pub mod dshield;
mod fault_answers;
pub mod faults;
pub mod greynoise;
pub mod hibp;
pub mod internetdb;
pub mod limits;
pub mod networks;
pub mod passwords;
pub mod provider;
pub mod server;
pub mod socket;
pub mod spur;
pub mod stats;
pub mod urlhaus;
pub mod virustotal;
mod virustotal_address;
mod virustotal_engines;
mod virustotal_file;
pub mod visit;

pub use app::Settings;
pub use server::Sandbox;
