//! What can be wrong with what a user asks: one enum, its words, what to do about it.

use std::fmt;

/// A request that cannot be served. The SQLSTATE of each is given in `pg::error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A service name that stands in no row of `enrichment_service`.
    UnknownService {
        name: String,
        known: Vec<String>,
    },
    /// A key that cannot be one of the service's kind; `key` is shortened to 60 characters.
    KeyNotValid {
        service: String,
        kind: &'static str,
        key: String,
        why: String,
    },
    /// A well-formed key that is never sent to a provider.
    KeyNotEligible {
        service: String,
        key: String,
        why: String,
    },
    /// Sizes in bytes.
    PayloadTooLarge {
        size: u64,
        limit: u64,
    },
    NegativeTtl {
        given: String,
    },
    InvalidStatus {
        given: String,
    },
    /// A payload together with a status that never has one.
    StatusWithPayload {
        status: String,
    },
    /// No payload together with a status that needs one.
    PayloadMissing {
        status: String,
    },
    InvalidRules {
        service: String,
        why: String,
    },
    /// Something that needs the library in `shared_preload_libraries`.
    NotPreloaded {
        what: &'static str,
    },
    /// Something that needs a worker, on a standby.
    InRecovery {
        what: &'static str,
    },
    NoSuchColumn {
        relation: String,
        column: String,
    },
    /// `kind` says what the relation is instead.
    NotATable {
        relation: String,
        kind: String,
    },
    /// The queue holds `length` requests and may hold `limit`; `added` for this service would pass that.
    QueueFull {
        service: String,
        limit: i64,
        length: i64,
        added: i64,
    },
    /// A text that is not JSON or cannot be made fit for `jsonb`.
    Json {
        why: String,
    },
    /// An argument outside its range, in its own words.
    InvalidArgument {
        message: String,
        hint: String,
    },
    /// The extension is not (or no longer) in this database.
    NotInstalled,
    /// No worker serves this database at the moment.
    NotServed {
        why: String,
    },
    /// As many sessions wait for answers as shared memory has places for.
    TooManyWaiting {
        places: usize,
    },
    /// The system gives the server no further thread, or the one it gave broke down.
    NoThread {
        why: String,
    },
    /// A statement of ours that failed inside PostgreSQL.
    Statement {
        sqlstate: String,
        message: String,
    },
    /// Anything said in its own words.
    Other {
        message: String,
        detail: Option<String>,
        hint: Option<String>,
    },
}

/// The statuses of `enrichment_cache.response_status`.
pub const STATUSES: [&str; 6] = ["success", "not_found", "error", "rate_limited", "unauthorized", "invalid"];

impl Error {
    /// An error in its own words.
    pub fn other(message: impl Into<String>) -> Self {
        Error::Other { message: message.into(), detail: None, hint: None }
    }

    /// The primary message: lower case, no period.
    pub fn message(&self) -> String {
        match self {
            Error::UnknownService { name, .. } => format!("unknown service \"{name}\""),
            Error::KeyNotValid { service, kind, key, .. } => {
                format!("key \"{key}\" is not a valid {} for service \"{service}\"", spoken(kind))
            }
            Error::KeyNotEligible { service, key, .. } => {
                format!("key \"{key}\" is not eligible for service \"{service}\"")
            }
            Error::PayloadTooLarge { size, limit } => {
                format!("payload of {size} bytes exceeds the limit of {limit} bytes")
            }
            Error::NegativeTtl { given } => format!("ttl must not be negative: {given}"),
            Error::InvalidStatus { given } => format!("invalid response status \"{given}\""),
            Error::StatusWithPayload { status } => format!("a response of status \"{status}\" has no payload"),
            Error::PayloadMissing { status } => format!("a response of status \"{status}\" needs a payload"),
            Error::InvalidRules { service, .. } => format!("invalid rules for service \"{service}\""),
            Error::NotPreloaded { what } => format!("{what} needs enrichment_cache in shared_preload_libraries"),
            Error::InRecovery { what } => format!("{what} cannot ask a provider while the server is in recovery"),
            Error::NoSuchColumn { relation, column } => {
                format!("column \"{column}\" of relation \"{relation}\" does not exist")
            }
            Error::NotATable { relation, kind } => format!("\"{relation}\" is a {kind}, not a table"),
            Error::QueueFull { service, .. } => format!("the queue has no room for requests to service \"{service}\""),
            Error::Json { .. } => "text is not valid json".to_owned(),
            Error::InvalidArgument { message, .. } => message.clone(),
            Error::NotInstalled => "extension \"enrichment_cache\" is not installed in this database".to_owned(),
            Error::NotServed { .. } => "no enrichment worker serves this database".to_owned(),
            Error::TooManyWaiting { places } => format!("more than {places} sessions wait for answers of providers"),
            Error::NoThread { .. } => "files cannot be used without a thread".to_owned(),
            Error::Statement { message, .. } => message.clone(),
            Error::Other { message, .. } => message.clone(),
        }
    }

