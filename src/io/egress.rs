//! The egress guard: https to globally reachable hosts, unless an administrator allows private ones.
//!
//! A URL comes from a row of `enrichment_service`, so whoever may write there could otherwise reach services that
//! listen for the database server only. The addresses checked are the ones connected to: the guard sits in the
//! resolver, so a name that changes its answer between check and use (DNS rebinding) gains nothing.
//! Behind a proxy the names are resolved by the proxy, which has to guard its own network; literal addresses and
//! local names are still refused here.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ureq::config::Config;
use ureq::http::uri::Authority;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use url::Host;

use crate::core::address::{eligibility, key_eligibility, Ineligible};
use crate::core::classify::TransportKind;
use crate::core::key::{Key, KeyForm};

/// A call that was not made, and why: the kind and a message without URL path, query or headers.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) kind: TransportKind,
    pub(super) message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Refused {}

/// Judges a URL before anything is resolved: its scheme, and its host where that is an address or a local name.
pub(super) fn check(uri: &Uri, allow_private: bool) -> Result<(), Refused> {
    let refuse = |message: String| Err(Refused { kind: TransportKind::Egress, message });
    let host = uri.host().unwrap_or_default();
    let parsed = Host::parse(host.strip_suffix('.').unwrap_or(host));
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if allow_private => {}
        Some("http") => return refuse("plain http is not allowed, only https".into()),
        _ => return refuse("the url is not an https url".into()),
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return refuse("the url holds a user name or a password".into());
    }
    let judged = match &parsed {
        _ if allow_private => Ok(()),
        Err(_) => return refuse("the url has no valid host".into()),
        Ok(Host::Ipv4(ip)) => eligibility(IpAddr::V4(*ip)),
        Ok(Host::Ipv6(ip)) => eligibility(IpAddr::V6(*ip)),
        Ok(Host::Domain(name)) => key_eligibility(&Key { text: name.clone(), form: KeyForm::Host }),
    };
    judged.or_else(|why| refuse(not_allowed(host, why)))
}

fn not_allowed(host: &str, why: Ineligible) -> String {
    format!("{host} is {} and private hosts are not allowed", why.words())
}

/// Resolves names as the system does and keeps only the addresses that may be connected to.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) allow_private: bool,
    /// The administrator's own proxy may stand anywhere.
    pub(super) proxy: Option<Authority>,
    pub(super) system: DefaultResolver,
}

impl Resolver for Guard {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let found = match literal(uri) {
            Some(address) => {
                let mut one = self.empty();
                one.push(address);
                one
            }
            None => self.system.resolve(uri, config, timeout).map_err(|e| unresolved(host, e))?,
        };
        if self.allow_private || (self.proxy.is_some() && uri.authority() == self.proxy.as_ref()) {
            return Ok(found);
        }
        self.keep_reachable(host, &found)
    }
}

impl Guard {
    fn keep_reachable(&self, host: &str, found: &[SocketAddr]) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut kept = self.empty();
        let mut refused = None;
        for address in found {
            match eligibility(address.ip()) {
                Ok(()) => kept.push(*address),
                Err(why) => refused = Some((address.ip(), why)),
            }
        }
        match refused {
            Some((ip, why)) if kept.is_empty() => {
                let host = if host == ip.to_string() { host.to_owned() } else { format!("{host} ({ip})") };
                Err(other(TransportKind::Egress, not_allowed(&host, why)))
            }
            _ => Ok(kept),
        }
    }
}

/// The address of a URL that holds one, for which the system's resolver, and the thread it takes, is not needed.
fn literal(uri: &Uri) -> Option<SocketAddr> {
    let host = uri.host()?;
    let ip: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let port = uri.port_u16().or(match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    })?;
    Some(SocketAddr::new(ip, port))
}

fn unresolved(host: &str, error: ureq::Error) -> ureq::Error {
    match error {
        ureq::Error::Io(e) => other(TransportKind::Dns, format!("the host name {host} was not resolved: {e}")),
        ureq::Error::HostNotFound => other(TransportKind::Dns, format!("the host name {host} has no address")),
        error => error,
    }
}

fn other(kind: TransportKind, message: String) -> ureq::Error {
    ureq::Error::Other(Box::new(Refused { kind, message }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str, allow_private: bool) -> Option<String> {
        check(&url.parse().unwrap(), allow_private).err().map(|refused| refused.message)
    }

    fn guard() -> Guard {
        Guard { allow_private: false, proxy: None, system: DefaultResolver::default() }
    }

    #[test]
    fn only_https_to_public_hosts_passes_unless_private_hosts_are_allowed() {
        for url in ["https://api.example.com/v3", "https://8.8.8.8/", "https://[2606:4700::1111]:8443/x"] {
            assert_eq!(refusal(url, false), None, "{url}");
        }
        for url in [
            "http://api.example.com/",
            "https://127.0.0.1/",
            "https://10.1.2.3:8443/",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://db.prod.internal/",
            "https://router/",
        ] {
            assert!(refusal(url, false).is_some(), "{url}");
            assert_eq!(refusal(url, true), None, "{url}");
        }
        for url in ["ftp://api.example.com/", "/relative", "https://user:pw@api.example.com/"] {
            assert!(refusal(url, true).is_some(), "{url}");
        }
    }

    #[test]
    fn a_refusal_names_the_host_and_the_reason_and_not_the_query() {
        let message = refusal("https://10.0.0.1/path?apikey=hunter2", false).unwrap();
        assert_eq!(message, "10.0.0.1 is a private address and private hosts are not allowed");
        assert!(!refusal("https://u:hunter2@8.8.8.8/", false).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_name_with_a_public_and_a_private_address_is_reached_at_the_public_one_only() {
        let mixed: Vec<SocketAddr> = ["10.0.0.1:443", "8.8.8.8:443", "[::1]:443"].map(|a| a.parse().unwrap()).into();
        let kept = guard().keep_reachable("mixed.example", &mixed).unwrap();
        assert_eq!(&kept[..], &mixed[1..2]);
    }

    #[test]
    fn a_public_name_that_resolves_to_private_addresses_is_refused() {
        let private: Vec<SocketAddr> = ["192.168.0.1:443", "[fe80::1]:443"].map(|a| a.parse().unwrap()).into();
        let Err(ureq::Error::Other(error)) = guard().keep_reachable("rebound.example", &private) else {
            panic!("the addresses were let through");
        };
        let refused = error.downcast::<Refused>().unwrap();
        assert_eq!(refused.kind, TransportKind::Egress);
        assert!(refused.message.starts_with("rebound.example (fe80::1) is a link-local address"), "{refused}");
    }

    #[test]
    fn the_guard_judges_the_addresses_that_the_system_resolves() {
        let agent = |guard| {
            let config = ureq::Agent::config_builder().proxy(None).build();
            ureq::Agent::with_parts(config, ureq::unversioned::transport::DefaultConnector::default(), guard)
        };
        // not through `check`, which knows this name: here it stands for any name that resolves to the loopback
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            match agent(guard()).get(format!("https://{host}:1/")).call() {
                Err(ureq::Error::Other(e)) => assert_eq!(e.downcast::<Refused>().unwrap().kind, TransportKind::Egress),
                other => panic!("{host}: {other:?}"),
            }
        }
        let open = Guard { allow_private: true, ..guard() };
        assert!(matches!(agent(open).get("https://127.0.0.1:1/").call(), Err(ureq::Error::Io(_))));
    }
}
