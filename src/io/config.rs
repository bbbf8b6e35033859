//! What an administrator decides about outgoing calls.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ureq::http::HeaderValue;
use ureq::{Proxy, ProxyProtocol};

/// Settings of the HTTP client; a change makes a new client, see [`super::Pool::reconfigure`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClientConfig {
    /// Sent with every request whose service gives no `User-Agent` of its own; printable ASCII.
    pub user_agent: String,
    /// Lifts the egress guard for addresses that are not globally reachable, to which plain http may be spoken too.
    pub allow_private_hosts: bool,
    /// PEM file of the certificate authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// `http://[user:password@]host:port` of a CONNECT proxy; `None` is a direct connection, whatever the environment
    /// says.
    pub http_proxy: Option<String>,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("user_agent", &self.user_agent)
            .field("allow_private_hosts", &self.allow_private_hosts)
            .field("ca_file", &self.ca_file)
            .field("http_proxy", &self.http_proxy.as_ref().map(|_| "***"))
            .finish()
    }
}

impl ClientConfig {
    /// The proxy, parsed.
    ///
    /// # Errors
    /// `InvalidInput` when it is not the URL of an http or https CONNECT proxy; the message does not repeat it,
    /// since it may hold a password.
    pub(super) fn proxy(&self) -> io::Result<Option<Proxy>> {
        let Some(text) = self.http_proxy.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        match Proxy::new(text) {
            Ok(proxy) if matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) => Ok(Some(proxy)),
            _ => Err(invalid("the proxy is not a url of the form http://host:port")),
        }
    }

    /// Refuses a user agent that cannot stand in a header.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub(super) fn check_user_agent(&self) -> io::Result<()> {
        match HeaderValue::from_str(&self.user_agent) {
            Ok(_) => Ok(()),
            Err(_) => Err(invalid("the user agent holds characters that a header cannot")),
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_proxy(proxy: &str) -> ClientConfig {
        ClientConfig { http_proxy: Some(proxy.into()), ..ClientConfig::default() }
    }

    #[test]
    fn a_proxy_is_an_http_url_and_an_empty_one_is_none() {
        assert!(with_proxy(" ").proxy().unwrap().is_none());
        assert!(ClientConfig::default().proxy().unwrap().is_none());
        assert_eq!(with_proxy("http://proxy.example:3128").proxy().unwrap().unwrap().port(), 3128);
        assert_eq!(with_proxy("proxy.example:3128").proxy().unwrap().unwrap().host(), "proxy.example");
        for wrong in ["socks5://proxy.example", "http://", "::"] {
            let refused = with_proxy(wrong).proxy().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{wrong}");
        }
    }

    #[test]
    fn a_proxy_password_is_never_printed() {
        let config = with_proxy("ftp://user:hunter2@proxy.example");
        assert!(!format!("{config:?} {}", config.proxy().unwrap_err()).contains("hunter2"));
    }

    #[test]
    fn a_user_agent_with_a_line_end_is_refused() {
        let config = |user_agent: &str| ClientConfig { user_agent: user_agent.into(), ..ClientConfig::default() };
        assert!(config("enrichment_cache/1 (x)").check_user_agent().is_ok());
        assert!(config("a\r\nX-Injected: 1").check_user_agent().is_err());
    }
}
