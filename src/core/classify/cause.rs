//! Why an attempt ended as it did, in a word that can be counted: of few values, without anything a provider said.

use super::{Answer, Outcome, TransportKind};

/// The cause of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// What the provider answered, by the class of its HTTP status; 401 and 403 apart.
    Status(u16),
    /// No answer came.
    Transport(TransportKind),
    /// An HTML page in place of an answer.
    Page,
    /// Not readable, cut off, or without what the service's rules require.
    Malformed,
    /// Nested deeper than can be read.
    TooDeep,
    /// Asked too often.
    Limited,
    /// The balance or quota is used up.
    UsedUp,
    /// A good answer that the database refused.
    NotStored,
    /// Nothing was sent: no request could be made of the key.
    NoRequest,
    /// No thread for the call, or a fault inside it.
    Internal,
}

impl Cause {
    /// The cause of what an answer was judged to be.
    pub fn of(answer: &Answer, outcome: &Outcome) -> Self {
        match outcome {
            Outcome::RateLimited { used_up: true, .. } => Cause::UsedUp,
            Outcome::RateLimited { .. } => Cause::Limited,
            Outcome::Success { .. } | Outcome::Unchanged | Outcome::NotFound | Outcome::Unauthorized { .. } => {
                Cause::Status(answer.status)
            }
            _ if (300..400).contains(&answer.status) => Cause::Transport(TransportKind::Redirect),
            _ if is_page(&answer.body) => Cause::Page,
            Outcome::Invalid { retry: false, .. } => Cause::TooDeep,
            Outcome::Invalid { .. } => Cause::Malformed,
            Outcome::Error { .. } => Cause::Status(answer.status),
        }
    }

    /// The value of `enrichment_attempt_stats.cause`.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Status(401) => "http_401",
            Cause::Status(403) => "http_403",
            Cause::Status(200..=299) => "http_2xx",
            Cause::Status(300..=399) => "http_3xx",
            Cause::Status(400..=499) => "http_4xx",
            Cause::Status(500..=599) => "http_5xx",
            Cause::Status(_) => "http_other",
            Cause::Transport(kind) => kind.as_str(),
            Cause::Page => "html_page",
            Cause::Malformed => "malformed",
            Cause::TooDeep => "too_deep",
            Cause::Limited => "limited",
            Cause::UsedUp => "used_up",
            Cause::NotStored => "not_stored",
            Cause::NoRequest => "no_request",
            Cause::Internal => "internal",
        }
    }
}

/// What an attempt says of the provider's health, for the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered in its own words, if only that it refuses this key.
    Works,
    /// No answer, or none that it would give in good health.
    Fails,
    /// Nothing: a limit, a refused credential, a trouble of our own.
    Unknown,
}

impl Health {
    /// What follows from an outcome and its cause.
    pub fn of(outcome: &Outcome, cause: Cause) -> Self {
        match (outcome, cause) {
            (_, Cause::NotStored | Cause::NoRequest | Cause::Internal) => Health::Unknown,
            (Outcome::RateLimited { .. } | Outcome::Unauthorized { .. }, _) => Health::Unknown,
            (Outcome::Success { .. } | Outcome::Unchanged | Outcome::NotFound, _) => Health::Works,
            // size and depth are this key's own
            (_, Cause::Transport(TransportKind::TooLarge) | Cause::TooDeep) => Health::Works,
            // every key would be led astray or refused like this one
            (_, Cause::Transport(_)) | (Outcome::Invalid { .. }, _) => Health::Fails,
            (Outcome::Error { retry, .. }, _) => match retry {
                true => Health::Fails,
                false => Health::Works,
            },
        }
    }
}

fn is_page(body: &[u8]) -> bool {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start().starts_with(b"<")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(retry: bool) -> Outcome {
        Outcome::Error { message: String::new(), retry }
    }

    fn cause(status: u16, body: &str, outcome: &Outcome) -> &'static str {
        let answer = Answer {
            status,
            body: body.into(),
            content_type: None,
            retry_after: None,
            wanted: Vec::new(),
            conditional: false,
            masked: false,
            latency_ms: 0,
        };
        Cause::of(&answer, outcome).as_str()
    }

    #[test]
    fn each_outcome_is_counted_under_what_brought_it() {
        let invalid = Outcome::Invalid { message: String::new(), retry: true };
        let deep = Outcome::Invalid { message: String::new(), retry: false };
        let refused = Outcome::Unauthorized { message: String::new() };
        let limited = |used_up| Outcome::RateLimited { pause_micros: 1, used_up, asked: false };
        for (status, body, outcome, word) in [
            (404, "{}", &Outcome::NotFound, "http_4xx"),
            (200, "{}", &Outcome::NotFound, "http_2xx"),
            (401, "{}", &refused, "http_401"),
            (403, "{}", &refused, "http_403"),
            (200, "{}", &refused, "http_2xx"),
            (429, "<html>", &limited(false), "limited"),
            (429, "", &limited(true), "used_up"),
            (302, "<html>", &error(true), "redirect"),
            (500, "{}", &error(true), "http_5xx"),
            (503, " \u{feff}", &error(true), "http_5xx"),
            (503, "\u{feff} <html>", &error(true), "html_page"),
            (200, "<html>", &error(true), "html_page"),
            (200, "{\"a\": ", &invalid, "malformed"),
            (200, "[[", &deep, "too_deep"),
            (422, "{}", &error(false), "http_4xx"),
        ] {
            assert_eq!(cause(status, body, outcome), word, "{status} {body} {outcome:?}");
        }
    }

    #[test]
    fn only_what_would_befall_every_key_speaks_against_the_provider() {
        let invalid = || Outcome::Invalid { message: String::new(), retry: true };
        let refused = Outcome::Unauthorized { message: String::new() };
        let limited = Outcome::RateLimited { pause_micros: 1, used_up: false, asked: true };
        for (outcome, cause, health) in [
            (Outcome::NotFound, Cause::Status(404), Health::Works),
            (error(false), Cause::Status(422), Health::Works),
            (error(false), Cause::Transport(TransportKind::TooLarge), Health::Works),
            (error(false), Cause::Transport(TransportKind::Egress), Health::Fails),
            (error(true), Cause::Transport(TransportKind::Redirect), Health::Fails),
            (Outcome::Invalid { message: String::new(), retry: false }, Cause::TooDeep, Health::Works),
            (error(true), Cause::Transport(TransportKind::Timeout), Health::Fails),
            (error(true), Cause::Page, Health::Fails),
            (error(true), Cause::Status(500), Health::Fails),
            (invalid(), Cause::Malformed, Health::Fails),
            (invalid(), Cause::NotStored, Health::Unknown),
            (error(false), Cause::NoRequest, Health::Unknown),
            (error(true), Cause::Internal, Health::Unknown),
            (refused, Cause::Status(401), Health::Unknown),
            (limited, Cause::Limited, Health::Unknown),
        ] {
            assert_eq!(Health::of(&outcome, cause), health, "{outcome:?} {cause:?}");
        }
    }
}
