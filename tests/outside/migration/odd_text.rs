//! Files that hold what `jsonb` or the encoding of the database does not take: the answer comes in, flagged as altered.

use super::tree::{by_digest, database, parts, report, Tree};
use crate::support::{one, run, shared_cluster};

const FLAGS: &str =
    "SELECT string_agg(format('%s %s', cache_key, altered), ', ' ORDER BY cache_key) FROM enrichment_cache";

/// One answer that every database takes, one with a character that jsonb has not, two that LATIN1 has not.
fn tree() -> Tree {
    let tree = Tree::new();
    tree.dshield("8.8.8.1", 1, 1);
    tree.file("dshield/8/8/8/2.json", r#"{"ip":{"number":"8.8.8.2","comment":"a\u0000b"}}"#, 1);
    tree.file("dshield/8/8/8/3.json", r#"{"ip":{"number":"8.8.8.3","asname":"中国电信"}}"#, 1);
    tree.file(&by_digest("urlhaus", "8.8.8.9"), r#"{"tags":"a\u0000b, 中国"}"#, 1);
    tree
}

#[test]
fn what_had_to_be_replaced_is_flagged_in_the_row_in_any_encoding() {
    let cluster = shared_cluster("migration");
    for (name, encoding, flags) in [
        ("odd_utf8", "UTF8", "8.8.8.1 f, 8.8.8.2 t, 8.8.8.3 f, 8.8.8.9 t"),
        ("odd_latin1", "LATIN1", "8.8.8.1 f, 8.8.8.2 t, 8.8.8.3 t, 8.8.8.9 t"),
    ] {
        run(
            &mut cluster.client("postgres"),
            &format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"),
        );
        let mut client = cluster.client(name);
        run(&mut client, "CREATE EXTENSION enrichment_cache; SELECT enrich_set_secret('urlhaus', 'x')");
        let tree = tree();
        let expected = "files 4, imported 3, unknown_key 1";
        assert_eq!(parts(&report(&mut client, &tree.import(", dry_run => true"))), expected, "{encoding}");
        assert_eq!(parts(&report(&mut client, &tree.import(""))), expected, "{encoding}");
        let same = "SELECT string_agg(concat_ws(' ', finding, files), ', ') FROM enrich_migration_verify(1)";
        assert_eq!(one::<String>(&mut client, same), "same 4", "{encoding}");
        assert_eq!(one::<String>(&mut client, "SELECT enrich_request('urlhaus', '8.8.8.9')"), "fresh", "{encoding}");
        assert_eq!(one::<String>(&mut client, FLAGS), flags, "{encoding}");
        assert_eq!(one::<i64>(&mut client, "SELECT count(payload::text) FROM enrichment_cache"), 4, "{encoding}");
        run(&mut client, "CALL enrich_migration_rollback(1)");
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 0, "{encoding}");
    }
}

#[test]
fn a_file_of_an_unknown_key_that_postgresql_refuses_is_listed_and_the_others_are_in() {
    let (_cluster, mut client) = database("odd_number");
    let tree = Tree::new();
    run(&mut client, "ALTER TABLE enrichment_orphan ADD CHECK (payload ->> 'n' <> '2')");
    for (key, number) in [("8.8.8.1", 1), ("8.8.8.2", 2), ("8.8.8.3", 3)] {
        tree.file(&by_digest("urlhaus", key), format!("{{\"tags\":\"x\",\"n\":{number}}}"), 1);
    }
    assert_eq!(parts(&report(&mut client, &tree.import(""))), "files 3, malformed 1, unknown_key 2");
    let problem = "SELECT path || ' ' || reason FROM enrichment_migration_problem";
    let expected = format!("{} the file cannot be stored: ", by_digest("urlhaus", "8.8.8.2"));
    let problem: String = one(&mut client, problem);
    assert!(problem.starts_with(&expected), "{problem}");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_orphan"), 2);
}
