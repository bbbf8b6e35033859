//! A disk that does not answer at all, as a network file system whose server is gone: nobody waits longer than agreed, all else
//! goes on, and what waits for it can be cancelled.

use super::support::{base, dshield, dshield_path, store, Tree, HOUR};
use crate::support::{self, one, SOON};
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;
use testbed::wait_until;

const HEALTH: &str =
    "SELECT coalesce(string_agg(detail, '; '), '') FROM enrich_health() WHERE check_name = 'disk cache'";

/// A FUSE file system whose server reads no request; only root may mount one.
struct Hung<'a> {
    server: Option<File>,
    over: &'a Path,
}

impl Hung<'_> {
    fn over(over: &Path) -> Option<Hung<'_>> {
        let server = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", server.as_raw_fd());
        let options = CString::new(options).expect("no NUL");
        mount("hung", over, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str()).ok()?;
        Some(Hung { server: Some(server), over })
    }
}

impl Drop for Hung<'_> {
    fn drop(&mut self) {
        // whoever waits gets an error
        self.server.take();
        let _ = unmount(self.over, UnmountFlags::DETACH);
    }
}

#[test]
fn a_disk_that_does_not_answer_holds_up_nobody_for_longer_than_agreed() {
    let tree = Tree::new("hung");
    tree.put(&dshield_path("8.5.0.1"), &dshield("8.5.0.1", 1), HOUR);
    let base = base("dual_hung", &tree, "write_through");
    base.cluster.set("enrichment_cache.disk_timeout", "10min");
    let Some(hung) = Hung::over(&tree.root) else {
        eprintln!(
            "NOT TESTED: a disk that does not answer, as only root may mount one; io::aside has tests of its own"
        );
        return;
    };

    // who waits can be cancelled, and what an import or an export waits for too
    for waiting in [
        "SELECT enrich_get('dshield', '8.5.0.1')".to_string(),
        format!("CALL enrich_migrate_disk('{}')", tree.root.display()),
        format!("CALL enrich_export_disk('{}')", tree.root.display()),
    ] {
        let mut client = base.client();
        let session: i32 = one(&mut client, "SELECT pg_backend_pid()");
        let statement = waiting.clone();
        let waits = thread::spawn(move || client.batch_execute(&statement));
        // a thread beside the session's own is at work
        wait_until("the session to wait for the disk", SOON, || {
            let active = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {session} AND state = 'active'");
            let active = support::ask::<i64>(&mut base.client(), &active)? == 1;
            let threads = std::fs::read_dir(format!("/proc/{session}/task")).map_or(0, Iterator::count);
            if active && threads > 1 {
                Ok(Some(()))
            } else {
                Err(format!("active: {active}, {threads} threads"))
            }
        });
        assert!(base.one::<bool>(&format!("SELECT pg_cancel_backend({session})")));
        let ended = waits.join().expect("a thread").expect_err("cancelled");
        assert_eq!(ended.code().map(|code| code.code()), Some("57014"), "{waiting}: {ended}");
    }

    // who waits goes on without the files, and the next ones do not even wait
    base.cluster.set("enrichment_cache.disk_timeout", "500ms");
    let mut client = base.client();
    support::run(&mut client, "SET statement_timeout = '60s'");
    assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.5.0.1') IS NULL"));
    let told = format!("SELECT ({HEALTH}) LIKE '%has not answered within 500 ms%'");
    assert!(one::<bool>(&mut client, &told), "{}", one::<String>(&mut client, HEALTH));
    for n in 2..=40 {
        store(&mut client, &format!("8.5.0.{n}"), n);
        assert!(one::<bool>(&mut client, &format!("SELECT enrich_get('dshield', '8.5.0.{n}') IS NOT NULL")));
        assert!(one::<bool>(&mut base.client(), "SELECT enrich_get('dshield', '8.5.0.1') IS NULL"));
    }
    // the worker asks providers all the same
    base.run("SELECT enrich_request('dshield', '8.5.1.1')");
    base.wait_for("SELECT enrich_get('dshield', '8.5.1.1') IS NOT NULL", true);
    let warnings = || base.cluster.log().lines().filter(|line| line.contains("the disk cache cannot be read")).count();
    assert_eq!(warnings(), 1);

    // it answers again: what was kept for it is written, and what lies there is read
    drop(hung);
    for n in 2..=40 {
        tree.wait_for(&dshield_path(&format!("8.5.0.{n}")), &dshield(&format!("8.5.0.{n}"), n));
    }
    base.wait_for("SELECT enrich_get('dshield', '8.5.0.1') IS NOT NULL", true);
    base.wait_for(HEALTH, String::new());
    assert_eq!(warnings(), 1);
    // the very session whose thread was stuck reads again
    tree.put(&dshield_path("8.5.2.1"), &dshield("8.5.2.1", 1), HOUR);
    assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.5.2.1') IS NOT NULL"));
}
