//! Answers of unknown keys that several runs have brought: whichever order they are taken over and taken back in, what stands
//! is what stood before.

use super::tree::{adds_up, by_digest, cached, database, parts, report, Tree};
use crate::support::{one, run, wait_served, SOON};
use postgres::Client;
use std::sync::Arc;
use testbed::{wait_until, Cluster};

const TAGS: &str = "SELECT coalesce(enrich_get('urlhaus', '8.8.8.1') ->> 'tags', 'nothing')";

/// A tree whose only file tells something of 8.8.8.1, observed so many hours ago, under its digest.
fn tree(tags: &str, hours: u64) -> Tree {
    let tree = Tree::new();
    tree.file(&by_digest("urlhaus", "8.8.8.1"), format!("{{\"tags\":\"{tags}\"}}"), hours);
    tree
}

fn base(name: &str) -> (Arc<Cluster>, Client) {
    let (cluster, mut client) = database(name);
    run(&mut client, "UPDATE enrichment_service SET enabled = true; SELECT enrich_set_secret('urlhaus', 'x')");
    (cluster, client)
}

/// Names the key; what was kept for it is taken over.
fn name_the_key(client: &mut Client) {
    assert_eq!(one::<i64>(client, "SELECT enrich_request_many('urlhaus', '{8.8.8.1}')"), 0);
    assert_eq!(one::<i64>(client, "SELECT count(*) FROM enrichment_orphan"), 0);
}

fn import(client: &mut Client, tree: &Tree, expected: &str) {
    let done = report(client, &tree.import(""));
    adds_up(&done);
    assert_eq!(parts(&done), expected);
}

fn take_back(client: &mut Client, id: i64, left: &str) {
    run(client, &format!("CALL enrich_migration_rollback({id})"));
    assert_eq!(one::<String>(client, TAGS), left, "after run {id} was taken back");
}

fn nothing_is_left(client: &mut Client) {
    let rests = "SELECT (SELECT count(*) FROM enrichment_migration_row) + (SELECT count(*) FROM enrichment_orphan)
        + (SELECT count(*) FROM enrichment_history)";
    assert_eq!(one::<i64>(client, rests), 0);
}

/// Two runs that keep an answer of one key, which is named when an older answer of a provider stands there.
fn three_answers(name: &str) -> (Arc<Cluster>, Client, String) {
    let (cluster, mut client) = base(name);
    import(&mut client, &tree("first", 10), "files 1, unknown_key 1");
    import(&mut client, &tree("second", 5), "files 1, unknown_key 1");
    run(
        &mut client,
        r#"SELECT enrich_store('urlhaus', '8.8.8.1', '{"tags":"stored"}', fetched_at => now() - interval '20 hours');
        UPDATE enrichment_cache SET etag = '"x"', altered = true"#,
    );
    let before = cached(&mut client);
    name_the_key(&mut client);
    assert_eq!(one::<String>(&mut client, TAGS), "second");
    (cluster, client, before)
}

#[test]
fn of_two_runs_the_later_taken_back_first_gives_the_earlier_ones_answer_back() {
    let (_cluster, mut client, before) = three_answers("orphans_later_first");
    take_back(&mut client, 2, "first");
    take_back(&mut client, 1, "stored");
    assert_eq!(cached(&mut client), before);
    nothing_is_left(&mut client);
}

#[test]
fn of_two_runs_the_earlier_taken_back_first_leaves_the_later_ones_answer() {
    let (_cluster, mut client, before) = three_answers("orphans_earlier_first");
    take_back(&mut client, 1, "second");
    take_back(&mut client, 2, "stored");
    assert_eq!(cached(&mut client), before);
    nothing_is_left(&mut client);
}

#[test]
fn an_observation_that_waits_already_is_a_duplicate_an_older_one_is_older_and_a_try_says_the_same() {
    let (_cluster, mut client) = base("orphans_twice");
    let (newer, older) = (tree("newer", 5), tree("older", 10));
    // two files of one digest: whatever the batches, one of them is taken
    let path = by_digest("urlhaus", "8.8.8.1");
    let capitals = path.trim_start_matches("urlhaus").to_uppercase().replace(".JSON", ".json");
    newer.file(&format!("urlhaus{capitals}"), "{\"tags\":\"newest\"}", 4);
    let mut takes = |files: &Tree, expected: &str| {
        for size in [100, 1] {
            let tried = report(&mut client, &files.import(&format!(", dry_run => true, batch_size => {size}")));
            assert_eq!((parts(&tried).as_str(), &tried["services"]["urlhaus"]["files"]), (expected, &tried["files"]));
        }
        import(&mut client, files, expected);
    };
    takes(&newer, "files 2, duplicate 1, unknown_key 1");
    std::fs::remove_file(newer.path(&path)).unwrap();
    takes(&newer, "files 1, duplicate 1");
    takes(&older, "files 1, older_than_row 1");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_orphan"), 1);
    let same = "SELECT string_agg(concat_ws(' ', finding, files), ', ') FROM enrich_migration_verify(2) WHERE path IS NULL AND finding = 'same'";
    assert_eq!(one::<String>(&mut client, same), "same 1", "run 2 compares with what run 1 has brought");
    name_the_key(&mut client);
    assert_eq!(one::<String>(&mut client, TAGS), "newest");
    // the runs that brought nothing take nothing back
    take_back(&mut client, 2, "newest");
    take_back(&mut client, 3, "newest");
    take_back(&mut client, 1, "nothing");
    nothing_is_left(&mut client);
}

/// A run that keeps an answer under its digest, and a later one that brings a newer answer under the key.
fn below(name: &str) -> (Arc<Cluster>, Client) {
    let (cluster, mut client) = base(name);
    import(&mut client, &tree("kept", 10), "files 1, unknown_key 1");
    let later = Tree::new();
    later.file("uh_8.8.8.1", r#"{"query_status":"ok","urls":[{"tags":["x"]}],"tags":"named"}"#, 5);
    import(&mut client, &later, "files 1, imported 1");
    name_the_key(&mut client);
    assert_eq!(one::<String>(&mut client, TAGS), "named");
    (cluster, client)
}

#[test]
fn an_answer_that_is_taken_over_below_a_later_run_stands_when_that_is_taken_back() {
    let (_cluster, mut client) = below("orphans_below");
    take_back(&mut client, 2, "kept");
    take_back(&mut client, 1, "nothing");
    nothing_is_left(&mut client);
}

#[test]
fn an_answer_that_is_taken_over_below_a_later_run_goes_with_its_own() {
    let (_cluster, mut client) = below("orphans_below_first");
    take_back(&mut client, 1, "named");
    take_back(&mut client, 2, "nothing");
    nothing_is_left(&mut client);
}

#[test]
fn the_worker_removes_answers_of_unknown_keys_that_are_past_expiry_and_grace() {
    let (cluster, mut client) = base("orphans_cleaned");
    let old = tree("old", 24 * 365);
    old.file(&by_digest("urlhaus", "8.8.8.2"), "{\"tags\":\"young\"}", 5);
    assert_eq!(parts(&report(&mut client, &old.import(", keep_expired => true"))), "files 2, unknown_key 2");
    wait_served(&cluster, "orphans_cleaned");
    let tags = "SELECT string_agg(payload ->> 'tags', ' ') FROM enrichment_orphan";
    wait_until("the worker's first cleanup, half a minute after its start", 2 * SOON, || {
        match one::<String>(&mut client, tags).as_str() {
            "young" => Ok(Some(())),
            left => Err(left.to_string()),
        }
    });
}
