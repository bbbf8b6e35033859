//! pg_dump and restore: what a user configured and what was answered comes back, secrets do not travel.

use crate::support::{create_database, one, run, shared_cluster, Base};
use std::io::Write;
use std::process::{Command, Stdio};
use testbed::Cluster;

/// Runs a program of the server's installation with this text as its input; returns what it prints.
pub fn tool(cluster: &Cluster, name: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(cluster.stage().bin(name))
        .args(["-h", &cluster.host(), "-p", &cluster.port().to_string(), "-U", "postgres"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("{name}: {why}"));
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    let input = input.to_string();
    // from a thread: a program that prints while it reads must not wait for us
    let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap_or_else(|why| panic!("{name}: {why}"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {args:?}: {errors}");
    feeder.join().expect("the feeder ends").unwrap_or_else(|why| panic!("{name}: {why}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_restored_database_has_services_sources_and_answers_and_no_secret() {
    let base = Base::new("dump", "dumped");
    base.run(
        "CREATE TABLE sessions (id int PRIMARY KEY, source_ip text, enrichment jsonb);
        SELECT enrich_attach('sessions', 'source_ip', '{dshield}', 'enrichment');
        SELECT enrich_store('dshield', '8.8.8.8', '{\"ip\": {\"count\": 7}}');
        SELECT enrich_store('hibp', 'ABCDE', jsonb_object_agg(enrich_hibp_suffix(i::text), i)) FROM generate_series(1, 500) i;
        INSERT INTO enrichment_service (name, key_kind, url) VALUES ('assets', 'ip', 'https://assets.example.net/{key}');
        UPDATE enrichment_service SET enabled = false WHERE name = 'hibp'",
    );
    let dump = tool(&base.cluster, "pg_dump", &["dumped"], "");
    assert!(!dump.contains("sandbox-spur-key") && !dump.contains("sandbox-virustotal-key"), "a secret is in the dump");

    create_database(&base.cluster, "restored");
    tool(&base.cluster, "psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored"], &dump);

    let mut restored = shared_cluster("dump").client("restored");
    let answer: i64 = one(&mut restored, "SELECT (enrich_get('dshield', '8.8.8.8') #>> '{ip,count}')::int8");
    assert_eq!(answer, 7);
    let range = "SELECT octet_length(ranges) || ' ' || attstorage::text || ' ' || (enrich_get('hibp', 'ABCDE') =
            (SELECT jsonb_object_agg(enrich_hibp_suffix(i::text), i) FROM generate_series(1, 500) i))
        FROM enrichment_cache, pg_attribute
        WHERE service = 'hibp' AND attrelid = 'enrichment_cache'::regclass AND attname = 'ranges'";
    assert_eq!(one::<String>(&mut restored, range), "11000 e true", "a packed range, out of line and not compressed");
    let own: String = one(&mut restored, "SELECT url FROM enrichment_service WHERE name = 'assets'");
    assert_eq!(own, "https://assets.example.net/{key}");
    let off: bool = one(&mut restored, "SELECT NOT enabled FROM enrichment_service WHERE name = 'hibp'");
    assert!(off, "an administrator's change of a built-in service is lost");
    let source: String = one(&mut restored, "SELECT relation::text FROM enrichment_source");
    assert_eq!(source, "sessions");
    let secrets: i64 = one(&mut restored, "SELECT count(*) FROM enrichment_secret");
    assert_eq!(secrets, 0);
    // the restored sequences go on where the old ones were
    run(&mut restored, "SELECT enrich_store('dshield', '8.8.4.4', '{\"ip\": {\"count\": 1}}')");
}
