//! The guard: which URLs and addresses it lets through, and that what it checked is what is connected to.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use ureq::unversioned::transport::{ConnectionDetails, Connector, Transport};

fn refusal(url: &str, allow_private: bool) -> Option<String> {
    check(&url.parse().unwrap(), allow_private, false).err().map(|refused| refused.message)
}

fn guard() -> Guard {
    Guard { allow_private: false, proxy: None, system: DefaultResolver::default() }
}

#[test]
fn only_https_to_public_hosts_passes_unless_private_hosts_are_allowed() {
    for url in ["https://api.example.com/v3", "https://8.8.8.8/", "https://[2606:4700::1111]:8443/x"] {
        assert_eq!(refusal(url, false), None, "{url}");
        assert_eq!(refusal(url, true), None, "{url}");
    }
    for url in [
        "http://10.1.2.3:8080/",
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
fn plain_http_is_for_allowed_private_hosts_and_nobody_else() {
    let direct = |url: &str| refusal(url, true);
    let proxied = |url: &str| check(&url.parse().unwrap(), true, true).err().map(|refused| refused.message);
    for url in
        ["http://10.1.2.3:8080/x", "http://127.0.0.1/", "http://[fd00::1]/", "http://localhost:1/", "http://router/"]
    {
        assert_eq!((direct(url), proxied(url)), (None, None), "{url}");
        assert!(refusal(url, false).is_some(), "{url}");
    }
    for url in ["http://8.8.8.8/x?key=hunter2", "http://[2606:4700::1111]:8080/", "http://134744072/"] {
        for said in [direct(url), proxied(url)] {
            let said = said.unwrap_or_else(|| panic!("{url} passes"));
            assert!(said.ends_with("is no private host, and plain http is allowed to private hosts only"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
    // where a name leads is known when it is resolved, and through a proxy never
    let url = "http://api.example.com/";
    assert_eq!(direct(url), None);
    assert!(proxied(url).is_some() && refusal(url, false).is_some());
}

#[test]
fn a_name_is_spoken_to_in_the_clear_at_its_private_addresses_only() {
    let open = Guard { allow_private: true, ..guard() };
    let addresses = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
    let mixed = addresses(&["8.8.8.8:80", "10.0.0.1:80", "[2606:4700::1111]:80", "[::1]:80"]);
    let kept = open.keep_private("mixed.example", &mixed).unwrap();
    assert_eq!(&kept[..], &[mixed[1], mixed[3]]);
    let Err(ureq::Error::Other(error)) = open.keep_private("public.example", &addresses(&["8.8.8.8:80"])) else {
        panic!("the address was let through");
    };
    let refused = error.downcast::<Refused>().unwrap();
    assert_eq!(refused.kind, TransportKind::Egress);
    assert!(refused.message.starts_with("public.example (8.8.8.8) is no private host"), "{refused}");
}

/// What is connected to when a name resolves to this, with private hosts allowed.
fn connected_to(url: &str, proxy: Option<&str>, answer: Vec<SocketAddr>) -> Vec<Vec<SocketAddr>> {
    let connected = Arc::new(Mutex::new(Vec::new()));
    let proxy = proxy.map(|proxy| ureq::Proxy::new(proxy).unwrap());
    let guard = Guard {
        allow_private: true,
        proxy: proxy.as_ref().and_then(|proxy| proxy.uri().authority().cloned()),
        system: Fickle { answers: vec![answer], asked: Arc::default() },
    };
    let config = ureq::Agent::config_builder().proxy(proxy).build();
    let agent = ureq::Agent::with_parts(config, Noting(connected.clone()), guard);
    assert!(agent.get(url).call().is_err());
    let connected = connected.lock().unwrap().clone();
    connected
}

#[test]
fn the_scheme_decides_which_addresses_of_a_name_are_connected_to() {
    let mixed: Vec<SocketAddr> = ["10.0.0.1:80", "8.8.8.8:80"].map(|a| a.parse().unwrap()).into();
    assert_eq!(connected_to("http://mixed.example/", None, mixed.clone()), [mixed[..1].to_vec()]);
    assert_eq!(connected_to("https://mixed.example/", None, mixed.clone()), std::slice::from_ref(&mixed));
    assert_eq!(connected_to("http://public.example/", None, mixed[1..].to_vec()), [[]; 0]);
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

#[test]
fn no_form_of_an_address_of_the_inside_is_let_through() {
    for host in [
        // where clouds answer for the machine itself
        "169.254.169.254",
        "[fd00:ec2::254]",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        // the same and others in IPv6: mapped, compatible, NAT64, 6to4, Teredo
        "[::ffff:169.254.169.254]",
        "[::ffff:168.63.129.16]",
        "[::169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::a00:1]",
        "[2002:a9fe:a9fe::1]",
        "[2002:c0a8:1::]",
        "[2001:0:1:1:0:0:3f57:fefe]",
        // other spellings
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "127.1",
        "0",
        "[::]",
        "[fe80::1]",
        "[fec0::1]",
    ] {
        let url = format!("https://{host}/latest/meta-data");
        let Ok(uri) = url.parse::<Uri>() else { continue };
        let message = check(&uri, false, false).expect_err(host).message;
        assert!(message.ends_with("and private hosts are not allowed"), "{host}: {message}");
        if let Some(address) = literal(&uri) {
            assert!(guard().keep_reachable("inside.example", &[address]).is_err(), "{host} as an answer of DNS");
        }
    }
}

/// Gives another answer each time it is asked.
#[derive(Debug)]
struct Fickle {
    answers: Vec<Vec<SocketAddr>>,
    asked: Arc<AtomicUsize>,
}

impl Resolver for Fickle {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let n = self.asked.fetch_add(1, Ordering::SeqCst);
        let mut found = self.empty();
        self.answers[n].iter().for_each(|address| found.push(*address));
        Ok(found)
    }
}

/// Notes what it is to connect to, and connects to nothing.
#[derive(Debug)]
struct Noting(Arc<Mutex<Vec<Vec<SocketAddr>>>>);

impl Connector for Noting {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        self.0.lock().unwrap().push(details.addrs.to_vec());
        Err(ureq::Error::ConnectionFailed)
    }
}

#[test]
fn what_is_connected_to_is_what_was_checked_although_dns_changes_its_answer() {
    let addresses = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
    let answers = vec![
        addresses(&["8.8.8.8:443"]),
        addresses(&["127.0.0.1:443"]),
        addresses(&["169.254.169.254:443", "1.1.1.1:443"]),
        addresses(&["[::ffff:10.0.0.1]:443"]),
    ];
    let (asked, connected) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let system = Fickle { answers, asked: asked.clone() };
    let guard = Guard { allow_private: false, proxy: None, system };
    let config = ureq::Agent::config_builder().proxy(None).build();
    let agent = ureq::Agent::with_parts(config, Noting(connected.clone()), guard);
    let mut refused = Vec::new();
    for _ in 0..4 {
        match agent.get("https://rebound.example.com/").call() {
            Err(ureq::Error::Other(error)) => refused.push(error.downcast::<Refused>().unwrap().message),
            Err(ureq::Error::ConnectionFailed) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        asked.load(Ordering::SeqCst),
        4,
        "a name is resolved once for a connection, and not again after the check"
    );
    assert_eq!(*connected.lock().unwrap(), [addresses(&["8.8.8.8:443"]), addresses(&["1.1.1.1:443"])]);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].starts_with("rebound.example.com (127.0.0.1) is a loopback address"), "{refused:?}");
}
