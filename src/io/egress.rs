//! The egress guard: https to globally reachable hosts, unless an administrator allows private ones; plain http to private
//! ones only, so that no secret crosses the internet in the clear.
//!
//! A URL comes from a row of `enrichment_service`, so whoever may write there could otherwise reach services that
//! listen for the database server only. The addresses checked are the ones connected to: the guard sits in the
//! resolver, so a name that changes its answer between check and use (DNS rebinding) gains nothing.
//! Behind a proxy the names are resolved by the proxy, which has to guard its own network; literal addresses and
//! local names are still refused here, and plain http goes to those alone, as of no other name is known where it leads.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
/// `through_proxy`: nothing will be resolved here.
pub(super) fn check(uri: &Uri, allow_private: bool, through_proxy: bool) -> Result<(), Refused> {
    let refuse = |message: String| Err(Refused { kind: TransportKind::Egress, message });
    let host = uri.host().unwrap_or_default();
    let parsed = Host::parse(host.strip_suffix('.').unwrap_or(host));
    let encrypted = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if allow_private => false,
        Some("http") => return refuse("plain http is not allowed, only https".into()),
        _ => return refuse("the url is not an https url".into()),
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return refuse("the url holds a user name or a password".into());
    }
    let judged = match &parsed {
        Err(_) if allow_private && (encrypted || !through_proxy) => return Ok(()),
        Err(_) => return refuse("the url has no valid host".into()),
        Ok(Host::Ipv4(ip)) => reachable(IpAddr::V4(*ip)),
        Ok(Host::Ipv6(ip)) => reachable(IpAddr::V6(*ip)),
        // of a name that is resolved here, the addresses are judged
        Ok(Host::Domain(_)) if !encrypted && !through_proxy => return Ok(()),
        Ok(Host::Domain(name)) => key_eligibility(&Key { text: name.clone(), form: KeyForm::Host }),
    };
    match judged {
        Ok(()) if !encrypted => refuse(in_the_clear(host)),
        Err(why) if !allow_private => refuse(not_allowed(host, why)),
        _ => Ok(()),
    }
}

fn in_the_clear(host: &str) -> String {
    format!("{host} is no private host, and plain http is allowed to private hosts only")
}

fn not_allowed(host: &str, why: Ineligible) -> String {
    format!("{host} is {} and private hosts are not allowed", why.words())
}

/// Services of a cloud's own network at addresses that are public otherwise: Azure's.
const OF_THE_CLOUD: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16))];

/// Whether an address may be connected to.
fn reachable(ip: IpAddr) -> Result<(), Ineligible> {
    match OF_THE_CLOUD.contains(&ip.to_canonical()) {
        true => Err(Ineligible::Private),
        false => eligibility(ip),
    }
}

/// Resolves names as the system does and keeps only the addresses that may be connected to.
#[derive(Debug)]
pub(super) struct Guard<R = DefaultResolver> {
    pub(super) allow_private: bool,
    /// The administrator's own proxy may stand anywhere.
    pub(super) proxy: Option<Authority>,
    pub(super) system: R,
}

impl<R: Resolver> Resolver for Guard<R> {
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
        let proxy = self.proxy.is_some() && uri.authority() == self.proxy.as_ref();
        match uri.scheme_str() {
            _ if proxy => Ok(found),
            Some("https") if self.allow_private => Ok(found),
            _ if self.allow_private => self.keep_private(host, &found),
            _ => self.keep_reachable(host, &found),
        }
    }
}

impl<R: Resolver> Guard<R> {
    fn keep_reachable(&self, host: &str, found: &[SocketAddr]) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.keep(found, |ip| reachable(ip).map_err(|why| not_allowed(&named(host, ip), why)))
    }

    /// What may be spoken to in the clear.
    fn keep_private(&self, host: &str, found: &[SocketAddr]) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.keep(found, |ip| match reachable(ip) {
            Err(_) => Ok(()),
            Ok(()) => Err(in_the_clear(&named(host, ip))),
        })
    }

    /// The addresses that pass; where none does, why.
    fn keep(
        &self,
        found: &[SocketAddr],
        passes: impl Fn(IpAddr) -> Result<(), String>,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut kept = self.empty();
        let mut refused = None;
        for address in found {
            match passes(address.ip()) {
                Ok(()) => kept.push(*address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            Some(why) if kept.is_empty() => Err(other(TransportKind::Egress, why)),
            _ => Ok(kept),
        }
    }
}

/// A host with the address that it has.
fn named(host: &str, ip: IpAddr) -> String {
    if host == ip.to_string() {
        host.to_owned()
    } else {
        format!("{host} ({ip})")
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
#[path = "egress_tests.rs"]
mod tests;
