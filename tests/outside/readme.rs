//! The README is executed: its SQL and its commands run in order against a fresh cluster and the sandbox providers.
//!
//! Before each fenced block of `sql` or `sh` stands an HTML comment that says what becomes of it: `<!-- test: run -->`,
//! `<!-- test: demo -->` (`make demo` and `make demo-stop`, when `ENRICHMENT_README_DEMO` is 1) or
//! `<!-- test: skip why -->`.

use crate::sources_support::SMALL;
use crate::support::{create_database, own_cluster, run, wait_unserved};
use std::path::{Path, PathBuf};
use std::process::Command;
use testbed::honeypot::{self, Shape};
use testbed::{Cluster, Sandbox};

const DATABASE: &str = "readme";
/// What a block of `<!-- test: demo -->` may hold.
const DEMO: [&str; 2] = ["make demo", "make demo-stop"];
/// The sandbox takes the keys that the README gives as examples.
const SANDBOX: [&str; 8] = [
    "--limits",
    "none",
    "--virustotal-key",
    "your-virustotal-key",
    "--urlhaus-key",
    "your-urlhaus-key",
    "--spur-key",
    "your-spur-key",
];

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Run,
    Demo,
    Skip(String),
}

#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Of the opening fence, from 1.
    line: usize,
    language: String,
    fate: Fate,
    text: String,
}

