//! The migration's runbook is executed from top to bottom, against a tree as the older programs left it; and each way back, from
//! the end of its phase.
//!
//! Before each block of `sql` or `sh` stands a comment: `<!-- test: run -->`; `<!-- test: wait -->`, a query that is asked
//! again until it says `t`; `<!-- test: back -->` and `<!-- test: back, wait -->`, the same of a way back; `<!-- test: skip why -->`.

use super::export::SAYS;
use super::support::{dshield, dshield_path, store, Tree, DAY, HOUR};
use crate::support::{ask, create_database, one, own_cluster, run, same, wait_served, SOON};
use enrichment_cache::core::disk::digest;
use postgres::Client;
use std::path::Path;
use std::process::Command;
use testbed::{wait_until, Cluster};

const DATABASE: &str = "runbook";

#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    /// The heading it stands under.
    part: String,
    language: String,
    fate: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut said = None;
    let mut part = String::new();
    while let Some((number, line)) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            part = heading.to_string();
        }
        let Some(language) = line.strip_prefix("```") else {
            if !line.trim().is_empty() {
                said = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"));
            }
            continue;
        };
        let text: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let fate =
            said.take().unwrap_or_else(|| panic!("line {}: no comment says what becomes of the block", number + 1));
        let fate = fate.to_string();
        found.push(Block {
            line: number + 1,
            part: part.clone(),
            language: language.to_string(),
            fate,
            text: text.join("\n"),
        });
    }
    found
}

fn execute(block: &Block, cluster: &Cluster, tree: &Tree, new: &Tree) -> Result<String, String> {
    let text = block.text.replace("/srv/cache", &tree.root.display().to_string());
    let text = text.replace("/srv/new", &new.root.display().to_string());
    match block.language.as_str() {
        "sql" => cluster.psql(DATABASE, &["-At", "-c", &text]),
        "sh" => {
            let output = Command::new("bash").args(["-euo", "pipefail", "-c", &text]).output();
            let output = output.map_err(|why| why.to_string())?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            output.status.success().then_some(said).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
        }
        other => Err(format!("a block of {other}")),
    }
}

fn by_digest(service: &str, key: &str) -> String {
    let name: String = digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{service}/{}/{name}.json", &name[..2])
}

