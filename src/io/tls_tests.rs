//! TLS: whose certificate is accepted.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::test_server::{get, key, loopback, read_request, service, ScratchDir};
use super::{Client, ClientConfig, Job, Pool};
use crate::core::classify::TransportKind;

/// A TLS server with a certificate of its own for `localhost`; its port and the certificate as PEM.
fn server() -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            let mut reader = BufReader::new(tls);
            // a client that refuses the certificate sends no request
            if read_request(&mut reader).is_some() {
                let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
            }
        }
    });
    (port, made.cert.pem())
}

#[test]
fn a_certificate_of_the_ca_file_is_accepted_and_others_are_not() {
    let (port, pem) = server();
    let scratch = ScratchDir::new("tls");
    let trusting = ClientConfig { ca_file: Some(scratch.write("ca.pem", pem.as_bytes())), ..loopback() };
    let request = get(format!("https://localhost:{port}/v1/x?k=hunter2"));

    let answer = Client::new(trusting.clone(), 1).unwrap().fetch(&request, 5000, 1000).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"{}".as_slice()));

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
    let trusting = ClientConfig { ca_file: Some(scratch.write("ca.pem", pem.as_bytes())), ..loopback() };
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