    /// What exactly is wrong, where the message does not say it all.
    pub fn detail(&self) -> Option<String> {
        match self {
            Error::KeyNotValid { why, .. } => Some(sentence(&format!("The key {why}"))),
            Error::KeyNotEligible { why, .. } => Some(sentence(&format!("The key is {why}"))),
            Error::InvalidRules { why, .. } | Error::Json { why } | Error::NotServed { why } | Error::NoThread { why } => Some(sentence(why)),
            Error::Statement { sqlstate, .. } => Some(format!("SQLSTATE {sqlstate}.")),
            Error::QueueFull { limit, length, added, .. } => Some(format!(
                "It holds {length} requests and may hold {limit} (enrichment_cache.max_queue); {added} more were asked for."
            )),
            Error::Other { detail, .. } => detail.clone(),
            _ => None,
        }
    }

    /// What to do about it, as a sentence.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::UnknownService { known, .. } if known.is_empty() => {
                "No service is registered; insert one into enrichment_service.".to_owned()
            }
            Error::UnknownService { name, known } => match closest(name, known) {
                Some(near) => format!("Perhaps you meant \"{near}\". Known services: {}.", known.join(", ")),
                None => format!("Known services: {}.", known.join(", ")),
            },
            Error::KeyNotValid { kind, .. } => format!("Give {}.", expected(kind)),
            Error::KeyNotEligible { .. } => {
                "Only public addresses and names are sent to a provider; store an answer with enrich_store if you have one."
                    .to_owned()
            }
            Error::PayloadTooLarge { .. } => "Store a smaller payload, or raise max_bytes of the service in enrichment_service.".to_owned(),
            Error::NegativeTtl { .. } => "Give an interval of zero or more, or NULL for the ttl of the service.".to_owned(),
            Error::InvalidStatus { .. } => format!("Use one of: {}.", STATUSES.join(", ")),
            Error::StatusWithPayload { .. } => "Leave the payload NULL, or use the status \"success\".".to_owned(),
            Error::PayloadMissing { .. } => {
                "Give a payload, or use the status \"not_found\" when the provider knows nothing.".to_owned()
            }
            Error::InvalidRules { .. } => "Correct the column rules of this row of enrichment_service.".to_owned(),
            Error::NotPreloaded { .. } => {
                "Add enrichment_cache to shared_preload_libraries and restart the server.".to_owned()
            }
            Error::InRecovery { .. } => {
                "Ask the primary; what is cached can be read here with enrich_get.".to_owned()
            }
            Error::NoSuchColumn { .. } => "Name a column of this table.".to_owned(),
            Error::NotATable { .. } => "Attach an ordinary or a partitioned table.".to_owned(),
            Error::QueueFull { .. } => {
                "Wait until the worker has caught up, request fewer keys, or raise enrichment_cache.max_queue.".to_owned()
            }
            Error::Json { .. } => "Store the raw text with enrich_store_text, or correct it.".to_owned(),
            Error::InvalidArgument { hint, .. } => hint.clone(),
            Error::NotInstalled => "Run CREATE EXTENSION enrichment_cache.".to_owned(),
            Error::NotServed { .. } => "Look at enrichment_worker and enrich_health() for the reason.".to_owned(),
            Error::TooManyWaiting { .. } => {
                "Use enrich_request, which does not wait, or enrich_get for what is cached.".to_owned()
            }
            Error::NoThread { .. } => {
                "Look at what the operating system allows the server of processes and memory, and try again.".to_owned()
            }
            Error::Statement { .. } => return None,
            Error::Other { hint, .. } => return hint.clone(),
        };
        Some(hint)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for Error {}

