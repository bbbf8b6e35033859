//! The migration's runbook is executed from top to bottom, against a tree as the older programs left it.
//!
//! Before each block of `sql` or `sh` stands a comment: `<!-- test: run -->`; `<!-- test: wait -->`, a query that is asked
//! again until it says `t`; `<!-- test: skip why -->`.

use super::support::{dshield, dshield_path, store, Tree, DAY, HOUR};
use crate::support::{ask, create_database, one, own_cluster, run, same, wait_served, SOON};
use std::path::Path;
use std::process::Command;
use testbed::{wait_until, Cluster};

const DATABASE: &str = "runbook";

#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    language: String,
    fate: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut said = None;
    while let Some((number, line)) = lines.next() {
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
        found.push(Block { line: number + 1, language: language.to_string(), fate, text: text.join("\n") });
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

#[test]
fn the_runbook_leads_from_files_to_the_database_and_back() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks/migration.md");
    let page = std::fs::read_to_string(&page).unwrap_or_else(|why| panic!("{}: {why}", page.display()));
    let (tree, new) = (Tree::new("runbook"), Tree::new("runbook_new"));
    for n in 1..=30 {
        let key = format!("8.5.0.{n}");
        tree.put(&dshield_path(&key), &dshield(&key, n), DAY + u64::from(n));
    }
    let cluster = own_cluster("dual_runbook");
    create_database(&cluster, DATABASE);
    run(&mut cluster.client(DATABASE), "CREATE EXTENSION enrichment_cache");
    wait_served(&cluster, DATABASE);
    let mut client = cluster.client(DATABASE);
    // stored before the migration began
    store(&mut client, "8.5.1.1", 1);
    let (mut beside, mut imports) = (false, 0);
    for block in blocks(&page) {
        if block.text.starts_with("CALL enrich_migrate_disk") && imports == 2 {
            // the last that an older program wrote, and nobody asked for
            tree.put(&dshield_path("8.5.2.3"), &dshield("8.5.2.3", 9), HOUR);
        }
        match block.fate.as_str() {
            "run" => {
                if let Err(why) = execute(&block, &cluster, &tree, &new) {
                    panic!("the block at line {}:\n{}\n---\n{why}", block.line, block.text);
                }
            }
            "wait" => wait_until(&format!("line {}: {}", block.line, block.text), SOON, || {
                let said = execute(&block, &cluster, &tree, &new)?;
                if said.trim() == "t" {
                    Ok(Some(()))
                } else {
                    Err(said)
                }
            }),
            skip => assert!(skip.starts_with("skip "), "line {}: {skip}", block.line),
        }
        if block.text.starts_with("CALL enrich_migrate_disk") {
            imports += 1;
            let sql = "SELECT count(*) FROM enrichment_cache WHERE cache_key LIKE '8.5.0.%'";
            let expected = if imports == 1 { 0 } else { 30 };
            assert_eq!(one::<i64>(&mut client, sql), expected, "after the block at line {}", block.line);
        }
        if block.text.starts_with("CALL enrich_export_disk") && !beside {
            beside = true;
            // both sides work: an older program writes a file, the database stores and asks
            tree.put(&dshield_path("8.5.2.1"), &dshield("8.5.2.1", 5), HOUR);
            store(&mut client, "8.5.2.2", 6);
            assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.5.2.1') IS NOT NULL"));
            assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.5.0.7') IS NOT NULL"));
            tree.wait_for(&dshield_path("8.5.2.2"), &dshield("8.5.2.2", 6));
            let taken_over = "SELECT count(*) FROM enrichment_cache WHERE cache_key IN ('8.5.2.1', '8.5.0.7')";
            wait_until(taken_over, SOON, || same(ask::<i64>(&mut client, taken_over)?, &2));
            assert_eq!(tree.body(&dshield_path("8.5.1.1")), Some(dshield("8.5.1.1", 1)), "stored before, exported");
        }
    }
    assert!(beside, "the runbook has no second phase");
    assert_eq!(imports, 3, "a try, the import, and what the older programs wrote last");
    let last = "SELECT format('%s %s', state, report ->> 'imported') FROM enrichment_migration WHERE id = 2";
    assert_eq!(one::<String>(&mut client, last), "finished 1", "the file that was written last");
    let sql = "SELECT count(*) FROM enrichment_cache WHERE cache_key IN ('8.5.1.1', '8.5.2.1', '8.5.2.2', '8.5.0.7')";
    assert_eq!(one::<i64>(&mut client, sql), 4);
    let kept: i64 = one(&mut client, "SELECT count(*) FROM enrichment_cache WHERE response_status = 'success'");
    assert_eq!(new.files().len() as i64, kept);
    for path in new.files() {
        assert_eq!((new.body(&path), new.changed(&path)), (tree.body(&path), tree.changed(&path)), "{path}");
    }
}

#[test]
fn a_block_of_a_runbook_without_a_comment_is_a_mistake() {
    let page = "<!-- test: wait -->\n\n```sql\nSELECT 1;\n```\n";
    assert_eq!(blocks(page)[0].fate, "wait");
    assert!(std::panic::catch_unwind(|| blocks("text\n```sql\nSELECT 1;\n```\n")).is_err());
}
