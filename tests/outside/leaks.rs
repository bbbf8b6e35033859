//! Secrets are planted in all three places and sent to providers that repeat them in every way; then everything that can be
//! read is searched for them.
//!
//! Not searched, because it must hold what `enrich_set_secret` keeps: the file of the table enrichment_secret (which is searched to
//! see that the search works) and the WAL. The data directory belongs to the server's account alone.

use crate::dump::tool;
use crate::http::{Asked, Reply, Server};
use crate::support::{create_database, one, run, said, wait_served, SOON};
use postgres::Client;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use testbed::{wait_until, Cluster, Stage};

const DATABASE: &str = "leaks";
/// Short and long, with what is written differently in URLs and in JSON.
const SECRETS: [(&str, &str); 3] =
    [("IN_DATABASE", "kept/S3cret+1\"x"), ("IN_FILE", "filed-S3cret-2"), ("IN_ENVIRONMENT", "inherited&S3cret=3")];
/// What all of them hold, in whatever way they are written.
const MARK: &str = "S3cret";
/// Given as a literal, to a service that is not asked.
const LITERAL: &str = "literal-S3cret-4";
const OUTCOMES: [&str; 13] = [
    "ok",
    "nothing",
    "refused",
    "unauthorized",
    "forbidden",
    "limited",
    "failed",
    "redirect",
    "page",
    "broken",
    "usage",
    "huge",
    "cut",
];

/// Repeats in its answer all that it was sent.
fn repeat(asked: &Asked) -> Reply {
    let heard = serde_json::json!({ "error": asked.head, "message": asked.head, "echo": [asked.head, asked.target] })
        .to_string();
    let outcome = asked.target.split('/').nth(1).unwrap_or_default();
    let secret = asked
        .head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().starts_with("x-key: ").then(|| line[7..].to_string()));
    let secret = secret.unwrap_or_default();
    let with = |status: u16, headers: String, body: String| Reply { status, headers, body: body.into_bytes() };
    match outcome {
        "ok" => with(200, String::new(), heard),
        "nothing" => with(404, String::new(), heard),
        "refused" => with(400, String::new(), heard),
        "unauthorized" => with(401, format!("WWW-Authenticate: Bearer {secret}\r\n"), heard),
        "forbidden" => with(403, String::new(), heard),
        "limited" => with(429, format!("Retry-After: {secret}\r\n"), heard),
        "failed" => with(500, String::new(), heard),
        "redirect" => with(302, format!("Location: http://127.0.0.1:1/?k={secret}\r\n"), heard),
        "page" => with(200, String::new(), format!("<html>{}</html>", asked.head)),
        "broken" => with(200, String::new(), format!("{{\"{secret}\": {secret}")),
        "usage" => with(200, format!("X-Left: {secret}\r\nETag: \"{secret}\"\r\n"), heard),
        "huge" => with(200, String::new(), secret.repeat(2000)),
        _ => with(200, "Content-Encoding: gzip\r\n".to_string(), secret),
    }
}