/// Files of every service; returns how many.
fn fill(tree: &Tree) -> i64 {
    for n in 1..=30 {
        let key = format!("8.5.0.{n}");
        tree.put(&dshield_path(&key), &dshield(&key, n), DAY + u64::from(n));
        if n <= 5 {
            tree.put(&by_digest("urlhaus", &key), r#"{"tags":"elf, mirai"}"#, DAY + u64::from(n));
            tree.put(
                &by_digest("spur", &key),
                r#"{"spur_data":["ORG","","","VPN","","","","","","","","","","","","","",""]}"#,
                HOUR,
            );
        }
    }
    for (sha, body) in
        [("ab", r#"{"data":{"attributes":{"size":1}}}"#), ("cd", r#"{"last_analysis_stats":{"malicious":3}}"#)]
    {
        tree.put(&format!("virustotal/{sha}/{sha}/{sha}/{sha}/{}.json", sha.repeat(32)), body, DAY);
    }
    let unknown = format!("virustotal_unknown/ef/ef/ef/ef/{}.json", "ef".repeat(32));
    tree.put(&unknown, r#"{"error":{"code":"NotFoundError"}}"#, HOUR);
    tree.put("hibp/AB/CD/E/ABCDE.json", r#"{"0123456789ABCDEF0123456789ABCDEF012":7}"#, DAY);
    tree.files().len() as i64
}

/// Somebody who follows the page.
struct Journey {
    cluster: Cluster,
    client: Client,
    tree: Tree,
    new: Tree,
    files: i64,
    beside: bool,
    imports: usize,
    decided: bool,
}

impl Journey {
    fn begin(name: &'static str) -> Journey {
        let (tree, new) = (Tree::new(name), Tree::new(&format!("{name}_new")));
        let files = fill(&tree);
        let cluster = own_cluster(name);
        create_database(&cluster, DATABASE);
        run(&mut cluster.client(DATABASE), "CREATE EXTENSION enrichment_cache");
        wait_served(&cluster, DATABASE);
        let mut client = cluster.client(DATABASE);
        // stored before the migration began
        store(&mut client, "8.5.1.1", 1);
        Journey { cluster, client, tree, new, files, beside: false, imports: 0, decided: false }
    }

    fn wait_for(&self, block: &Block, wanted: &str) {
        wait_until(&format!("line {} to say {wanted}: {}", block.line, block.text), SOON, || {
            let said = execute(block, &self.cluster, &self.tree, &self.new)?;
            if said.trim() == wanted {
                Ok(Some(()))
            } else {
                Err(said)
            }
        });
    }

    fn one<T: postgres::types::FromSqlOwned>(&mut self, sql: &str) -> T {
        one(&mut self.client, sql)
    }

    /// Does what a block says, and what happens around it in a place where the page is used.
    fn step(&mut self, block: &Block) {
        if block.text.starts_with("CALL enrich_migrate_disk") && self.imports == 2 {
            // the last that an older program wrote, and nobody asked for
            self.tree.put(&dshield_path("8.5.2.3"), &dshield("8.5.2.3", 9), HOUR);
        }
        if block.text.contains("disk_hits + disk_adopted") && block.fate == "wait" {
            self.wait_for(block, "f");
            // a week without an answer from a file
            run(&mut self.client, "UPDATE enrichment_cache_stats SET day = day - 6");
            self.wait_for(block, "f");
            run(&mut self.client, "UPDATE enrichment_cache_stats SET day = day - 1");
            self.decided = true;
        }
        match block.fate.strip_prefix("back, ").unwrap_or(&block.fate) {
            "run" | "back" => {
                if let Err(why) = execute(block, &self.cluster, &self.tree, &self.new) {
                    panic!("the block at line {}:\n{}\n---\n{why}", block.line, block.text);
                }
            }
            "wait" => self.wait_for(block, "t"),
            skip => assert!(skip.starts_with("skip "), "line {}: {skip}", block.line),
        }
        if block.text.starts_with("CALL enrich_migrate_disk") {
            self.imports += 1;
            let stored = if self.imports == 1 { 1 } else { 1 + self.files };
            let sql = "SELECT count(*) FROM enrichment_cache WHERE cache_key NOT LIKE '8.5.2.%'";
            assert_eq!(self.one::<i64>(sql), stored, "after the block at line {}", block.line);
        }
        if block.text.starts_with("CALL enrich_export_disk") && !self.beside {
            self.side_by_side();
        }
    }

    /// Both sides work: an older program writes a file, the database stores and asks.
    fn side_by_side(&mut self) {
        self.beside = true;
        self.tree.put(&dshield_path("8.5.2.1"), &dshield("8.5.2.1", 5), HOUR);
        store(&mut self.client, "8.5.2.2", 6);
        assert!(self.one::<bool>("SELECT enrich_get('dshield', '8.5.2.1') IS NOT NULL"));
        assert!(self.one::<bool>("SELECT enrich_get('dshield', '8.5.0.7') IS NOT NULL"));
        self.tree.wait_for(&dshield_path("8.5.2.2"), &dshield("8.5.2.2", 6));
        let taken_over =
            "SELECT count(*) FROM enrichment_cache WHERE cache_key IN ('8.5.2.1', '8.5.0.7') AND service = 'dshield'";
        let client = &mut self.client;
        wait_until(taken_over, SOON, || same(ask::<i64>(client, taken_over)?, &2));
        assert_eq!(self.tree.body(&dshield_path("8.5.1.1")), Some(dshield("8.5.1.1", 1)), "stored before, exported");
    }

    /// Follows the page to the end of a phase, and its way back; `meanwhile` is called before that.
    fn there_and_back<T>(&mut self, phase: &str, meanwhile: impl FnOnce(&mut Journey) -> T) -> T {
        let blocks = blocks(&page());
        let is_back = |block: &&Block| block.fate.starts_with("back");
        let turn =
            blocks.iter().find(|block| is_back(block) && block.part.starts_with(phase)).expect("a way back").line;
        blocks.iter().filter(|block| !is_back(block) && block.line < turn).for_each(|block| self.step(block));
        let found = meanwhile(self);
        let back = blocks.iter().filter(|block| is_back(block) && block.part.starts_with(phase));
        back.for_each(|block| self.step(block));
        found
    }

    /// What the files say, as the older programs would find it: read into a database of its own.
    fn files_say(&self, database: &str) -> String {
        create_database(&self.cluster, database);
        let mut client = self.cluster.client(database);
        run(&mut client, "CREATE EXTENSION enrichment_cache; UPDATE enrichment_service SET enabled = false");
        run(&mut client, &format!("CALL enrich_migrate_disk('{}', keep_expired => true)", self.tree.root.display()));
        one(&mut client, SAYS)
    }
}

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks/migration.md");
    std::fs::read_to_string(&page).unwrap_or_else(|why| panic!("{}: {why}", page.display()))
}

/// Paths, bodies and times of all files.
fn all_of(tree: &Tree) -> Vec<(String, Option<String>, Option<i64>)> {
    tree.files().into_iter().map(|path| (path.clone(), tree.body(&path), tree.changed(&path))).collect()
}

#[test]
fn the_runbook_leads_from_files_to_the_database_and_back() {
    let mut journey = Journey::begin("dual_runbook");
    for block in blocks(&page()).iter().filter(|block| !block.fate.starts_with("back")) {
        journey.step(block);
    }
    assert!(journey.beside, "the runbook has no second phase");
    assert!(journey.decided, "nothing decides when to cut over");
    assert_eq!(journey.imports, 3, "a try, the import, and what the older programs wrote last");
    let last = "SELECT format('%s %s', state, report ->> 'imported') FROM enrichment_migration WHERE id = 2";
    assert_eq!(journey.one::<String>(last), "finished 1", "the file that was written last");
    let sql = "SELECT count(*) FROM enrichment_cache WHERE service = 'dshield'
        AND cache_key IN ('8.5.1.1', '8.5.2.1', '8.5.2.2', '8.5.2.3', '8.5.0.7')";
    assert_eq!(journey.one::<i64>(sql), 5);
    let kept: i64 = journey.one("SELECT count(*) FROM enrichment_cache WHERE service IN ('dshield', 'virustotal')");
    let (tree, new) = (&journey.tree, &journey.new);
    assert_eq!((new.files().len() as i64, kept), (kept, 37));
    for path in new.files() {
        assert_eq!((new.body(&path), new.changed(&path)), (tree.body(&path), tree.changed(&path)), "{path}");
    }
    let held: String = journey.one(SAYS);
    assert_eq!(journey.files_say("read_back"), held, "the files say what the database says");
}

#[test]
fn the_way_back_of_the_import_leaves_database_and_files_as_they_were() {
    let mut journey = Journey::begin("dual_back_1");
    let all = "SELECT string_agg((to_jsonb(c) - 'accessed_at')::text, ',' ORDER BY id) FROM enrichment_cache c";
    let (before, files): (String, _) = (journey.one(all), all_of(&journey.tree));
    let imported =
        journey.there_and_back("Phase 1", |journey| journey.one::<i64>("SELECT count(*) FROM enrichment_cache"));
    assert_eq!(imported, 1 + journey.files, "there was something to take back");
    assert_eq!(journey.one::<String>(all), before);
    assert_eq!(all_of(&journey.tree), files);
}

#[test]
fn the_way_back_of_the_second_phase_leaves_every_answer_in_the_files() {
    let mut journey = Journey::begin("dual_back_2");
    let held = journey.there_and_back("Phase 2", |journey| {
        // noted in this moment, and not written yet
        store(&mut journey.client, "8.5.2.9", 9);
        journey.one::<String>(SAYS)
    });
    assert_eq!(held.lines().count() as i64, journey.files + 4, "8.5.1.1, and 8.5.2.1, 2 and 9");
    assert_eq!(journey.files_say("read_back"), held);
    // the database keeps what it did not import, and is fed by no file
    let left = "SELECT string_agg(cache_key, ' ' ORDER BY cache_key) FROM enrichment_cache";
    assert_eq!(journey.one::<String>(left), "8.5.1.1 8.5.2.1 8.5.2.2 8.5.2.9");
    assert!(journey.one::<bool>("SELECT enrich_get('dshield', '8.5.0.7') IS NULL"), "the mode is off");
}

#[test]
fn a_block_of_a_runbook_without_a_comment_is_a_mistake() {
    let page = "<!-- test: wait -->\n\n```sql\nSELECT 1;\n```\n";
    assert_eq!(blocks(page)[0].fate, "wait");
    assert!(std::panic::catch_unwind(|| blocks("text\n```sql\nSELECT 1;\n```\n")).is_err());
}
