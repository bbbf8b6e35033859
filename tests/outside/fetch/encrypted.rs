//! A worker that calls as in a company: over https, through a proxy, trusting an authority of its own.

use crate::support::{self, address, Base};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::{fs, io, thread};
use testbed::Cluster;

const OURS: &str = "api.ours.example.org";
const STRANGE: &str = "api.strange.example.org";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// The head of a request, or nothing where the other side has gone away.
fn head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// A provider of this name, with a certificate of this authority; its port. It says whether it was sent the secret.
fn provider(name: &str, authority: &Authority) -> u16 {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_string()]).expect("parameters");
    let certificate = params.signed_by(&key, authority).expect("a certificate").der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a configuration");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Ok(connection) = ServerConnection::new(config.clone()) else { return };
            thread::spawn(move || {
                let mut reader = BufReader::new(StreamOwned::new(connection, stream));
                // a client that refuses the certificate sends nothing
                while let Some(head) = head(&mut reader) {
                    let body =
                        format!(r#"{{"ip": {{"number": "x", "count": 1, "secret": {}}}}}"#, head.contains("hunter2"));
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// A CONNECT proxy that knows two hosts; its address, and what it was told.
fn proxy(ours: u16, strange: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://user:pr0xy-pw@{}", listener.local_addr().expect("an address"));
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = told.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
            let Some(head) = head(&mut reader) else { continue };
            let port = if head.starts_with(&format!("CONNECT {OURS}:443 ")) { ours } else { strange };
            noted.lock().expect("the list").push(head);
            lead(stream, port).expect("a way");
        }
    });
    (url, told)
}

fn lead(mut near: TcpStream, port: u16) -> io::Result<()> {
    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let far = TcpStream::connect(("127.0.0.1", port))?;
    for (mut from, mut into) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut into);
            let _ = into.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

#[test]
fn a_worker_fetches_over_https_through_a_proxy_that_sees_the_host_only_and_trusts_its_own_authority_only() {
    let (trusted, stranger) = (authority("ours"), authority("a stranger"));
    let (url, told) = proxy(provider(OURS, &trusted), provider(STRANGE, &stranger));
    let file = std::env::temp_dir().join(format!("enrichment-ca-{}.pem", std::process::id()));
    fs::write(&file, trusted.pem()).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("permissions");
    let cluster = Cluster::builder("encrypted")
        .preload(true)
        .setting("autovacuum", "off")
        // the proxy may stand here all the same
        .setting("enrichment_cache.allow_private_hosts", "off")
        .setting("enrichment_cache.ca_file", &file.display().to_string())
        .setting("enrichment_cache.http_proxy", &url)
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    let base = Base::in_cluster(&Arc::new(cluster), "encrypted", &[]);
    base.run(&format!(
        "UPDATE enrichment_service SET url = 'https://{OURS}/api/ip/{{key}}', secret_name = 'SPUR_API_KEY',
             headers = '{{\"x-key\": \"{{secret}}\"}}' WHERE name = 'dshield';
         UPDATE enrichment_service SET url = 'https://{STRANGE}/{{key}}', rules = '{{}}' WHERE name = 'spur';
         SELECT enrich_set_secret('spur', 'hunter2')"
    ));
    let fetch = |service| format!("SELECT enrich_fetch('{service}', '{}', '1 minute') #>> '{{ip,secret}}'", address(1));
    assert_eq!(base.one::<Option<String>>(&fetch("dshield")).as_deref(), Some("true"), "the secret arrived");
    assert_eq!(base.one::<Option<String>>(&fetch("spur")), None);
    let ended = "SELECT string_agg(service || ' ' || outcome || ' ' || cause, ', ' ORDER BY service) FROM enrichment_attempt_stats";
    assert_eq!(base.one::<String>(ended), "dshield success http_2xx, spur error tls");
    let why = base.one::<String>("SELECT error_message FROM enrichment_cache WHERE service = 'spur'");
    assert!(why.contains(STRANGE) && why.contains("no authority that is trusted here"), "{why}");
    let told = told.lock().expect("the list").clone();
    assert!(told.len() >= 2, "{told:?}");
    for head in &told {
        assert!(head.starts_with("CONNECT api.") && !head.contains("hunter2") && !head.contains("8.8."), "{told:?}");
    }
    // enrich_test tells of the proxy in words: one that works, a certificate behind it, one that is not there
    let tested = |service: &str| -> Vec<(String, Option<bool>, String)> {
        let rows = base.client().query("SELECT step, ok, detail FROM enrich_test($1)", &[&service]);
        let rows = rows.unwrap_or_else(|why| panic!("{}", support::said(&why)));
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    };
    let says = |steps: &[(String, Option<bool>, String)], step: &str, ok: bool, words: &str| {
        let told = steps.iter().find(|told| told.0 == step);
        assert!(told.is_some_and(|told| told.1 == Some(ok) && told.2.contains(words)), "{step}: {steps:?}");
    };
    let steps = tested("dshield");
    says(&steps, "dns", true, "the proxy resolves names");
    says(&steps, "connection", true, "connected through the proxy");
    says(&steps, "tls", true, "the certificate is trusted");
    says(&tested("spur"), "tls", false, "no authority that is trusted here");
    let log = base.cluster.log();
    assert!(!log.contains("hunter2") && !log.contains("pr0xy-pw"), "a secret in the log");
    // without a password: the server itself writes what a reload has changed into its log
    base.cluster.set("enrichment_cache.http_proxy", "http://127.0.0.1:1");
    testbed::wait_until("the worker to hear of the other proxy", support::SOON, || {
        let steps = tested("dshield");
        let fails = steps.iter().find(|step| step.1 == Some(false)).cloned();
        Ok(fails.filter(|step| step.0 == "connection").map(|step| {
            assert!(step.2.contains("through the proxy 127.0.0.1:1"), "{steps:?}");
        }))
    });
    let _ = fs::remove_file(&file);
    support::let_the_worker_look(&base);
}