struct Scene {
    cluster: Cluster,
    _server: Server,
    directory: PathBuf,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn has_statistics() -> bool {
    let stage = Stage::from_env().unwrap_or_else(|why| panic!("{why}"));
    stage.bin("../lib/pg_stat_statements.so").exists()
}

fn scene() -> Scene {
    let directory = std::env::temp_dir().join(format!("enrichment-leaks-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("secrets")).expect("a directory for secrets");
    std::fs::write(directory.join("secrets/IN_FILE"), SECRETS[1].1).expect("a secret in a file");
    let libraries = if has_statistics() { "pg_stat_statements,enrichment_cache" } else { "enrichment_cache" };
    let cluster = Cluster::builder("leaks")
        .preload(true)
        .setting("shared_preload_libraries", libraries)
        .setting("log_min_messages", "debug5")
        .setting("log_statement", "none")
        .setting("max_worker_processes", "20")
        .setting("enrichment_cache.secrets_dir", &directory.join("secrets").to_string_lossy())
        .env("IN_ENVIRONMENT", SECRETS[2].1)
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    create_database(&cluster, DATABASE);
    let server = Server::start(repeat);
    let mut client = cluster.client(DATABASE);
    run(&mut client, "CREATE EXTENSION enrichment_cache");
    for (name, _) in SECRETS {
        for outcome in OUTCOMES {
            let insert = "INSERT INTO enrichment_service (name, key_kind, url, headers, secret_name, secret_required, max_bytes, rules)
                VALUES ($1, 'ip', $2, '{\"x-key\": \"{secret}\", \"authorization\": \"Bearer {secret}\"}', $3, true, 20000,
                    '{\"conditional\": true, \"usage\": {\"headers\": [{\"remaining\": \"x-left\"}]}}')";
            let url = server.url(&format!("/{outcome}/{{key}}?token={{secret}}"));
            client
                .execute(insert, &[&service(name, outcome), &url, &name])
                .unwrap_or_else(|why| panic!("{}", said(&why)));
        }
    }
    wait_served(&cluster, DATABASE);
    Scene { cluster, _server: server, directory }
}

fn service(secret: &str, outcome: &str) -> String {
    format!("{}_{outcome}", secret.to_lowercase())
}

/// What was read, by where.
#[derive(Default)]
struct Found(BTreeMap<String, Vec<u8>>);

impl Found {
    fn add(&mut self, place: impl Into<String>, bytes: impl AsRef<[u8]>) {
        let text = self.0.entry(place.into()).or_default();
        text.extend_from_slice(bytes.as_ref());
        text.push(b'\n');
    }

    /// All rows of a query, as text.
    fn query(&mut self, client: &mut Client, sql: &str) {
        match client.simple_query(sql) {
            Ok(messages) => {
                for message in messages {
                    if let postgres::SimpleQueryMessage::Row(row) = message {
                        (0..row.len()).filter_map(|n| row.get(n)).for_each(|text| self.add(sql, text));
                    }
                }
            }
            Err(error) => panic!("{sql}: {}", said(&error)),
        }
    }

    /// An error with all its parts.
    fn refused(&mut self, place: &str, error: &postgres::Error) {
        self.add(place, format!("{error} {:?}", error.as_db_error()));
    }

    fn holds_none(&self) {
        for (place, text) in &self.0 {
            assert!(!holds(text, MARK), "a secret is in: {place}");
        }
    }
}

fn holds(text: &[u8], secret: &str) -> bool {
    String::from_utf8_lossy(text).contains(secret)
}

/// What pg_stat_activity shows until it is told to stop.
fn watch(cluster: &Cluster, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<String> {
    let mut client = cluster.client(DATABASE);
    std::thread::spawn(move || {
        let mut seen = String::new();
        while !stop.load(Ordering::SeqCst) {
            let sql = "SELECT string_agg(a::text, E'\n') FROM pg_stat_activity a, pg_sleep(0.02)";
            seen.push_str(&one::<String>(&mut client, sql));
        }
        seen
    })
}

/// Gives the secrets and has every service asked once.
fn ask_everything(scene: &Scene, found: &mut Found) {
    let mut client = scene.cluster.client(DATABASE);
    let set = "SELECT enrich_set_secret($1, $2)";
    client.execute(set, &[&service("IN_DATABASE", "ok"), &SECRETS[0].1]).expect("a bound secret");
    run(&mut client, &format!("SELECT enrich_set_secret('virustotal', '{LITERAL}')"));
    run(&mut client, "SELECT 1");
    for wrong in ["nosuch", "hibp"] {
        let error = client.execute(set, &[&wrong, &SECRETS[0].1]).expect_err("no such secret");
        found.refused(wrong, &error);
    }
    let ask = "SELECT enrich_request(name, '8.8.8.8') FROM enrichment_service WHERE name LIKE 'in\\_%'";
    run(&mut client, ask);
    wait_until("an attempt of each service", SOON, || {
        let left = "SELECT count(*) FROM enrichment_service s WHERE name LIKE 'in\\_%'
            AND NOT EXISTS (SELECT FROM enrichment_cache c WHERE c.service = s.name)";
        crate::support::same(one::<i64>(&mut client, left), &0)
    });
    // the secrets did arrive, and came back: one answer of each origin is kept, with the places masked
    let kept = "SELECT count(*) FROM enrichment_cache WHERE service LIKE 'in\\_%\\_ok' AND payload::text LIKE '%Bearer ***%' AND altered";
    assert_eq!(one::<i64>(&mut client, kept), 3);
}

fn read_everything(scene: &Scene, found: &mut Found) {
    let mut client = scene.cluster.client(DATABASE);
    let relations = "SELECT c.relname::text FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
        WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'enrichment_cache') AND d.deptype = 'e'
          AND d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'v') AND c.relname <> 'enrichment_secret'";
    let rows = client.query(relations, &[]).unwrap_or_else(|why| panic!("{}", said(&why)));
    assert!(rows.len() > 20, "{} tables and views", rows.len());
    for row in rows {
        let name: String = row.get(0);
        found.query(&mut client, &format!("SELECT t::text FROM {name} t"));
        found.query(&mut client, &format!("EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM {name}"));
    }
    for sql in [
        "SELECT (enrich_health()).*",
        "SELECT enrich_explain(name, '8.8.8.8') FROM enrichment_service",
        "SELECT (enrich_lookup(name, '8.8.8.8')).* FROM enrichment_service",
        "SELECT enrich_get_text(name, '8.8.8.8') FROM enrichment_service",
        "EXPLAIN (ANALYZE, VERBOSE) SELECT enrich_get(name, '8.8.8.8'), url, headers FROM enrichment_service",
        "EXPLAIN (ANALYZE, VERBOSE) SELECT enrich_request(name, '8.8.8.8') FROM enrichment_service WHERE name LIKE 'in\\_%'",
        "EXPLAIN (VERBOSE) SELECT enrich_fetch(name, '8.8.8.8'), enrich_set_secret(name, NULL) FROM enrichment_service",
        "EXPLAIN (VERBOSE) SELECT * FROM enrichment_secret",
        "SELECT name, setting FROM pg_settings",
        "SELECT s::text FROM pg_stat_activity s",
        "SELECT p::text FROM pg_prepared_statements p",
        "SELECT s::text FROM pg_stats s",
    ] {
        found.query(&mut client, sql);
    }
    if has_statistics() {
        run(&mut client, "CREATE EXTENSION pg_stat_statements");
        found.query(&mut client, "SELECT query FROM pg_stat_statements");
    }
    found.add("pg_dump", tool(&scene.cluster, "pg_dump", &[DATABASE], ""));
}

fn read_backup(scene: &Scene, found: &mut Found) {
    let mut client = scene.cluster.client(DATABASE);
    run(&mut client, "ANALYZE");
    let own = "SELECT pg_relation_filepath(c.oid) FROM pg_class c
        WHERE c.oid = 'enrichment_secret'::regclass OR c.oid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'enrichment_secret'::regclass)
        ORDER BY c.relkind = 't'";
    let own: Vec<String> = client.query(own, &[]).expect("its files").iter().map(|row| row.get(0)).collect();
    let backup = scene.directory.join("backup");
    let to = backup.to_string_lossy().into_owned();
    tool(&scene.cluster, "pg_basebackup", &["-D", &to, "-X", "none", "--checkpoint=fast", "--no-sync"], "");
    let kept = std::fs::read(backup.join(&own[0])).expect("the table's file");
    assert!(holds(&kept, SECRETS[0].1), "what is kept stands in the table's own file, where this search finds it");
    let mut files = Vec::new();
    list(&backup, &mut files);
    assert!(files.len() > 500, "{} files", files.len());
    for file in files {
        let name = file.strip_prefix(&backup).expect("in the backup").to_string_lossy().into_owned();
        if !own.iter().any(|own| name.starts_with(own.as_str())) {
            found.add(format!("backup: {name}"), std::fs::read(&file).expect("a file of the backup"));
        }
    }
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory of the backup").flatten() {
        match entry.path() {
            path if path.is_dir() => list(&path, files),
            path => files.push(path),
        }
    }
}

