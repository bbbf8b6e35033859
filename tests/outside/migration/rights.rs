//! Who may import, and what is refused.

use super::tree::{database, report, Tree};
use crate::support::{refused, run};

#[test]
fn importing_takes_the_level_admin_and_the_right_to_read_the_servers_files() {
    let (cluster, mut client) = database("import_rights");
    let tree = Tree::new();
    tree.dshield("8.8.8.1", 1, 1);
    run(
        &mut client,
        "CREATE ROLE import_admin LOGIN; CREATE ROLE import_reader LOGIN; CREATE ROLE import_files LOGIN;
        SELECT enrich_grant('import_admin', 'admin'); SELECT enrich_grant('import_files', 'admin');
        SELECT enrich_grant('import_reader', 'reader');
        GRANT pg_read_server_files TO import_files, import_reader",
    );
    let _ = &cluster;
    run(&mut client, "SET ROLE import_admin");
    for call in [
        tree.import(""),
        tree.import(", dry_run => true"),
        "SELECT * FROM enrich_migration_verify(1)".to_string(),
        format!("SELECT * FROM enrichment_migration_step(1, '{}', NULL, 1, false)", tree.text()),
    ] {
        refused(&mut client, &call, "42501", "pg_read_server_files");
    }
    run(&mut client, "SET ROLE import_reader");
    refused(&mut client, &tree.import(""), "42501", "");
    run(&mut client, "SET ROLE import_files");
    assert_eq!(report(&mut client, &tree.import(""))["imported"], 1);
    run(&mut client, "CALL enrich_migration_rollback(1); ");
    run(&mut client, "RESET ROLE");
}

#[test]
fn what_cannot_be_imported_is_refused_with_a_hint() {
    let (_cluster, mut client) = database("import_refused");
    let tree = Tree::new();
    let file = tree.file("x", "x", 1);
    for (call, sqlstate, hint) in [
        ("CALL enrich_migrate_disk('relative')".to_string(), "22023", "root of the server"),
        ("CALL enrich_migrate_disk(NULL)".to_string(), "22023", "directory"),
        ("CALL enrich_migrate_disk('/nowhere/at/all')".to_string(), "22023", "absolute path"),
        (format!("CALL enrich_migrate_disk('{}')", file.display()), "22023", "absolute path"),
        (tree.import(", services => '{dsheild}'"), "42704", "dshield"),
        (tree.import(", batch_size => 0"), "22023", "files"),
        (tree.import(", dry_run => NULL"), "22023", "default"),
    ] {
        refused(&mut client, &call, sqlstate, hint);
    }
}
