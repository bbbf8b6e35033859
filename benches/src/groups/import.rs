//! Moving in: a tree of 300,000 files into the cache, against reading it with `find` and `cat`, and against a client that goes
//! file by file.

use crate::bed::Bed;
use crate::data::{answers, hibp, keys, virustotal};
use crate::measure::rounds::{in_turns, Measured, Variant};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::{bytes, grouped};
use crate::report::table::Table;
use crate::{screen, Result};
use enrichment_cache::core::disk::layout;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DATABASE: &str = "bench_import";
const OURS: &str = "`CALL enrich_migrate_disk`";
const TRIED: &str = "the same, `dry_run`";
const FIND: &str = "`find -type f -exec cat {} +` to /dev/null";
const READY: &str = "`INSERT ... SELECT` of the same rows, ready in a table";
const CLIENT: &str = "a client, file by file";
const CLIENT_BATCHED: &str = "the same, a commit every 100 files";

/// Of each service at scale 1: 300,000 in all.
const FILES: [(&str, u64); 5] =
    [("dshield", 96_000), ("urlhaus", 94_000), ("spur", 90_000), ("virustotal", 16_000), ("hibp", 4_000)];
/// The client is so slow that it does a part of the files.
const CLIENT_PART: usize = 20;
const COMMIT_EVERY: usize = 100;

/// One file: what a client has to know to store it.
struct File {
    path: PathBuf,
    service: &'static str,
    key: String,
}

/// A directory of files, gone with this.
struct Tree {
    root: PathBuf,
    files: Vec<File>,
    bytes: u64,
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

struct Context {
    session: Session,
    tree: Tree,
}

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let session = bed.create_database(DATABASE)?;
    let tree = plant(bed)?;
    let (files, size) = (tree.files.len() as u64, tree.bytes);
    let mut context = Context { session, tree };
    context.make_ready()?;
    let variants = vec![
        Variant::new(OURS, |context: &mut Context| context.imported()),
        Variant::new(FIND, |context: &mut Context| context.read()),
        Variant::new(TRIED, |context: &mut Context| context.tried()),
        Variant::new(READY, |context: &mut Context| context.insert_ready()),
        Variant::new(CLIENT, |context: &mut Context| context.client(1)),
        Variant::new(CLIENT_BATCHED, |context: &mut Context| context.client(COMMIT_EVERY)),
    ];
    let measured = in_turns(bed, "import", &mut context, variants)?;

    let mut findings = Findings::default();
    let mix = FILES.map(|(service, count)| format!("{service} {}", grouped(bed.settings.rows(count) as f64)));
    findings.say(format!(
        "{} files, {}, in the layout the older programs write ({}), in the page cache; those of urlhaus and spur bear only a digest. The table is \
         empty before each import, which is one call with default arguments on a durable server, and the report is checked to add up. The client knows \
         the key of every file; it reads one, parses it and upserts it with a prepared statement over the socket; it does a part of the files, \
         of all services. What no import in one process can go below is one statement that takes the same rows, their payloads compressed already, \
         from a table, with the index of payloads taking in 64 MB at a time.",
        grouped(files as f64),
        bytes(size as f64),
        mix.join(", ")
    ));
    findings.table(Table::of(
        "",
        "µs a file",
        &measured,
        &[("× find and cat", FIND), ("× ready rows", READY), ("× client", CLIENT)],
    ));
    findings.table(rates(&measured, files, size));
    findings.target(Target::at_most("import of a tree, × the time of find and cat", 3.0, measured.ratio(OURS, FIND)));
    findings.target(Target::at_least(
        "import of a tree, × rate of a client that goes file by file",
        10.0,
        measured.ratio(CLIENT, OURS),
    ));
    Ok(findings)
}

fn rates(measured: &Measured, files: u64, size: u64) -> Table {
    let mut table = Table::new("", &["", "files a second", "MB a second"]);
    for name in [OURS, TRIED, FIND] {
        if let Some(samples) = measured.get(name) {
            let rate = 1e6 / samples.median();
            table.row(&[name, &grouped(rate), &grouped(rate * size as f64 / files as f64 / 1e6)]);
        }
    }
    table
}

fn plant(bed: &Bed) -> Result<Tree> {
    let began = Instant::now();
    let root = std::env::temp_dir().join(format!("enrichment-bench-import-{}", std::process::id()));
    let mut tree = Tree { root, files: Vec::new(), bytes: 0 };
    fs::create_dir_all(&tree.root)?;
    // the server may run as another account
    fs::set_permissions(&tree.root, fs::Permissions::from_mode(0o755))?;
    for (service, count) in FILES {
        for n in 0..bed.settings.rows(count) {
            bed.stop.check()?;
            let key = match service {
                "virustotal" => keys::file_hash(n),
                "hibp" => format!("{:05X}", n * 251 % 0x10_0000),
                _ => keys::address(n),
            };
            let body = match service {
                "dshield" => answers::dshield(n, &key, 0),
                "urlhaus" => answers::urlhaus(n, &key),
                "spur" => answers::spur(n, &key),
                "virustotal" => virustotal::report(n),
                _ => hibp::range(&key, &[]),
            };
            let path = layout::written(service, &key).ok_or_else(|| format!("no path for {service} {key}"))?;
            let path = tree.root.join(path);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            fs::write(&path, &body)?;
            tree.bytes += body.len() as u64;
            tree.files.push(File { path, service, key });
        }
    }
    screen::note(&format!("a tree of {} files, {:.0} s", tree.files.len(), began.elapsed().as_secs_f64()));
    Ok(tree)
}