/// The executable blocks of a page, or what is wrong with it.
fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut comment = None;
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if !line.trim().is_empty() {
                comment = line.trim().strip_prefix("<!-- test:").and_then(|rest| rest.strip_suffix("-->"));
            }
            continue;
        };
        let text: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
        let (language, said) = (language.trim(), comment.take());
        if !["sql", "sh"].contains(&language) {
            continue;
        }
        let line = number + 1;
        let fate = match said.map(|said| said.trim().split_once(' ').unwrap_or((said.trim(), ""))) {
            Some(("run", "")) => Fate::Run,
            Some(("demo", "")) if DEMO.contains(&text.join("\n").trim()) => Fate::Demo,
            Some(("skip", why)) if !why.is_empty() => Fate::Skip(why.to_string()),
            Some((what, why)) => return Err(format!("line {line}: a block cannot be tested as `{what} {why}`")),
            None => return Err(format!("line {line}: no comment says whether this {language} block is tested")),
        };
        blocks.push(Block { line, language: language.to_string(), fate, text: text.join("\n") });
    }
    match blocks.iter().any(|block| block.fate == Fate::Run) {
        true => Ok(blocks),
        false => Err("no block is run".to_string()),
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// From CREATE EXTENSION on, in the same statement, services of this database ask the sandbox and nobody else.
fn keep_inside(cluster: &Cluster, sandbox: &Sandbox) {
    let sql = format!(
        "CREATE FUNCTION keep_inside() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF to_regclass('enrichment_service') IS NOT NULL THEN
                 UPDATE enrichment_service SET url = regexp_replace(url, '^https://[^/]+', '{}/' || name);
             END IF;
         END $$;
         CREATE EVENT TRIGGER keep_inside ON ddl_command_end WHEN TAG IN ('CREATE EXTENSION')
             EXECUTE FUNCTION keep_inside()",
        sandbox.base_url()
    );
    run(&mut cluster.client(DATABASE), &sql);
}

/// A state directory for `make demo`, so that a demo somebody is looking at goes on.
struct DemoState(PathBuf);

impl DemoState {
    fn new() -> DemoState {
        let base = std::env::var_os("ENRICHMENT_STATE").map_or_else(|| root().join("target"), PathBuf::from);
        let state = base.join(format!("readme-demo-{}", std::process::id()));
        std::fs::create_dir_all(&state).unwrap_or_else(|why| panic!("{}: {why}", state.display()));
        DemoState(state)
    }
}

impl Drop for DemoState {
    fn drop(&mut self) {
        if self.0.join("demo").exists() {
            let _ = Command::new("make").arg("demo-stop").current_dir(root()).env("ENRICHMENT_STATE", &self.0).status();
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn execute(block: &Block, cluster: &Cluster, demo: &Option<DemoState>) -> Result<String, String> {
    if block.language == "sql" {
        return cluster.psql(DATABASE, &["-c", &block.text]);
    }
    let programs = cluster.stage().bin("psql").parent().map(|path| path.display().to_string()).unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    if let (Fate::Demo, Some(demo)) = (&block.fate, demo) {
        command.env("ENRICHMENT_STATE", &demo.0);
    }
    let output = command
        .args(["-euo", "pipefail", "-c", &block.text])
        .current_dir(root())
        .env("PATH", format!("{programs}:{path}"))
        .env("PGHOST", cluster.host())
        .env("PGPORT", cluster.port().to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", DATABASE)
        .output()
        .map_err(|why| why.to_string())?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("{said}\n{}", output.status))
    }
}

#[test]
fn every_command_of_the_readme_works() {
    let path = root().join("README.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let blocks = blocks(&page).unwrap_or_else(|why| panic!("README.md, {why}"));
    let with_demo = std::env::var("ENRICHMENT_README_DEMO").is_ok_and(|value| value == "1");
    let cluster = own_cluster("readme");
    let sandbox = Sandbox::start(&SANDBOX);
    create_database(&cluster, DATABASE);
    // the reader's own tables
    let mut client = cluster.client(DATABASE);
    honeypot::create_tables(&mut client, &Shape::default()).unwrap_or_else(|why| panic!("{why}"));
    honeypot::load(&mut client, &Shape::default(), &SMALL).unwrap_or_else(|why| panic!("{why}"));
    let demo = with_demo.then(DemoState::new);
    keep_inside(&cluster, &sandbox);
    for block in &blocks {
        let wanted = match block.fate {
            Fate::Run => true,
            Fate::Demo => with_demo,
            Fate::Skip(_) => false,
        };
        if !wanted {
            continue;
        }
        match execute(block, &cluster, &demo) {
            Ok(said) => println!("--- README.md, line {}\n{}\n{said}", block.line, block.text),
            Err(why) => panic!("README.md, the block at line {}:\n{}\n---\n{why}", block.line, block.text),
        }
    }
    run(&mut cluster.client(DATABASE), "DROP EXTENSION IF EXISTS enrichment_cache CASCADE");
    wait_unserved(&cluster, DATABASE);
}

#[test]
fn a_block_without_a_comment_is_a_mistake() {
    let page = "text\n\n```sql\nSELECT 1;\n```\n";
    assert_eq!(blocks(page).unwrap_err(), "line 3: no comment says whether this sql block is tested");
    let far = "<!-- test: run -->\nwords in between\n```sh\nls\n```\n";
    assert!(blocks(far).unwrap_err().starts_with("line 3: no comment"));
    assert!(blocks("<!-- test: skip -->\n```sh\nls\n```\n").unwrap_err().contains("cannot be tested as `skip `"));
    assert!(blocks("<!-- test: demo -->\n```sh\nmake test\n```\n")
        .unwrap_err()
        .contains("cannot be tested as `demo `"));
    assert!(blocks("<!-- test: maybe -->\n```sh\nls\n```\n").unwrap_err().contains("cannot be tested as `maybe `"));
}

#[test]
fn a_page_of_which_nothing_is_run_is_a_mistake() {
    assert_eq!(blocks("```text\nhello\n```\n").unwrap_err(), "no block is run");
    assert_eq!(blocks("<!-- test: demo -->\n```sh\nmake demo\n```\n").unwrap_err(), "no block is run");
}

#[test]
fn blocks_are_found_with_what_becomes_of_them() {
    let page = "<!-- test: run -->\n\n```sql\nSELECT 1;\n\nSELECT 2;\n```\n```json\n{}\n```\n\
        <!-- test: demo -->\n```sh\nmake demo\n```\n<!-- test: skip it needs your server -->\n```sh\nmake install\n```\n";
    let found = blocks(page).expect("blocks");
    let short: Vec<_> = found.iter().map(|b| (b.line, b.language.as_str(), b.text.as_str())).collect();
    assert_eq!(short, [(3, "sql", "SELECT 1;\n\nSELECT 2;"), (12, "sh", "make demo"), (16, "sh", "make install")]);
    assert_eq!(found[0].fate, Fate::Run);
    assert_eq!(found[1].fate, Fate::Demo);
    assert_eq!(found[2].fate, Fate::Skip("it needs your server".to_string()));
}
