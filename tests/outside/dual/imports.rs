//! Imports while files are written: what they bring reaches the files, unless it comes from them.

use super::support::{base, dshield, dshield_path, store, Tree, DAY, HOUR};
use crate::support::{let_the_worker_look, run};
use enrichment_cache::core::disk::{digest, layout};

const OLDER: &str = "CREATE TABLE older (service text, cache_key text, cache_value jsonb, created_at timestamptz);";

#[test]
fn what_an_import_brings_is_written_into_files_with_its_true_age() {
    let (tree, other) = (Tree::new("imports"), Tree::new("imports_other"));
    let base = base("dual_imports", &tree, "write_through");
    let mut client = base.client();
    // one key is new, one replaces an answer and its file, one is older than what is there
    for key in ["8.6.0.2", "8.6.0.3"] {
        run(
            &mut client,
            &format!(
                "SELECT enrich_store('dshield', '{key}', '{}', fetched_at => now() - interval '1 day')",
                dshield(key, 1)
            ),
        );
        tree.wait_for(&dshield_path(key), &dshield(key, 1));
    }
    run(
        &mut client,
        &format!(
            "{OLDER} INSERT INTO older VALUES ('dshield', '8.6.0.1', '{}', now() - interval '3 hours'),
            ('dshield', '8.6.0.2', '{}', now() - interval '3 hours'), ('dshield', '8.6.0.3', '{}', now() - interval '2 days')",
            dshield("8.6.0.1", 2),
            dshield("8.6.0.2", 2),
            dshield("8.6.0.3", 2)
        ),
    );
    run(&mut client, "CALL enrich_migrate_table('older')");
    run(
        &mut client,
        &format!(
            "INSERT INTO enrichment_import (path, mtime, body) VALUES ('{}', extract(epoch FROM now()) - 7200, encode('{}', 'base64'))",
            dshield_path("8.6.0.4"),
            dshield("8.6.0.4", 2)
        ),
    );
    run(&mut client, "CALL enrich_migrate_sent()");
    other.put("dshield_8.6.0.5.json", &dshield("8.6.0.5", 2), HOUR);
    // the second of two files of a key, in a batch of its own, replaces what this very run brought
    other.put(&dshield_path("8.6.0.6"), &dshield("8.6.0.6", 1), DAY);
    other.put("dshield/8.6.0.6/8.6.0.6.json", &dshield("8.6.0.6", 2), HOUR);
    run(&mut client, &format!("CALL enrich_migrate_disk('{}', batch_size => 1)", other.root.display()));
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
    let mut expected: Vec<String> = (1..=6).map(|n| dshield_path(&format!("8.6.0.{n}"))).collect();
    expected.sort();
    assert_eq!(tree.files(), expected);
    let rows = "SELECT cache_key, (extract(epoch FROM fetched_at) * 1000000)::bigint, payload #>> '{ip,count}' FROM enrichment_cache";
    for row in client.query(rows, &[]).expect("rows") {
        let (key, at, count): (String, i64, String) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(tree.changed(&dshield_path(&key)), Some(at), "{key}");
        assert_eq!(count, if key == "8.6.0.3" { "1" } else { "2" }, "{key}");
        assert_eq!(tree.body(&dshield_path(&key)), Some(dshield(&key, count.parse().expect("a number"))), "{key}");
    }
    let changed = tree.changed(&dshield_path("8.6.0.1"));
    run(&mut client, "CALL enrich_migration_rollback(1)");
    let_the_worker_look(&base);
    assert_eq!(tree.changed(&dshield_path("8.6.0.1")), changed, "a rollback leaves files");
}

#[test]
fn files_of_the_disk_cache_itself_are_not_written_once_more() {
    let tree = Tree::new("imports_itself");
    let base = base("dual_imports_itself", &tree, "write_through");
    let mut client = base.client();
    for n in 1..=5 {
        tree.put(&format!("dshield_8.6.1.{n}.json"), &dshield(&format!("8.6.1.{n}"), n), HOUR);
    }
    let link = Tree::new("imports_link");
    std::os::unix::fs::symlink(&tree.root, link.root.join("cache")).expect("a link");
    // by its name, and by another one
    for directory in [tree.root.clone(), link.root.join("cache")] {
        run(&mut client, "DELETE FROM enrichment_cache");
        run(&mut client, &format!("CALL enrich_migrate_disk('{}')", directory.display()));
    }
    // the next one's file shows that the worker is past it
    store(&mut client, "8.6.1.9", 9);
    tree.wait_for(&dshield_path("8.6.1.9"), &dshield("8.6.1.9", 9));
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_cache"), 6);
    assert_eq!(tree.files().len(), 6, "{:?}", tree.files());
}

#[test]
fn an_imported_answer_is_written_into_its_file_when_its_key_becomes_known() {
    let (tree, other) = (Tree::new("imports_named"), Tree::new("imports_named_other"));
    let base = base("dual_imports_named", &tree, "write_through");
    let mut client = base.client();
    let (key, body) = ("8.6.2.1", r#"{"tags":"elf"}"#);
    let name: String = digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    other.put(&format!("urlhaus/{}/{name}.json", &name[..2]), body, HOUR);
    run(&mut client, &format!("CALL enrich_migrate_disk('{}')", other.root.display()));
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_orphan"), 1);
    run(&mut client, &format!("SELECT enrich_request('urlhaus', '{key}')"));
    let path = layout::written("urlhaus", key).expect("a place");
    tree.wait_for(&path, body);
    let at =
        "SELECT (extract(epoch FROM fetched_at) * 1000000)::bigint FROM enrichment_cache WHERE service = 'urlhaus'";
    assert_eq!(tree.changed(&path), Some(base.one::<i64>(at)));
    assert_eq!(base.asked("urlhaus"), 0);
}
