//! A disk that is full, gone or in the way: the database answers alone, says so once, and goes on by itself.

use super::support::{base, dshield, dshield_path, make_folder, store, Tree, HOUR};
use crate::support::{one, run, Base};
use std::fs;
use std::process::Command;

const HEALTH: &str =
    "SELECT coalesce(string_agg(detail, '; '), '') FROM enrich_health() WHERE check_name = 'disk cache'";

fn warnings(base: &Base, words: &str) -> usize {
    base.cluster.log().lines().filter(|line| line.contains("WARNING: the disk cache") && line.contains(words)).count()
}

#[test]
fn a_directory_that_vanishes_costs_nothing_but_its_files_and_comes_back_by_itself() {
    let tree = Tree::new("vanish");
    let base = base("dual_vanish", &tree, "write_through");
    let mut client = base.client();
    tree.put(&dshield_path("8.3.0.1"), &dshield("8.3.0.1", 1), HOUR);
    let away = tree.root.with_extension("away");
    fs::rename(&tree.root, &away).expect("a rename");
    for n in 2..=40 {
        store(&mut client, &format!("8.3.0.{n}"), n);
        assert!(one::<bool>(&mut client, &format!("SELECT enrich_get('dshield', '8.3.0.{n}') IS NOT NULL")));
        assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.3.0.1') IS NULL"));
    }
    base.wait_for(&format!("SELECT ({HEALTH}) LIKE '%cannot be read%cannot be written%files wait%'"), true);
    assert_eq!((warnings(&base, "cannot be read"), warnings(&base, "cannot be written")), (1, 1), "one line each");
    fs::rename(&away, &tree.root).expect("a rename");
    for n in 2..=40 {
        tree.wait_for(&dshield_path(&format!("8.3.0.{n}")), &dshield(&format!("8.3.0.{n}"), n));
    }
    base.wait_for("SELECT enrich_get('dshield', '8.3.0.1') IS NOT NULL", true);
    base.wait_for(HEALTH, String::new());
    assert!(base.cluster.log().contains("the disk cache is written again"));
}

#[test]
fn a_file_in_the_place_of_a_folder_holds_up_no_other_key_and_is_told_by_name() {
    let tree = Tree::new("in_the_way");
    let base = base("dual_in_the_way", &tree, "write_through");
    make_folder(&tree.root.join("dshield/8/3"));
    fs::write(tree.root.join("dshield/8/3/1"), "not a folder").expect("a file");
    let mut client = base.client();
    store(&mut client, "8.3.1.1", 1);
    store(&mut client, "8.3.2.1", 2);
    tree.wait_for(&dshield_path("8.3.2.1"), &dshield("8.3.2.1", 2));
    base.wait_for(&format!("SELECT ({HEALTH}) LIKE '%1 of 1 files%dshield/8/3/1/1.json%'"), true);
    fs::remove_file(tree.root.join("dshield/8/3/1")).expect("away");
    tree.wait_for(&dshield_path("8.3.1.1"), &dshield("8.3.1.1", 1));
    base.wait_for(HEALTH, String::new());
}

/// A small file system of its own; only root may make one.
struct Small<'a>(&'a Tree);

impl Small<'_> {
    fn mount(tree: &Tree) -> Option<Small<'_>> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=0777", "tmpfs"])
            .arg(&tree.root)
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Small(tree))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.root).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_written_when_there_is_room_again() {
    let tree = Tree::new("full");
    let Some(_small) = Small::mount(&tree) else {
        eprintln!("NOT TESTED: a full disk, as only root may mount a small one; what cannot be written is tested by a file in the way");
        return;
    };
    let base = base("dual_full", &tree, "write_through");
    let mut client = base.client();
    tree.put("ballast", &"x".repeat(250 * 1024), 0);
    let large = "y".repeat(20_000);
    for n in 1..=10 {
        run(
            &mut client,
            &format!("SELECT enrich_store('dshield', '8.3.3.{n}', '{{\"ip\":{{\"number\":\"8.3.3.{n}\",\"count\":{n},\"note\":\"{large}\"}}}}')"),
        );
    }
    base.wait_for(&format!("SELECT ({HEALTH}) LIKE '%cannot be written%space left%'"), true);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(enrich_get('dshield', '8.3.3.' || n)) FROM generate_series(1, 10) n"),
        10
    );
    assert_eq!(warnings(&base, "space left"), 1);
    // nothing half written is left in the place of a file
    assert!(tree.files().iter().all(|path| !path.ends_with(".tmp")), "{:?}", tree.files());
    fs::remove_file(tree.root.join("ballast")).expect("room");
    base.wait_for("SELECT count(*) FROM enrichment_disk_outbox", 0i64);
    assert_eq!(tree.files().len(), 10);
    base.wait_for(HEALTH, String::new());
}

#[test]
fn a_mode_without_a_directory_is_told() {
    let tree = Tree::new("unset");
    let base = base("dual_unset", &tree, "off");
    base.cluster.set("enrichment_cache.disk_cache_dir", "");
    base.cluster.set("enrichment_cache.disk_cache_mode", "write_through");
    base.wait_for(&format!("SELECT ({HEALTH}) LIKE '%disk_cache_dir is not set%'"), true);
    store(&mut base.client(), "8.3.4.1", 1);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_disk_outbox"), 0);
}