/// The name of a kind of key as one says it.
fn spoken(kind: &str) -> &'static str {
    match kind {
        "ip" => "IP address",
        "file_hash" => "file hash",
        "file_hash_or_ip" => "file hash or IP address",
        "network_indicator" => "IP address, host name or hash",
        "hash_prefix" => "hash prefix",
        "host" => "host name",
        _ => "text",
    }
}

/// What a key of this kind looks like.
fn expected(kind: &str) -> &'static str {
    match kind {
        "ip" => "one IPv4 or IPv6 address, such as 203.0.113.7",
        "file_hash" => "an MD5, SHA-1 or SHA-256 hash of 32, 40 or 64 hexadecimal digits",
        "file_hash_or_ip" => "a file hash of 32, 40 or 64 hexadecimal digits, or one IP address",
        "network_indicator" => "an IP address, a host name, or the SHA-256 of a payload",
        "hash_prefix" => "the first five hexadecimal digits of a SHA-1 hash",
        "host" => "a host name, such as www.example.com",
        _ => "a text of 1 to 512 bytes without control characters",
    }
}

/// Ends a text as a sentence.
fn sentence(text: &str) -> String {
    let mut out = text.trim_end().to_owned();
    if !out.ends_with('.') {
        out.push('.');
    }
    out
}

/// The known name within two edits of a mistyped one.
fn closest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    if name.len() > 64 {
        return None;
    }
    let name = name.to_lowercase();
    known
        .iter()
        .map(|candidate| (distance(&name, candidate), candidate.as_str()))
        .min()
        .filter(|&(edits, candidate)| edits <= 2 && edits < candidate.len())
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Error> {
        let s = String::from;
        vec![
            Error::UnknownService { name: s("virustotl"), known: vec![s("dshield"), s("virustotal")] },
            Error::KeyNotValid { service: s("dshield"), kind: "ip", key: s("x"), why: s("is not an IP address") },
            Error::KeyNotEligible { service: s("dshield"), key: s("10.0.0.1"), why: s("a private address") },
            Error::PayloadTooLarge { size: 9, limit: 8 },
            Error::NegativeTtl { given: s("-1 day") },
            Error::InvalidStatus { given: s("ok") },
            Error::StatusWithPayload { status: s("error") },
            Error::PayloadMissing { status: s("success") },
            Error::InvalidRules { service: s("x"), why: s("unknown field `outcme`") },
            Error::NotPreloaded { what: "enrich_fetch" },
            Error::InRecovery { what: "enrich_fetch" },
            Error::NoSuchColumn { relation: s("t"), column: s("c") },
            Error::NotATable { relation: s("t"), kind: s("view") },
            Error::QueueFull { service: s("x"), limit: 10, length: 9, added: 2 },
            Error::Json { why: s("unexpected end") },
        ]
    }

    #[test]
    fn messages_start_small_and_end_without_a_period_and_hints_are_sentences() {
        for error in examples() {
            let message = error.message();
            let first = message.chars().next().unwrap();
            assert!(!first.is_uppercase() && !message.ends_with('.'), "{message}");
            let hint = error.hint().unwrap();
            assert!(hint.starts_with(|c: char| c.is_uppercase()) && hint.ends_with('.'), "{hint}");
            if let Some(detail) = error.detail() {
                assert!(detail.ends_with('.'), "{detail}");
            }
        }
    }

    #[test]
    fn a_typo_in_a_service_name_is_answered_with_the_name_meant() {
        let hint = examples()[0].hint().unwrap();
        assert!(hint.contains("Perhaps you meant \"virustotal\""), "{hint}");
        let far = Error::UnknownService { name: "greynoise".into(), known: vec!["spur".into()] };
        assert_eq!(far.hint().unwrap(), "Known services: spur.");
    }

    #[test]
    fn an_error_in_its_own_words_has_no_invented_hint() {
        assert_eq!(Error::other("no such source").hint(), None);
        assert_eq!(Error::other("no such source").to_string(), "no such source");
    }
}
