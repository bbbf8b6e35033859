//! Importing files that a client sends through its connection, by the command that the documentation gives.

use super::tree::{adds_up, by_digest, cached, database, dshield, parts, report, Tree};
use crate::support::{one, refused, run};
use postgres::Client;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use testbed::Cluster;

/// The command of docs/reference/functions.md.
fn command() -> String {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/functions.md");
    let page = std::fs::read_to_string(page).expect("the reference");
    let mut blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.find(|block| block.contains("COPY enrichment_import")).expect("the command").to_string()
}

fn send(cluster: &Cluster, base: &str, tree: &Tree) {
    let text = command().replace("/srv/cache", tree.text());
    assert_eq!(text.matches("psql -c").count(), 1, "{text}");
    let text = text.replace("psql -c", r#""$PSQL" -X -v ON_ERROR_STOP=1 -d "$DSN" -c"#);
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &text]).env("PSQL", cluster.stage().bin("psql")).env("DSN", cluster.dsn(base));
    // root could read everything: as the account of the server then
    let account = std::fs::metadata(cluster.data_dir()).expect("the data directory");
    bash.uid(account.uid()).gid(account.gid());
    let output = bash.output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Names that a shell or COPY may trip over, and what is there but cannot be sent.
fn every_odd_file(tree: &Tree) {
    tree.file("odd\tname\\.json", "{}", 1);
    tree.file("\\x41", "{}", 1);
    let bytes = std::ffi::OsStr::from_bytes(b" \xff\n ");
    std::fs::write(tree.root.join(bytes), "{}").expect("a file");
    tree.file("dshield_8.8.7.1.json", dshield("8.8.7.1", 1), 1);
    std::fs::File::create(tree.path("big.json")).and_then(|file| file.set_len(10 << 30)).expect("a sparse file");
    std::os::unix::fs::symlink("/etc/passwd", tree.path("link.json")).expect("a link");
    assert!(Command::new("mkfifo").arg(tree.path("pipe")).status().is_ok_and(|status| status.success()));
    let secret = tree.file("dshield/8/8/9/4.json", "{}", 1);
    tree.file("closed/inside.json", "{}", 1);
    for path in [secret, tree.path("closed")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).expect("permissions");
    }
}

fn listed(client: &mut Client) -> Vec<String> {
    let sql = "SELECT format('%s %s: %s', path, outcome, reason) FROM enrichment_migration_problem ORDER BY path";
    client.query(sql, &[]).expect("problems").iter().map(|row| row.get(0)).collect()
}

