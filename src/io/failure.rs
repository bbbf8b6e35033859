//! What the HTTP library reports, in our words: a kind for the counters and a message that holds no URL and no header.

use std::io::ErrorKind;

use ureq::Error;

use super::egress::Refused;
use crate::core::classify::TransportKind;
use crate::core::redact::message_safe;

/// Names the failure of a call to `host`. `proxy`: by which it was to be made, without a user and a password.
pub(super) fn explain(error: Error, host: &str, proxy: Option<&str>, timeout_ms: u32, max_bytes: u64) -> Refused {
    let (kind, message) = match error {
        Error::Timeout(_) => (TransportKind::Timeout, no_answer(host, timeout_ms)),
        // behind a proxy it looks the name up
        Error::HostNotFound => match proxy {
            Some(proxy) => (TransportKind::Connect, format!("the name of the proxy {proxy} has no address")),
            None => (TransportKind::Dns, format!("the host name {host} has no address")),
        },
        Error::Io(e) => return of_io(&e, host, proxy, timeout_ms),
        Error::Other(e) => match e.downcast::<Refused>() {
            Ok(refused) => return *refused,
            Err(e) => (TransportKind::Protocol, e.to_string()),
        },
        Error::ConnectionFailed => (TransportKind::Connect, no_connection(host, proxy)),
        Error::ConnectProxyFailed(why) => (TransportKind::Connect, format!("{}: {why}", no_connection(host, proxy))),
        Error::BodyExceedsLimit(_) => (TransportKind::TooLarge, too_large(max_bytes)),
        Error::LargeResponseHeader(..) => (TransportKind::TooLarge, "the header of the answer is too large".into()),
        Error::RedirectFailed | Error::TooManyRedirects => {
            (TransportKind::Redirect, format!("{host} redirects, which is not followed"))
        }
        Error::RequireHttpsOnly(_) => (TransportKind::Egress, "plain http is not allowed, only https".into()),
        Error::Tls(why) => (TransportKind::Tls, tls(host, why)),
        Error::Rustls(why) => (TransportKind::Tls, tls(host, &why.to_string())),
        Error::TlsRequired => (TransportKind::Tls, tls(host, "the connection is not encrypted")),
        Error::Decompress(_, e) if broke_off(e.kind()) => return of_io(&e, host, proxy, timeout_ms),
        Error::Decompress(..) => (TransportKind::Protocol, "the answer does not decompress".into()),
        Error::Protocol(why) => (TransportKind::Protocol, format!("{host} does not follow HTTP: {why}")),
        // these may repeat the URL
        Error::Http(_) | Error::BadUri(_) => (TransportKind::Protocol, "the request is not valid HTTP".into()),
        other => (TransportKind::Protocol, other.to_string()),
    };
    Refused { kind, message: message_safe(&message, &[]) }
}

/// The message of a body past the limit.
pub(super) fn too_large(max_bytes: u64) -> String {
    format!("the answer is larger than {max_bytes} bytes")
}

fn of_io(error: &std::io::Error, host: &str, proxy: Option<&str>, timeout_ms: u32) -> Refused {
    let (kind, message) = match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => (TransportKind::Timeout, no_answer(host, timeout_ms)),
        kind if broke_off(kind) => (TransportKind::Reset, format!("{host} closed the connection before its answer")),
        // how rustls passes a bad certificate or a bad handshake on
        ErrorKind::InvalidData => (TransportKind::Tls, tls(host, &error.to_string())),
        _ => (TransportKind::Connect, format!("{}: {error}", no_connection(host, proxy))),
    };
    Refused { kind, message: message_safe(&message, &[]) }
}

fn no_connection(host: &str, proxy: Option<&str>) -> String {
    match proxy {
        Some(proxy) => format!("no connection to {host} through the proxy {proxy}"),
        None => format!("no connection to {host}"),
    }
}

fn broke_off(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
    )
}

fn no_answer(host: &str, timeout_ms: u32) -> String {
    format!("no complete answer from {host} within {timeout_ms} ms")
}

fn tls(host: &str, why: &str) -> String {
    let words = CERTIFICATE.iter().find(|(sign, _)| why.contains(sign)).map(|(_, words)| words);
    match words {
        Some(words) => format!("no secure connection to {host}: {words}"),
        None => format!("no secure connection to {host}: {why}"),
    }
}

/// What rustls says of a certificate (`CertificateError`, of which only some kinds have words), and what it means.
const CERTIFICATE: [(&str, &str); 8] = [
    ("certificate expired", "its certificate has expired"),
    ("Expired", "its certificate has expired"),
    ("not valid yet", "its certificate is not valid yet"),
    ("certificate not valid for name", "its certificate is for another name"),
    ("NotValidForName", "its certificate is for another name"),
    ("UnknownIssuer", NO_AUTHORITY),
    ("CaUsedAsEndEntity", NO_AUTHORITY),
    ("Revoked", "its certificate has been withdrawn"),
];

const NO_AUTHORITY: &str =
    "its certificate comes from no authority that is trusted here (enrichment_cache.ca_file names others)";

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn kind_of(error: Error) -> TransportKind {
        explain(error, "h.example", None, 1000, 10).kind
    }

    #[test]
    fn io_errors_are_told_apart_by_what_an_operator_can_do() {
        for (io_kind, kind) in [
            (ErrorKind::ConnectionRefused, TransportKind::Connect),
            (ErrorKind::HostUnreachable, TransportKind::Connect),
            (ErrorKind::ConnectionReset, TransportKind::Reset),
            (ErrorKind::UnexpectedEof, TransportKind::Reset),
            (ErrorKind::TimedOut, TransportKind::Timeout),
            (ErrorKind::InvalidData, TransportKind::Tls),
        ] {
            assert_eq!(kind_of(Error::Io(io_kind.into())), kind, "{io_kind:?}");
        }
        assert_eq!(kind_of(Error::Decompress("gzip", ErrorKind::UnexpectedEof.into())), TransportKind::Reset);
        assert_eq!(kind_of(Error::Decompress("gzip", io::Error::other("crc"))), TransportKind::Protocol);
    }

    #[test]
    fn what_does_not_come_through_a_proxy_names_it() {
        let refused = || Error::Io(ErrorKind::ConnectionRefused.into());
        for (error, kind) in [
            (refused(), TransportKind::Connect),
            (Error::ConnectionFailed, TransportKind::Connect),
            (Error::HostNotFound, TransportKind::Connect),
            (Error::ConnectProxyFailed("407".into()), TransportKind::Connect),
        ] {
            let told = explain(error, "h.example", Some("p.example:3128"), 1000, 10);
            assert!(told.kind == kind && told.message.contains("the proxy p.example:3128"), "{}", told.message);
        }
        assert!(!explain(refused(), "h.example", None, 1000, 10).message.contains("proxy"));
    }

    #[test]
    fn no_message_repeats_the_url() {
        let url = "http://h.example/?key=hunter2";
        for error in [Error::RequireHttpsOnly(url.into()), Error::BadUri(url.into())] {
            let message = explain(error, "h.example", None, 1000, 10).message;
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
