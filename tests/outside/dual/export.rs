//! The way out: the table as a tree of files, and the same table from it again.

use super::support::{base, dshield_path, Tree};
use crate::support::{refused, run, said, Base, SOON};
use postgres::{Client, SimpleQueryMessage};
use std::os::unix::fs::PermissionsExt;
use testbed::wait_until;

/// Answers of every kind, observed at different times.
const FILL: &str = r#"
    SELECT enrich_store('dshield', '8.4.0.' || n, jsonb_build_object('ip', jsonb_build_object('number', '8.4.0.' || n, 'count', n)),
        fetched_at => now() - n * interval '1 minute') FROM generate_series(1, 120) n;
    SELECT enrich_store('dshield', '2001:db8:1::1', '{"ip":{"number":"2001:db8:1::1","count":12345678901234567890.5}}');
    SELECT enrich_store('dshield', '8.4.1.1', NULL, response_status => 'not_found');
    SELECT enrich_store('urlhaus', '8.4.1.1', '{"tags": "a, b"}');
    SELECT enrich_store('urlhaus', '8.4.1.2', '{"query_status": "ok", "urls": [{"tags": ["x y", null], "url": "http://\u00e4"}]}');
    SELECT enrich_store('urlhaus', '8.4.1.3', NULL, response_status => 'not_found');
    SELECT enrich_store('spur', '8.4.1.1', '{"spur_data": ["1","","","VPN","","","","","","","","","","","","","",""]}');
    SELECT enrich_store('spur', '8.4.1.2', '{"ip": "8.4.1.2", "infrastructure": "DATACENTER"}');
    SELECT enrich_store('spur', '8.4.1.3', NULL, response_status => 'not_found');
    SELECT enrich_store('virustotal', repeat('ab', 32), '{"data": {"attributes": {"last_analysis_stats": {"malicious": 3}}}}');
    SELECT enrich_store('virustotal', repeat('cd', 32), NULL, response_status => 'not_found');
    SELECT enrich_store('hibp', '5BAA6', jsonb_object_agg(upper(substr(encode(sha256(n::text::bytea), 'hex'), 1, 35)), n)) FROM generate_series(1, 300) n;
    SELECT enrich_store('dshield', '8.4.2.1', NULL, response_status => 'error', error_message => 'down')"#;

/// All that the table says.
pub(super) const SAYS: &str =
    "SELECT string_agg(concat_ws(' ', service, cache_key, response_status, extract(epoch FROM fetched_at),
        coalesce(enrich_hibp_range(ranges), payload)), E'\n' ORDER BY service, cache_key)
    FROM enrichment_cache WHERE response_status IN ('success', 'not_found')";

/// The report of an export.
pub(super) fn call(client: &mut Client, sql: &str) -> serde_json::Value {
    let rows = client.simple_query(sql).unwrap_or_else(|why| panic!("{sql}: {}", said(&why)));
    let report = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get("report").map(str::to_string),
        _ => None,
    });
    serde_json::from_str(&report.expect("a report")).expect("JSON")
}

pub(super) fn export(base: &Base, tree: &Tree) -> serde_json::Value {
    let report =
        call(&mut base.client(), &format!("CALL enrich_export_disk('{}', batch_size => 50)", tree.root.display()));
    let parts = ["written", "already_there", "newer_file", "no_place", "failed"];
    let sum: i64 = parts.iter().map(|part| report[part].as_i64().expect("a number")).sum();
    assert_eq!(report["entries"].as_i64(), Some(sum), "{report}");
    report
}

#[test]
fn export_and_reading_it_back_is_the_identity_and_a_second_call_has_nothing_to_do() {
    let (tree, none) = (Tree::new("export"), Tree::new("export_none"));
    let base = base("dual_export", &none, "off");
    base.run(FILL);
    let before: String = base.one(SAYS);
    let report = export(&base, &tree);
    assert_eq!((report["written"].as_i64(), report["failed"].as_i64()), (Some(131), Some(0)), "{report}");
    assert_eq!(tree.files().len(), 131);
    let again = export(&base, &tree);
    assert_eq!((again["written"].as_i64(), again["already_there"].as_i64()), (Some(0), Some(131)), "{again}");
    // an empty table that asks for every key finds it in the files, with its age, and nothing else
    base.run("CREATE TABLE keys AS SELECT service, cache_key FROM enrichment_cache; DELETE FROM enrichment_cache");
    base.cluster.set("enrichment_cache.disk_cache_dir", &tree.root.display().to_string());
    base.cluster.set("enrichment_cache.disk_cache_mode", "read");
    base.wait_for("SELECT count(*) FROM keys k, enrich_lookup(k.service, k.cache_key) l WHERE l.source = 'disk' OR l.state <> 'miss'", 131i64);
    base.wait_for(SAYS, before);
}

