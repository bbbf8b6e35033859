//! A provider as data: one row of `enrichment_service`.

use super::address;
use super::key::{self, KeyKind};
use super::limiter::Limit;
use super::rules::Rules;
use super::Micros;

/// The HTTP method of a provider's endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

impl Method {
    /// Reads `GET` or `POST` in any case.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            _ if text.eq_ignore_ascii_case("get") => Some(Method::Get),
            _ if text.eq_ignore_ascii_case("post") => Some(Method::Post),
            _ => None,
        }
    }

    /// The word of the request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}

/// How a provider's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFormat {
    /// One JSON text.
    Json,
    /// Lines `SUFFIX:COUNT` of the Pwned Passwords range API.
    HibpRange,
}

impl ResponseFormat {
    /// Reads the value of `enrichment_service.response_format`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "json" => Some(ResponseFormat::Json),
            "hibp_range" => Some(ResponseFormat::HibpRange),
            _ => None,
        }
    }

    /// The value of `enrichment_service.response_format`.
    pub fn as_str(self) -> &'static str {
        match self {
            ResponseFormat::Json => "json",
            ResponseFormat::HibpRange => "hibp_range",
        }
    }
}

/// One registered provider. Holds the name of its secret, never the secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub name: String,
    pub enabled: bool,
    pub key_kind: KeyKind,
    pub method: Method,
    /// Template; `{key}` stands for the percent-encoded key.
    pub url: String,
    /// Names and templates of values.
    pub headers: Vec<(String, String)>,
    /// Template of the body of a POST.
    pub body: Option<String>,
    pub secret_name: Option<String>,
    pub secret_required: bool,
    pub response_format: ResponseFormat,
    pub ttl: Micros,
    pub not_found_ttl: Micros,
    pub stale_ttl: Micros,
    pub limits: Vec<Limit>,
    /// Calls under way at the same time.
    pub max_in_flight: u32,
    /// The whole call, in milliseconds.
    pub timeout_ms: u32,
    /// The body after decompression, in bytes.
    pub max_bytes: u64,
    pub rules: Rules,
}

impl Service {
    /// The normal form of a key this service can be asked about, or why it cannot.
    pub fn takes(&self, raw: &str) -> Result<String, String> {
        let key = key::normalise(self.key_kind, raw).map_err(|bad| format!("no key, it {}", bad.why))?;
        address::key_eligibility(&key).map_err(|why| format!("ineligible: {}", why.words()))?;
        Ok(key.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_method_and_format_read_back() {
        for method in [Method::Get, Method::Post] {
            assert_eq!(Method::parse(&method.as_str().to_lowercase()), Some(method));
        }
        for format in [ResponseFormat::Json, ResponseFormat::HibpRange] {
            assert_eq!(ResponseFormat::parse(format.as_str()), Some(format));
        }
        assert_eq!(Method::parse("put"), None);
        assert_eq!(ResponseFormat::parse("xml"), None);
    }
}