fn observed(client: &mut Client) -> String {
    one(client, "SELECT string_agg(format('%s %s %s %s %s', service, cache_key, payload, ranges, fetched_at), E'\\n' ORDER BY service, cache_key)
        FROM enrichment_cache")
}

#[test]
fn files_that_a_client_sends_become_the_same_rows_as_files_of_the_server() {
    let (cluster, mut client) = database("sent");
    let tree = Tree::new();
    for n in 1..=20 {
        tree.dshield(&format!("8.8.8.{n}"), n, u64::from(n));
    }
    tree.file("hibp/AB/CD/E/ABCDE.json", r#"{"0123456789ABCDEF0123456789ABCDEF012":7}"#, 1);
    tree.file(&by_digest("spur", "8.8.9.9"), r#"{"spur_data":["ORG"]}"#, 1);
    tree.file(&by_digest("dshield", "2600::1"), dshield("2600::1", 4), 1);
    tree.file("dshield/8/8/9/1.json", "", 1);
    tree.file("dshield/8/8/9/2.json", [0xff, 0, b'{'], 1);
    tree.file("README", "hello", 1);
    tree.dshield("8.8.9.3", 1, 9_000);
    every_odd_file(&tree);
    send(&cluster, "sent", &tree);
    let tried = report(&mut client, "CALL enrich_migrate_sent(dry_run => true)");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 0, "a try stores nothing");
    let done = report(&mut client, "CALL enrich_migrate_sent(batch_size => 4)");
    adds_up(&done);
    let expected = "files 36, imported 23, expired 1, malformed 6, unreadable 5, unknown_key 1";
    assert_eq!(
        (parts(&done), parts(&tried)),
        (expected.to_string(), expected.to_string()),
        "{:#?}",
        listed(&mut client)
    );
    let all = Command::new("find")
        .arg(&tree.root)
        .args(["(", "-name", "closed", "-prune", "-o", "!", "-type", "d", ")", "-printf", "x"])
        .output();
    assert_eq!(done["files"], all.expect("find").stdout.len(), "every file of the tree is in the report");
    for (path, words) in [
        ("big.json", "unreadable: the file has 10737418240 bytes, more than are sent"),
        ("closed", "unreadable: the file is of find's type d and was not read"),
        ("dshield/8/8/9/4.json", "unreadable: the file could not be read by who sent it"),
        ("link.json", "unreadable: the file is of find's type l and was not read"),
        ("pipe", "unreadable: the file is of find's type p and was not read"),
        ("odd\u{fffd}name\\.json", "malformed: the file stands in no layout"),
        (" \u{fffd}\u{fffd} ", "malformed: the file has a name that is not UTF-8"),
        ("\\x41", "malformed: the file stands in no layout"),
    ] {
        let line = format!("{path} {words}");
        assert!(
            listed(&mut client).iter().any(|found| found.starts_with(&line)),
            "{line} in {:#?}",
            listed(&mut client)
        );
    }
    let sql = "SELECT string_agg(concat_ws(' ', finding, files), ', ' ORDER BY finding COLLATE \"C\") FROM enrich_migration_verify(1)";
    assert_eq!(one::<String>(&mut client, sql), "expired 1, malformed or unreadable 11, same 24");
    let sent = observed(&mut client);
    run(&mut client, "CALL enrich_migration_rollback(1)");
    assert_eq!(cached(&mut client), "");
    report(&mut client, &tree.import(""));
    assert_eq!(sent, observed(&mut client), "payloads, ranges and times, to the microsecond");
}

#[test]
fn sending_takes_the_level_admin_and_what_was_not_sent_well_is_listed() {
    let (_cluster, mut client) = database("sent_rights");
    run(
        &mut client,
        "CREATE ROLE sent_admin; SELECT enrich_grant('sent_admin', 'admin'); CREATE ROLE sent_writer; SELECT enrich_grant('sent_writer', 'writer');
        SET ROLE sent_writer",
    );
    refused(&mut client, "CALL enrich_migrate_sent()", "42501", "");
    refused(&mut client, "INSERT INTO enrichment_import (path, mtime, body) VALUES ('x', 1, '')", "42501", "");
    run(
        &mut client,
        "RESET ROLE; SET ROLE sent_admin; INSERT INTO enrichment_import (path, mtime, body)
        SELECT p, m, b FROM (VALUES ('dshield/8/8/8/1.json', extract(epoch FROM now()), encode('{\"ip\":{\"number\":\"1\"}}', 'base64')),
            ('dshield/8/8/8/2.json', 1, '{\"ip\":{}}'), ('dshield/8/8/8/3.json', 'NaN', ''), ('../../etc/passwd', 1, '')) AS v (p, m, b)",
    );
    assert_eq!(parts(&report(&mut client, "CALL enrich_migrate_sent()")), "files 4, imported 1, malformed 3");
    let sql =
        "SELECT string_agg(reason, '; ' ORDER BY path) FROM enrichment_migration_problem WHERE path LIKE 'dshield%'";
    let reasons: String = one(&mut client, sql);
    assert!(reasons.contains("not sent in base64") && reasons.contains("an mtime that is no time"), "{reasons}");
    run(&mut client, "DELETE FROM enrichment_import");
    refused(&mut client, "CALL enrich_migrate_disk('/srv/cache')", "42501", "enrich_migrate_sent");
    run(&mut client, "RESET ROLE");
}