#[test]
fn of_mixed_answers_only_the_services_asked_for_are_written() {
    let (tree, none) = (Tree::new("some"), Tree::new("some_none"));
    let base = base("dual_some", &none, "off");
    base.run(FILL);
    let some = |services: &str| -> (i64, i64) {
        let sql = format!("CALL enrich_export_disk('{}', '{services}', batch_size => 2)", tree.root.display());
        let report = call(&mut base.client(), &sql);
        (report["entries"].as_i64().expect("a number"), report["written"].as_i64().expect("a number"))
    };
    let folders = || {
        let mut folders: Vec<String> =
            tree.files().iter().filter_map(|path| path.split('/').next().map(str::to_string)).collect();
        folders.dedup();
        folders
    };
    assert_eq!(some("{urlhaus,hibp}"), (4, 4));
    assert_eq!((folders(), tree.files().len()), (vec!["hibp".to_string(), "urlhaus".into()], 4));
    assert_eq!(some("{virustotal}"), (2, 2));
    assert_eq!(folders(), ["hibp", "urlhaus", "virustotal", "virustotal_unknown"]);
    assert_eq!(some("{}"), (0, 0));
    assert_eq!(some("{spur,dshield}"), (125, 125));
    assert_eq!(export(&base, &tree)["already_there"].as_i64(), Some(131));
}

#[test]
fn an_export_goes_on_where_a_cancelled_one_ended_and_keeps_newer_files() {
    let (tree, none) = (Tree::new("again"), Tree::new("again_none"));
    let base = base("dual_again", &none, "off");
    base.run(FILL);
    let directory = tree.root.display().to_string();
    let step = format!("SELECT last_id FROM enrich_export_batch('{directory}', '{{dshield}}', 0, 40)");
    assert!(base.one::<Option<i64>>(&step).is_some());
    assert_eq!(tree.files().len(), 40, "one batch");
    let first: String =
        base.one("SELECT cache_key FROM enrichment_cache WHERE service = 'dshield' ORDER BY id LIMIT 1");
    tree.put(&dshield_path(&first), "{\"ip\":{\"count\":99}}", 0);
    let report = export(&base, &tree);
    assert_eq!((report["already_there"].as_i64(), report["newer_file"].as_i64()), (Some(39), Some(1)), "{report}");
    assert_eq!(tree.body(&dshield_path(&first)).as_deref(), Some("{\"ip\":{\"count\":99}}"));
}

#[test]
fn an_export_can_be_cancelled_and_what_it_wrote_stays() {
    let (tree, none) = (Tree::new("cancel"), Tree::new("cancel_none"));
    let base = base("dual_cancel", &none, "off");
    base.run(
        "SELECT count(enrich_store('dshield', host('9.0.0.0'::inet + n), jsonb_build_object('ip', jsonb_build_object('count', n))))
         FROM generate_series(1, 8000) n",
    );
    let mut client = base.client();
    let cancel = client.cancel_token();
    let sql = format!("CALL enrich_export_disk('{}', batch_size => 100)", tree.root.display());
    let ended = std::thread::scope(|threads| {
        let export = threads.spawn(|| client.simple_query(&sql).map(drop));
        wait_until("the first files", SOON, || {
            Ok((tree.root.join("dshield/9").exists() || export.is_finished()).then_some(()))
        });
        cancel.cancel_query(postgres::NoTls).expect("a cancel");
        export.join().expect("the export")
    });
    let error = ended.expect_err("it was cancelled long before its end");
    assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error}");
    let whole = || tree.files().iter().filter(|path| !path.ends_with(".tmp")).count() as i64;
    let written = whole();
    assert!((1..8_000).contains(&written), "{written}");
    let report = export(&base, &tree);
    // the file that was being written then is finished by a thread
    let there = report["already_there"].as_i64().expect("a number");
    assert!((written..=written + 1).contains(&there), "{written} were written: {report}");
    assert_eq!((whole(), tree.files().len()), (8_000, 8_000));
}

#[test]
fn an_export_needs_the_right_to_write_files_and_a_directory_that_can_be_written() {
    let (tree, none) = (Tree::new("rights"), Tree::new("rights_none"));
    let base = base("dual_rights", &none, "off");
    base.run(FILL);
    base.run("CREATE ROLE keeper LOGIN; SELECT enrich_grant('keeper', 'admin')");
    let sql = format!("CALL enrich_export_disk('{}')", tree.root.display());
    let mut client = base.client();
    run(&mut client, "SET ROLE keeper");
    refused(&mut client, &sql, "42501", "pg_write_server_files");
    run(&mut client, "RESET ROLE; GRANT pg_write_server_files TO keeper; SET ROLE keeper");
    run(&mut client, &sql);
    assert_eq!(tree.files().len(), 131);
    refused(&mut client, "CALL enrich_export_disk('relative')", "58030", "absolute path");
    refused(&mut client, "CALL enrich_export_disk('/nonexistent/enrichment')", "58030", "exists");
    refused(&mut client, &format!("CALL enrich_export_disk('{}', '{{dshiled}}')", tree.root.display()), "42704", "");
    // a folder that is closed to the server fails file by file, and is told
    let closed = Tree::new("closed");
    std::fs::set_permissions(&closed.root, std::fs::Permissions::from_mode(0o555)).expect("permissions");
    run(&mut client, "RESET ROLE");
    let report = call(&mut client, &format!("CALL enrich_export_disk('{}')", closed.root.display()));
    assert_eq!(report["failed"].as_i64(), Some(131), "{report}");
}