#[test]
fn no_secret_is_to_be_read_anywhere() {
    let scene = scene();
    let mut found = Found::default();
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = watch(&scene.cluster, stop.clone());
    ask_everything(&scene, &mut found);
    read_everything(&scene, &mut found);
    stop.store(true, Ordering::SeqCst);
    let seen = watcher.join().expect("the watcher");
    // a literal is the text of its statement until the session's next one, for superusers: the guide says so
    let seen: Vec<&str> = seen.lines().filter(|line| !line.contains("enrich_set_secret('virustotal'")).collect();
    assert!(seen.iter().any(|line| line.contains("enrichment_cache worker")), "the worker was watched");
    found.add("pg_stat_activity, again and again", seen.join("\n"));
    read_backup(&scene, &mut found);
    let log = scene.cluster.log();
    assert!(log.contains("DEBUG:"), "the log is as talkative as can be");
    // at DEBUG3 the server itself writes down its environment when it starts: the guide says so
    let environment = format!("{}={}", SECRETS[2].0, SECRETS[2].1);
    let written: Vec<&str> = log.lines().filter(|line| !line.trim_end().ends_with(&environment)).collect();
    assert_eq!(written.len() + 1, log.lines().count(), "once, at its start");
    found.add("the server's log", written.join("\n"));
    found.holds_none();
}

#[test]
fn no_role_but_the_owner_reads_the_table_of_secrets() {
    let base = crate::support::Base::new("secrets", "table_of_secrets");
    let mut client = base.client();
    run(&mut client, "CREATE ROLE a_reader; CREATE ROLE a_writer; CREATE ROLE an_admin; CREATE ROLE reads_all; GRANT pg_read_all_data TO reads_all");
    run(&mut client, "SELECT enrich_grant('a_reader', 'reader'), enrich_grant('a_writer', 'writer'), enrich_grant('an_admin', 'admin')");
    for role in ["a_reader", "a_writer", "an_admin"] {
        run(&mut client, &format!("SET ROLE {role}"));
        crate::support::refused(&mut client, "SELECT * FROM enrichment_secret", "42501", "");
        run(&mut client, "RESET ROLE");
    }
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_secret"), 3);
    run(&mut client, "SET ROLE reads_all");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_secret"), 0);
    run(
        &mut client,
        "RESET ROLE; DROP OWNED BY a_reader, a_writer, an_admin; DROP ROLE a_reader, a_writer, an_admin, reads_all",
    );
}
