//! Single look-ups: answered from the table, from a file of the disk cache, by nothing; and a client that reads the files itself.

use crate::bed::Bed;
use crate::data::keys;
use crate::measure::latency::{Latencies, GET};
use crate::measure::samples::Ratio;
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::grouped;
use crate::report::table::Table;
use crate::{screen, Result};
use enrichment_cache::core::disk::layout;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DATABASE: &str = "bench_disk";
/// Addresses with a row, with a file, and with neither, at scale 1.
const EACH: f64 = 20_000.0;
const RELOADED_WITHIN: Duration = Duration::from_secs(30);

const FROM_TABLE: &str = "`enrich_get`, answered from the table";
const FROM_TABLE_OFF: &str = "the same, `disk_cache_mode` = `off`";
const FROM_FILE: &str = "`enrich_get`, answered from a file";
const FROM_NOTHING: &str = "`enrich_get`, in neither";
const FROM_NOTHING_OFF: &str = "the same, `disk_cache_mode` = `off`";
const BY_CLIENT: &str = "a client opens the file, reads and parses it";

/// A directory of files, gone with this.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let each = (EACH * bed.settings.scale).max(500.0) as u64;
    let mut session = bed.create_database(DATABASE)?;
    let mut findings = Findings::default();
    if !session.has_setting("enrichment_cache.disk_cache_mode")? {
        findings.say("This version of the extension reads no files.");
        return Ok(findings);
    }
    screen::note("a directory of files, and a table");
    let tree = Tree(std::env::temp_dir().join(format!("enrichment-bench-{}", std::process::id())));
    let with_row: Vec<String> = (0..each).map(keys::address).collect();
    let with_file: Vec<String> = (each..2 * each).map(keys::address).collect();
    let with_neither: Vec<String> = (2 * each..3 * each).map(keys::address).collect();
    for key in &with_file {
        write(&tree.0, key)?;
    }
    session.run(&format!(
        "SELECT count(enrich_store('dshield', k, jsonb_build_object('ip', jsonb_build_object('number', k, 'count', 3))))
         FROM unnest('{{{}}}'::text[]) k",
        with_row.join(",")
    ))?;
    session.run("VACUUM ANALYZE enrichment_cache")?;
    let directory = tree.0.display().to_string();
    session.run(&format!("ALTER SYSTEM SET enrichment_cache.disk_cache_dir = '{directory}'"))?;
    switch(&mut session, "read")?;
    // what the worker takes over meanwhile is not seen by this snapshot: each look-up goes to its file
    session.run("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
    let answered = |session: &mut Session, all: &[String]| -> Result<i64> {
        session.one(&format!("SELECT count(enrich_get('dshield', k)) FROM unnest('{{{}}}'::text[]) k", all.join(",")))
    };
    let [rows, files, neither] = [&with_row, &with_file, &with_neither].map(|all| answered(&mut session, all));
    let (rows, files, neither) = (rows?, files?, neither?);
    if (rows, files, neither) != (each as i64, each as i64, 0) {
        return Err(format!("of {each} each, {rows} rows, {files} files and {neither} of neither answered").into());
    }
    let mut measured = vec![
        (FROM_TABLE, one_by_one(&mut session, &with_row)?),
        (FROM_FILE, one_by_one(&mut session, &with_file)?),
        (FROM_NOTHING, one_by_one(&mut session, &with_neither)?),
    ];
    session.run("COMMIT")?;
    switch(&mut session, "off")?;
    measured.insert(1, (FROM_TABLE_OFF, one_by_one(&mut session, &with_row)?));
    measured.push((FROM_NOTHING_OFF, one_by_one(&mut session, &with_neither)?));
    session.run("ALTER SYSTEM RESET enrichment_cache.disk_cache_dir")?;
    session.run("ALTER SYSTEM RESET enrichment_cache.disk_cache_mode")?;
    session.run("SELECT pg_reload_conf()")?;
    measured.push((BY_CLIENT, by_client(&tree.0, &with_file)?));

    findings.say(format!(
        "{} addresses each with a row, with a file, with neither; files of 60 bytes where the older programs keep them, in the page cache. One \
         client, one prepared statement a look-up, each key once; time over the socket included, in all but the last line. A look-up that no \
         row answers tries the paths of all layouts.",
        grouped(each as f64)
    ));
    let mut table = Table::new("", &["", "µs p50", "µs p99", "µs p99.9"]);
    for (name, latencies) in &measured {
        let [p50, p99, p999] = [latencies.p50(), latencies.p99(), latencies.p999()].map(|us| format!("{us:.1}"));
        table.row(&[name, &p50, &p99, &p999]);
    }
    findings.table(table);
    let p99 = |wanted: &str| {
        measured.iter().find(|(name, _)| *name == wanted).map(|(_, latencies)| Ratio::once(latencies.p99() / 1000.0))
    };
    findings.target(Target::at_most("look-up in the database, p99", 1.0, p99(FROM_TABLE)).in_unit("ms"));
    findings.target(Target::at_most("look-up in a file of the disk cache, p99", 10.0, p99(FROM_FILE)).in_unit("ms"));
    Ok(findings)
}

fn path_of(root: &Path, key: &str) -> PathBuf {
    root.join(layout::written("dshield", key).unwrap_or_default())
}

fn write(root: &Path, key: &str) -> Result<()> {
    let path = path_of(root, key);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, format!(r#"{{"ip":{{"number":"{key}","count":3,"attacks":2}}}}"#))?;
    // the server may run as another account
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Sets the mode, and waits until this session has it.
fn switch(session: &mut Session, mode: &str) -> Result<()> {
    session.run(&format!("ALTER SYSTEM SET enrichment_cache.disk_cache_mode = '{mode}'"))?;
    session.run("SELECT pg_reload_conf()")?;
    let until = Instant::now() + RELOADED_WITHIN;
    while session.one::<String>("SELECT current_setting('enrichment_cache.disk_cache_mode')")? != mode {
        if Instant::now() > until {
            return Err(format!("disk_cache_mode did not become {mode}").into());
        }
    }
    Ok(())
}

fn one_by_one(session: &mut Session, all: &[String]) -> Result<Latencies> {
    let statement = session.prepare(GET)?;
    // connections and plans are warm
    for key in all.iter().take(20) {
        session.execute(&statement, &[key])?;
    }
    let mut latencies = Latencies::default();
    for key in all {
        let began = Instant::now();
        session.execute(&statement, &[key])?;
        latencies.0.push(began.elapsed().as_nanos() as f64 / 1_000.0);
    }
    Ok(latencies)
}

fn by_client(root: &Path, all: &[String]) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    for key in all {
        let began = Instant::now();
        let body: serde_json::Value = serde_json::from_slice(&fs::read(path_of(root, key))?)?;
        latencies.0.push(began.elapsed().as_nanos() as f64 / 1_000.0);
        if body["ip"]["count"] != 3 {
            return Err(format!("the file of {key} says something else").into());
        }
    }
    Ok(latencies)
}