impl Context {
    fn empty(&mut self) -> Result<()> {
        self.session
            .run("TRUNCATE enrichment_cache, enrichment_history, enrichment_queue, enrichment_migration CASCADE")?;
        self.session.run("CHECKPOINT")
    }

    /// Microseconds for each of `files`.
    fn each(took: Duration, files: usize) -> f64 {
        took.as_micros() as f64 / files as f64
    }

    fn migrate(&mut self, arguments: &str) -> Result<Duration> {
        let call = format!("CALL enrich_migrate_disk('{}'{arguments})", self.tree.root.display());
        let began = Instant::now();
        let report = self.session.text(&call)?;
        let took = began.elapsed();
        let report: serde_json::Value = serde_json::from_str(&report)?;
        let files = self.tree.files.len() as u64;
        if report["files"] != files || report["imported"] != files {
            return Err(format!("of {files} files not all were imported: {report}").into());
        }
        Ok(took)
    }

    fn imported(&mut self) -> Result<f64> {
        self.empty()?;
        let took = self.migrate("")?;
        let rows: i64 = self.session.one("SELECT count(*) FROM enrichment_cache")?;
        if rows != self.tree.files.len() as i64 {
            return Err(format!("{rows} rows of {} files", self.tree.files.len()).into());
        }
        Ok(Self::each(took, self.tree.files.len()))
    }

    /// The rows of an import, in a table of their own.
    fn make_ready(&mut self) -> Result<()> {
        self.imported()?;
        self.session.run(
            "CREATE TABLE ready AS SELECT service, cache_key, payload, ranges, response_status, fetched_at, expires_at
             FROM enrichment_cache ORDER BY service, cache_key",
        )
    }

    fn insert_ready(&mut self) -> Result<f64> {
        self.empty()?;
        self.session.run("SET gin_pending_list_limit = '64MB'")?;
        let began = Instant::now();
        self.session.run(
            "INSERT INTO enrichment_cache (service, cache_key, payload, ranges, response_status, fetched_at, expires_at)
             SELECT service, cache_key, payload, ranges, response_status, fetched_at, expires_at FROM ready",
        )?;
        self.session.run("SELECT enrichment_payload_settle()")?;
        let took = began.elapsed();
        self.session.run("RESET gin_pending_list_limit")?;
        Ok(Self::each(took, self.tree.files.len()))
    }

    fn tried(&mut self) -> Result<f64> {
        self.empty()?;
        let took = self.migrate(", dry_run => true")?;
        Ok(Self::each(took, self.tree.files.len()))
    }

    fn read(&mut self) -> Result<f64> {
        let mut find = Command::new("find");
        find.arg(&self.tree.root).args(["-type", "f", "-exec", "cat", "{}", "+"]).stdout(Stdio::null());
        let began = Instant::now();
        let status = find.status()?;
        let took = began.elapsed();
        if !status.success() {
            return Err(format!("find: {status}").into());
        }
        Ok(Self::each(took, self.tree.files.len()))
    }

    fn client(&mut self, commit_every: usize) -> Result<f64> {
        self.empty()?;
        let upsert = self.session.prepare(
            "INSERT INTO enrichment_cache (service, cache_key, payload, fetched_at, expires_at)
             VALUES ($1, $2, $3::text::jsonb, to_timestamp($4), to_timestamp($4) + interval '7 days')
             ON CONFLICT (service, cache_key) DO UPDATE SET payload = excluded.payload, fetched_at = excluded.fetched_at,
                expires_at = excluded.expires_at WHERE enrichment_cache.fetched_at < excluded.fetched_at",
        )?;
        let some: Vec<&File> = self.tree.files.iter().step_by(CLIENT_PART).collect();
        let began = Instant::now();
        for batch in some.chunks(commit_every) {
            if commit_every > 1 {
                self.session.run("BEGIN")?;
            }
            for file in batch {
                let text = fs::read_to_string(&file.path)?;
                let parsed: serde_json::Value = serde_json::from_str(&text)?;
                let changed = fs::metadata(&file.path)?.modified()?.duration_since(std::time::UNIX_EPOCH)?;
                let (payload, changed) = (parsed.to_string(), changed.as_secs_f64());
                self.session.execute(&upsert, &[&file.service, &file.key, &payload, &changed])?;
            }
            if commit_every > 1 {
                self.session.run("COMMIT")?;
            }
        }
        Ok(Self::each(began.elapsed(), some.len()))
    }
}
