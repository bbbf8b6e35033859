//! The sandbox providers as a process: they start, obey and end; and the services point at them.

use serde_json::json;
use std::time::Duration;
use testbed::{wait_until, Cluster, Sandbox};

fn status(sandbox: &Sandbox, path: &str) -> u16 {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    agent.get(format!("{}{path}", sandbox.base_url())).call().unwrap().status().as_u16()
}

const RANGE: &str = "/hibp/range/21BD1";

#[test]
fn the_sandbox_counts_and_forgets() {
    let sandbox = Sandbox::start(&["--limits", "none"]);
    assert_eq!(status(&sandbox, RANGE), 200);
    assert_eq!(sandbox.stats()["hibp"]["requests"], 1);
    sandbox.reset();
    assert_eq!(sandbox.stats()["hibp"]["requests"], 0);
}

#[test]
fn the_sandbox_obeys_faults_until_they_are_cleared() {
    let sandbox = Sandbox::start(&["--limits", "none"]);
    let first = sandbox.fault(json!({"service": "hibp", "kind": "status", "status": 503}));
    let second = sandbox.fault(json!({"service": "spur", "kind": "reset"}));
    assert_ne!(first, second);
    assert_eq!(status(&sandbox, RANGE), 503);
    sandbox.clear_faults();
    assert_eq!(status(&sandbox, RANGE), 200);
}

#[test]
#[should_panic(expected = "does not obey")]
fn a_wrong_order_is_not_swallowed() {
    Sandbox::start(&[]).fault(json!({"service": "nobody", "kind": "reset"}));
}

#[test]
fn the_sandbox_obeys_limits_and_latency() {
    let sandbox = Sandbox::start(&["--limits", "none"]);
    sandbox.set_latency("hibp", 120);
    let began = std::time::Instant::now();
    assert_eq!(status(&sandbox, RANGE), 200);
    assert!(began.elapsed() >= Duration::from_millis(120));
    sandbox.set_limit("hibp", 1, "day");
    assert_eq!([status(&sandbox, RANGE), status(&sandbox, RANGE)].iter().max(), Some(&429));
    sandbox.lift_limit("hibp");
    assert_eq!(status(&sandbox, RANGE), 200);
}

#[test]
fn the_sandbox_foretells_its_answers() {
    let sandbox = Sandbox::start(&[]);
    assert!(sandbox.expect("dshield", "2001:4860::8888").is_object());
    sandbox.set_spur_balance(0);
}

#[test]
fn the_sandbox_ends_with_its_value() {
    let sandbox = Sandbox::start(&[]);
    let address = sandbox.base_url().trim_start_matches("http://").to_string();
    drop(sandbox);
    wait_until("the port to close", Duration::from_secs(10), || {
        Ok(std::net::TcpStream::connect(&address).is_err().then_some(()))
    });
}

/// The registry as far as pointing needs it, so that this test needs no extension.
const REGISTRY: &str = r#"
    CREATE SCHEMA "My schema";
    SET search_path = "My schema";
    CREATE TABLE enrichment_service (name text PRIMARY KEY, url text NOT NULL, rules jsonb NOT NULL DEFAULT '{}');
    INSERT INTO enrichment_service (name, url) VALUES
        ('virustotal', 'https://www.virustotal.com/api/v3/{route}/{key}'),
        ('dshield', 'https://isc.sans.edu/api/ip/{key}?json'),
        ('urlhaus', 'https://urlhaus-api.abuse.ch/v1/host/'),
        ('spur', 'https://api.spur.us/v2/context/{key}'),
        ('hibp', 'https://api.pwnedpasswords.com/range/{key}'),
        ('in-house', 'https://intel.example.org/{key}');
    UPDATE enrichment_service SET rules = '{"usage": {"url": "https://api.spur.us/status"}}' WHERE name = 'spur';
    CREATE TABLE given (service text, secret text);
    CREATE FUNCTION enrich_set_secret(service text, secret text) RETURNS void
        LANGUAGE sql AS 'INSERT INTO "My schema".given VALUES ($1, $2)';
    RESET search_path;
"#;

#[test]
fn services_are_pointed_at_the_sandbox_and_at_the_next_one() {
    let cluster = Cluster::builder("point").start().unwrap();
    let mut client = cluster.client("postgres");
    client.batch_execute(REGISTRY).unwrap();
    for _ in 0..2 {
        let sandbox = Sandbox::start(&[]);
        sandbox.point_services(&mut client, "My schema");
        let rows = client.query("SELECT name, url FROM \"My schema\".enrichment_service", &[]).unwrap();
        let here = |name: &str| {
            let row = rows.iter().find(|row| row.get::<_, &str>(0) == name).unwrap();
            row.get::<_, String>(1).replace(sandbox.base_url(), "HERE")
        };
        assert_eq!(here("virustotal"), "HERE/virustotal/api/v3/{route}/{key}");
        assert_eq!(here("dshield"), "HERE/dshield/api/ip/{key}?json");
        assert_eq!(here("urlhaus"), "HERE/urlhaus/v1/host/");
        assert_eq!(here("spur"), "HERE/spur/v2/context/{key}");
        assert_eq!(here("hibp"), "HERE/hibp/range/{key}");
        assert_eq!(here("in-house"), "https://intel.example.org/{key}");
        let usage = "SELECT rules #>> '{usage,url}' FROM \"My schema\".enrichment_service WHERE name = 'spur'";
        let usage: String = client.query_one(usage, &[]).unwrap().get(0);
        assert_eq!(usage.replace(sandbox.base_url(), "HERE"), "HERE/spur/status");
    }
    let given: i64 = client.query_one("SELECT count(*) FROM \"My schema\".given", &[]).unwrap().get(0);
    assert_eq!(given, 6);
}

#[test]
fn a_missing_service_is_not_passed_over() {
    let cluster = Cluster::builder("point").start().unwrap();
    let mut client = cluster.client("postgres");
    client.batch_execute(REGISTRY).unwrap();
    client.batch_execute("DELETE FROM \"My schema\".enrichment_service WHERE name = 'spur'").unwrap();
    let why = Sandbox::start(&[]).try_point_services(&mut client, "My schema").unwrap_err();
    assert!(why.contains("no service spur"), "{why}");
    let changed = "SELECT 1 FROM \"My schema\".enrichment_service WHERE url LIKE 'http://127%'";
    assert!(client.query(changed, &[]).unwrap().is_empty());
}
