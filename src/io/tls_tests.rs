//! TLS: whose certificate is accepted.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::test_server::{get, key, loopback, read_request, service, ScratchDir};
use super::{Client, ClientConfig, Job, Pool};
use crate::core::classify::TransportKind;
use crate::core::request::Request;

const NAME: &str = "localhost";

/// An authority of our own, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn named(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name, valid between two years.
    fn signs(&self, name: &str, from: i32, until: i32) -> Chain {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.0).unwrap();
        (made.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

type Chain = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn self_signed(name: &str) -> (Chain, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    ((made.cert.der().clone(), key), made.cert.pem())
}

/// A TLS server with a certificate of its own for `localhost`; its port and the certificate as PEM.
fn server() -> (u16, String) {
    let (chain, pem) = self_signed(NAME);
    (serve(chain), pem)
}

/// A TLS server that shows this certificate and answers `{}`; its port.
fn serve((certificate, key): Chain) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            let mut reader = BufReader::new(tls);
            // a client that refuses the certificate sends no request
            if let Some(seen) = read_request(&mut reader) {
                let body = format!("{:?}", seen.head.contains("hunter2"));
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = reader.get_mut().write_all(format!("{head}{body}").as_bytes());
            }
        }
    });
    port
}

/// A CONNECT proxy that leads every call, whatever its host, to one port here; what it was told, header lines and all.
fn proxy(to: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:pr0xy-pw@{}", listener.local_addr().unwrap());
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = told.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut near = stream.unwrap();
            let mut reader = BufReader::new(near.try_clone().unwrap());
            let Some(seen) = read_request(&mut reader) else { continue };
            noted.lock().unwrap().push(seen.head);
            near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
            let far = TcpStream::connect(("localhost", to)).unwrap();
            for (mut from, mut into) in [
                (near.try_clone().unwrap(), far.try_clone().unwrap()),
                (far.try_clone().unwrap(), near.try_clone().unwrap()),
            ] {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut into);
                    let _ = into.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (url, told)
}

fn trusting(scratch: &ScratchDir, pem: &str) -> ClientConfig {
    ClientConfig { ca_file: Some(scratch.write("ca.pem", pem.as_bytes())), ..loopback() }
}

#[test]
fn a_certificate_that_does_not_fit_is_refused_in_words() {
    let (authority, stranger) = (Authority::named("ours"), Authority::named("a stranger"));
    let scratch = ScratchDir::new("tls");
    let client = Client::new(trusting(&scratch, &authority.pem()), 1).unwrap();
    let call = |port: u16| client.fetch(&get(format!("https://{NAME}:{port}/v1/x?k=hunter2")), 20_000, 1000);
    assert_eq!(call(serve(authority.signs(NAME, 2020, 2100))).unwrap().status, 200);
    for (chain, words) in [
        (authority.signs(NAME, 2010, 2020), "its certificate has expired"),
        (authority.signs(NAME, 2090, 2100), "its certificate is not valid yet"),
        (authority.signs("other.example", 2020, 2100), "its certificate is for another name"),
        (stranger.signs(NAME, 2020, 2100), "its certificate comes from no authority that is trusted here"),
        (self_signed(NAME).0, "its certificate comes from no authority that is trusted here"),
    ] {
        let failure = call(serve(chain)).unwrap_err();
        assert_eq!(failure.kind, TransportKind::Tls, "{}", failure.message);
        let expected = format!("no secure connection to {NAME}: {words}");
        assert!(failure.message.starts_with(&expected), "{} in place of {expected}", failure.message);
        assert!(!failure.message.contains("hunter2"), "{}", failure.message);
    }
}

#[test]
fn a_proxy_sees_the_host_and_nothing_else_and_tls_is_verified_through_it() {
    let (authority, stranger) = (Authority::named("ours"), Authority::named("a stranger"));
    let scratch = ScratchDir::new("tls");
    let host = "api.provider.example.org";
    let through = |chain: Chain| {
        let (url, told) = proxy(serve(chain));
        // the proxy itself may stand on a private address, the provider may not
        let config =
            ClientConfig { http_proxy: Some(url), allow_private_hosts: false, ..trusting(&scratch, &authority.pem()) };
        let headers = vec![("x-key".to_owned(), "hunter2".to_owned())];
        let request = Request { headers, ..get(format!("https://{host}/v1/x?k=hunter2")) };
        let answer = Client::new(config, 1).unwrap().fetch(&request, 20_000, 1000);
        let told = told.lock().unwrap().clone();
        (answer, told)
    };
    let (answer, told) = through(authority.signs(host, 2020, 2100));
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"true".as_slice()), "the secret arrived");
    assert!(told.len() == 1 && told[0].starts_with(&format!("CONNECT {host}:443 ")), "{told:?}");
    assert!(told[0].to_ascii_lowercase().contains("proxy-authorization: basic ") && !told[0].contains("hunter2"));
    for chain in [stranger.signs(host, 2020, 2100), authority.signs("other.example", 2020, 2100)] {
        let failure = through(chain).0.unwrap_err();
        assert_eq!(failure.kind, TransportKind::Tls, "{}", failure.message);
        assert!(!failure.message.contains("pr0xy-pw"), "{}", failure.message);
    }
}

#[test]
fn a_certificate_of_the_ca_file_is_accepted_and_others_are_not() {
    let (port, pem) = server();
    let scratch = ScratchDir::new("tls");
    let trusting = trusting(&scratch, &pem);
    let request = get(format!("https://localhost:{port}/v1/x?k=hunter2"));

    let answer = Client::new(trusting.clone(), 1).unwrap().fetch(&request, 5000, 1000).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"true".as_slice()));

    // with the system's store
    let stranger = Client::new(loopback(), 1).unwrap().fetch(&request, 5000, 1000).unwrap_err();
    assert_eq!(stranger.kind, TransportKind::Tls);
    assert!(stranger.message.starts_with("no secure connection to localhost: "), "{}", stranger.message);
    assert!(!stranger.message.contains("hunter2"));

    let other_name = get(format!("https://127.0.0.1:{port}/"));
    let mismatch = Client::new(trusting, 1).unwrap().fetch(&other_name, 5000, 1000).unwrap_err();
    assert_eq!(mismatch.kind, TransportKind::Tls);
}

#[test]
fn a_handshake_fits_the_stack_of_a_pool_thread() {
    let (port, pem) = server();
    let scratch = ScratchDir::new("tls");
    let trusting = trusting(&scratch, &pem);
    let pool = Pool::start(1, trusting).unwrap();
    let request = get(format!("https://localhost:{port}/"));
    pool.submit(Job { id: 1, service: Arc::new(service(10_000)), key: key("k"), request, usage: false });
    let done = pool.results_within(20_000);
    assert_eq!(done.first().map(|done| done.status_code), Some(Some(200)), "{done:?}");
}

#[test]
fn a_server_that_speaks_no_tls_is_a_tls_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        stream
    });
    let client = Client::new(loopback(), 1).unwrap();
    let failure = client.fetch(&get(format!("https://127.0.0.1:{port}/")), 5000, 1000).unwrap_err();
    assert_eq!(failure.kind, TransportKind::Tls, "{}", failure.message);
}
